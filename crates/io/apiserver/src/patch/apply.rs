//! Server-side apply: a configuration, and who wants it.

use crate::call::{Answer, Call};
use crate::create::expected;
use crate::decode_body;
use crate::errors::{self, Result};
use crate::managed_fields::{self, group_version_kind};
use crate::query::{FieldValidation, WriteOptions};
use crate::refusal::Refusal;
use crate::update::{self, Absent, Change};
use api::meta;
use schema::apply::Applied;
use schema::decode::{self, Decoded, Format};
use serde_json::Value;

pub(super) async fn apply(call: &Call<'_>) -> Result<Answer> {
    let options = WriteOptions::parse(call.query, "PatchOptions", true)?;
    let strategy = update::strategy(call)?;
    let (configuration, strict) = configuration(call)?;
    check(&configuration, call.resource.kind, &call.resource.api_version())?;
    let make = |live: Option<&Value>| {
        let applied = managed_fields::applied(call, live, &configuration, &options)?;
        judge_strict(call, &strict, options.field_validation)?;
        let object = normal(call, applied, live)?;
        if meta::name(&object).is_empty() {
            return Err(Refusal::bad_request(format!(
                "the name of the object ({} based on URL) was undeterminable: name must be provided",
                call.info.name
            )));
        }
        update::check_name(call, &object)?;
        Ok(object)
    };
    let create = || make(None);
    let change = Change { strategy, absent: Absent::Apply(&create), produce: &|live| make(Some(live)) };
    update::change(call, &options, change).await
}

/// The configuration, and what a strict decoder says of it.
pub(crate) fn configuration(call: &Call<'_>) -> Result<(Value, Vec<String>)> {
    if call.body.len() > crate::http::BODY_LIMIT_BYTES {
        return Err(errors::too_large());
    }
    let parsed = decode::read(call.body, Format::Yaml)
        .map_err(|error| Refusal::bad_request(format!("error encoding patch: {error}")))?;
    Ok((parsed.root.to_value(&mut Vec::new()), parsed.strict))
}

/// Kind and version are the door's, and who owns what is not the client's to say.
pub(crate) fn check(configuration: &Value, kind: &str, api_version: &str) -> Result<()> {
    let text = |field: &str| configuration[field].as_str().unwrap_or_default();
    if text("kind") != kind || text("apiVersion") != api_version {
        let what = group_version_kind(configuration);
        return Err(Refusal::bad_request(format!("invalid object type: {what}")));
    }
    if configuration["metadata"].get("managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

pub(crate) fn judge_strict(call: &Call<'_>, strict: &[String], validation: FieldValidation) -> Result<()> {
    if strict.is_empty() {
        return Ok(());
    }
    let why = format!("error converting YAML to JSON: {}", strict.join(", "));
    match validation {
        FieldValidation::Strict => Err(Refusal::bad_request(format!("error strict decoding patch: {why}"))),
        FieldValidation::Warn => {
            call.warn(why);
            Ok(())
        }
        FieldValidation::Ignore => Ok(()),
    }
}

/// What an apply made, in normal form and with defaults.
fn normal(call: &Call<'_>, applied: Applied, live: Option<&Value>) -> Result<Value> {
    let mut object = applied.object;
    if let (false, Some(live)) = (applied.changed, live) {
        let entries = object["metadata"]["managedFields"].take();
        object = live.clone();
        if entries.is_null() {
            meta::unset(&mut object, "managedFields");
        } else {
            meta::set(&mut object, "managedFields", entries);
        }
        return Ok(object);
    }
    let expected = expected(call);
    let decoded = decode::normalize(api::table::table(), expected.of, Decoded { value: object, strict: Vec::new() });
    let mut object =
        decoded.map_err(|error| errors::plain(format!("failed to convert new typed object to object: {error}")))?.value;
    decode_body::default(&mut object, expected.of, expected);
    Ok(object)
}
