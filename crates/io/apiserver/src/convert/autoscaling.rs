//! `autoscaling/v1` and `autoscaling/v2` HorizontalPodAutoscalers: `v1` has one CPU target and carries the rest in
//! annotations (upstream `apis/autoscaling/v1/conversion.go`).

use serde_json::{Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const STATUSES: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

pub(super) fn to_v1(hpa: &mut Value) {
    let spec = &mut hpa["spec"];
    let metrics = take_list(spec, "metrics");
    let behavior = take(spec, "behavior");
    let (cpu, others): (Vec<Value>, Vec<Value>) = metrics.into_iter().partition(is_cpu_utilization);
    let mut cpu = cpu.into_iter();
    if let Some(target) = cpu.next() {
        spec["targetCPUUtilizationPercentage"] = target["resource"]["target"]["averageUtilization"].clone();
    }
    let others: Vec<Value> = cpu.chain(others).map(|m| metric_to_v1(&m, "target")).collect();
    let status = &mut hpa["status"];
    let current = take_list(status, "currentMetrics");
    let conditions = take_list(status, "conditions");
    let utilization = current.iter().find(|m| m["type"] == "Resource" && m["resource"]["name"] == "cpu");
    if let Some(value) =
        utilization.map(|m| m["resource"]["current"]["averageUtilization"].clone()).filter(|v| !v.is_null())
    {
        status["currentCPUUtilizationPercentage"] = value;
    }
    let current: Vec<Value> = current.iter().map(|m| metric_to_v1(m, "current")).collect();
    annotate(hpa, METRICS, Value::Array(others));
    annotate(hpa, STATUSES, Value::Array(current));
    annotate(hpa, CONDITIONS, Value::Array(conditions));
    annotate(hpa, BEHAVIOR, behavior);
}

pub(super) fn to_v2(hpa: &mut Value) {
    let mut metrics: Vec<Value> = Vec::new();
    let target = take(&mut hpa["spec"], "targetCPUUtilizationPercentage");
    if !target.is_null() {
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}}));
    }
    if let Value::Array(others) = unannotate(hpa, METRICS) {
        metrics.extend(others.iter().map(|m| metric_to_v2(m, "target")));
    }
    if !metrics.is_empty() {
        hpa["spec"]["metrics"] = metrics.into();
    }
    let behavior = unannotate(hpa, BEHAVIOR);
    if !behavior.is_null() {
        hpa["spec"]["behavior"] = behavior;
    }
    let utilization = take(&mut hpa["status"], "currentCPUUtilizationPercentage");
    let mut current: Vec<Value> = Vec::new();
    if let Value::Array(all) = unannotate(hpa, STATUSES) {
        current.extend(all.iter().map(|m| metric_to_v2(m, "current")));
    }
    if current.is_empty() && !utilization.is_null() {
        current.push(
            json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": utilization}}}),
        );
    }
    if !current.is_empty() {
        hpa["status"]["currentMetrics"] = current.into();
    }
    let conditions = unannotate(hpa, CONDITIONS);
    if !conditions.is_null() {
        hpa["status"]["conditions"] = conditions;
    }
}

fn is_cpu_utilization(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && !metric["resource"]["target"]["averageUtilization"].is_null()
}

/// The source of a metric by its type: `resource`, `pods`, …
fn source_name(metric: &Value) -> Option<&'static str> {
    match metric["type"].as_str()? {
        "Resource" => Some("resource"),
        "ContainerResource" => Some("containerResource"),
        "Pods" => Some("pods"),
        "Object" => Some("object"),
        "External" => Some("external"),
        _ => None,
    }
}

/// Field names of `v1` by source, for `(averageUtilization, averageValue, value)`.
fn v1_names(source: &str, side: &str) -> [&'static str; 3] {
    match (source, side) {
        ("resource" | "containerResource", "target") => ["targetAverageUtilization", "targetAverageValue", ""],
        ("resource" | "containerResource", _) => ["currentAverageUtilization", "currentAverageValue", ""],
        ("pods", "target") => ["", "targetAverageValue", ""],
        ("pods", _) => ["", "currentAverageValue", ""],
        ("object", "target") => ["", "averageValue", "targetValue"],
        ("object", _) => ["", "averageValue", "currentValue"],
        (_, "target") => ["", "targetAverageValue", "targetValue"],
        _ => ["", "currentAverageValue", "currentValue"],
    }
}

fn metric_to_v1(metric: &Value, side: &str) -> Value {
    let Some(source) = source_name(metric) else {
        return metric.clone();
    };
    let (from, names) = (&metric[source], v1_names(source, side));
    let mut to = json!({});
    for key in ["name", "container"] {
        copy(from, key, &mut to, key);
    }
    copy(from, "describedObject", &mut to, "target");
    copy(&from["metric"], "name", &mut to, "metricName");
    copy(&from["metric"], "selector", &mut to, if source == "external" { "metricSelector" } else { "selector" });
    for (key, name) in ["averageUtilization", "averageValue", "value"].iter().zip(names) {
        if !name.is_empty() {
            copy(&from[side], key, &mut to, name);
        }
    }
    json!({"type": metric["type"], source: to})
}

fn metric_to_v2(metric: &Value, side: &str) -> Value {
    let Some(source) = source_name(metric) else {
        return metric.clone();
    };
    let (from, names) = (&metric[source], v1_names(source, side));
    let mut to = json!({});
    for key in ["name", "container"] {
        copy(from, key, &mut to, key);
    }
    copy(from, "target", &mut to, "describedObject");
    let mut named = json!({});
    copy(from, "metricName", &mut named, "name");
    copy(from, if source == "external" { "metricSelector" } else { "selector" }, &mut named, "selector");
    if named.as_object().is_some_and(|n| !n.is_empty()) {
        to["metric"] = named;
    }
    let mut values = json!({});
    let mut kind = "";
    for (key, name) in ["averageUtilization", "averageValue", "value"].into_iter().zip(names) {
        if !name.is_empty() && !from[name].is_null() {
            copy(from, name, &mut values, key);
            kind = match key {
                "averageUtilization" => "Utilization",
                "averageValue" => "AverageValue",
                _ => "Value",
            };
        }
    }
    if side == "target" {
        values["type"] = kind.into();
    }
    to[side] = values;
    json!({"type": metric["type"], source: to})
}

fn copy(from: &Value, key: &str, to: &mut Value, name: &str) {
    if let Some(value) = from.get(key).filter(|v| !v.is_null()) {
        to[name] = value.clone();
    }
}

fn take(tree: &mut Value, name: &str) -> Value {
    tree.as_object_mut().and_then(|map| map.remove(name)).unwrap_or_default()
}

fn take_list(tree: &mut Value, name: &str) -> Vec<Value> {
    match take(tree, name) {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

fn annotate(hpa: &mut Value, name: &str, content: Value) {
    let empty = content.is_null() || content.as_array().is_some_and(Vec::is_empty);
    if !empty {
        hpa["metadata"]["annotations"][name] = content.to_string().into();
    }
}

fn unannotate(hpa: &mut Value, name: &str) -> Value {
    let annotations = &mut hpa["metadata"]["annotations"];
    let content = take(annotations, name);
    if annotations.as_object().is_some_and(serde_json::Map::is_empty) {
        take(&mut hpa["metadata"], "annotations");
    }
    content.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}
