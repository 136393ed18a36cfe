//! Validation of a HorizontalPodAutoscaler, in the words of its `v2` (upstream `apis/autoscaling/validation`).

use crate::kinds::workloads::checks::not_negative;
use crate::names::{self, path_segment_name};
use crate::tree::{Tree, quantity};
use schema::field::{ErrorList, FieldError, Path, forbidden, invalid, not_supported, required};
use serde_json::{Value, json};

/// Metric types with their field, in the order in which upstream looks for one.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const WINDOW_MAX_S: i64 = 3600;
const PERIOD_MAX_S: i64 = 1800;

pub(super) fn validate(scaler: &Value, old: &Value) -> ErrorList {
    let (spec, path) = (&scaler["spec"], Path::new("spec"));
    let (least, most) = (spec.int_opt("minReplicas"), spec.int("maxReplicas"));
    let at_most = path.child("maxReplicas");
    let mut found = ErrorList::new();
    if least.is_some_and(|least| most < least) {
        found.push(invalid(&at_most, most, "must be greater than or equal to `minReplicas`"));
    }
    let (target, before) = (&spec["scaleTargetRef"], &old["spec"]["scaleTargetRef"]);
    let path_of_target = path.child("scaleTargetRef");
    found.extend(reference(target, &path_of_target));
    if before.is_null() || ["apiVersion", "kind"].iter().any(|field| target.text(field) != before.text(field)) {
        // The core group has one kind with a scale.
        found.extend(api_version(target, target.text("kind") == "ReplicationController", &path_of_target));
    }
    // `v1` has one metric, and a field of its own for it.
    let cpu = spec.field("targetCPUUtilizationPercentage").map(|percent| {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        vec![json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})]
    });
    let metrics = cpu.as_deref().unwrap_or_else(|| spec.list("metrics"));
    for (at, metric) in metrics.iter().enumerate() {
        found.extend(validate_metric(metric, &path.child("metrics").index(at)));
    }
    if least == Some(0) && !metrics.iter().any(|metric| matches!(metric.text("type"), "Object" | "External")) {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        found.push(forbidden(&path.child("metrics"), detail));
    }
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec["behavior"].field(direction) {
            found.extend(scaling(rules, &path.child("behavior").child(direction)));
        }
    }
    // Upstream's declarative rules come last.
    found.extend(not_negative(spec, &["minReplicas"], &path));
    match most {
        0 => found.push(required(&at_most, "")),
        most if most < 0 => found.push(invalid(&at_most, most, "must be greater than or equal to 1")),
        _ => {}
    }
    found
}

/// `ValidateAPIVersion`.
fn api_version(of: &Value, may_be_core: bool, path: &Path) -> Option<FieldError> {
    let (version, path) = (of.text("apiVersion"), path.child("apiVersion"));
    if version.matches('/').count() > 1 {
        return Some(invalid(&path, version, &format!("unexpected GroupVersion string: {version}")));
    }
    let has_group = version.split_once('/').is_some_and(|(group, _)| !group.is_empty());
    (!has_group && !may_be_core).then(|| invalid(&path, version, "apiVersion must specify API group"))
}

/// `ValidateCrossVersionObjectReference` but for the version.
fn reference(of: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for field in ["kind", "name"] {
        match of.text(field) {
            "" => found.push(required(&path.child(field), "")),
            text => found.extend(names::errors(&path.child(field), text, path_segment_name(text, false))),
        }
    }
    found
}

fn validate_metric(metric: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let (of, at) = (metric.text("type"), path.child("type"));
    if of.is_empty() {
        found.push(required(&at, "must specify a metric source type"));
    }
    if !TYPES.contains(&of) {
        found.push(not_supported(&at, of, &TYPES));
    }
    let present: Vec<&str> = SOURCES.into_iter().map(|(_, field)| field).filter(|field| metric.has(field)).collect();
    if let Some(first) = present.first() {
        found.extend(source(&metric[*first], first, &path.child(first)));
    }
    let expected = SOURCES.into_iter().find(|(name, _)| *name == of).map(|(_, field)| field);
    if let Some(expected) = expected.filter(|expected| !present.contains(expected)) {
        found.push(required(&path.child(expected), "must populate information for the given metric source"));
    }
    if present.len() > 1 {
        let others = present.into_iter().filter(|field| Some(*field) != expected);
        found.extend(others.map(|field| forbidden(&path.child(field), "must populate the given metric source only")));
    }
    found
}

