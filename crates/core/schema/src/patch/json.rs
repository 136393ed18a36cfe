//! JSON patch as upstream's library (evanphx/json-patch v4) applies it.

use super::PatchError;
use serde_json::Value;

/// Upstream bounds what `copy` may multiply (`AccumulatedCopySizeLimit`: the largest request).
const COPY_LIMIT_BYTES: usize = 3 * 1024 * 1024;

fn wrong(text: impl Into<String>) -> PatchError {
    PatchError::NotApplicable(text.into())
}

pub(super) fn note_unknown(patch: &Value, strict: &mut Vec<String>) {
    for (i, operation) in patch.as_array().into_iter().flatten().enumerate() {
        for key in operation.as_object().into_iter().flat_map(|map| map.keys()) {
            if !matches!(key.as_str(), "op" | "path" | "from" | "value") {
                crate::tree::note(strict, "unknown field", &format!("[{i}].{key}"));
            }
        }
    }
}

pub(super) fn apply(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let mut document = target.clone();
    let mut copied_bytes = 0;
    for operation in patch.as_array().into_iter().flatten() {
        one(&mut document, operation, &mut copied_bytes)?;
    }
    Ok(document)
}

fn one(document: &mut Value, operation: &Value, copied_bytes: &mut usize) -> Result<(), PatchError> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let path = || text("path").ok_or_else(|| wrong("error in operation: missing path"));
    let from = || text("from").ok_or_else(|| wrong("error in operation: missing from"));
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match text("op").unwrap_or("unknown") {
        "add" => add(document, path()?, value()),
        "remove" => remove(document, path()?),
        "replace" => replace(document, path()?, value()),
        "move" => {
            let moved = get(document, from()?)?;
            remove(document, from()?)?;
            add(document, path()?, moved)
        }
        "copy" => {
            let copied = get(document, from()?)?;
            *copied_bytes += copied.to_string().len();
            if *copied_bytes > COPY_LIMIT_BYTES {
                return Err(wrong("Unable to complete the copy, the accumulated size increase of copy is too large"));
            }
            add(document, path()?, copied)
        }
        "test" => {
            let path = path()?;
            let found = if path.is_empty() { document.clone() } else { get(document, path)? };
            if found == value() { Ok(()) } else { Err(wrong(format!("testing value {path} failed: test failed"))) }
        }
        other => Err(wrong(format!("Unexpected kind: {other}"))),
    }
}

fn unescape(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// The container that a path's last part stands in, and that part.
fn parent<'v>(document: &'v mut Value, path: &str) -> Result<(&'v mut Value, String), PatchError> {
    let missing = || wrong(format!("doc is missing path: {path}: missing value"));
    let parts: Vec<&str> = path.split('/').collect();
    let [_, inner @ .., last] = &parts[..] else { return Err(missing()) };
    let mut container = document;
    for part in inner {
        let part = unescape(part);
        container = match container {
            Value::Object(map) => map.get_mut(&part).ok_or_else(missing)?,
            Value::Array(items) => {
                let at = index(&part, items.len()).map_err(|_| missing())?;
                items.get_mut(at).ok_or_else(missing)?
            }
            _ => return Err(missing()),
        };
    }
    if container.is_object() || container.is_array() { Ok((container, unescape(last))) } else { Err(missing()) }
}

/// An index below or at `length`; negative ones count from the end.
fn index(part: &str, length: usize) -> Result<usize, PatchError> {
    let invalid = || wrong(format!("Unable to access invalid index: {part}: invalid index referenced"));
    let at: i64 = part.parse().map_err(|_| invalid())?;
    let length = i64::try_from(length).map_err(|_| invalid())?;
    let at = if at < 0 { at + length } else { at };
    usize::try_from(at).map_err(|_| invalid())
}

fn out_of_range(part: &str) -> PatchError {
    wrong(format!("Unable to access invalid index: {part}: invalid index referenced"))
}

fn get(document: &mut Value, path: &str) -> Result<Value, PatchError> {
    let (container, key) = parent(document, path)?;
    match container {
        // A missing member is read as null.
        Value::Object(map) => Ok(map.get(&key).cloned().unwrap_or(Value::Null)),
        Value::Array(items) => {
            let at = index(&key, items.len())?;
            items.get(at).cloned().ok_or_else(|| out_of_range(&key))
        }
        _ => Err(wrong("missing value")),
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    let (container, key) = parent(document, path)?;
    match container {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(&key, items.len() + 1)?;
            if at > items.len() {
                return Err(out_of_range(&key));
            }
            items.insert(at, value);
        }
        _ => {}
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<(), PatchError> {
    let (container, key) = parent(document, path)?;
    match container {
        Value::Object(map) => match map.remove(&key) {
            Some(_) => Ok(()),
            None => Err(wrong(format!("Unable to remove nonexistent key: {key}: missing value"))),
        },
        Value::Array(items) => {
            let at = index(&key, items.len())?;
            if at >= items.len() {
                return Err(out_of_range(&key));
            }
            items.remove(at);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        if !value.is_object() && !value.is_array() {
            return Err(wrong("replace operation value must be object or array"));
        }
        *document = value;
        return Ok(());
    }
    let (container, key) = parent(document, path)?;
    match container {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(items) => {
            let at = index(&key, items.len())?;
            *items.get_mut(at).ok_or_else(|| out_of_range(&key))? = value;
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operations() {
        let cases = [
            (json!([{"op": "add", "path": "/a", "value": 2}]), Some(json!({"a": 2, "l": [1, 2]}))),
            (json!([{"op": "replace", "path": "/zz", "value": 2}]), Some(json!({"a": 1, "l": [1, 2], "zz": 2}))),
            (json!([{"op": "remove", "path": "/zz"}]), None),
            (json!([{"op": "add", "path": "/no/zz", "value": 1}]), None),
            (json!([{"op": "add", "path": "/l/-", "value": 3}]), Some(json!({"a": 1, "l": [1, 2, 3]}))),
            (json!([{"op": "add", "path": "/l/-1", "value": 3}]), Some(json!({"a": 1, "l": [1, 2, 3]}))),
            (json!([{"op": "add", "path": "/l/9", "value": 3}]), None),
            (json!([{"op": "remove", "path": "/l/-1"}]), Some(json!({"a": 1, "l": [1]}))),
            (json!([{"op": "test", "path": "/zz", "value": null}]), Some(json!({"a": 1, "l": [1, 2]}))),
            (json!([{"op": "test", "path": "/a", "value": 2}]), None),
            (json!([{"op": "move", "from": "/a", "path": "/l/0"}]), Some(json!({"l": [1, 1, 2]}))),
            (json!([{"op": "copy", "from": "/l", "path": "/m~1n"}]), Some(json!({"a": 1, "l": [1, 2], "m/n": [1, 2]}))),
            (json!([{"op": "replace", "path": "", "value": {"b": 1}}]), Some(json!({"b": 1}))),
            (json!([{"op": "increment", "path": "/a"}]), None),
            (json!([{"path": "/a"}]), None),
        ];
        for (patch, expected) in cases {
            assert_eq!(apply(&json!({"a": 1, "l": [1, 2]}), &patch).ok(), expected, "{patch}");
        }
    }
}
