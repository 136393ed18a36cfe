//! From bytes to a normal form: strict decoding, Go's `omitempty`, canonical quantities and times, static defaults.

use crate::table::{Table, TypeId};
use serde_json::Value;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
}

/// An object in normal form, and what a strict decoder would refuse.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// Unknown and duplicate fields as upstream words them, in its order: `unknown field "spec.imagee"`.
    pub strict: Vec<String>,
}

/// Why a body is no object of its type; the text is upstream's (`json: cannot unmarshal string into Go struct
/// field ObjectMeta.metadata.labels of type map[string]string`).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// Text to a tree, with duplicate keys noted as strict errors. Depth is bounded.
pub fn parse(_bytes: &[u8], _format: Format) -> Result<Decoded, DecodeError> {
    unimplemented!()
}

/// Checks a tree against its type and brings it to Go's form: unknown fields dropped (and told), `null`s and empty
/// `omitempty` values dropped, quantities, times and numbers canonical. Adds to `decoded.strict`.
pub fn normalize(_table: &Table, _of: TypeId, _decoded: Decoded) -> Result<Decoded, DecodeError> {
    unimplemented!()
}

/// Applies the table's static defaults throughout.
pub fn apply_defaults(_table: &Table, _of: TypeId, _value: &mut Value) {
    unimplemented!()
}
