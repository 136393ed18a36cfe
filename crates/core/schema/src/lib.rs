//! What walks any object without knowing its kind: decoding, defaulting, selectors, patches, encodings.
//!
//! Pure: no clock, no files, no tasks. Built-in kinds bring their types as a generated [`table::Table`] (crate `api`);
//! custom resources bring theirs from an OpenAPI schema.

pub mod apply;
pub mod decode;
pub mod field;
pub mod labels;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod selector;
#[cfg(test)]
mod small;
pub mod table;
mod time;
pub mod tree;
