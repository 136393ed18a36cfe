//! A [`Tree`] read into a type, with the errors of `sigs.k8s.io/json`: mistyped values with Go's type path, unknown and
//! duplicate fields by their path in the object.
//!
//! Absent fields stay absent here; [`super::complete`] brings the result to the form that Go writes.

use super::DecodeError;
use crate::quantity::Quantity;
use crate::table::{Shape, Table, TypeId};
use crate::tree::{self, Tree, note};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

pub(super) struct Reader<'t> {
    table: &'t Table,
    pub(super) strict: Vec<String>,
    /// The first mistyped value; reading goes on behind it, because a worse error may come.
    pub(super) saved: Option<String>,
    /// Where we are in the object, for strict errors.
    path: String,
    /// Go's names of the fields (and embedded structs) that we are in.
    fields: Vec<&'static str>,
    /// Go's name of the innermost struct that we are in.
    within: &'static str,
    /// Inside a type that reads itself: upstream checks no fields there.
    lenient: bool,
}

/// What is known of a place beyond its shape.
#[derive(Clone, Copy)]
struct Place {
    /// Go's type, without pointers.
    go: &'static str,
    /// `null` empties it.
    pointer: bool,
}

impl Place {
    /// The elements of a list or map.
    fn element(self) -> Self {
        let inner = match self.go.strip_prefix("[]") {
            Some(inner) => inner,
            // Named lists and maps do not tell their element's type; only maps of quantities and strings are named so.
            None => self.go.split_once(']').map_or("string", |(_, inner)| inner),
        };
        Self { go: inner.trim_start_matches('*'), pointer: inner.starts_with('*') }
    }
}

type Read = Result<(), DecodeError>;

impl<'t> Reader<'t> {
    pub(super) fn new(table: &'t Table) -> Self {
        Self {
            table,
            strict: Vec::new(),
            saved: None,
            path: String::new(),
            fields: Vec::new(),
            within: "",
            lenient: false,
        }
    }

    pub(super) fn object(&mut self, of: TypeId, tree: &Tree) -> Result<Value, DecodeError> {
        let mut slot = Value::Object(Map::new());
        let go = self.table[of].go_name();
        self.value(&Shape::Struct(of), Place { go, pointer: false }, tree, &mut slot)?;
        Ok(slot)
    }

    pub(super) fn single(&mut self, shape: &Shape, tree: &Tree) -> Read {
        self.value(shape, Place { go: "", pointer: false }, tree, &mut Value::Null)
    }

    fn mistyped(&self, what: &str, go: &str) -> String {
        if self.fields.is_empty() {
            return format!("json: cannot unmarshal {what} into Go value of type {go}");
        }
        let path = self.fields.join(".");
        format!("json: cannot unmarshal {what} into Go struct field {}.{path} of type {go}", self.within)
    }

    fn save(&mut self, what: &str, go: &str) {
        if self.saved.is_none() {
            self.saved = Some(self.mistyped(what, go));
        }
    }

    /// Reads `tree` over what `slot` holds from an earlier duplicate, as Go does.
    fn value(&mut self, shape: &Shape, place: Place, tree: &Tree, slot: &mut Value) -> Read {
        if *tree == Tree::Null {
            let keeps = matches!(
                shape,
                Shape::String
                    | Shape::Bool
                    | Shape::Int32
                    | Shape::Int64
                    | Shape::Float64
                    | Shape::Struct(_)
                    | Shape::IntOrString
                    | Shape::Any
            );
            if place.pointer || !keeps {
                *slot = Value::Null;
            }
            return Ok(());
        }
        match shape {
            Shape::String => match tree {
                Tree::String(text) => *slot = Value::String(text.clone()),
                other => self.save(other.word(), place.go),
            },
            Shape::Bool => match tree {
                Tree::Bool(value) => *slot = Value::Bool(*value),
                other => self.save(other.word(), place.go),
            },
            Shape::Int32 => self.integer(tree, place, slot, |text| text.parse::<i32>().ok().map(Value::from)),
            Shape::Int64 => self.integer(tree, place, slot, |text| text.parse::<i64>().ok().map(Value::from)),
            Shape::Float64 => self
                .integer(tree, place, slot, |text| text.parse::<f64>().ok().filter(|v| v.is_finite()).map(tree::float)),
            Shape::Bytes => self.bytes(tree, place, slot),
            Shape::Quantity => *slot = Value::String(quantity(tree)?),
            Shape::IntOrString => *slot = self.int_or_string(tree)?,
            Shape::Time => *slot = self.time(tree, crate::time::seconds)?,
            Shape::MicroTime => *slot = self.time(tree, crate::time::micros)?,
            Shape::Any => *slot = tree.to_value(&mut Vec::new()),
            Shape::Struct(of) => return self.fields_of(*of, place, tree, slot),
            Shape::List(element) | Shape::Items(element) => return self.list(element, place, tree, slot),
            Shape::SchemaOrBool(of) => return self.schema_or_bool(*of, tree, slot),
            Shape::SchemaOrArray(of) => {
                let whole = Shape::List(&Shape::Any);
                return self.schema_or_list(*of, tree, slot, whole);
            }
            Shape::SchemaOrStrings(of) => {
                return self.schema_or_list(*of, tree, slot, Shape::List(&Shape::String));
            }
            Shape::Map(element) => return self.map(element, place, tree, slot),
        }
        Ok(())
    }

