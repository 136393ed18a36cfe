//! Trees to messages.

use super::wire::{put_bytes, put_fixed64, put_int};
use crate::table::{Field, Presence, Shape, Table, TypeId};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

pub(super) fn message(table: &Table, of: TypeId, value: &Value) -> Vec<u8> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    let mut out = Vec::new();
    fields(table, table[of].fields, 0, value.as_object().unwrap_or(&EMPTY), &mut out);
    out
}

/// Writes the fields that stand at `level` of embedding, and the embedded structs below it, by number.
fn fields(table: &Table, all: &[Field], level: usize, map: &Map<String, Value>, out: &mut Vec<u8>) {
    let number = |field: &Field| field.within.get(level).map_or(field.number, |embedded| embedded.number);
    let mut sorted: Vec<&Field> = all.iter().filter(|field| field.number != 0).collect();
    sorted.sort_by_key(|field| number(field));
    let mut rest = &sorted[..];
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|field| number(field) == number(first)).count();
        let (group, after) = rest.split_at(same);
        if first.within.len() > level {
            let group: Vec<Field> = group.iter().map(|field| **field).collect();
            let mut inner = Vec::new();
            fields(table, &group, level + 1, map, &mut inner);
            put_bytes(out, number(first), &inner);
        } else {
            field(table, first, map.get(first.name).unwrap_or(&Value::Null), out);
        }
        rest = after;
    }
}

fn field(table: &Table, field: &Field, value: &Value, out: &mut Vec<u8>) {
    let pointer = matches!(field.presence, Presence::Pointer | Presence::Nullable);
    match (&field.shape, value) {
        (_, Value::Null) if pointer => {}
        (Shape::List(element), value) => {
            for item in value.as_array().into_iter().flatten() {
                put(table, element, field.number, item, out);
            }
        }
        (Shape::Map(element), value) => {
            let mut entries: Vec<_> = value.as_object().into_iter().flatten().collect();
            entries.sort_by_key(|(key, _)| *key);
            for (key, item) in entries {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                put(table, element, 2, item, &mut entry);
                put_bytes(out, field.number, &entry);
            }
        }
        (Shape::Items(_) | Shape::Bytes, Value::Null) => {}
        (shape, value) => put(table, shape, field.number, value, out),
    }
}

fn put(table: &Table, shape: &Shape, number: u32, value: &Value, out: &mut Vec<u8>) {
    match shape {
        Shape::Bool => put_int(out, number, i64::from(value.as_bool().unwrap_or_default())),
        Shape::Int32 | Shape::Int64 => put_int(out, number, value.as_i64().unwrap_or_default()),
        Shape::Float64 => put_fixed64(out, number, value.as_f64().unwrap_or_default().to_bits()),
        Shape::String => put_bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        // Normal form holds only what was decoded before.
        Shape::Bytes => {
            put_bytes(out, number, &STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default())
        }
        Shape::Struct(of) => put_bytes(out, number, &message(table, *of, value)),
        Shape::Items(element) => {
            let mut inner = Vec::new();
            for item in value.as_array().into_iter().flatten() {
                put(table, element, 1, item, &mut inner);
            }
            put_bytes(out, number, &inner);
        }
        Shape::Quantity => {
            let mut inner = Vec::new();
            put_bytes(&mut inner, 1, value.as_str().unwrap_or("0").as_bytes());
            put_bytes(out, number, &inner);
        }
        Shape::IntOrString => {
            let mut inner = Vec::new();
            put_int(&mut inner, 1, i64::from(value.is_string()));
            put_int(&mut inner, 2, value.as_i64().unwrap_or_default());
            put_bytes(&mut inner, 3, value.as_str().unwrap_or_default().as_bytes());
            put_bytes(out, number, &inner);
        }
        Shape::Time | Shape::MicroTime => {
            let mut inner = Vec::new();
            if let Some((seconds, nanos)) = value.as_str().and_then(crate::time::to_unix) {
                put_int(&mut inner, 1, seconds);
                put_int(&mut inner, 2, i64::from(nanos));
            }
            put_bytes(out, number, &inner);
        }
        Shape::Any => {
            let mut inner = Vec::new();
            if !value.is_null() {
                put_bytes(&mut inner, 1, value.to_string().as_bytes());
            }
            put_bytes(out, number, &inner);
        }
        Shape::SchemaOrBool(of) => {
            let mut inner = Vec::new();
            put_int(&mut inner, 1, i64::from(value.is_object() || value == &Value::Bool(true)));
            if value.is_object() {
                put_bytes(&mut inner, 2, &message(table, *of, value));
            }
            put_bytes(out, number, &inner);
        }
        Shape::SchemaOrArray(of) | Shape::SchemaOrStrings(of) => {
            let mut inner = Vec::new();
            if value.is_object() {
                put_bytes(&mut inner, 1, &message(table, *of, value));
            }
            for item in value.as_array().into_iter().flatten() {
                match item {
                    Value::String(text) => put_bytes(&mut inner, 2, text.as_bytes()),
                    item => put_bytes(&mut inner, 2, &message(table, *of, item)),
                }
            }
            put_bytes(out, number, &inner);
        }
        // A list of lists or maps has no protobuf form.
        Shape::List(_) | Shape::Map(_) => {}
    }
}
