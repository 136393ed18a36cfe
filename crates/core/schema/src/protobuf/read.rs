//! Messages to trees.

use super::MAX_DEPTH;
use super::wire::{Reader, Type as Wire};
use crate::decode::DecodeError;
use crate::quantity::Quantity;
use crate::table::{Field, Shape, Table, TypeId};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

pub(super) fn message(table: &Table, of: TypeId, raw: &[u8]) -> Result<Value, DecodeError> {
    Decoder { table, depth: 0 }.message(of, raw)
}

struct Decoder<'t> {
    table: &'t Table,
    depth: usize,
}

fn wrong_type(field: &Field, wire: Wire) -> DecodeError {
    let number = match wire {
        Wire::Varint => 0,
        Wire::Fixed64 => 1,
        Wire::Bytes => 2,
        Wire::Fixed32 => 5,
    };
    let mut name = field.name.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    DecodeError(format!("proto: wrong wireType = {number} for field {name}"))
}

impl Decoder<'_> {
    fn message(&mut self, of: TypeId, raw: &[u8]) -> Result<Value, DecodeError> {
        let mut map = Map::new();
        self.fields(of, 0, &mut Vec::new(), raw, &mut map)?;
        Ok(Value::Object(map))
    }

    /// `within`: the numbers of the embedded structs that we are in.
    fn fields(
        &mut self,
        of: TypeId,
        level: usize,
        within: &mut Vec<u32>,
        raw: &[u8],
        map: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(DecodeError("exceeded max depth".to_owned()));
        }
        let mut reader = Reader::new(raw);
        while let Some((number, wire)) = reader.field()? {
            let here = |f: &&Field| {
                f.number != 0 && f.within.len() >= level && f.within.iter().zip(&*within).all(|(e, w)| e.number == *w)
            };
            let fields = self.table[of].fields.iter();
            let embedded = |f: &Field| f.within.get(level).is_some_and(|e| e.number == number);
            let direct = |f: &Field| f.within.len() == level && f.number == number;
            match fields.filter(here).find(|f| embedded(f) || direct(f)) {
                Some(field) if direct(field) => self.field(field, wire, &mut reader, map)?,
                Some(_) if wire == Wire::Bytes => {
                    let raw = reader.bytes()?;
                    within.push(number);
                    self.fields(of, level + 1, within, raw, map)?;
                    within.pop();
                }
                _ => reader.skip(wire)?,
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        wire: Wire,
        reader: &mut Reader<'_>,
        map: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        match field.shape {
            Shape::List(element) => {
                let slot = map.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(items) = slot else { return Ok(()) };
                let packed = wire == Wire::Bytes && matches!(element, Shape::Int32 | Shape::Int64 | Shape::Bool);
                if packed {
                    let mut inner = Reader::new(reader.bytes()?);
                    while !inner.is_at_end() {
                        items.push(self.value(field, element, Wire::Varint, &mut inner)?);
                    }
                } else {
                    items.push(self.value(field, element, wire, reader)?);
                }
            }
            Shape::Map(element) => {
                if wire != Wire::Bytes {
                    return Err(wrong_type(field, wire));
                }
                let (key, value) = self.entry(field, element, reader.bytes()?)?;
                let slot = map.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(entries) = slot {
                    entries.insert(key, value);
                }
            }
            shape => {
                let value = self.value(field, &shape, wire, reader)?;
                map.insert(field.name.to_owned(), value);
            }
        }
        Ok(())
    }

    fn entry(&mut self, field: &Field, element: &Shape, raw: &[u8]) -> Result<(String, Value), DecodeError> {
        let (mut key, mut value) = (String::new(), Value::Null);
        let mut reader = Reader::new(raw);
        while let Some((number, wire)) = reader.field()? {
            match (number, wire) {
                (1, Wire::Bytes) => key = reader.text()?,
                (2, wire) => value = self.value(field, element, wire, &mut reader)?,
                (_, wire) => reader.skip(wire)?,
            }
        }
        Ok((key, value))
    }

    fn value(
        &mut self,
        field: &Field,
        shape: &Shape,
        wire: Wire,
        reader: &mut Reader<'_>,
    ) -> Result<Value, DecodeError> {
        let expected = match shape {
            Shape::Bool | Shape::Int32 | Shape::Int64 => Wire::Varint,
            Shape::Float64 => Wire::Fixed64,
            _ => Wire::Bytes,
        };
        if wire != expected {
            return Err(wrong_type(field, wire));
        }
        #[expect(clippy::cast_possible_truncation, reason = "as Go reads an int32")]
        Ok(match shape {
            Shape::Bool => Value::Bool(reader.varint()? != 0),
            Shape::Int32 => Value::from(reader.varint()? as i32),
            Shape::Int64 => Value::from(reader.varint()?.cast_signed()),
            Shape::Float64 => crate::tree::float(f64::from_bits(reader.fixed64()?)),
            Shape::String => Value::String(reader.text()?),
            Shape::Bytes => Value::String(STANDARD.encode(reader.bytes()?)),
            Shape::Struct(of) => self.message(*of, reader.bytes()?)?,
            Shape::Items(element) => {
                let mut items = Vec::new();
                let mut inner = Reader::new(reader.bytes()?);
                while let Some((number, wire)) = inner.field()? {
                    if number == 1 {
                        items.push(self.value(field, element, wire, &mut inner)?);
                    } else {
                        inner.skip(wire)?;
                    }
                }
                Value::Array(items)
            }
            Shape::Quantity => quantity(reader.bytes()?)?,
            Shape::IntOrString => int_or_string(reader.bytes()?)?,
            Shape::Time | Shape::MicroTime => time(reader.bytes()?, *shape == Shape::MicroTime)?,
            Shape::Any => any(reader.bytes()?)?,
            Shape::SchemaOrBool(of) => self.schema_or(*of, reader.bytes()?, 2)?,
            Shape::SchemaOrArray(of) | Shape::SchemaOrStrings(of) => {
                let strings = matches!(shape, Shape::SchemaOrStrings(_));
                self.schema_or_list(*of, reader.bytes()?, strings)?
            }
            // A list of lists or maps has no protobuf form.
            Shape::List(_) | Shape::Map(_) => return Err(wrong_type(field, wire)),
        })
    }

    fn schema_or(&mut self, of: TypeId, raw: &[u8], schema: u32) -> Result<Value, DecodeError> {
        let mut reader = Reader::new(raw);
        let mut found = Value::Bool(false);
        while let Some((number, wire)) = reader.field()? {
            match (number, wire) {
                (1, Wire::Varint) => {
                    let allows = reader.varint()? != 0;
                    if !found.is_object() {
                        found = Value::Bool(allows);
                    }
                }
                (number, Wire::Bytes) if number == schema => found = self.message(of, reader.bytes()?)?,
                (_, wire) => reader.skip(wire)?,
            }
        }
        Ok(found)
    }

    fn schema_or_list(&mut self, of: TypeId, raw: &[u8], strings: bool) -> Result<Value, DecodeError> {
        let mut reader = Reader::new(raw);
        let (mut schema, mut list) = (Value::Null, Vec::new());
        while let Some((number, wire)) = reader.field()? {
            match (number, wire) {
                (1, Wire::Bytes) => schema = self.message(of, reader.bytes()?)?,
                (2, Wire::Bytes) if strings => list.push(Value::String(reader.text()?)),
                (2, Wire::Bytes) => list.push(self.message(of, reader.bytes()?)?),
                (_, wire) => reader.skip(wire)?,
            }
        }
        Ok(if list.is_empty() { schema } else { Value::Array(list) })
    }
}