    fn integer(&mut self, tree: &Tree, place: Place, slot: &mut Value, read: fn(&str) -> Option<Value>) {
        match tree {
            Tree::Number(text) => match read(text) {
                Some(value) => *slot = value,
                None => self.save(&format!("number {text}"), place.go),
            },
            other => self.save(other.word(), place.go),
        }
    }

    fn bytes(&mut self, tree: &Tree, place: Place, slot: &mut Value) {
        match tree {
            Tree::String(text) => match super::base64::normal(text) {
                Ok(text) => *slot = Value::String(text),
                Err(error) => {
                    self.saved.get_or_insert(error);
                }
            },
            // Go reads a list of numbers as bytes too.
            Tree::List(items) => {
                use ::base64::Engine;
                let mut bytes = Vec::with_capacity(items.len());
                for item in items {
                    match item {
                        Tree::Null => bytes.push(0),
                        Tree::Number(text) => match text.parse() {
                            Ok(byte) => bytes.push(byte),
                            Err(_) => self.save(&format!("number {text}"), "uint8"),
                        },
                        other => self.save(other.word(), "uint8"),
                    }
                }
                *slot = Value::String(::base64::engine::general_purpose::STANDARD.encode(bytes));
            }
            other => self.save(other.word(), place.go),
        }
    }

    fn int_or_string(&mut self, tree: &Tree) -> Result<Value, DecodeError> {
        match tree {
            Tree::String(text) => Ok(Value::String(text.clone())),
            Tree::Number(text) => match text.parse::<i32>() {
                Ok(value) => Ok(value.into()),
                Err(_) => Err(DecodeError(self.mistyped(&format!("number {text}"), "int32"))),
            },
            other => Err(DecodeError(self.mistyped(other.word(), "int32"))),
        }
    }

    fn time(&mut self, tree: &Tree, read: fn(&str) -> Result<Option<String>, String>) -> Result<Value, DecodeError> {
        match tree {
            Tree::String(text) => Ok(read(text).map_err(DecodeError)?.map_or(Value::Null, Value::String)),
            other => Err(DecodeError(self.mistyped(other.word(), "string"))),
        }
    }

    fn list(&mut self, element: &Shape, place: Place, tree: &Tree, slot: &mut Value) -> Read {
        let Tree::List(items) = tree else {
            self.save(tree.word(), place.go);
            return Ok(());
        };
        let mut values = match slot.take() {
            Value::Array(values) => values,
            _ => Vec::new(),
        };
        values.truncate(items.len());
        let length = self.path.len();
        for (i, item) in items.iter().enumerate() {
            if values.len() == i {
                values.push(Value::Null);
            }
            self.path.push_str(&format!("[{i}]"));
            self.value(element, place.element(), item, &mut values[i])?;
            self.path.truncate(length);
        }
        *slot = Value::Array(values);
        Ok(())
    }

    fn enter(&mut self, key: &str) -> usize {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        length
    }

    fn note(&mut self, what: &str, key: &str) {
        if self.lenient {
            return;
        }
        let length = self.enter(key);
        note(&mut self.strict, what, &self.path);
        self.path.truncate(length);
    }

