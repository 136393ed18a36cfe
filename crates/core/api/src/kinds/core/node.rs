//! `v1` Node.

use crate::addresses::{legacy_cidr, parse_cidr};
use crate::human;
use crate::kinds::columns;
use crate::meta;
use crate::names::{NEGATIVE, label_value};
use crate::rules::Rules;
use crate::tree::{Tree, keep, object_mut, quantity, remove};
use jiff::Timestamp;
use schema::field::{ErrorList, ErrorType, FieldError, Path, forbidden, invalid, not_supported, required};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub static RULES: Rules = Rules {
    default,
    prepare_create: |node| drop_config_source(node, &Value::Null),
    prepare_update: |new, old| {
        keep(new, old, "status");
        drop_config_source(new, old);
    },
    prepare_status_update,
    validate,
    validate_update: update,
    validate_status_update: update,
    warnings: |new, _| warnings(new),
    selectable: |node| vec![("spec.unschedulable", node["spec"].flag("unschedulable").to_string())],
    columns: columns::NODE,
    row,
    ..Rules::PLAIN
};

fn default(node: &mut Value) {
    let pod_cidr = node["spec"].text("podCIDR").to_owned();
    // The singular and the plural field tell the same; the singular wins (upstream's conversion).
    if let Some(spec) = object_mut(node, "spec") {
        let first = spec.list("podCIDRs").first().cloned();
        match first {
            Some(first) if pod_cidr.is_empty() => spec["podCIDR"] = first,
            first if !pod_cidr.is_empty() && first.as_ref().is_none_or(|first| *first != pod_cidr.as_str()) => {
                spec["podCIDRs"] = json!([pod_cidr]);
            }
            _ => {}
        }
    }
    let capacity = node["status"]["capacity"].clone();
    if capacity.is_object() && node["status"]["allocatable"].is_null() {
        node["status"]["allocatable"] = capacity;
    }
}

/// Dynamic kubelet configuration is gone; who has it may keep it.
fn drop_config_source(new: &mut Value, old: &Value) {
    if !old["spec"].has("configSource")
        && let Some(spec) = object_mut(new, "spec")
    {
        remove(spec, "configSource");
    }
}

fn prepare_status_update(new: &mut Value, old: &Value) {
    keep(new, old, "spec");
    if !old["status"].has("config")
        && let Some(status) = object_mut(new, "status")
    {
        remove(status, "config");
    }
}

fn row(node: &Value, now: Timestamp) -> Vec<Value> {
    let status = &node["status"];
    let info = &status["nodeInfo"];
    let ready = status.list("conditions").iter().rfind(|condition| condition.text("type") == "Ready");
    let mut state = match ready.map(|condition| condition.text("status")) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    }
    .to_owned();
    if node["spec"].flag("unschedulable") {
        state.push_str(",SchedulingDisabled");
    }
    let or = |text: &str, absent: &str| if text.is_empty() { absent.to_owned() } else { text.to_owned() };
    let address = |of: &str| {
        let found = status.list("addresses").iter().find(|address| address.text("type") == of);
        found.map_or("<none>", |address| address.text("address")).to_owned()
    };
    let mut kernel = or(info.text("kernelVersion"), "<unknown>");
    if info.has("architecture") && !info.text("architecture").is_empty() {
        kernel = format!("{kernel} ({})", info.text("architecture"));
    }
    vec![
        json!(meta::name(node)),
        json!(state),
        json!(or(&roles(node), "<none>")),
        json!(human::age(&node["metadata"]["creationTimestamp"], now)),
        json!(info.text("kubeletVersion")),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(or(info.text("osImage"), "<unknown>")),
        json!(kernel),
        json!(or(info.text("containerRuntimeVersion"), "<unknown>")),
    ]
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"].pairs("labels");
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| {
            let role = key.strip_prefix(ROLE_PREFIX).or((key == ROLE_LABEL).then_some(value));
            role.filter(|role| !role.is_empty())
        })
        .collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn validate(node: &Value) -> ErrorList {
    let mut found = validate_taints(node);
    found.extend(validate_resources(node));
    let cidrs: Vec<&str> = node["spec"].texts("podCIDRs").collect();
    let path = Path::new("spec").child("podCIDRs");
    for (at, cidr) in cidrs.iter().enumerate() {
        found.extend(legacy_cidr(&path.index(at), cidr, &[]));
    }
    if cidrs.len() > 1 {
        let families: BTreeSet<Option<bool>> =
            cidrs.iter().map(|cidr| parse_cidr(cidr).map(|(address, _)| address.is_ipv4())).collect();
        if families.len() != cidrs.len() || cidrs.len() > 2 {
            let detail = "may specify no more than one CIDR for each IP family";
            found.push(invalid(&path, json!(cidrs), detail));
        }
    }
    found
}

