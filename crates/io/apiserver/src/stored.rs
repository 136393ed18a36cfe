//! The form in which objects lie in the store: JSON with `kind`, `apiVersion` and `metadata` in front and without a
//! `resourceVersion`, so that reads splice instead of encoding again.

use api::object::Object;
use bytes::Bytes;
use serde_json::Value;

/// Encodes an object for the store. The gap of [`gap`] is right behind `"metadata":{`.
pub(crate) fn encode(object: &Value) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"kind\":");
    write(&mut out, object.get("kind").unwrap_or(&Value::Null));
    out.extend_from_slice(b",\"apiVersion\":");
    write(&mut out, object.get("apiVersion").unwrap_or(&Value::Null));
    out.extend_from_slice(b",\"metadata\":{");
    let mut first = true;
    for (name, value) in object.get("metadata").and_then(Value::as_object).into_iter().flatten() {
        if name != "resourceVersion" {
            write_field(&mut out, &mut first, name, value);
        }
    }
    out.push(b'}');
    first = false;
    for (name, value) in object.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "kind" | "apiVersion" | "metadata") {
            write_field(&mut out, &mut first, name, value);
        }
    }
    out.push(b'}');
    out.into()
}

fn write(out: &mut Vec<u8>, value: &Value) {
    // Writing a tree to memory fails on no input.
    let _ = serde_json::to_writer(out, value);
}

fn write_field(out: &mut Vec<u8>, first: &mut bool, name: &str, value: &Value) {
    if !*first {
        out.push(b',');
    }
    *first = false;
    let _ = serde_json::to_writer(&mut *out, name);
    out.push(b':');
    write(out, value);
}

/// Where `resourceVersion` belongs, if the bytes have the form of [`encode`].
fn gap(stored: &[u8]) -> Option<usize> {
    let rest = stored.strip_prefix(b"{\"kind\":\"")?;
    let rest = &rest[rest.iter().position(|&b| b == b'"')?..];
    let rest = rest.strip_prefix(b"\",\"apiVersion\":\"")?;
    let rest = &rest[rest.iter().position(|&b| b == b'"')?..];
    let rest = rest.strip_prefix(b"\",\"metadata\":{")?;
    (rest.first() == Some(&b'"')).then(|| stored.len() - rest.len())
}

/// How many bytes of the stored form are `{"kind":…,"apiVersion":…,`; items of a list go without them.
pub(crate) fn type_prefix_len(stored: &[u8], gap: usize) -> usize {
    stored[..gap].len() - b"\"metadata\":{".len()
}

/// The object of stored bytes. Bytes of another form (written by another API server into the same store) are brought
/// into ours first.
pub(crate) fn object(namespace: String, name: String, revision: u64, stored: Bytes) -> Object {
    if let Some(gap) = gap(&stored) {
        return Object::stored(namespace, name, revision, stored, gap);
    }
    let encoded = serde_json::from_slice::<Value>(&stored).map_or(stored, |tree| encode(&tree));
    match gap(&encoded) {
        Some(gap) => Object::stored(namespace, name, revision, encoded, gap),
        None => Object::new(namespace, name, revision, encoded),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn resource_version_is_spliced() {
        let tree =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "resourceVersion": "3"}, "spec": {}});
        let stored = encode(&tree);
        assert_eq!(&stored[..], br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"},"spec":{}}"#);
        let object = object("n".into(), "x".into(), 7, stored.clone());
        let read: Value = serde_json::from_slice(&object.json()).unwrap();
        assert_eq!(read["metadata"], json!({"name": "x", "resourceVersion": "7"}));
        let mut item = Vec::new();
        let (bytes, gap) = object.parts();
        object.write_json_from(type_prefix_len(bytes, gap.unwrap()), &mut item);
        assert_eq!(item, br#""metadata":{"resourceVersion":"7","name":"x"},"spec":{}}"#);
    }

    #[test]
    fn foreign_forms_are_brought_into_ours() {
        let stored = Bytes::from_static(br#"{"metadata":{"name":"x"},"kind":"Pod","apiVersion":"v1"}"#);
        let object = object(String::new(), "x".into(), 9, stored);
        let read: Value = serde_json::from_slice(&object.json()).unwrap();
        assert_eq!(read["metadata"]["resourceVersion"], "9");
    }
}
