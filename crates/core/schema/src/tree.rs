//! A parsed body before its type is known: the order of fields, duplicates and the text of numbers are kept, because
//! upstream's errors depend on them.

use serde_json::{Map, Number, Value};

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    Null,
    Bool(bool),
    /// The literal as written, valid JSON.
    Number(String),
    String(String),
    List(Vec<Tree>),
    /// In the order written, duplicates included.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// The first value of a field; `None` also where this is no map.
    pub fn get(&self, name: &str) -> Option<&Tree> {
        match self {
            Tree::Map(entries) => entries.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// What Go's `encoding/json` calls the value in its errors.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Tree::Null => "null",
            Tree::Bool(_) => "bool",
            Tree::Number(_) => "number",
            Tree::String(_) => "string",
            Tree::List(_) => "array",
            Tree::Map(_) => "object",
        }
    }

    /// The value without a type: of duplicates the last one counts; each is noted in `strict` as upstream words it.
    pub fn to_value(&self, strict: &mut Vec<String>) -> Value {
        self.untyped(&mut String::new(), strict)
    }

    fn untyped(&self, path: &mut String, strict: &mut Vec<String>) -> Value {
        match self {
            Tree::Null => Value::Null,
            Tree::Bool(b) => Value::Bool(*b),
            Tree::Number(text) => number(text),
            Tree::String(text) => Value::String(text.clone()),
            Tree::List(items) => {
                let length = path.len();
                let list = items.iter().enumerate().map(|(i, item)| {
                    path.push_str(&format!("[{i}]"));
                    let value = item.untyped(path, strict);
                    path.truncate(length);
                    value
                });
                Value::Array(list.collect())
            }
            Tree::Map(entries) => {
                let length = path.len();
                let mut map = Map::new();
                for (key, item) in entries {
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(key);
                    if map.contains_key(key) {
                        note(strict, "duplicate field", path);
                    }
                    let value = item.untyped(path, strict);
                    path.truncate(length);
                    map.insert(key.clone(), value);
                }
                Value::Object(map)
            }
        }
    }
}

/// Adds a strict decoding error once; upstream stops counting at 100.
pub(crate) fn note(strict: &mut Vec<String>, what: &str, path: &str) {
    let text = format!("{what} {}", crate::field::go_quote(path));
    if strict.len() < 100 && !strict.contains(&text) {
        strict.push(text);
    }
}

/// A number as Go holds it in an untyped place: an `int64` where it is one, else a float.
pub(crate) fn number(text: &str) -> Value {
    if !text.contains('.')
        && let Ok(integer) = text.parse::<i64>()
    {
        return integer.into();
    }
    text.parse::<f64>().map_or(Value::Null, float)
}

/// A float as Go writes it: without fraction where it has none.
pub(crate) fn float(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return (value as i64).into();
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

impl From<&Value> for Tree {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Tree::Null,
            Value::Bool(b) => Tree::Bool(*b),
            Value::Number(n) => Tree::Number(n.to_string()),
            Value::String(text) => Tree::String(text.clone()),
            Value::Array(items) => Tree::List(items.iter().map(Tree::from).collect()),
            Value::Object(map) => Tree::Map(map.iter().map(|(k, v)| (k.clone(), Tree::from(v))).collect()),
        }
    }
}