fn validate_taints(node: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (at, taint) in node["spec"].list("taints").iter().enumerate() {
        // Upstream says "metadata" here.
        let path = Path::new("metadata").child("taints").index(at);
        let (key, value, effect) = (taint.text("key"), taint.text("value"), taint.text("effect"));
        found.extend(meta::validate_label_name(key, &path.child("key")));
        let messages = label_value(value);
        if !messages.is_empty() {
            found.push(invalid(&path.child("value"), value, &messages.join(";")));
        }
        if effect.is_empty() {
            found.push(required(&path.child("effect"), ""));
        } else if !EFFECTS.contains(&effect) {
            found.push(not_supported(&path.child("effect"), effect, &EFFECTS));
        }
        if !seen.insert((effect, key)) {
            let time = &taint["timeAdded"];
            let shown = format!("{{\"Key\":{key:?},\"Value\":{value:?},\"Effect\":{effect:?},\"TimeAdded\":{time}}}");
            let message = format!("Duplicate value: {shown}: taints must be unique by key and effect pair");
            found.push(FieldError { error_type: ErrorType::Duplicate, path: path.as_str().to_owned(), message });
        }
    }
    found
}

fn validate_resources(node: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    for field in ["capacity", "allocatable"] {
        for (name, amount) in node["status"].entries(field) {
            let path = Path::new("status").child(field).child(name);
            let Some(parsed) = quantity(amount) else { continue };
            if parsed.signum() < 0 {
                found.push(invalid(&path, amount.clone(), NEGATIVE));
            }
            let whole = name.contains('/') || matches!(name.as_str(), "pods" | "services" | "secrets");
            if whole && parsed.milli_value() % 1000 != 0 {
                found.push(invalid(&path, amount.clone(), "must be an integer"));
            }
        }
    }
    found
}

fn update(new: &Value, old: &Value) -> ErrorList {
    let mut found = validate_resources(new);
    let mut seen: Vec<&Value> = Vec::new();
    for (at, address) in new["status"].list("addresses").iter().enumerate() {
        if seen.contains(&address) {
            let path = Path::new("status").child("addresses").index(at).as_str().to_owned();
            let (of, address) = (address.text("type"), address.text("address"));
            let message = format!("Duplicate value: {{\"Type\":{of:?},\"Address\":{address:?}}}");
            found.push(FieldError { error_type: ErrorType::Duplicate, path, message });
        }
        seen.push(address);
    }
    let spec = Path::new("spec");
    let (new_cidrs, old_cidrs) = (new["spec"].list("podCIDRs"), old["spec"].list("podCIDRs"));
    if !old_cidrs.is_empty() {
        let changed =
            || forbidden(&spec.child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
        if new_cidrs.len() == old_cidrs.len() {
            found.extend(old_cidrs.iter().zip(new_cidrs).filter(|(old, new)| old != new).map(|_| changed()));
        } else {
            found.push(changed());
        }
    }
    let (provider, was) = (new["spec"].text("providerID"), old["spec"].text("providerID"));
    if !was.is_empty() && provider != was {
        let what = if provider.is_empty() { "cleared" } else { "modified" };
        let detail = format!("field cannot be {what} once set");
        found.push(invalid(&spec.child("providerID"), Value::Null, &detail));
    }
    found.extend(validate_taints(new));
    if new["spec"].text("externalID") != old["spec"].text("externalID") {
        found.push(forbidden(&spec.child("externalID"), "may not be updated"));
    }
    found
}

fn warnings(node: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if node["spec"].has("configSource") {
        found.push("spec.configSource: the feature is removed".to_owned());
    }
    if !node["spec"].text("externalID").is_empty() {
        found.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    found
}