fn quantity(raw: &[u8]) -> Result<Value, DecodeError> {
    let mut reader = Reader::new(raw);
    let mut text = "0".to_owned();
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes) => text = reader.text()?,
            _ => reader.skip(wire)?,
        }
    }
    let text = if text.is_empty() { "0" } else { &text };
    Quantity::normal_form(text).map(Value::String).map_err(|error| DecodeError(error.0))
}

fn int_or_string(raw: &[u8]) -> Result<Value, DecodeError> {
    let mut reader = Reader::new(raw);
    let (mut is_text, mut number_value, mut text) = (false, 0, String::new());
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Varint) => is_text = reader.varint()? != 0,
            #[expect(clippy::cast_possible_truncation, reason = "as Go reads an int32")]
            (2, Wire::Varint) => number_value = reader.varint()? as i32,
            (3, Wire::Bytes) => text = reader.text()?,
            _ => reader.skip(wire)?,
        }
    }
    Ok(if is_text { Value::String(text) } else { number_value.into() })
}

/// An empty message is Go's zero time.
fn time(raw: &[u8], micro: bool) -> Result<Value, DecodeError> {
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    let mut reader = Reader::new(raw);
    let (mut seconds, mut nanos) = (0, 0);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Varint) => seconds = reader.varint()?.cast_signed(),
            #[expect(clippy::cast_possible_truncation, reason = "as Go reads an int32")]
            (2, Wire::Varint) => nanos = reader.varint()? as i32,
            _ => reader.skip(wire)?,
        }
    }
    let text = crate::time::from_unix(seconds, if micro { Some(nanos) } else { None });
    text.map(Value::String).ok_or_else(|| DecodeError("time: out of range".to_owned()))
}

fn any(raw: &[u8]) -> Result<Value, DecodeError> {
    let mut reader = Reader::new(raw);
    let mut json: &[u8] = b"null";
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes) => json = reader.bytes()?,
            _ => reader.skip(wire)?,
        }
    }
    if json.is_empty() {
        return Ok(Value::Null);
    }
    crate::decode::parse(json, crate::decode::Format::Json).map(|decoded| decoded.value)
}
