//! Every answer that is no success, in upstream's words (apimachinery `api/errors`), and the `Status` made of it.

use crate::refusal::Refusal;
use schema::field::ErrorList;
use serde_json::{Value, json};
use store::kv::StoreError;

pub(crate) type Result<T> = std::result::Result<T, Refusal>;

/// The `Status` object of a refusal.
pub(crate) fn status(refusal: &Refusal) -> Value {
    let mut status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": refusal.code});
    if !refusal.message.is_empty() {
        status["message"] = refusal.message.as_str().into();
    }
    if !refusal.reason.is_empty() {
        status["reason"] = refusal.reason.into();
    }
    match refusal.details.clone() {
        Value::Null => {}
        Value::Object(mut details) => {
            // The continue token of an expired list is carried in the metadata.
            if let Some(token) = details.remove("continue") {
                status["metadata"]["continue"] = token;
            }
            if !(details.is_empty() && refusal.reason == "Expired") {
                status["details"] = Value::Object(details);
            }
        }
        details => status["details"] = details,
    }
    status
}

fn refusal(code: u16, reason: &'static str, message: impl Into<String>, details: Value) -> Refusal {
    Refusal { code, reason, message: message.into(), details }
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

fn details(group: &str, kind: &str, name: &str) -> Value {
    let mut details = json!({});
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details[key] = value.into();
        }
    }
    details
}

/// Nothing is served under this path.
pub(crate) fn no_such_resource() -> Refusal {
    refusal(404, "NotFound", "the server could not find the requested resource", json!({}))
}

/// A path that nothing answers, in plain text as upstream's mux says it.
pub(crate) fn page_not_found() -> Refusal {
    refusal(404, "", PAGE_NOT_FOUND, Value::Null)
}

pub(crate) const PAGE_NOT_FOUND: &str = "404 page not found\n";

pub(crate) fn method_not_allowed() -> Refusal {
    refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", json!({}))
}

pub(crate) fn already_exists(group: &str, resource: &str, name: &str) -> Refusal {
    let message = format!("{} \"{name}\" already exists", qualified(group, resource));
    refusal(409, "AlreadyExists", message, details(group, resource, name))
}

/// A name drawn from `generateName` was taken; trying again is worth it.
pub(crate) fn generated_name_taken(group: &str, resource: &str, name: &str) -> Refusal {
    let message = format!(
        "{} \"{name}\" already exists, the server was not able to generate a unique name for the object",
        qualified(group, resource)
    );
    let mut details = details(group, resource, name);
    details["retryAfterSeconds"] = 1.into();
    refusal(409, "AlreadyExists", message, details)
}

pub(crate) fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Refusal {
    let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource));
    refusal(409, "Conflict", message, details(group, resource, name))
}

pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

pub(crate) fn unauthorized() -> Refusal {
    refusal(401, "Unauthorized", "Unauthorized", Value::Null)
}

/// `NewInvalid`: one error stands alone, several stand in brackets; the same text is told once.
pub(crate) fn invalid(group: &str, kind: &str, name: &str, errors: &ErrorList) -> Refusal {
    let mut texts: Vec<String> = Vec::new();
    let mut causes: Vec<Value> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
            let field = if error.path.is_empty() { "<nil>" } else { &error.path };
            causes.push(json!({"reason": error.error_type.reason(), "message": error.message, "field": field}));
        }
    }
    let listed = if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) };
    let mut details = details(group, kind, name);
    details["causes"] = causes.into();
    let message = format!("{} {} is invalid: {listed}", qualified(group, kind), quoted(name));
    refusal(422, "Invalid", message, details)
}

