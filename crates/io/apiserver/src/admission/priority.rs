//! Priority: a Pod's priority comes from its class; one class may be the default.

use super::pod::text;
use super::{Operation, Request};
use crate::lookup::GroupResource;
use crate::refusal::Refusal;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;
use std::sync::Arc;

const CLASSES: GroupResource = GroupResource::new("scheduling.k8s.io", "priorityclasses");

pub(super) fn mutate(request: &Request<'_>, pod: &mut Value) -> Result<(), Refusal> {
    if !request.is("", "pods") {
        return Ok(());
    }
    match request.operation {
        Operation::Create => resolve(request, pod),
        Operation::Update => {
            keep(request, pod);
            Ok(())
        }
        Operation::Delete | Operation::Connect => Ok(()),
    }
}

/// Clients that know nothing of priority send the Pod back without it.
fn keep(request: &Request<'_>, pod: &mut Value) {
    let Some(old) = request.old else {
        return;
    };
    for field in ["priority", "preemptionPolicy"] {
        if pod["spec"][field].is_null() && !old["spec"][field].is_null() {
            pod["spec"][field] = old["spec"][field].clone();
        }
    }
}

fn resolve(request: &Request<'_>, pod: &mut Value) -> Result<(), Refusal> {
    let wanted = text(&pod["spec"], "priorityClassName");
    let class = if wanted.is_empty() {
        default_class(request)
    } else {
        let found = request.get::<PriorityClass>(CLASSES, "", wanted);
        let missing = || request.forbidden(pod, &format!("no PriorityClass with name {wanted} was found"));
        Some(found.ok_or_else(missing)?)
    };
    let priority = class.as_ref().map_or(0, |class| i64::from(class.value.unwrap_or_default()));
    let policy = class.as_ref().map_or(Some("PreemptLowerPriority"), |class| class.preemption_policy.as_deref());
    if let Some(given) = pod["spec"]["priority"].as_i64().filter(|given| *given != priority) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        );
        return Err(request.forbidden(pod, &why));
    }
    if let (Some(given), Some(policy)) = (pod["spec"]["preemptionPolicy"].as_str(), policy)
        && given != policy
    {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(request.forbidden(pod, &why));
    }
    let spec = &mut pod["spec"];
    if let Some(name) = class.as_ref().and_then(|class| class.metadata.name.as_deref()) {
        spec["priorityClassName"] = name.into();
    }
    spec["priority"] = priority.into();
    if let Some(policy) = policy {
        spec["preemptionPolicy"] = policy.into();
    }
    Ok(())
}

/// The class marked as default; were there several, the one of the lowest value.
fn default_class(request: &Request<'_>) -> Option<Arc<PriorityClass>> {
    let classes = request.list::<PriorityClass>(CLASSES, "");
    classes
        .into_iter()
        .filter(|class| class.global_default == Some(true))
        .min_by_key(|class| class.value.unwrap_or_default())
}

pub(super) fn validate(request: &Request<'_>, class: &Value) -> Result<(), Refusal> {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if !writes || !request.is("scheduling.k8s.io", "priorityclasses") || class["globalDefault"] != true {
        return Ok(());
    }
    let Some(name) = default_class(request).and_then(|class| class.metadata.name.clone()) else {
        return Ok(());
    };
    if request.operation == Operation::Update && name == text(&class["metadata"], "name") {
        return Ok(());
    }
    let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
    Err(request.forbidden(class, &why))
}
