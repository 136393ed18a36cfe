//! An answer that is no success, as rules below the HTTP edge give it; the edge makes the `Status` of it.

use serde_json::{Value, json};

/// What a `Status` says. `details` is its `details` object or `Null`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: u16,
    /// `metav1.StatusReason`: `Forbidden`, `NotFound`, `Invalid`, …; may be empty.
    pub reason: &'static str,
    pub message: String,
    pub details: Value,
}

impl Refusal {
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { code: 400, reason: "BadRequest", message: message.into(), details: Value::Null }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            code: 500,
            reason: "InternalError",
            details: json!({"causes": [{"message": message}]}),
            message: format!("Internal error occurred: {message}"),
        }
    }

    /// `RESOURCE.GROUP "NAME" is forbidden: WHY` (apimachinery `NewForbidden`).
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let qualified = qualified(group, resource);
        let message = if resource.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{qualified} is forbidden: {why}")
        } else {
            format!("{qualified} \"{name}\" is forbidden: {why}")
        };
        Self { code: 403, reason: "Forbidden", message, details: details(group, resource, name) }
    }

    /// `RESOURCE.GROUP "NAME" not found`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self {
            code: 404,
            reason: "NotFound",
            message: format!("{} \"{name}\" not found", qualified(group, resource)),
            details: details(group, resource, name),
        }
    }

    /// Adds one cause to the details.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let mut cause = json!({"reason": reason});
        if !message.is_empty() {
            cause["message"] = message.into();
        }
        if !field.is_empty() {
            cause["field"] = field.into();
        }
        if self.details.is_null() {
            self.details = json!({});
        }
        match self.details.get_mut("causes").and_then(Value::as_array_mut) {
            Some(causes) => causes.push(cause),
            None => self.details["causes"] = json!([cause]),
        }
        self
    }
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// `details` as apimachinery writes them: name, group, kind (which holds the resource), each only if set.
fn details(group: &str, resource: &str, name: &str) -> Value {
    let mut details = json!({});
    if !name.is_empty() {
        details["name"] = name.into();
    }
    if !group.is_empty() {
        details["group"] = group.into();
    }
    if !resource.is_empty() {
        details["kind"] = resource.into();
    }
    details
}