    fn map(&mut self, element: &Shape, place: Place, tree: &Tree, slot: &mut Value) -> Read {
        let Tree::Map(entries) = tree else {
            self.save(tree.word(), place.go);
            return Ok(());
        };
        let mut values = match slot.take() {
            Value::Object(values) => values,
            _ => Map::new(),
        };
        let mut seen = BTreeSet::new();
        for (key, item) in entries {
            if !seen.insert(key) {
                self.note("duplicate field", key);
            }
            let length = self.enter(key);
            let mut value = Value::Null;
            self.value(element, place.element(), item, &mut value)?;
            self.path.truncate(length);
            values.insert(key.clone(), value);
        }
        *slot = Value::Object(values);
        Ok(())
    }

    fn fields_of(&mut self, of: TypeId, place: Place, tree: &Tree, slot: &mut Value) -> Read {
        let Tree::Map(entries) = tree else {
            self.save(tree.word(), place.go);
            return Ok(());
        };
        let mut values = match slot.take() {
            Value::Object(values) => values,
            _ => Map::new(),
        };
        let kind = &self.table[of];
        let (outer, depth) = (self.within, self.fields.len());
        let mut seen = BTreeSet::new();
        for (key, item) in entries {
            let Some(field) = kind.field(key) else {
                self.note("unknown field", key);
                continue;
            };
            if !seen.insert(key) {
                self.note("duplicate field", key);
            }
            let length = self.enter(key);
            self.fields.extend(field.within.iter().map(|e| e.name));
            self.fields.push(field.name);
            self.within = kind.go_name();
            let pointer = matches!(field.presence, crate::table::Presence::Pointer | crate::table::Presence::Nullable);
            let slot = values.entry(field.name).or_insert(Value::Null);
            self.value(&field.shape, Place { go: field.go, pointer }, item, slot)?;
            self.within = outer;
            self.fields.truncate(depth);
            self.path.truncate(length);
        }
        *slot = Value::Object(values);
        Ok(())
    }

    /// A value that upstream hands to a decoder of its own: no strict errors, and the first type error ends all.
    fn apart(&mut self, shape: &Shape, go: &'static str, tree: &Tree, slot: &mut Value) -> Read {
        let lenient = std::mem::replace(&mut self.lenient, true);
        let saved = self.saved.take();
        *slot = Value::Null;
        self.value(shape, Place { go, pointer: false }, tree, slot)?;
        self.lenient = lenient;
        if let Some(error) = self.saved.take() {
            return Err(DecodeError(error));
        }
        self.saved = saved;
        Ok(())
    }

    fn schema_or_bool(&mut self, of: TypeId, tree: &Tree, slot: &mut Value) -> Read {
        match tree {
            Tree::Bool(value) => {
                *slot = Value::Bool(*value);
                Ok(())
            }
            Tree::Map(_) => self.apart(&Shape::Struct(of), "v1.JSONSchemaProps", tree, slot),
            _ => Err(DecodeError("boolean or JSON schema expected".to_owned())),
        }
    }

    /// Upstream drops what is neither a schema nor a list.
    fn schema_or_list(&mut self, of: TypeId, tree: &Tree, slot: &mut Value, list: Shape) -> Read {
        match tree {
            Tree::Map(_) => self.apart(&Shape::Struct(of), "v1.JSONSchemaProps", tree, slot),
            Tree::List(items) if list == Shape::List(&Shape::Any) => {
                let mut values = Vec::with_capacity(items.len());
                for item in items {
                    let mut value = Value::Null;
                    self.apart(&Shape::Struct(of), "v1.JSONSchemaProps", item, &mut value)?;
                    values.push(value);
                }
                *slot = Value::Array(values);
                Ok(())
            }
            Tree::List(_) => self.apart(&list, "[]string", tree, slot),
            _ => {
                *slot = Value::Null;
                Ok(())
            }
        }
    }
}

/// Quantities read the raw text of the value: numbers are fine, all else has the wrong format.
fn quantity(tree: &Tree) -> Result<String, DecodeError> {
    let text = match tree {
        Tree::String(text) | Tree::Number(text) => text.trim(),
        _ => "{}",
    };
    Quantity::normal_form(text).map_err(|error| DecodeError(error.0))
}
