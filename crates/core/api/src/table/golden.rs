//! Decoding judged by upstream's recorded answers.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use super::{table, type_of};
mod fixtures;
mod patches;
use crate::resource::find;
use schema::decode::{Format, apply_defaults, read_object, typed};
use serde_json::Value;

/// What kinds' own rules and admission do behind the table: not judged here.
const OF_RULES: &[&str] = &[
    "kube-api-access",
    "node.kubernetes.io/",
    "limited.nominalConcurrencyShares: null against",
    "limitResponse.queuing.",
    "lifecycle: {\"stopSignal\"",
    ".terminationGracePeriodSeconds: -1 against 1",
    ".configSource:",
    ".dataSource: {\"apiGroup\":null",
    ".targetPort: 0 against",
    ".sessionAffinityConfig:",
    ".spec.strategy: \"",
    ".data.pw:",
    ".stringData:",
    ".deprecatedTopology:",
    "[0].status: {} against nothing",
    ".roleRef.apiGroup: \"\" against",
];

/// The recorded cases of a group.
pub(super) fn cases(group: &str) -> Vec<Value> {
    let dir = std::env::var("MINKE_GOLDEN").expect("MINKE_GOLDEN: run by `cargo xtask test`");
    let text = std::fs::read_to_string(format!("{dir}/api/{group}.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Group, version and plural of a request's path.
pub(super) fn target(path: &str) -> Option<(&str, &str, &str, Option<&str>)> {
    let mut parts = path.trim_start_matches('/').split('/');
    let (group, version) = match parts.next()? {
        "api" => ("", parts.next()?),
        "apis" => (parts.next()?, parts.next()?),
        _ => return None,
    };
    let rest: Vec<&str> = parts.collect();
    let rest = if rest.first() == Some(&"namespaces") && rest.len() > 2 { &rest[2..] } else { &rest[..] };
    Some((group, version, rest.first()?, rest.get(2).copied()))
}

/// What is in `ours` and differs in `theirs`.
pub(super) fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                let path = format!("{path}.{key}");
                match b.get(key) {
                    Some(other) => differences(&path, value, other, found),
                    None => found.push(format!("{path}: {value} against nothing")),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{i}]"), a, b, found);
            }
        }
        _ if ours == theirs => {}
        _ => found.push(format!("{path}: {ours} against {theirs}")),
    }
}

fn body(request: &Value) -> Option<(Vec<u8>, Format)> {
    let yaml = request["headers"]["Content-Type"].as_str().is_some_and(|t| t.contains("yaml"));
    let format = if yaml { Format::Yaml } else { Format::Json };
    if let Some(raw) = request["raw"].as_str() {
        return Some((raw.as_bytes().to_vec(), format));
    }
    request.get("body").map(|body| (body.to_string().into_bytes(), format))
}

/// The body in document order, which `serde_json` loses: taken from the line itself.
fn check(case: &Value, line_body: Option<&str>) -> Result<(), String> {
    let request = &case["request"];
    let Some((group, version, plural, None)) = target(request["path"].as_str().unwrap()) else { return Ok(()) };
    let Some(resource) = find(group, version, plural) else { return Ok(()) };
    let Some((bytes, format)) = body(request) else { return Ok(()) };
    let bytes = line_body.map_or(bytes, |text| text.as_bytes().to_vec());
    let expected = &case["expect"];
    let message = expected["body"]["message"].as_str().unwrap_or_default();
    let refused = message.split_once(&format!("cannot be handled as a {}: ", resource.kind)).map(|(_, m)| m);
    let parsed = match read_object(&bytes, format) {
        Ok((parsed, ..)) => parsed,
        Err(error) => {
            let told = message.contains(&error.0);
            return if told { Ok(()) } else { Err(format!("{error} against {message}")) };
        }
    };
    let of = type_of(group, version, resource.kind).unwrap();
    assert_eq!(of, resource.of);
    let decoded = match (typed(table(), of, &parsed), refused) {
        (Err(error), Some(refused)) if error.0 == refused => return Ok(()),
        (Err(error), refused) => return Err(format!("{error} against {refused:?} {message}")),
        (Ok(decoded), _) => decoded,
    };
    let mode = request["query"]["fieldValidation"].as_str().unwrap_or("Warn");
    if let Some(refused) = refused {
        let strict = format!("strict decoding error: {}", decoded.strict.join(", "));
        let other_kind = refused.starts_with("converting (") || refused.starts_with("no kind ");
        let same = other_kind || mode == "Strict" && strict == refused;
        return if same { Ok(()) } else { Err(format!("{strict} against {refused}")) };
    }
    if expected["status"] != 201 || request["method"] != "POST" {
        return Ok(());
    }
    if mode == "Warn" {
        let warnings: Vec<&str> = expected["headers"]["warning"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|w| w.contains("unknown field") || w.contains("duplicate field") || w.contains("already set"))
            .collect();
        let ours: Vec<String> =
            decoded.strict.iter().map(|s| format!("299 - {}", schema::field::go_quote(s))).collect();
        if ours != warnings {
            return Err(format!("{ours:?} against {warnings:?}"));
        }
    }
    let mut value = decoded.value;
    apply_defaults(table(), of, &mut value);
    let mut found = Vec::new();
    for part in ["status", "metadata"] {
        value.as_object_mut().unwrap().remove(part);
    }
    differences("", &value, &expected["body"], &mut found);
    found.retain(|difference| !OF_RULES.iter().any(|rule| difference.contains(rule)));
    if found.is_empty() { Ok(()) } else { Err(found.join("; ")) }
}

#[test]
fn decoding_is_upstreams() {
    let (mut failed, mut all) = (0, 0);
    for group in ["decode", "decode-pod", "create", "invalid-pod", "invalid", "protocol", "mutate"] {
        let dir = std::env::var("MINKE_GOLDEN").expect("MINKE_GOLDEN: run by `cargo xtask test`");
        let text = std::fs::read_to_string(format!("{dir}/api/{group}.jsonl")).unwrap();
        for line in text.lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            all += 1;
            if let Err(error) = check(&case, ordered_body(line).as_deref()) {
                failed += 1;
                println!("{}: {}", case["id"], error.chars().take(400).collect::<String>());
            }
        }
    }
    assert_eq!(failed, 0, "of {all}");
}

/// The text of `request.body` in a case's line.
fn ordered_body(line: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Case<'a> {
        #[serde(borrow)]
        request: Request<'a>,
    }
    #[derive(serde::Deserialize)]
    struct Request<'a> {
        #[serde(borrow)]
        body: Option<&'a serde_json::value::RawValue>,
    }
    let case: Case<'_> = serde_json::from_str(line).unwrap();
    Some(case.request.body?.get().to_owned())
}
