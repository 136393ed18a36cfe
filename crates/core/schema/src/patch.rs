//! The patch types of the API: JSON patch, JSON merge patch, strategic merge patch (server-side apply joins later).

use crate::decode::{self, Decoded, Format};
use crate::table::{Table, TypeId};
use crate::tree::Tree;
use serde_json::Value;

mod json;
mod order;
mod restore;
mod strategic;
#[cfg(test)]
mod strategic_tests;

pub use restore::restore;

/// Why a patch cannot be applied, in upstream's words.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatchError {
    /// The patch itself is malformed: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object: 422.
    #[error("{0}")]
    NotApplicable(String),
    /// Upstream answers 500 here (unknown `$patch`, missing merge key).
    #[error("{0}")]
    Internal(String),
}

/// The patch types that are JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Json,
    Merge,
    Strategic,
}

/// Reads the body of a patch; `strict` tells its duplicate (and, in a JSON patch, unknown) fields.
///
/// # Errors
/// [`PatchError::Malformed`]: `invalid JSON patch`, `error decoding patch: json: cannot unmarshal …`.
pub fn parse(kind: Kind, bytes: &[u8]) -> Result<Decoded, PatchError> {
    let parsed =
        decode::read(bytes, Format::Json).map_err(|_| PatchError::Malformed("invalid JSON patch".to_owned()))?;
    let cannot = |what: &Tree, into: &str| format!("json: cannot unmarshal {} into Go {into}", what.word());
    let prefixed = |text: String| Err(PatchError::Malformed(format!("error decoding patch: {text}")));
    let map = "value of type map[string]interface {}";
    match (kind, &parsed.root) {
        (Kind::Json, Tree::List(operations)) => {
            for operation in operations {
                match operation {
                    Tree::Map(_) | Tree::Null => {}
                    other => return prefixed(cannot(other, "value of type handlers.jsonPatchOp")),
                }
                for name in ["op", "path", "from"] {
                    if let Some(other) = operation.get(name)
                        && !matches!(other, Tree::String(_) | Tree::Null)
                    {
                        return prefixed(cannot(other, &format!("struct field jsonPatchOp.{name} of type string")));
                    }
                }
            }
        }
        (Kind::Merge, Tree::Null) => return Err(PatchError::Malformed("Invalid JSON Patch".to_owned())),
        (_, Tree::Null) | (Kind::Merge | Kind::Strategic, Tree::Map(_)) => {}
        (Kind::Json, other) => return prefixed(cannot(other, "value of type []handlers.jsonPatchOp")),
        (Kind::Merge, other) => return prefixed(cannot(other, map)),
        (Kind::Strategic, other) => return Err(PatchError::Malformed(cannot(other, map))),
    }
    let mut strict = Vec::new();
    let value = parsed.root.to_value(&mut strict);
    if kind == Kind::Json {
        json::note_unknown(&value, &mut strict);
        strict.iter_mut().for_each(|text| text.insert_str(0, "json patch "));
    }
    Ok(Decoded { value, strict })
}

/// Applies a JSON patch (RFC 6902, with the leniencies of upstream's library: `replace` may add, indices may be negative).
///
/// # Errors
/// [`PatchError::Malformed`] where the text is no JSON patch, [`PatchError::NotApplicable`] where it does not fit.
pub fn json(target: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    json::apply(target, &parse(Kind::Json, patch)?.value)
}

/// Applies a JSON merge patch (RFC 7386): `null` removes.
pub fn merge(target: &Value, patch: &Value) -> Value {
    let (Value::Object(target), Value::Object(patch)) = (target, patch) else { return without_nulls(patch) };
    let mut merged = target.clone();
    for (key, value) in patch {
        if value.is_null() {
            merged.remove(key);
            continue;
        }
        let value = match merged.get(key) {
            // A list over an object is taken as it is, nulls within its objects included; so upstream's library does.
            Some(Value::Object(_)) if !value.is_object() => value.clone(),
            Some(old) => merge(old, value),
            None => without_nulls(value),
        };
        merged.insert(key.clone(), value);
    }
    Value::Object(merged)
}

/// Drops the members of objects that are `null`; elements of lists stay.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, v)| !v.is_null());
            Value::Object(kept.map(|(k, v)| (k.clone(), without_nulls(v))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// Applies a strategic merge patch; bring the result to its type with [`restore`].
///
/// # Errors
/// Upstream's words; an unknown directive or a missing merge key is [`PatchError::Internal`], as upstream answers 500.
pub fn strategic(table: &Table, of: TypeId, target: &Value, patch: &Value) -> Result<Value, PatchError> {
    strategic::apply(table, of, target, patch)
}

/// A value as Go's `%v` prints a decoded JSON document: `map[spec:map[replicas:3]]`.
pub fn go_print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries: Vec<_> = entries.iter().map(|(k, v)| format!("{k}:{}", go_print(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merges() {
        let cases = [
            (json!({"a": 1}), json!({"a": null}), json!({})),
            (json!({"a": {"b": 1}}), json!({"a": {"c": null, "d": 2}}), json!({"a": {"b": 1, "d": 2}})),
            (json!({}), json!({"a": {"b": null}}), json!({"a": {}})),
            (json!({"a": [1]}), json!({"a": [{"b": null}]}), json!({"a": [{}]})),
            (json!({"a": {"b": 1}}), json!({"a": [{"b": null}]}), json!({"a": [{"b": null}]})),
            (json!({"a": 1}), json!({"a": {"b": null, "c": 1}}), json!({"a": {"c": 1}})),
        ];
        for (target, patch, expected) in cases {
            assert_eq!(merge(&target, &patch), expected, "{target} {patch}");
        }
    }

    #[test]
    fn bodies() {
        for (kind, body, error) in [
            (Kind::Merge, "data:\n", "invalid JSON patch"),
            (Kind::Json, "", "invalid JSON patch"),
            (
                Kind::Json,
                "{}",
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            ),
            (
                Kind::Merge,
                "[1]",
                "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
            (Kind::Strategic, "[1]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ] {
            let result = parse(kind, body.as_bytes());
            assert_eq!(result.map(|d| d.strict), Err(PatchError::Malformed(error.to_owned())));
        }
    }
}
