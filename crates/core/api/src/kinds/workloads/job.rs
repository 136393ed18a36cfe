//! Validation of `batch/v1` Job (its status: `job_status.rs`).

use super::checks::{self, not_negative, other_labels, rejected_selector};
use crate::internal;
use crate::kinds::core::pod::template;
use crate::meta::{self, validate_label_selector};
use crate::names::{self, IMMUTABLE};
use crate::tree::{Tree, same};
use schema::field::{
    ErrorList, Path, duplicate, invalid, invalid_without_value, not_supported, required, too_long, too_many,
};
use schema::selector::LabelSelector;
use serde_json::Value;
use std::collections::BTreeSet;

const MANY: i64 = 100_000;
const FEW: i64 = 10_000;
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const INDEXES_MAX_BYTES: usize = 64 * 1024;

pub(super) fn create(job: &Value) -> ErrorList {
    let mut found = generated_selector(job);
    found.extend(with_selector(&job["spec"], &Value::Null, &Path::new("spec")));
    found.extend(indexed_name(job));
    found
}

/// The selector that the API server makes, unless a Job brings its own.
fn generated_selector(job: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    let spec = &job["spec"];
    if spec.flag("manualSelector") || !spec.has("selector") {
        return found;
    }
    let (name, uid) = (meta::name(job), meta::uid(job));
    let wanted = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    let labels = &spec["template"]["metadata"]["labels"];
    let path = Path::new("spec").child("template").child("metadata").child("labels");
    for (key, value) in wanted {
        match labels.text_opt(key) {
            None => found.push(required(&path.key(key), &format!("must be '{value}'"))),
            Some(other) if other != value => {
                found.push(invalid(&path.key(key), labels.clone(), &format!("must be '{value}'")));
            }
            Some(_) => {}
        }
    }
    let expected = wanted.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    if LabelSelector::from_value(&spec["selector"]).is_ok_and(|selector| !selector.matches(&expected)) {
        found.push(rejected_selector(spec, &Path::new("spec"), "`selector` not auto-generated"));
    }
    found
}

/// The name of the last of an indexed Job's Pods.
fn indexed_name(job: &Value) -> ErrorList {
    let spec = &job["spec"];
    let completions = spec.int("completions");
    if spec.text("completionMode") != "Indexed" || completions <= 0 {
        return ErrorList::new();
    }
    let last = format!("{}-{}", meta::name(job), completions - 1);
    if names::dns_label(&last).is_empty() {
        return ErrorList::new();
    }
    let detail = format!("will not able to create pod with invalid DNS label: {last}");
    vec![invalid(&Path::new("metadata").child("name"), meta::name(job), &detail)]
}

fn with_selector(spec: &Value, old: &Value, path: &Path) -> ErrorList {
    let mut found = validate(spec, old, path);
    match spec.field("selector") {
        None => found.push(required(&path.child("selector"), "")),
        selector => found.extend(validate_label_selector(selector, &path.child("selector"))),
    }
    let labels = spec["template"]["metadata"].pairs("labels");
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    if LabelSelector::from_value(&spec["selector"]).is_ok_and(|selector| !selector.matches(&labels)) {
        found.push(other_labels(&spec["template"], &path.child("template")));
    }
    found
}

