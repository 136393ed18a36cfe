//! `/scale` of workloads: `spec.replicas` as an `autoscaling/v1` Scale (upstream `registry/apps/*/storage`).

use crate::call::{Answer, Call};
use crate::decode_body::{self, Expected};
use crate::errors::{self, Result};
use crate::query::WriteOptions;
use crate::refusal::Refusal;
use crate::{respond, update};
use api::meta;
use schema::decode::{self, Decoded};
use schema::field::{self, Path};
use schema::patch::{self, Kind};
use serde_json::{Value, json};

pub(super) async fn scale(call: &Call<'_>) -> Result<Answer> {
    let expected = expected()?;
    let answer = match call.info.verb.as_str() {
        "get" => {
            let name = call.info.name.as_str();
            let entry = call.server.current(call, name).await?.ok_or_else(|| call.not_found(name))?;
            return Ok(Answer::Tree { code: 200, tree: of(&respond::tree_of(&entry.object)?, expected) });
        }
        "update" => {
            let options = WriteOptions::parse(call.query, "UpdateOptions", false)?;
            let body = decode_body::body(call, expected, options.field_validation)?;
            update::check_name(call, &body)?;
            update::change(call, &options, update::MAIN, None, &|old| set(old, &body)).await?
        }
        _ => {
            let kind = match call.header("content-type").split(';').next().unwrap_or_default() {
                "application/json-patch+json" => Kind::Json,
                "application/merge-patch+json" => Kind::Merge,
                "application/strategic-merge-patch+json" => Kind::Strategic,
                _ => return Err(errors::unsupported_media_type()),
            };
            let options = WriteOptions::parse(call.query, "PatchOptions", false)?;
            let parsed = patch::parse(kind, call.body).map_err(|e| Refusal::bad_request(e.to_string()))?;
            let produce = |old: &Value| set(old, &patched(&of(old, expected), kind, &parsed, call.body, expected)?);
            update::change(call, &options, update::MAIN, None, &produce).await?
        }
    };
    match answer {
        Answer::Object { object, .. } => {
            Ok(Answer::Tree { code: 200, tree: of(&respond::tree_of(&object)?, expected) })
        }
        other => Ok(other),
    }
}

fn expected() -> Result<Expected<'static>> {
    let of = api::table::type_of("autoscaling", "v1", "Scale").ok_or_else(errors::no_such_resource)?;
    Ok(Expected { group: "autoscaling", version: "v1", kind: "Scale", of })
}

fn patched(scale: &Value, kind: Kind, parsed: &Decoded, raw: &[u8], expected: Expected<'_>) -> Result<Value> {
    let table = api::table::table();
    let patched = match kind {
        Kind::Json => patch::json(scale, raw),
        Kind::Merge => Ok(patch::merge(scale, &parsed.value)),
        Kind::Strategic => patch::strategic(table, expected.of, scale, &parsed.value),
    };
    let value = patched.map_err(|e| Refusal::bad_request(e.to_string()))?;
    let decoded = decode::normalize(table, expected.of, Decoded { value, strict: Vec::new() });
    decoded.map(|decoded| decoded.value).map_err(|e| Refusal::bad_request(e.0))
}

/// The object with the replicas that a Scale wants.
fn set(old: &Value, scale: &Value) -> Result<Value> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let path = Path::new("spec").child("replicas");
        let found = vec![field::invalid(&path, replicas, "must be greater than or equal to 0")];
        return Err(errors::invalid("autoscaling", "Scale", meta::name(old), &found));
    }
    let mut new = old.clone();
    new["spec"]["replicas"] = replicas.into();
    for precondition in ["resourceVersion", "uid"] {
        if let Some(value) = scale["metadata"].get(precondition) {
            meta::set(&mut new, precondition, value.clone());
        }
    }
    Ok(new)
}

/// A workload as a Scale.
fn of(object: &Value, expected: Expected<'_>) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let value = json!({
        "kind": expected.kind,
        "apiVersion": expected.api_version(),
        "metadata": metadata,
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": selector(&object["spec"]["selector"])},
    });
    let decoded = Decoded { value: value.clone(), strict: Vec::new() };
    decode::normalize(api::table::table(), expected.of, decoded).map_or(value, |decoded| decoded.value)
}

/// A selector as text, by key: `app=x,tier in (a,b),!old`.
fn selector(selector: &Value) -> String {
    let structured = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let labels = if structured { &selector["matchLabels"] } else { selector };
    let mut terms: Vec<(String, String)> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for term in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = term["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> = term["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let text = match term["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        terms.push((key.to_owned(), text));
    }
    terms.sort();
    terms.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}
