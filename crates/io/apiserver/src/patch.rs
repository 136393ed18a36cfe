//! `patch`: JSON, merge and strategic merge patches, and server-side apply (apiserver `endpoints/handlers/patch.go`).

pub(crate) mod apply;

use crate::call::{Answer, Call};
use crate::create::expected;
use crate::decode_body;
use crate::decode_body::keep_reset;
use crate::errors::{self, Result};
use crate::go_order;
use crate::managed_fields;
use crate::query::{FieldValidation, WriteOptions};
use crate::refusal::Refusal;
use crate::update::{self, Absent, Change};
use schema::decode::{self, Decoded};
use schema::field::{ErrorType, FieldError};
use schema::patch::{self, Kind, PatchError};
use serde_json::Value;

pub(crate) async fn patch(call: &Call<'_>) -> Result<Answer> {
    if is_apply(call) {
        return apply::apply(call).await;
    }
    let kind = kind(call)?;
    let options = WriteOptions::parse(call.query, "PatchOptions", false)?;
    if call.body.len() > crate::http::BODY_LIMIT_BYTES {
        return Err(errors::too_large());
    }
    let parsed = patch::parse(kind, call.body).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let strategy = update::strategy(call)?;
    let produce = |old: &Value| {
        let patched = patched(call, kind, &parsed, old)?;
        let mut new = decode(call, kind, patched, &parsed, options.field_validation)?;
        update::check_name(call, &new)?;
        managed_fields::updated(call, &mut new, old, &options);
        Ok(new)
    };
    let change = Change { strategy, absent: Absent::NotFound, produce: &produce };
    update::change(call, &options, change).await
}

fn media_type(call: &Call<'_>) -> String {
    call.header("content-type").split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

pub(crate) fn is_apply(call: &Call<'_>) -> bool {
    media_type(call) == "application/apply-patch+yaml"
}

/// The patch's kind; applying is none of them.
pub(crate) fn kind(call: &Call<'_>) -> Result<Kind> {
    match media_type(call).as_str() {
        "application/json-patch+json" => Ok(Kind::Json),
        "application/merge-patch+json" => Ok(Kind::Merge),
        "application/strategic-merge-patch+json" => Ok(Kind::Strategic),
        _ => Err(errors::unsupported_media_type()),
    }
}

fn patched(call: &Call<'_>, kind: Kind, parsed: &Decoded, old: &Value) -> Result<Value> {
    let patched = match kind {
        Kind::Json => patch::json(old, call.body),
        Kind::Merge => Ok(patch::merge(old, &parsed.value)),
        Kind::Strategic => patch::strategic(api::table::table(), call.resource.of, old, &parsed.value),
    };
    patched.map_err(|error| match error {
        PatchError::Malformed(why) => Refusal::bad_request(why),
        PatchError::NotApplicable(_) => Refusal {
            code: 422,
            reason: "Invalid",
            message: "the server rejected our request due to an error in our request".to_owned(),
            details: serde_json::json!({}),
        },
        PatchError::Internal(why) => errors::plain(why),
    })
}

/// The patched object in normal form; what does not decode is the patch's fault.
fn decode(call: &Call<'_>, kind: Kind, patched: Value, parsed: &Decoded, validation: FieldValidation) -> Result<Value> {
    let expected = expected(call);
    let table = api::table::table();
    let shown = if kind == Kind::Strategic {
        patch::go_print(&parsed.value)
    } else {
        go_order::write(table, expected.of, &patched)
    };
    let invalid = |why: &str| {
        let message = format!("Invalid value: {}: {why}", errors::quoted(&shown));
        errors::invalid(
            "",
            "",
            "",
            &vec![FieldError { error_type: ErrorType::Invalid, path: "patch".to_owned(), message }],
        )
    };
    let decoded = match kind {
        Kind::Strategic => patch::restore(table, expected.of, patched),
        _ => {
            let mut patched = patched;
            keep_reset(&mut patched);
            // A patch may name another kind; it is then that kind's decoder that objects.
            let named =
                patched["kind"].as_str().and_then(|kind| api::table::type_of(expected.group, expected.version, kind));
            decode::normalize(table, named.unwrap_or(expected.of), Decoded { value: patched, strict: Vec::new() })
        }
    };
    let mut decoded = decoded.map_err(|e| invalid(&e.0))?;
    decoded.strict.splice(0..0, parsed.strict.iter().cloned());
    match validation {
        FieldValidation::Strict if !decoded.strict.is_empty() => {
            return Err(invalid(&format!("strict decoding error: {}", decoded.strict.join(", "))));
        }
        FieldValidation::Warn => call.warn_all(std::mem::take(&mut decoded.strict)),
        _ => {}
    }
    let mut value = decoded.value;
    if value["kind"] != expected.kind || value["apiVersion"] != expected.api_version() {
        let (kind, version) = (value["kind"].clone(), value["apiVersion"].clone());
        let (kind, version) = (kind.as_str().unwrap_or_default(), version.as_str().unwrap_or_default());
        if !kind.is_empty() && !version.is_empty() {
            let why = format!(
                "{version}, Kind={kind} is not the kind of the object: {}, Kind={}",
                expected.api_version(),
                expected.kind
            );
            return Err(Refusal::bad_request(why));
        }
        value["kind"] = expected.kind.into();
        value["apiVersion"] = expected.api_version().into();
    }
    decode_body::default(&mut value, expected.of, expected);
    Ok(value)
}