/// `validateJobSpec`: of a Job and of a CronJob's template. `old` is the spec before.
pub(super) fn validate(spec: &Value, old: &Value, path: &Path) -> ErrorList {
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    let mut found = not_negative(spec, &counts, path);
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        found.push(required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    found.extend(completion_mode(spec, path));
    if let Some(policy) = spec.field("podFailurePolicy") {
        found.extend(failure_policy(policy, spec, &path.child("podFailurePolicy")));
    }
    if let Some(policy) = spec.field("successPolicy") {
        let path = path.child("successPolicy");
        if spec.text("completionMode") == "Indexed" {
            found.extend(success_policy(policy, spec, &path));
        } else {
            found.push(internal::invalid(&path, "SuccessPolicy", policy, "requires indexed completion mode"));
        }
    }
    found.extend(replacement(spec, &path.child("podReplacementPolicy")));
    found.extend(template::validate(&spec["template"], &old["template"], &path.child("template")));
    found.extend(restart_policy(spec, &path.child("template").child("spec").child("restartPolicy")));
    found
}

fn completion_mode(spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let mode = spec.text("completionMode");
    let failed = spec.int_opt("maxFailedIndexes");
    let (completions, parallelism) = (spec.int_opt("completions"), spec.int("parallelism"));
    match mode {
        "Indexed" => {
            if completions.is_none() {
                found.push(required(&path.child("completions"), "when completion mode is Indexed"));
            }
            if parallelism > MANY {
                let detail = format!("must be less than or equal to {MANY} when completion mode is Indexed");
                found.push(invalid(&path.child("parallelism"), parallelism, &detail));
            }
            let at = path.child("maxFailedIndexes");
            if let (Some(failed), Some(completions)) = (failed, completions)
                && failed > completions
            {
                found.push(invalid(&at, failed, "must be less than or equal to completions"));
            }
            if let Some(failed) = failed.filter(|failed| *failed > MANY) {
                found.push(invalid(&at, failed, &format!("must be less than or equal to {MANY}")));
            }
            if completions.is_some_and(|completions| completions > MANY) && spec.has("backoffLimitPerIndex") {
                let detail = format!(
                    "must be less than or equal to {FEW} when completions are above {MANY} and used with backoff limit per index"
                );
                if failed.is_none() {
                    found.push(required(&at, &format!("must be specified when completions is above {MANY}")));
                }
                if parallelism > FEW {
                    found.push(invalid(&path.child("parallelism"), parallelism, &detail));
                }
                if let Some(failed) = failed.filter(|failed| *failed > FEW) {
                    found.push(invalid(&at, failed, &detail));
                }
            }
        }
        "" | "NonIndexed" => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(value) = spec.int_opt(field) {
                    found.push(invalid(&path.child(field), value, "requires indexed completion mode"));
                }
            }
        }
        other => found.push(not_supported(&path.child("completionMode"), other, &["NonIndexed", "Indexed"])),
    }
    found
}

fn failure_policy(policy: &Value, spec: &Value, path: &Path) -> ErrorList {
    let (rules, path) = (policy.list("rules"), path.child("rules"));
    let mut found = ErrorList::new();
    if rules.len() > RULES_MAX {
        found.push(too_many(&path, rules.len(), RULES_MAX));
    }
    for (at, rule) in rules.iter().enumerate() {
        let path = path.index(at);
        let action = path.child("action");
        match rule.text("action") {
            "" => {
                let known = ACTIONS.map(|action| format!("\"{action}\"")).join(" ");
                found.push(required(&action, &format!("valid values: [{known}]")));
            }
            "FailIndex" if !spec.has("backoffLimitPerIndex") => {
                found.push(invalid(&action, "FailIndex", "requires the backoffLimitPerIndex to be set"));
            }
            known if ACTIONS.contains(&known) => {}
            other => found.push(not_supported(&action, other, &ACTIONS)),
        }
        let conditions = rule.list("onPodConditions");
        if let Some(codes) = rule.field("onExitCodes") {
            found.extend(exit_codes(codes, &spec["template"]["spec"], &path.child("onExitCodes")));
        }
        found.extend(pod_conditions(conditions, &path.child("onPodConditions")));
        match (rule.has("onExitCodes"), conditions.is_empty()) {
            (true, false) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                found.push(invalid_without_value(&path, detail));
            }
            (false, true) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                found.push(invalid_without_value(&path, detail));
            }
            _ => {}
        }
    }
    found
}

