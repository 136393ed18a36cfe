//! RuntimeClass: a Pod takes its class's overhead, node selector and tolerations.

use super::pod::{items, push, text};
use super::{Operation, Request};
use crate::lookup::GroupResource;
use crate::refusal::Refusal;
use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const CLASSES: GroupResource = GroupResource::new("node.k8s.io", "runtimeclasses");
const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const UNFOUNDED: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

fn class(request: &Request<'_>, pod: &Value) -> Result<Option<Arc<RuntimeClass>>, Refusal> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str() else {
        return Ok(None);
    };
    let found = request.get::<RuntimeClass>(CLASSES, "", name);
    let missing = || request.forbidden(pod, &format!("pod rejected: RuntimeClass {name:?} not found"));
    found.map(Some).ok_or_else(missing)
}

fn applies(request: &Request<'_>) -> bool {
    request.is("", "pods") && request.operation == Operation::Create
}

fn overhead(class: Option<&RuntimeClass>) -> Option<Value> {
    let fixed = class?.overhead.as_ref()?.pod_fixed.as_ref();
    Some(fixed.map_or_else(|| json!({}), |fixed| json!(fixed)))
}

pub(super) fn mutate(request: &Request<'_>, pod: &mut Value) -> Result<(), Refusal> {
    if !applies(request) {
        return Ok(());
    }
    let Some(class) = class(request, pod)? else {
        return Ok(());
    };
    if let Some(overhead) = overhead(Some(&class)) {
        let given = &pod["spec"]["overhead"];
        if given.as_object().is_some_and(|given| !given.is_empty()) && *given != overhead {
            return Err(request.forbidden(pod, MISMATCH));
        }
        pod["spec"]["overhead"] = overhead;
    }
    let Some(scheduling) = &class.scheduling else {
        return Ok(());
    };
    let mut selector: Map<String, Value> = pod["spec"]["nodeSelector"].as_object().cloned().unwrap_or_default();
    for (key, value) in scheduling.node_selector.iter().flatten() {
        if let Some(own) = selector.get(key).and_then(Value::as_str).filter(|own| own != value) {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            );
            return Err(request.forbidden(pod, &why));
        }
        selector.insert(key.clone(), value.as_str().into());
    }
    if !selector.is_empty() {
        pod["spec"]["nodeSelector"] = Value::Object(selector);
    }
    for toleration in scheduling.tolerations.iter().flatten() {
        let toleration = json!(toleration);
        if !items(&pod["spec"], "tolerations").any(|own| covers(own, &toleration)) {
            push(&mut pod["spec"], "tolerations", toleration);
        }
    }
    Ok(())
}

/// Whether all that `narrow` tolerates is tolerated by `wide` (upstream `util/tolerations`).
fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let (key, effect) = (text(wide, "key"), text(wide, "effect"));
    if !(key.is_empty() && text(wide, "operator") == "Exists") && key != text(narrow, "key") {
        return false;
    }
    if !effect.is_empty() && effect != text(narrow, "effect") {
        return false;
    }
    if effect == "NoExecute" && !wide["tolerationSeconds"].is_null() {
        let (wide, narrow) = (wide["tolerationSeconds"].as_i64(), narrow["tolerationSeconds"].as_i64());
        if narrow.is_none() || wide < narrow {
            return false;
        }
    }
    match text(wide, "operator") {
        "Exists" => true,
        _ => text(narrow, "operator") != "Exists" && text(wide, "value") == text(narrow, "value"),
    }
}

pub(super) fn validate(request: &Request<'_>, pod: &Value) -> Result<(), Refusal> {
    if !applies(request) {
        return Ok(());
    }
    let class = class(request, pod)?;
    let given = &pod["spec"]["overhead"];
    match overhead(class.as_deref()) {
        Some(overhead) if *given != overhead => Err(request.forbidden(pod, MISMATCH)),
        None if !given.is_null() => Err(request.forbidden(pod, UNFOUNDED)),
        _ => Ok(()),
    }
}
