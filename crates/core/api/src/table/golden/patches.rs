//! Patches judged by upstream's recorded answers: each is applied to the object that the case creates first.

use super::{OF_RULES, cases, differences, target};
use crate::resource::find;
use crate::table::table;
use schema::decode::{Decoded, apply_defaults, normalize};
use schema::patch::{self, Kind, PatchError};
use serde_json::Value;

/// The object that a case's set-up leaves behind at the patched path.
fn created(case: &Value, path: &str) -> Option<Value> {
    let posts = case["setup"].as_array()?.iter().filter(|r| r["method"] == "POST");
    let mut bodies = posts.filter(|r| r["path"].as_str().is_some_and(|p| path.starts_with(p))).map(|r| &r["body"]);
    let (first, second) = (bodies.next(), bodies.next());
    // A set-up of several objects or steps is the server's to play.
    if second.is_some() || case["setup"].as_array()?.iter().any(|r| r["method"] != "POST") {
        return None;
    }
    first.cloned()
}

fn patched(kind: Kind, of: schema::table::TypeId, old: &Value, body: &[u8]) -> Result<Decoded, PatchError> {
    let patch = patch::parse(kind, body)?;
    let invalid = |shown: String| {
        move |error: schema::decode::DecodeError| {
            PatchError::NotApplicable(format!("{}: {}", schema::field::go_quote(&shown), error.0))
        }
    };
    let normal = |value: Value| {
        let shown = value.to_string();
        normalize(table(), of, Decoded { value, strict: patch.strict.clone() }).map_err(invalid(shown))
    };
    match kind {
        Kind::Json => normal(patch::json(old, body)?),
        Kind::Merge => normal(patch::merge(old, &patch.value)),
        Kind::Strategic => {
            let merged = patch::strategic(table(), of, old, &patch.value)?;
            patch::restore(table(), of, merged).map_err(invalid(patch::go_print(&patch.value)))
        }
    }
}

fn check(case: &Value) -> Result<bool, String> {
    let request = &case["request"];
    let path = request["path"].as_str().unwrap_or_default();
    let kind = match request["headers"]["Content-Type"].as_str() {
        Some("application/json-patch+json") => Kind::Json,
        Some("application/merge-patch+json") => Kind::Merge,
        Some("application/strategic-merge-patch+json") => Kind::Strategic,
        _ => return Ok(false),
    };
    let Some((group, version, plural, None)) = target(path) else { return Ok(false) };
    let Some(resource) = find(group, version, plural) else { return Ok(false) };
    let Some(old) = created(case, path) else { return Ok(false) };
    let mut old = normalize(table(), resource.of, Decoded { value: old, strict: Vec::new() }).unwrap().value;
    apply_defaults(table(), resource.of, &mut old);
    let body = request["raw"].as_str().map_or_else(|| request["body"].to_string(), str::to_owned);
    let expected = &case["expect"];
    let message = expected["body"]["message"].as_str().unwrap_or_default();
    let strict = request["query"]["fieldValidation"] == "Strict";
    match patched(kind, resource.of, &old, body.as_bytes()) {
        Err(error) => {
            let text = match &error {
                PatchError::Malformed(text) if expected["status"] == 400 => text == message,
                PatchError::Internal(text) if expected["status"] == 500 => text == message,
                PatchError::NotApplicable(text) if expected["status"] == 422 => {
                    let why = text.rsplit_once("\": ").map_or("", |(_, why)| why);
                    message.starts_with("the server rejected") || message.contains(why)
                }
                _ => false,
            };
            if text { Ok(true) } else { Err(format!("{error:?} against {} {message}", expected["status"])) }
        }
        Ok(decoded) if strict && !decoded.strict.is_empty() => {
            let told = message.contains(&format!("strict decoding error: {}", decoded.strict.join(", ")));
            if told { Ok(true) } else { Err(format!("{:?} against {message}", decoded.strict)) }
        }
        Ok(mut decoded) if expected["status"] == 200 => {
            apply_defaults(table(), resource.of, &mut decoded.value);
            let mut found = Vec::new();
            let value = decoded.value.as_object_mut().unwrap();
            value.remove("status");
            differences("", &decoded.value, &expected["body"], &mut found);
            found.retain(|difference| !OF_RULES.iter().any(|rule| difference.contains(rule)));
            if found.is_empty() { Ok(true) } else { Err(found.join("; ")) }
        }
        // Refused by validation, which is behind the patch.
        Ok(_) if matches!(expected["status"].as_u64(), Some(409 | 422)) && !message.contains("is invalid: patch:") => {
            Ok(false)
        }
        // The body's kind chooses the type: the server's to see.
        Ok(decoded) if decoded.value["kind"] != old["kind"] => Ok(false),
        Ok(_) if message.contains("on the URL") || message.contains("sent on the request") => Ok(false),
        Ok(decoded) => Err(format!("{} against {message}", decoded.value)),
    }
}

#[test]
fn patching_is_upstreams() {
    let (mut failed, mut judged) = (0, 0);
    for group in ["patch-json", "patch-merge", "patch-strategic", "patch-kinds", "status"] {
        for case in cases(group) {
            match check(&case) {
                Ok(true) => judged += 1,
                Ok(false) => {}
                Err(error) => {
                    failed += 1;
                    println!("{}: {}", case["id"], error.chars().take(500).collect::<String>());
                }
            }
        }
    }
    println!("{judged} judged");
    assert_eq!(failed, 0);
}