fn exit_codes(codes: &Value, pod: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let operator = path.child("operator");
    match codes.text("operator") {
        "" => found.push(required(&operator, "valid values: [\"In\" \"NotIn\"]")),
        "In" | "NotIn" => {}
        other => found.push(not_supported(&operator, other, &["In", "NotIn"])),
    }
    if let Some(name) = codes.text_opt("containerName") {
        let mut all = ["containers", "initContainers"].into_iter().flat_map(|list| pod.list(list));
        if !all.any(|container| container.text("name") == name) {
            let detail = "must be one of the container or initContainer names in the pod template";
            found.push(invalid(&path.child("containerName"), name, detail));
        }
    }
    let (values, path) = (codes.list("values"), path.child("values"));
    if values.is_empty() {
        found.push(invalid(&path, codes["values"].clone(), "at least one value is required"));
    } else if values.len() > EXIT_CODES_MAX {
        found.push(too_many(&path, values.len(), EXIT_CODES_MAX));
    }
    let numbers: Vec<i64> = values.iter().map(|value| value.as_i64().unwrap_or_default()).collect();
    let mut seen = BTreeSet::new();
    for (at, number) in numbers.iter().enumerate() {
        if codes.text("operator") == "In" && *number == 0 {
            found.push(invalid(&path.index(at), 0, "must not be 0 for the In operator"));
        }
        if !seen.insert(*number) {
            found.push(duplicate(&path.index(at), *number));
        }
    }
    if !numbers.is_sorted() {
        found.push(invalid(&path, codes["values"].clone(), "must be ordered"));
    }
    found
}

fn pod_conditions(patterns: &[Value], path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    if patterns.len() > RULES_MAX {
        found.push(too_many(path, patterns.len(), RULES_MAX));
    }
    for (at, pattern) in patterns.iter().enumerate() {
        let (path, of) = (path.index(at), pattern.text("type"));
        found.extend(names::errors(&path.child("type"), of, names::qualified_name(of)));
        let known = ["False", "True", "Unknown"];
        match pattern.text("status") {
            "" => found.push(required(&path.child("status"), "valid values: [\"False\" \"True\" \"Unknown\"]")),
            status if known.contains(&status) => {}
            other => found.push(not_supported(&path.child("status"), other, &known)),
        }
    }
    found
}

fn success_policy(policy: &Value, spec: &Value, path: &Path) -> ErrorList {
    let (rules, path) = (policy.list("rules"), path.child("rules"));
    let mut found = ErrorList::new();
    if rules.is_empty() {
        found.push(required(&path, "at least one rules must be specified when the successPolicy is specified"));
    }
    if rules.len() > RULES_MAX {
        found.push(too_many(&path, rules.len(), RULES_MAX));
    }
    // Upstream panics on indexes without completions; these are refused above.
    let completions = spec.int("completions");
    for (at, rule) in rules.iter().enumerate() {
        let path = path.index(at);
        let (count, indexes) = (rule.int_opt("succeededCount"), rule.text_opt("succeededIndexes"));
        if count.is_none() && indexes.is_none() {
            found.push(required(&path, "at least one of succeededCount or succeededIndexes must be specified"));
        }
        let mut total = 0;
        if let Some(indexes) = indexes {
            let path = path.child("succeededIndexes");
            if indexes.len() > INDEXES_MAX_BYTES {
                found.push(too_long(&path, INDEXES_MAX_BYTES));
            }
            match super::indexes::count(indexes, completions) {
                Ok(counted) => total = counted,
                Err(why) => found.push(invalid(&path, indexes, &format!("error parsing succeededIndexes: {why}"))),
            }
        }
        let Some(count) = count else { continue };
        found.extend(not_negative(rule, &["succeededCount"], &path));
        let path = path.child("succeededCount");
        if count > completions {
            let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
            found.push(invalid(&path, count, &detail));
        }
        if indexes.is_some() && count > total {
            let detail = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            found.push(invalid(&path, count, &detail));
        }
    }
    found
}

fn replacement(spec: &Value, path: &Path) -> ErrorList {
    let Some(policy) = spec.text_opt("podReplacementPolicy") else { return ErrorList::new() };
    let known: &[&str] = if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    if known.contains(&policy) { ErrorList::new() } else { vec![not_supported(path, policy, known)] }
}