fn source(source: &Value, of: &str, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let (target, at) = (&source["target"], path.child("target"));
    let has = |field: &str| target.has(field);
    let named = matches!(of, "resource" | "containerResource");
    if named {
        if source.text("name").is_empty() {
            found.push(required(&path.child("name"), "must specify a resource name"));
        }
        if of == "containerResource" {
            let (container, at) = (source.text("container"), path.child("container"));
            match container {
                "" => found.push(required(&at, "must specify a container")),
                name => found.extend(names::errors(&at, name, names::dns_label(name))),
            }
        }
    } else {
        if of == "object" {
            let (object, path) = (&source["describedObject"], path.child("describedObject"));
            found.extend(reference(object, &path));
            found.extend(api_version(object, true, &path));
        }
        let (name, at) = (source["metric"].text("name"), path.child("metric").child("name"));
        match name {
            "" => found.push(required(&at, "must specify a metric name")),
            name => found.extend(names::errors(&at, name, path_segment_name(name, false))),
        }
    }
    found.extend(validate_target(target, &at));
    let average = at.child("averageValue");
    match of {
        "object" if !has("value") && !has("averageValue") => {
            found.push(required(&average, "must set either a target value or averageValue"));
        }
        "external" if !has("value") && !has("averageValue") => {
            found.push(required(&average, "must set either a target value for metric or a per-pod target"));
        }
        "external" if has("value") && has("averageValue") => {
            let detail = "may not set both a target value for metric and a per-pod target";
            found.push(forbidden(&at.child("value"), detail));
        }
        "pods" if !has("averageValue") => {
            found.push(required(&average, "must specify a positive target averageValue"));
        }
        _ if named && !has("averageUtilization") && !has("averageValue") => {
            let detail = "must set either a target raw value or a target utilization";
            found.push(required(&at.child("averageUtilization"), detail));
        }
        _ if named && has("averageUtilization") && has("averageValue") => {
            found.push(forbidden(&average, "may not set both a target raw value and a target utilization"));
        }
        _ => {}
    }
    found
}

fn validate_target(target: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let (of, at) = (target.text("type"), path.child("type"));
    if of.is_empty() {
        found.push(required(&at, "must specify a metric target type"));
    }
    if !matches!(of, "Utilization" | "Value" | "AverageValue") {
        found.push(invalid(&at, of, "must be either Utilization, Value, or AverageValue"));
    }
    for field in ["value", "averageValue"] {
        if let Some(amount) = quantity(&target[field]).filter(|amount| amount.signum() != 1) {
            found.push(invalid(&path.child(field), amount.canonical(), "must be positive"));
        }
    }
    if let Some(percent) = target.int_opt("averageUtilization").filter(|percent| *percent < 1) {
        found.push(invalid(&path.child("averageUtilization"), percent, "must be greater than 0"));
    }
    found
}

fn scaling(rules: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let at = path.child("stabilizationWindowSeconds");
    match rules.int("stabilizationWindowSeconds") {
        window if window < 0 => found.push(invalid(&at, window, "must be greater than or equal to zero")),
        window if window > WINDOW_MAX_S => {
            found.push(invalid(&at, window, &format!("must be less than or equal to {WINDOW_MAX_S}")));
        }
        _ => {}
    }
    let known = ["Disabled", "Max", "Min"];
    if let Some(policy) = rules.text_opt("selectPolicy").filter(|policy| !known.contains(policy)) {
        found.push(not_supported(&path.child("selectPolicy"), policy, &known));
    }
    let (policies, at) = (rules.list("policies"), path.child("policies"));
    if policies.is_empty() {
        found.push(required(&at, "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = at.index(index);
        let of = policy.text("type");
        if !matches!(of, "Pods" | "Percent") {
            found.push(not_supported(&path.child("type"), of, &["Percent", "Pods"]));
        }
        for field in ["value", "periodSeconds"] {
            if policy.int(field) <= 0 {
                found.push(invalid(&path.child(field), policy.int(field), "must be greater than zero"));
            }
        }
        let period = policy.int("periodSeconds");
        if period > PERIOD_MAX_S {
            let detail = format!("must be less than or equal to {PERIOD_MAX_S}");
            found.push(invalid(&path.child("periodSeconds"), period, &detail));
        }
    }
    if let Some(tolerance) = quantity(&rules["tolerance"]).filter(|tolerance| tolerance.signum() < 0) {
        found.push(invalid(&path.child("tolerance"), tolerance.canonical(), names::NEGATIVE));
    }
    found
}
