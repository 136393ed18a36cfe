//! Recorded answers of upstream to good and bad objects of kinds beyond Pods, replayed without HTTP: decode, default,
//! prepare, validate.
//!
//! `MINKE_GOLDEN` names the directory that holds the recordings (`api/*.jsonl`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use api::meta;
use schema::decode::{Format, apply_defaults, read, typed};
use serde_json::{Value, json};
use std::path::Path;

/// Their rules are complete; the replay over HTTP holds them to more (`crates/bin/minke/tests/golden.rs`).
const KINDS: &[&str] = &[
    "APIService",
    "CronJob",
    "DaemonSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "Ingress",
    "IngressClass",
    "Job",
    "LimitRange",
    "MutatingWebhookConfiguration",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PodTemplate",
    "ReplicaSet",
    "ReplicationController",
    "ResourceQuota",
    "RuntimeClass",
    "StatefulSet",
    "StorageClass",
    "ValidatingWebhookConfiguration",
];

fn cases(group: &str) -> Vec<Value> {
    let dir = std::env::var_os("MINKE_GOLDEN").expect("MINKE_GOLDEN: run by `cargo xtask test`");
    let text = std::fs::read_to_string(Path::new(&dir).join(format!("api/{group}.jsonl"))).expect("recordings");
    text.replace("{ns}", "ns")
        .replace("<uid>", "uid")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a case"))
        .collect()
}

/// The errors that creating the object meets, as causes of a `Status`; `None` where it is not decoded.
fn causes(body: &Value) -> Option<Vec<Value>> {
    let (api_version, kind) = (body["apiVersion"].as_str()?, body["kind"].as_str()?);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let table = api::table::table();
    let resource = api::table::resources().iter().find(|r| (r.group, r.version, r.kind) == (group, version, kind))?;
    let parsed = read(body.to_string().as_bytes(), Format::Json).ok()?;
    let mut object = typed(table, resource.of, &parsed).ok()?.value;
    apply_defaults(table, resource.of, &mut object);
    let rules = api::kinds::rules(group, kind);
    (rules.default)(&mut object);
    if resource.namespaced {
        meta::set(&mut object, "namespace", "ns");
    }
    meta::set(&mut object, "uid", "uid");
    (rules.prepare_create)(&mut object);
    let mut found = meta::validate_create(&object, resource.namespaced, rules.validate_name);
    found.extend((rules.validate)(&object));
    let mut causes = Vec::new();
    for error in found {
        let cause = json!({"reason": error.error_type.reason(), "message": error.message, "field": error.path});
        if !causes.contains(&cause) {
            causes.push(cause);
        }
    }
    Some(causes)
}

#[test]
fn objects_are_judged_as_upstream_does() {
    let gaps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../golden/known-gaps.txt");
    let gaps = std::fs::read_to_string(gaps).unwrap();
    let gaps: Vec<&str> = gaps.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let (mut wrong, mut all) = (Vec::new(), 0);
    for case in cases("invalid").into_iter().chain(cases("mutate")).chain(cases("create")) {
        let (id, request, expect) = (case["id"].as_str().unwrap(), &case["request"], &case["expect"]);
        let body = &request["body"];
        let plain =
            request["method"] == "POST" && case["setup"].is_null() && KINDS.iter().any(|kind| body["kind"] == *kind);
        let wanted = match expect["status"].as_u64() {
            Some(201) => Vec::new(),
            Some(422) => expect["body"]["details"]["causes"].as_array().cloned().unwrap_or_default(),
            _ => continue,
        };
        if !plain || gaps.contains(&id) || body["metadata"]["name"].is_null() {
            continue;
        }
        let Some(found) = causes(body) else { continue };
        all += 1;
        if found != wanted {
            wrong.push(format!("{id}\n   got {}\n   wanted {}", json!(found), json!(wanted)));
        }
    }
    assert!(all > 400, "only {all} cases");
    assert!(wrong.is_empty(), "{} of {all} differ:\n{}", wrong.len(), wrong.join("\n"));
}