/// Go's `%q`: control characters as `\x00`, the rest as JSON has it.
pub(crate) fn quoted(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An error without a reason: what upstream answers to a plain Go error.
pub(crate) fn plain(message: impl Into<String>) -> Refusal {
    refusal(500, "", message, Value::Null)
}

pub(crate) fn too_large() -> Refusal {
    let message = format!("Request entity too large: limit is {}", crate::http::BODY_LIMIT_BYTES);
    refusal(413, "RequestEntityTooLarge", message, Value::Null)
}

pub(crate) fn unsupported_media_type() -> Refusal {
    refusal(415, "UnsupportedMediaType", "415: Unsupported Media Type", json!({}))
}

pub(crate) fn unknown_body_format() -> Refusal {
    let message = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    refusal(415, "UnsupportedMediaType", message, Value::Null)
}

/// The answer to an `Accept` that nothing serves.
pub(crate) fn not_acceptable(message: impl Into<String>) -> Refusal {
    refusal(406, "NotAcceptable", message, Value::Null)
}

/// The router's own words for an `Accept` that it does not know.
pub(crate) fn router_not_acceptable() -> Refusal {
    let message = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    refusal(406, "NotAcceptable", message, json!({}))
}

pub(crate) fn only_media_types() -> Refusal {
    not_acceptable(
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    )
}

/// The watch or the continue token begins at a revision that is gone.
pub(crate) fn expired(message: impl Into<String>) -> Refusal {
    refusal(410, "Expired", message, Value::Null)
}

pub(crate) fn too_old(wanted: u64, oldest: u64) -> Refusal {
    expired(format!("too old resource version: {wanted} ({oldest})"))
}

/// A list at a revision that does not exist yet.
pub(crate) fn too_large_resource_version(wanted: u64, current: u64) -> Refusal {
    let details = json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    });
    refusal(504, "Timeout", format!("Timeout: Too large resource version: {wanted}, current: {current}"), details)
}

/// Somebody must wait; `seconds` becomes `Retry-After`.
pub(crate) fn too_many_requests(message: impl Into<String>, seconds: u64) -> Refusal {
    let details = if seconds == 0 { Value::Null } else { json!({"retryAfterSeconds": seconds}) };
    refusal(429, "TooManyRequests", message, details)
}

/// `NewTimeoutError`.
pub(crate) fn timeout(message: &str, seconds: u64) -> Refusal {
    refusal(504, "Timeout", format!("Timeout: {message}"), json!({"retryAfterSeconds": seconds}))
}

pub(crate) fn service_unavailable(message: impl Into<String>) -> Refusal {
    refusal(503, "ServiceUnavailable", message, Value::Null)
}

/// Known to upstream, not served here: 501 with a text that names it.
pub(crate) fn not_supported(what: &str) -> Refusal {
    refusal(501, "NotImplemented", format!("minke does not support {what} yet"), Value::Null)
}

/// What the store says when it says no.
pub(crate) fn store(error: &StoreError) -> Refusal {
    match error {
        StoreError::Compacted { oldest } => {
            expired(format!("The resourceVersion for the provided list is too old (the oldest is {oldest})."))
        }
        StoreError::FutureRevision { wanted, current } => too_large_resource_version(*wanted, *current),
        StoreError::NoSpace => {
            refusal(507, "InsufficientStorage", format!("cannot store the object: {error}"), Value::Null)
        }
        StoreError::TooLarge { limit_bytes } => refusal(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: the stored object may have {limit_bytes} bytes"),
            Value::Null,
        ),
        StoreError::Slow | StoreError::Invalid(_) | StoreError::Failed(_) => Refusal::internal(error.to_string()),
        StoreError::Closed => service_unavailable("the server is shutting down"),
    }
}

/// A reason as the constant that refusals carry.
pub(crate) fn known_reason(reason: &str) -> &'static str {
    const KNOWN: &[&str] = &[
        "AlreadyExists",
        "BadRequest",
        "Conflict",
        "Expired",
        "Forbidden",
        "Gone",
        "InsufficientStorage",
        "InternalError",
        "Invalid",
        "MethodNotAllowed",
        "NotAcceptable",
        "NotFound",
        "NotImplemented",
        "RequestEntityTooLarge",
        "ServerTimeout",
        "ServiceUnavailable",
        "Timeout",
        "TooManyRequests",
        "Unauthorized",
        "UnsupportedMediaType",
    ];
    KNOWN.iter().find(|known| **known == reason).copied().unwrap_or_default()
}
