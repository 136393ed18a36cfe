//! Field paths and validation errors in upstream's words (apimachinery `util/validation/field`).

use serde_json::Value;
use std::fmt;

/// A path into an object: `spec.containers[0].ports[1].name`, `metadata.labels[a.b/c]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What is wrong with a field; the reasons of a `Status` cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
    Internal,
}

impl ErrorType {
    /// The `reason` of a `Status` cause: `FieldValueInvalid`, …
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }
}

/// One validation error. `message` is everything behind `PATH: `, as upstream's `ErrorBody` builds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    pub error_type: ErrorType,
    pub path: String,
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.path.is_empty() { "<nil>" } else { &self.path }, self.message)
    }
}

/// Validation errors in the order upstream reports them.
pub type ErrorList = Vec<FieldError>;

fn error(error_type: ErrorType, path: &Path, message: String) -> FieldError {
    FieldError { error_type, path: path.as_str().to_owned(), message }
}

fn with_detail(head: String, detail: &str) -> String {
    if detail.is_empty() { head } else { format!("{head}: {detail}") }
}

/// A rejected value as upstream prints it: strings quoted as Go does, `null` for nothing, compounds as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        other => other.to_string(),
    }
}

/// A string in quotes as Go's `%q` prints it.
pub fn go_quote(text: &str) -> String {
    use fmt::Write;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c if is_print(c) => quoted.push(c),
            c => {
                let code = u32::from(c);
                // Writing to a `String` cannot fail.
                let _ = match code {
                    0..0x80 => write!(quoted, "\\x{code:02x}"),
                    0x80..0x10000 => write!(quoted, "\\u{code:04x}"),
                    _ => write!(quoted, "\\U{code:08x}"),
                };
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Go's `unicode.IsPrint` without its tables: control and format characters, spaces but the ASCII one, private use.
fn is_print(c: char) -> bool {
    !(c.is_control()
        || (c != ' ' && c.is_whitespace())
        || matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}'
            | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{10ffff}'))
}

pub fn invalid(path: &Path, value: impl Into<Value>, detail: &str) -> FieldError {
    error(ErrorType::Invalid, path, with_detail(format!("Invalid value: {}", shown(&value.into())), detail))
}

/// An invalid value that is not shown (`OmitValueType`).
pub fn invalid_without_value(path: &Path, detail: &str) -> FieldError {
    error(ErrorType::Invalid, path, with_detail("Invalid value".to_owned(), detail))
}

pub fn required(path: &Path, detail: &str) -> FieldError {
    error(ErrorType::Required, path, with_detail("Required value".to_owned(), detail))
}

pub fn duplicate(path: &Path, value: impl Into<Value>) -> FieldError {
    error(ErrorType::Duplicate, path, format!("Duplicate value: {}", shown(&value.into())))
}

pub fn forbidden(path: &Path, detail: &str) -> FieldError {
    error(ErrorType::Forbidden, path, with_detail("Forbidden".to_owned(), detail))
}

pub fn not_found(path: &Path, value: impl Into<Value>) -> FieldError {
    error(ErrorType::NotFound, path, format!("Not found: {}", shown(&value.into())))
}

/// `supported` is printed in the order given, as upstream does.
pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> FieldError {
    let listed = supported.iter().map(|s| go_quote(s)).collect::<Vec<_>>().join(", ");
    let detail = if supported.is_empty() { String::new() } else { format!("supported values: {listed}") };
    error(ErrorType::NotSupported, path, with_detail(format!("Unsupported value: {}", shown(&value.into())), &detail))
}

pub fn too_long(path: &Path, max_bytes: usize) -> FieldError {
    error(ErrorType::TooLong, path, format!("Too long: may not be more than {max_bytes} bytes"))
}

pub fn too_many(path: &Path, actual: usize, max: usize) -> FieldError {
    error(ErrorType::TooMany, path, format!("Too many: {actual}: must have at most {max} items"))
}

pub fn internal(path: &Path, detail: &str) -> FieldError {
    error(ErrorType::Internal, path, with_detail("Internal error".to_owned(), detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        for (text, quoted) in [
            ("a", "\"a\""),
            ("a\"\\", r#""a\"\\""#),
            ("\u{1}\u{7}\n\u{7f}", r#""\x01\a\n\x7f""#),
            ("é\u{200b}", "\"é\\u200b\""),
        ] {
            assert_eq!(go_quote(text), quoted);
        }
    }
}
