//! From bytes to a normal form: strict decoding, Go's `omitempty`, canonical quantities and times, static defaults.
//!
//! A request body goes through `read_object` (which tells its kind), `typed` and `apply_defaults`. `parse` and `normalize`
//! are the same for what has no type or no text (patches, objects changed in memory).

use crate::table::{Field, Presence, Shape, Table, TypeId};
use crate::tree::Tree;
use serde_json::Value;

mod base64;
mod complete;
mod json;
#[cfg(test)]
mod tests;
mod typed;
mod yaml;

/// How deep a body may nest. Upstream allows 10,000 levels; here every stored object must be readable by `serde_json`,
/// which ends at 128.
pub(crate) const MAX_DEPTH: usize = 120;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
}

/// A body as a tree.
#[derive(Debug)]
pub struct Parsed {
    pub root: Tree,
    /// What the strict conversion from YAML says of duplicate keys; for JSON they are found by [`typed`].
    pub strict: Vec<String>,
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

/// Text to a value without type, duplicates noted; of several YAML documents the first. Depth and alias expansion are bounded.
///
/// # Errors
/// Go's words: `invalid character 'a' looking for beginning of value`, `yaml: line 2: mapping values are not allowed in
/// this context`.
pub fn parse(bytes: &[u8], format: Format) -> Result<Decoded, DecodeError> {
    let Parsed { root, mut strict } = read(bytes, format)?;
    let value = root.to_value(&mut strict);
    Ok(Decoded { value, strict })
}

/// As [`parse`], to a tree that keeps the order of fields.
///
/// # Errors
/// As [`parse`].
pub fn read(bytes: &[u8], format: Format) -> Result<Parsed, DecodeError> {
    match format {
        Format::Json => Ok(Parsed { root: json::parse(bytes)?, strict: Vec::new() }),
        Format::Yaml => {
            let (root, strict) = yaml::parse(bytes)?;
            Ok(Parsed { root, strict })
        }
    }
}

/// Text to an object's tree with its `apiVersion` and `kind` (empty where not given), as upstream's serializer does it.
///
/// # Errors
/// `couldn't get version/kind; json parse error: …`, or what is wrong with the YAML.
pub fn read_object(bytes: &[u8], format: Format) -> Result<(Parsed, String, String), DecodeError> {
    let prefixed = |error: DecodeError| DecodeError(format!("couldn't get version/kind; json parse error: {error}"));
    let parsed = match format {
        Format::Json => read(bytes, format).map_err(prefixed)?,
        Format::Yaml => read(bytes, format)?,
    };
    let (version, kind) = version_and_kind(&parsed.root).map_err(prefixed)?;
    if version.matches('/').count() > 1 {
        return Err(DecodeError(format!("unexpected GroupVersion string: {version}")));
    }
    Ok((parsed, version, kind))
}

/// `apiVersion` and `kind`, as upstream's `SimpleMetaFactory` finds them: by names in any case, `null` for nothing.
fn version_and_kind(root: &Tree) -> Result<(String, String), DecodeError> {
    const TYPE: &str =
        r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let (mut version, mut kind) = (String::new(), String::new());
    let entries = match root {
        Tree::Map(entries) => entries,
        Tree::Null => return Ok((version, kind)),
        other => {
            return Err(DecodeError(format!("json: cannot unmarshal {} into Go value of type {TYPE}", other.word())));
        }
    };
    let mut error = None;
    for (key, value) in entries {
        let (name, slot) = match key {
            key if key.eq_ignore_ascii_case("apiVersion") => ("apiVersion", &mut version),
            key if key.eq_ignore_ascii_case("kind") => ("kind", &mut kind),
            _ => continue,
        };
        match value {
            Tree::String(text) => slot.clone_from(text),
            Tree::Null => {}
            other => {
                let text =
                    format!("json: cannot unmarshal {} into Go struct field .{name} of type string", other.word());
                error.get_or_insert(DecodeError(text));
            }
        }
    }
    error.map_or(Ok((version, kind)), Err)
}

/// Checks a tree against its type and brings it to Go's form: unknown fields dropped (and told), `null`s and empty
/// `omitempty` values dropped, quantities, times and numbers canonical. Structs by value and lists without `omitempty` are
/// there even where the body has none (`resources: {}`, `containers: null`).
///
/// # Errors
/// The first value of a wrong type, in Go's words.
pub fn typed(table: &Table, of: TypeId, parsed: &Parsed) -> Result<Decoded, DecodeError> {
    let mut reader = typed::Reader::new(table);
    let mut value = reader.object(of, &parsed.root)?;
    if let Some(error) = reader.saved {
        return Err(DecodeError(error));
    }
    complete(table, of, &mut value);
    let mut strict = parsed.strict.clone();
    strict.append(&mut reader.strict);
    Ok(Decoded { value, strict })
}

/// As [`typed`], of a value that was changed in memory (patched, mutated); what its `strict` holds is kept.
///
/// # Errors
/// As [`typed`].
pub fn normalize(table: &Table, of: TypeId, decoded: Decoded) -> Result<Decoded, DecodeError> {
    typed(table, of, &Parsed { root: Tree::from(&decoded.value), strict: decoded.strict })
}

/// Brings a struct to the form that Go writes.
pub(crate) fn complete(table: &Table, of: TypeId, value: &mut Value) {
    if let Value::Object(map) = value {
        complete::complete(table, of, map);
    }
}

/// Whether bytes in JSON are well formed, in Go's words.
pub(crate) fn check_base64(text: &str) -> Result<(), String> {
    base64::normal(text).map(|_| ())
}

/// Reads a single value, for what is wrong with it.
pub(crate) fn alone(table: &Table, shape: &Shape, value: &Value) -> Result<(), String> {
    let mut reader = typed::Reader::new(table);
    reader.single(shape, &Tree::from(value)).map_err(|error| error.0)?;
    reader.saved.map_or(Ok(()), Err)
}

/// Applies the table's static defaults throughout: where a pointer is not set, or a value is zero.
pub fn apply_defaults(table: &Table, of: TypeId, value: &mut Value) {
    let Value::Object(map) = value else { return };
    for field in table[of].fields {
        if let Some(default) = field.default {
            let unset = map.get(field.name).is_none_or(|value| is_unset(field, value));
            if unset
                && let Ok(default) = serde_json::from_str::<Value>(default)
                && (field.presence != Presence::OmitEmpty || !is_zero(&default))
            {
                map.insert(field.name.to_owned(), default);
            }
        }
        if let Some(value) = map.get_mut(field.name) {
            default_within(table, &field.shape, value);
        }
    }
}

fn is_unset(field: &Field, value: &Value) -> bool {
    value.is_null() || !matches!(field.presence, Presence::Pointer | Presence::Nullable) && is_zero(value)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn default_within(table: &Table, shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct(of), value) => apply_defaults(table, *of, value),
        (Shape::List(element), Value::Array(items)) => {
            items.iter_mut().for_each(|item| default_within(table, element, item));
        }
        (Shape::Map(element), Value::Object(map)) => {
            map.values_mut().for_each(|item| default_within(table, element, item));
        }
        _ => {}
    }
}
