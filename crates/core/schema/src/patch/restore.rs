//! A patched tree back to its type, with the words of upstream's `FromUnstructured` (apimachinery `runtime/converter.go`),
//! which differ from those of the JSON decoder.

use crate::decode::{self, DecodeError, Decoded};
use crate::table::{Presence, Shape, Table, TypeId};
use serde_json::Value;

/// Checks a tree that a strategic merge made and brings it to normal form.
///
/// # Errors
/// `unrecognized type: int32`, `cannot restore slice from map`, …
pub fn restore(table: &Table, of: TypeId, mut value: Value) -> Result<Decoded, DecodeError> {
    let mut walk = Walk { table, path: String::new(), unknown: Vec::new() };
    walk.check(&Shape::Struct(of), "", &mut value).map_err(DecodeError)?;
    walk.unknown.sort();
    let decoded = decode::normalize(table, of, Decoded { value, strict: Vec::new() })?;
    Ok(Decoded { value: decoded.value, strict: walk.unknown })
}

struct Walk<'t> {
    table: &'t Table,
    path: String,
    unknown: Vec<String>,
}

/// What Go's `reflect` calls the kind of a decoded JSON value.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

impl Walk<'_> {
    fn check(&mut self, shape: &Shape, go: &str, value: &mut Value) -> Result<(), String> {
        let from = kind(value);
        match (shape, &mut *value) {
            (_, Value::Null)
            | (Shape::String, Value::String(_))
            | (Shape::Bool, Value::Bool(_))
            | (Shape::Float64, Value::Number(_)) => Ok(()),
            (Shape::String, Value::Number(_)) if from == "int64" => Err(format!("cannot convert int64 to {go}")),
            (Shape::Int32 | Shape::Int64, Value::Number(number)) => {
                if let Some(float) = number.as_f64().filter(|_| from == "float64") {
                    if float.fract() != 0.0 {
                        return Err(format!("cannot convert float64 to {go}"));
                    }
                    *value = crate::tree::float(float);
                }
                Ok(())
            }
            (Shape::String, _) => Err("unrecognized type: string".to_owned()),
            (Shape::Bool, _) => Err("unrecognized type: bool".to_owned()),
            (Shape::Int32, _) => Err("unrecognized type: int32".to_owned()),
            (Shape::Int64, _) => Err("unrecognized type: int64".to_owned()),
            (Shape::Float64, _) => Err("unrecognized type: float64".to_owned()),
            (Shape::Struct(of), Value::Object(_)) => self.fields(*of, value),
            (Shape::Struct(_), _) => Err(format!("cannot restore struct from: {from}")),
            (Shape::Map(element), Value::Object(map)) => {
                let inner = go.split_once(']').map_or("string", |(_, inner)| inner).trim_start_matches('*');
                map.values_mut().try_for_each(|item| self.check(element, inner, item))
            }
            (Shape::Map(_), _) => Err(format!("cannot restore map from {from}")),
            (Shape::List(element) | Shape::Items(element), Value::Array(items)) => {
                let inner = go.strip_prefix("[]").unwrap_or("string").trim_start_matches('*');
                let length = self.path.len();
                for (i, item) in items.iter_mut().enumerate() {
                    self.path.push_str(&format!("[{i}]"));
                    self.check(element, inner, item)?;
                    self.path.truncate(length);
                }
                Ok(())
            }
            (Shape::Bytes, Value::String(text)) => {
                decode::check_base64(text).map_err(|e| format!("error decoding from json: {e}"))
            }
            (Shape::List(_) | Shape::Items(_) | Shape::Bytes, _) => Err(format!("cannot restore slice from {from}")),
            // The rest read their own JSON, in the decoder's words.
            _ => decode::alone(self.table, shape, value),
        }
    }

    fn fields(&mut self, of: TypeId, value: &mut Value) -> Result<(), String> {
        let Value::Object(map) = value else { return Ok(()) };
        let length = self.path.len();
        for field in self.table[of].fields {
            let Some(item) = map.get_mut(field.name) else { continue };
            // A value that empties a pointer is gone; one that is zero stays zero.
            if item.is_null() && field.presence == Presence::Pointer {
                continue;
            }
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(field.name);
            self.check(&field.shape, field.go, item)?;
            self.path.truncate(length);
        }
        for key in map.keys().filter(|key| self.table[of].field(key).is_none()) {
            let dot = if length > 0 { "." } else { "" };
            self.unknown.push(format!("unknown field \"{}{dot}{key}\"", self.path));
        }
        Ok(())
    }
}
