//! Validation of `apps/v1` ReplicaSet and `v1` ReplicationController.

use super::checks::{self, Words, lasting_template, not_above, not_negative, other_labels, selector_and_template};
use super::deployment::WORDS;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, required};
use serde_json::Value;

const CONTROLLER: Words = Words { empty_for: "", unreadable: None, deadline_in: "ReplicationController" };

pub(super) fn validate(set: &Value, old: &Value) -> ErrorList {
    let (spec, path) = (&set["spec"], Path::new("spec"));
    let mut found = not_negative(spec, &["replicas", "minReadySeconds"], &path);
    found.extend(selector_and_template(spec, &old["spec"], &path, &WORDS));
    found
}

pub(super) fn update(new: &Value, old: &Value) -> ErrorList {
    let mut found = validate(new, old);
    found.extend(checks::selector_is_kept(new, old));
    found
}

/// A ReplicationController selects by a plain map.
pub(super) fn controller(controller: &Value, old: &Value) -> ErrorList {
    let (spec, path) = (&controller["spec"], Path::new("spec"));
    let mut found = not_negative(spec, &["minReadySeconds"], &path);
    let selector: Vec<(&str, &str)> = spec.pairs("selector").collect();
    if selector.is_empty() {
        found.push(required(&path.child("selector"), ""));
    }
    found.extend(not_negative(spec, &["replicas"], &path));
    let at = path.child("template");
    let Some(template) = spec.field("template") else {
        found.push(required(&at, ""));
        return found;
    };
    let labels = &template["metadata"]["labels"];
    if selector.iter().any(|(key, value)| labels.text_opt(key) != Some(value)) {
        found.push(other_labels(template, &at));
    }
    found.extend(lasting_template(template, &old["spec"]["template"], &at, &CONTROLLER));
    found
}

pub(super) fn status(new: &Value, _: &Value) -> ErrorList {
    let (status, path) = (&new["status"], Path::new("status"));
    let counts = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ];
    let mut found = not_negative(status, &counts, &path);
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    found.extend(not_above(status, &parts, "replicas", &path));
    found.extend(not_above(status, &["availableReplicas"], "readyReplicas", &path));
    found
}
