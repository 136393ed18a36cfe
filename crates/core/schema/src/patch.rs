//! The patch types of the API: JSON patch, JSON merge patch, strategic merge patch (server-side apply joins later).

use crate::table::{Table, TypeId};
use serde_json::Value;

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

pub fn json(_target: &Value, _patch: &[u8]) -> Result<Value, PatchError> {
    unimplemented!()
}

pub fn merge(_target: &Value, _patch: &Value) -> Value {
    unimplemented!()
}

pub fn strategic(_table: &Table, _of: TypeId, _target: &Value, _patch: &Value) -> Result<Value, PatchError> {
    unimplemented!()
}
