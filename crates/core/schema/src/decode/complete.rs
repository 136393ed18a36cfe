//! From what was read to what Go writes: zero values of required fields filled in, empty optional ones dropped.

use crate::table::{Field, Presence, Shape, Table, TypeId};
use serde_json::{Map, Value};

/// Brings a struct to its written form.
pub(super) fn complete(table: &Table, of: TypeId, map: &mut Map<String, Value>) {
    for field in table[of].fields {
        let value = map.remove(field.name).unwrap_or(Value::Null);
        if let Some(value) = written(table, field, value) {
            map.insert(field.name.to_owned(), value);
        }
    }
}

fn written(table: &Table, field: &Field, value: Value) -> Option<Value> {
    match field.presence {
        Presence::Pointer if value.is_null() => None,
        Presence::Nullable if value.is_null() => Some(Value::Null),
        Presence::Pointer | Presence::Nullable => Some(filled(table, &field.shape, field.go, value)),
        presence => {
            let mut value = filled(table, &field.shape, field.go, value);
            // Protobuf, in which upstream keeps its objects, does not know an empty list or map from none.
            if matches!(&value, Value::Array(items) if items.is_empty())
                || matches!((&field.shape, &value), (Shape::Map(_), Value::Object(map)) if map.is_empty())
            {
                value = Value::Null;
            }
            let drop = match presence {
                Presence::OmitEmpty => is_empty(field, &value),
                Presence::OmitZero => is_empty(field, &value) || is_zero(&value),
                _ => false,
            };
            (!drop).then_some(value)
        }
    }
}

/// Whether `omitempty` leaves a field out: structs, and what Go holds as a struct, are never empty.
fn is_empty(field: &Field, value: &Value) -> bool {
    match field.shape {
        Shape::Struct(_) | Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime => false,
        Shape::Any => field.go == "interface {}" && value.is_null(),
        _ => match value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
        },
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) => false,
        Value::Object(map) => map.values().all(is_zero),
    }
}

/// A value that is there (not a nil pointer), completed; `null` is the zero value of its shape.
fn filled(table: &Table, shape: &Shape, go: &str, value: Value) -> Value {
    match (shape, value) {
        (Shape::String, Value::Null) => Value::String(String::new()),
        (Shape::Bool, Value::Null) => Value::Bool(false),
        (Shape::Int32 | Shape::Int64 | Shape::Float64 | Shape::IntOrString, Value::Null) => Value::from(0),
        (Shape::Quantity, Value::Null) => Value::String("0".to_owned()),
        (Shape::Struct(of), value) => {
            let mut map = match value {
                Value::Object(map) => map,
                _ => Map::new(),
            };
            complete(table, *of, &mut map);
            Value::Object(map)
        }
        (Shape::List(element) | Shape::Items(element), Value::Array(items)) => {
            let pointers = go.starts_with("[]*");
            let inner = go.strip_prefix("[]").unwrap_or("");
            let fill = |item: Value| {
                if pointers && item.is_null() { item } else { filled(table, element, inner, item) }
            };
            Value::Array(items.into_iter().map(fill).collect())
        }
        (Shape::Map(element), Value::Object(map)) => {
            let inner = go.split_once(']').map_or("", |(_, inner)| inner);
            Value::Object(map.into_iter().map(|(k, v)| (k, filled(table, element, inner, v))).collect())
        }
        (Shape::SchemaOrBool(of) | Shape::SchemaOrArray(of) | Shape::SchemaOrStrings(of), value) => match value {
            Value::Object(mut map) => {
                complete(table, *of, &mut map);
                Value::Object(map)
            }
            Value::Array(items) if matches!(shape, Shape::SchemaOrArray(_)) => {
                if items.is_empty() {
                    return Value::Null;
                }
                Value::Array(items.into_iter().map(|i| filled(table, &Shape::Struct(*of), "", i)).collect())
            }
            Value::Array(items) if items.is_empty() => Value::Null,
            other => other,
        },
        (_, value) => value,
    }
}
