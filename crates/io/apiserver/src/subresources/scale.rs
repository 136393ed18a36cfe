//! `/scale` of workloads: `spec.replicas` as an `autoscaling/v1` Scale (upstream `registry/apps/*/storage`).

use crate::call::{Answer, Call};
use crate::decode_body::{self, Expected};
use crate::errors::{self, Result};
use crate::query::WriteOptions;
use crate::refusal::Refusal;
use crate::update::{self, Absent, Change, Produce};
use crate::{managed_fields, patch, respond, world};
use api::meta;
use schema::apply::{self, Version, Writer};
use schema::decode::{self, Decoded};
use schema::field::{self, Path};
use schema::patch::Kind;
use serde_json::{Value, json};

pub(super) async fn scale(call: &Call<'_>) -> Result<Answer> {
    let expected = expected()?;
    let options = |kind| WriteOptions::parse(call.query, kind, patch::is_apply(call));
    let answer = match call.info.verb.as_str() {
        "get" => {
            let name = call.info.name.as_str();
            let entry = call.server.current(call, name).await?.ok_or_else(|| call.not_found(name))?;
            return Ok(Answer::Tree { code: 200, tree: of(&respond::tree_of(&entry.object)?, expected) });
        }
        "update" => {
            let options = options("UpdateOptions")?;
            let body = decode_body::body(call, expected, options.field_validation)?;
            update::check_name(call, &body)?;
            change(call, &options, &|live| stamped(call, &options, live, body.clone())).await?
        }
        _ if patch::is_apply(call) => {
            let options = options("PatchOptions")?;
            let (configuration, strict) = patch::apply::configuration(call)?;
            patch::apply::check(&configuration, expected.kind, &expected.api_version())?;
            let apply = |live: &Value| {
                let applied = with_writer(call, &options, expected, |writer| {
                    managed_fields::apply_as(call, writer, live, &configuration)
                })?;
                patch::apply::judge_strict(call, &strict, options.field_validation)?;
                normal(applied.object, expected)
            };
            change(call, &options, &apply).await?
        }
        _ => {
            let kind = patch::kind(call)?;
            let options = options("PatchOptions")?;
            let parsed = schema::patch::parse(kind, call.body).map_err(|e| Refusal::bad_request(e.to_string()))?;
            let patch =
                |live: &Value| stamped(call, &options, live, patched(live, kind, &parsed, call.body, expected)?);
            change(call, &options, &patch).await?
        }
    };
    match answer {
        Answer::Object { object, .. } => {
            Ok(Answer::Tree { code: 200, tree: of(&respond::tree_of(&object)?, expected) })
        }
        other => Ok(other),
    }
}

/// Changes the workload as `produce` changes its Scale.
async fn change(call: &Call<'_>, options: &WriteOptions, produce: Produce<'_>) -> Result<Answer> {
    let expected = expected()?;
    let through_scale = |old: &Value| {
        let version = call.resource.api_version();
        let mut live = of(old, expected);
        meta::set(&mut live, "managedFields", apply::to_scale(old, &version));
        let scale = produce(&live)?;
        let mut new = set(old, &scale)?;
        meta::set(&mut new, "managedFields", apply::to_parent(old, &scale, &version));
        Ok(new)
    };
    let change = Change { strategy: update::MAIN, absent: Absent::NotFound, produce: &through_scale };
    update::change(call, options, change).await
}

fn stamped(call: &Call<'_>, options: &WriteOptions, live: &Value, mut new: Value) -> Result<Value> {
    let expected = expected()?;
    with_writer(call, options, expected, |writer| apply::update(writer, live, &mut new));
    Ok(new)
}

/// A Scale is written in its own version, whatever the workload's.
fn with_writer<T>(
    call: &Call<'_>,
    options: &WriteOptions,
    expected: Expected<'_>,
    act: impl FnOnce(&Writer<'_>) -> T,
) -> T {
    act(&Writer {
        table: api::table::table(),
        of: expected.of,
        api_version: &expected.api_version(),
        subresource: "scale",
        manager: &managed_fields::manager(call, options),
        now: &world::rfc3339(call.now),
        filter: None,
        in_version: &|object, _| Some(Version { of: expected.of, object: normal(object.clone(), expected).ok()? }),
    })
}

fn expected() -> Result<Expected<'static>> {
    let of = api::table::type_of("autoscaling", "v1", "Scale").ok_or_else(errors::no_such_resource)?;
    Ok(Expected { group: "autoscaling", version: "v1", kind: "Scale", of })
}

fn patched(scale: &Value, kind: Kind, parsed: &Decoded, raw: &[u8], expected: Expected<'_>) -> Result<Value> {
    let table = api::table::table();
    let patched = match kind {
        Kind::Json => schema::patch::json(scale, raw),
        Kind::Merge => Ok(schema::patch::merge(scale, &parsed.value)),
        Kind::Strategic => schema::patch::strategic(table, expected.of, scale, &parsed.value),
    };
    normal(patched.map_err(|e| Refusal::bad_request(e.to_string()))?, expected)
}

fn normal(value: Value, expected: Expected<'_>) -> Result<Value> {
    let decoded = decode::normalize(api::table::table(), expected.of, Decoded { value, strict: Vec::new() });
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