fn restart_policy(spec: &Value, path: &Path) -> ErrorList {
    match spec["template"]["spec"].text("restartPolicy") {
        "" | "Always" => vec![required(path, "valid values: \"OnFailure\", \"Never\"")],
        "OnFailure" if spec.has("podFailurePolicy") => {
            vec![invalid(path, "OnFailure", "only \"Never\" is supported when podFailurePolicy is specified")]
        }
        "OnFailure" | "Never" => ErrorList::new(),
        other => vec![not_supported(path, other, &["OnFailure", "Never"])],
    }
}

pub(super) fn update(new: &Value, old: &Value) -> ErrorList {
    let path = Path::new("spec");
    let (spec, before) = (&new["spec"], &old["spec"]);
    let mut found = with_selector(spec, before, &path);
    let indexed = spec.text("completionMode") == "Indexed";
    let completions = path.child("completions");
    if spec.field("completions") != before.field("completions") {
        if !indexed {
            found.push(invalid(&completions, spec["completions"].clone(), IMMUTABLE));
        } else if spec.has("completions") && spec.int("completions") != spec.int("parallelism") {
            let detail = "can only be modified in tandem with spec.parallelism";
            found.push(invalid(&completions, spec.int("completions"), detail));
        }
    }
    found.extend(checks::selector_is_kept(new, old));
    found.extend(template_is_kept(spec, old, &path));
    if spec.text("completionMode") != before.text("completionMode") {
        found.push(invalid(&path.child("completionMode"), spec["completionMode"].clone(), IMMUTABLE));
    }
    if !same(&spec["podFailurePolicy"], &before["podFailurePolicy"]) {
        let (path, policy) = (path.child("podFailurePolicy"), &spec["podFailurePolicy"]);
        found.push(internal::invalid(&path, "PodFailurePolicy", policy, IMMUTABLE));
    }
    for field in ["backoffLimitPerIndex", "managedBy"] {
        if spec.field(field) != before.field(field) {
            found.push(invalid(&path.child(field), spec[field].clone(), IMMUTABLE));
        }
    }
    if !same(&spec["successPolicy"], &before["successPolicy"]) {
        found.push(internal::invalid(&path.child("successPolicy"), "SuccessPolicy", &spec["successPolicy"], IMMUTABLE));
    }
    found.extend(indexed_name(new));
    found
}

/// A suspended Job may still be told where its Pods go and what they need; nothing else of its template changes.
fn template_is_kept(spec: &Value, old: &Value, path: &Path) -> ErrorList {
    let (now, mut before) = (&spec["template"], old["spec"]["template"].clone());
    let waiting = old["spec"].flag("suspend") && old["status"].int("active") == 0;
    if waiting && before["spec"].is_object() {
        for field in ["nodeSelector", "tolerations", "schedulingGates"] {
            crate::tree::keep(&mut before["spec"], &now["spec"], field);
        }
        crate::tree::keep(&mut before["spec"], &now["spec"], "affinity");
        if let Some(metadata) = crate::tree::object_mut(&mut before, "metadata") {
            for field in ["labels", "annotations"] {
                crate::tree::keep(metadata, &now["metadata"], field);
            }
        }
        for list in ["containers", "initContainers"] {
            let changed = now["spec"].list(list);
            for (was, is) in crate::tree::list_mut(&mut before["spec"], list).iter_mut().zip(changed) {
                if was.text("name") == is.text("name") {
                    crate::tree::keep(was, is, "resources");
                }
            }
        }
    }
    if same(now, &before) {
        return ErrorList::new();
    }
    // In Go the metadata's fields are the template's own.
    let mut shown = now["metadata"].clone();
    if shown.is_null() {
        shown = serde_json::json!({});
    }
    shown["spec"] = now["spec"].clone();
    vec![internal::invalid(&path.child("template"), "PodTemplateSpec", &shown, IMMUTABLE)]
}
