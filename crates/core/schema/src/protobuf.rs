//! Kubernetes' protobuf encoding, driven by the table: `k8s\0`, then `runtime.Unknown` around the message.
//!
//! Written as upstream's generated code (gogo/protobuf) writes it: fields by number, what is no pointer always there.

use crate::decode::DecodeError;
use crate::table::{Table, TypeId};
use serde_json::Value;

mod read;
mod wire;
mod write;

const PREFIX: &[u8] = b"k8s\0";

/// How deep messages may nest; see [`crate::decode`].
const MAX_DEPTH: usize = crate::decode::MAX_DEPTH;

/// The envelope's content.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    pub raw: &'a [u8],
}

/// Opens the envelope.
///
/// # Errors
/// Upstream's words for what is no protobuf of Kubernetes; `unexpected EOF`.
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError("empty data".to_owned()));
    }
    let Some(message) = bytes.strip_prefix(PREFIX) else {
        let text = format!("provided data does not appear to be a protobuf message, expected prefix {PREFIX:?}");
        return Err(DecodeError(text.replace(',', "").replace("message expected", "message, expected")));
    };
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    let mut reader = wire::Reader::new(message);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, wire::Type::Bytes) => {
                let mut meta = wire::Reader::new(reader.bytes()?);
                while let Some((number, wire)) = meta.field()? {
                    match (number, wire) {
                        (1, wire::Type::Bytes) => envelope.api_version = meta.text()?,
                        (2, wire::Type::Bytes) => envelope.kind = meta.text()?,
                        _ => meta.skip(wire)?,
                    }
                }
            }
            (2, wire::Type::Bytes) => envelope.raw = reader.bytes()?,
            _ => reader.skip(wire)?,
        }
    }
    Ok(envelope)
}

/// Decodes one message to the JSON tree that its JSON form would have, in normal form; `apiVersion` and `kind` are the
/// caller's to add.
///
/// # Errors
/// Go's words: `unexpected EOF`, `proto: wrong wireType = 2 for field Replicas`; a quantity's or time's own.
pub fn decode(table: &Table, of: TypeId, raw: &[u8]) -> Result<Value, DecodeError> {
    let mut value = read::message(table, of, raw)?;
    crate::decode::complete(table, of, &mut value);
    Ok(value)
}

/// Encodes an object in normal form with its envelope.
pub fn encode(table: &Table, of: TypeId, value: &Value) -> Vec<u8> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut meta = Vec::new();
    wire::put_bytes(&mut meta, 1, text("apiVersion").as_bytes());
    wire::put_bytes(&mut meta, 2, text("kind").as_bytes());
    let mut bytes = PREFIX.to_vec();
    wire::put_bytes(&mut bytes, 1, &meta);
    wire::put_bytes(&mut bytes, 2, &write::message(table, of, value));
    wire::put_bytes(&mut bytes, 3, b"");
    wire::put_bytes(&mut bytes, 4, b"");
    bytes
}

/// Whether a type has a protobuf form at all.
pub fn is_message(table: &Table, of: TypeId) -> bool {
    table[of].fields.iter().any(|field| field.number != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn messages() {
        use crate::small::{TABLE, THING};
        let thing = serde_json::json!({
            "apiVersion": "v1", "kind": "Thing", "created": "2020-01-02T03:04:05Z", "seen": null, "labels": {"a": "b"},
            "finalizers": ["x", "y"], "spec": {
                "replicas": 0, "paused": true, "data": "AAE=", "limits": {"cpu": "100m"}, "extra": {"any": [1]},
                "parts": [{"name": "p", "port": "http", "args": [""], "empty": {}, "path": ""}, {"name": "", "port": -1}],
            },
        });
        let bytes = encode(&TABLE, THING, &thing);
        let mut back = decode(&TABLE, THING, open(&bytes).unwrap().raw).unwrap();
        back["kind"] = "Thing".into();
        back["apiVersion"] = "v1".into();
        assert_eq!(back, thing);
        // Cut anywhere, it is refused or a shorter object, and never a panic.
        for end in 4..bytes.len() {
            let _ = open(&bytes[..end]).and_then(|envelope| decode(&TABLE, THING, envelope.raw));
        }
        assert_eq!(decode(&TABLE, THING, b"\x28\x01").unwrap_err().0, "proto: wrong wireType = 0 for field Spec");
    }

    #[test]
    fn envelopes() {
        let empty = Table { types: &[crate::table::Type { name: "v1.Nothing", fields: &[], atomic: false }] };
        let bytes = encode(&empty, TypeId(0), &serde_json::json!({"apiVersion": "v1", "kind": "Pod"}));
        assert_eq!(bytes, b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\0\x1a\0\x22\0");
        let envelope = open(&bytes).unwrap();
        assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str(), envelope.raw), ("v1", "Pod", &b""[..]));
        for (bytes, error) in [
            (&b""[..], "empty data"),
            (b"{}", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"),
            (b"k8s\0\x0a\x09\x0a", "unexpected EOF"),
            (b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "proto: integer overflow"),
        ] {
            assert_eq!(open(bytes).unwrap_err().0, error);
        }
    }
}
