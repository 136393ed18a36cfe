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
    value.to_string()
}

pub fn invalid(path: &Path, value: impl Into<Value>, detail: &str) -> FieldError {
    error(ErrorType::Invalid, path, with_detail(format!("Invalid value: {}", shown(&value.into())), detail))
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
    let listed = supported.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
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
