//! Reading a JSON tree in normal form the way Go reads a struct: what is absent is the zero value.

use schema::quantity::Quantity;
use serde_json::{Map, Value};

/// Accessors by JSON name. In normal form an absent field and `null` mean the same.
pub trait Tree {
    /// A string; absent is empty.
    fn text(&self, name: &str) -> &str;
    fn text_opt(&self, name: &str) -> Option<&str>;
    /// An integer; absent is 0.
    fn int(&self, name: &str) -> i64;
    fn int_opt(&self, name: &str) -> Option<i64>;
    /// A boolean; absent is false.
    fn flag(&self, name: &str) -> bool;
    fn flag_opt(&self, name: &str) -> Option<bool>;
    /// A list; absent is empty.
    fn list(&self, name: &str) -> &[Value];
    /// The strings of a list.
    fn texts(&self, name: &str) -> impl Iterator<Item = &str>;
    /// A map or struct; absent is `None`.
    fn map_opt(&self, name: &str) -> Option<&Map<String, Value>>;
    /// The entries of a map; absent is empty.
    fn entries(&self, name: &str) -> impl Iterator<Item = (&String, &Value)>;
    /// The entries of a map of strings.
    fn pairs(&self, name: &str) -> impl Iterator<Item = (&str, &str)>;
    /// A field that is there and not `null`.
    fn field(&self, name: &str) -> Option<&Value>;
    fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }
}

impl Tree for Value {
    fn text(&self, name: &str) -> &str {
        self[name].as_str().unwrap_or_default()
    }

    fn text_opt(&self, name: &str) -> Option<&str> {
        self[name].as_str()
    }

    fn int(&self, name: &str) -> i64 {
        self[name].as_i64().unwrap_or_default()
    }

    fn int_opt(&self, name: &str) -> Option<i64> {
        self[name].as_i64()
    }

    fn flag(&self, name: &str) -> bool {
        self[name].as_bool().unwrap_or_default()
    }

    fn flag_opt(&self, name: &str) -> Option<bool> {
        self[name].as_bool()
    }

    fn list(&self, name: &str) -> &[Value] {
        self[name].as_array().map_or(&[], Vec::as_slice)
    }

    fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.list(name).iter().map(|v| v.as_str().unwrap_or_default())
    }

    fn map_opt(&self, name: &str) -> Option<&Map<String, Value>> {
        self[name].as_object()
    }

    fn entries(&self, name: &str) -> impl Iterator<Item = (&String, &Value)> {
        self[name].as_object().into_iter().flatten()
    }

    fn pairs(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        self.entries(name).map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default()))
    }

    fn field(&self, name: &str) -> Option<&Value> {
        self.get(name).filter(|v| !v.is_null())
    }
}

/// A quantity of a tree in normal form; what is absent (or cannot be parsed, which decoding rules out) is `None`.
pub fn quantity(value: &Value) -> Option<Quantity> {
    value.as_str().and_then(|text| Quantity::parse(text).ok())
}

/// The struct below `name`, made if it is absent.
pub fn object_mut<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let map = value.as_object_mut()?;
    let slot = map.entry(name).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    Some(slot)
}

/// The items of a list that may be changed; absent is empty.
pub fn list_mut<'a>(value: &'a mut Value, name: &str) -> &'a mut [Value] {
    match value.get_mut(name) {
        Some(Value::Array(items)) => items,
        _ => &mut [],
    }
}

/// Sets a field unless it is there already (and, for strings and numbers, not the zero value).
pub fn default_to(value: &mut Value, name: &str, default: impl Into<Value>) {
    let Some(map) = value.as_object_mut() else { return };
    let slot = map.entry(name).or_insert(Value::Null);
    let unset = match slot {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        _ => false,
    };
    if unset {
        *slot = default.into();
    }
}

/// Removes a field.
pub fn remove(value: &mut Value, name: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(name);
    }
}

/// Copies a field of `from`, or removes it where `from` has none.
pub fn keep(value: &mut Value, from: &Value, name: &str) {
    match from.get(name) {
        Some(kept) => {
            if let Some(map) = value.as_object_mut() {
                map.insert(name.to_owned(), kept.clone());
            }
        }
        None => remove(value, name),
    }
}

/// Upstream's `Semantic.DeepEqual`: quantities are compared by value.
pub fn same(a: &Value, b: &Value) -> bool {
    same_within(a, b, false)
}

fn same_within(a: &Value, b: &Value, amounts: bool) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let inner = |key: &String| match key.as_str() {
                "limits" | "requests" | "overhead" | "capacity" | "allocatable" | "allocatedResources" => true,
                "sizeLimit" | "divisor" => true,
                _ => amounts,
            };
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same_within(a, b, inner(key))))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_within(a, b, amounts))
        }
        (Value::String(_), Value::String(_)) if amounts => {
            a == b || (quantity(a).is_some() && quantity(a) == quantity(b))
        }
        _ => a == b,
    }
}
