//! Validation of `apps/v1` DaemonSet.

use super::checks::{
    self, Words, amount, at_most_all, int_or_percent, lasting_template, not_negative, selector_and_labels,
};
use crate::internal;
use crate::meta;
use crate::tree::{Tree, object_mut};
use schema::field::{ErrorList, Path, invalid, required};
use serde_json::Value;

const WORDS: Words = Words { empty_for: "daemonset", unreadable: None, deadline_in: "DaemonSet" };

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// How often the template has changed: a field of older versions that lives on as an annotation.
pub(super) fn template_generation(set: &Value) -> i64 {
    meta::annotation(set, TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or_default()
}

pub(super) fn set_template_generation(set: &mut Value, generation: i64) {
    let annotations = meta::metadata_mut(set).and_then(|metadata| object_mut(metadata, "annotations"));
    if let Some(annotations) = annotations {
        annotations[TEMPLATE_GENERATION] = generation.to_string().into();
    }
}

pub(super) fn validate(set: &Value, old: &Value) -> ErrorList {
    let (spec, path) = (&set["spec"], Path::new("spec"));
    let mut found = selector_and_labels(spec, &path, &WORDS);
    // Upstream checks the labels before it looks for an empty selector, and its selector is required elsewhere.
    found.sort_by_key(|error| error.message.contains("empty selector"));
    found.extend(lasting_template(&spec["template"], &old["spec"]["template"], &path.child("template"), &WORDS));
    found.extend(not_negative(spec, &["minReadySeconds"], &path));
    found.extend(strategy(&spec["updateStrategy"], &path.child("updateStrategy")));
    found.extend(not_negative(spec, &["revisionHistoryLimit"], &path));
    found
}

fn strategy(strategy: &Value, path: &Path) -> ErrorList {
    let at = path.child("rollingUpdate");
    match (strategy.text("type"), strategy.field("rollingUpdate")) {
        ("OnDelete", _) => ErrorList::new(),
        ("RollingUpdate", None) => vec![required(&at, "")],
        ("RollingUpdate", Some(rolling)) => roll(rolling, &at),
        _ => vec![internal::not_supported(path, "DaemonSetUpdateStrategy", strategy, &["RollingUpdate", "OnDelete"])],
    }
}

fn roll(rolling: &Value, path: &Path) -> ErrorList {
    let fields = ["maxUnavailable", "maxSurge"];
    let mut found = ErrorList::new();
    for field in fields {
        found.extend(int_or_percent(&rolling[field], &path.child(field)));
    }
    for field in fields {
        found.extend(at_most_all(&rolling[field], &path.child(field)));
    }
    match fields.map(|field| amount(&rolling[field]) != 0) {
        [true, true] => {
            let detail = "may not be set when maxUnavailable is non-zero";
            found.push(invalid(&path.child("maxSurge"), rolling["maxSurge"].clone(), detail));
        }
        [false, false] => found.push(required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0")),
        _ => {}
    }
    found
}

pub(super) fn update(new: &Value, old: &Value) -> ErrorList {
    let mut found = checks::selector_is_kept(new, old);
    found.extend(validate(new, old));
    found
}

pub(super) fn status(new: &Value, old: &Value) -> ErrorList {
    let counts = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    let mut found = not_negative(&new["status"], &counts, &Path::new("status"));
    found.extend(checks::collisions(new, old));
    found
}

pub(super) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    checks::template_warnings(new, old, &["spec", "template"])
}
