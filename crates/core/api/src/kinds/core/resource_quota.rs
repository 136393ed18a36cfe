//! `v1` ResourceQuota (upstream `ValidateResourceQuota`); admission does not hold anybody to one yet.

use super::pod::{quantity_value, resource_name};
use crate::internal;
use crate::kinds::rows;
use crate::names::IMMUTABLE;
use crate::rules::Rules;
use crate::tree::{Tree, quantity};
use schema::field::{ErrorList, Path, invalid, required};
use serde_json::Value;
use std::collections::BTreeSet;

pub static RULES: Rules = Rules {
    validate,
    validate_update: update,
    validate_status_update: |new, _| {
        let (status, path) = (&new["status"], Path::new("status"));
        let mut found = amounts(&status["hard"], &path.child("hard"));
        found.extend(amounts(&status["used"], &path.child("used")));
        found
    },
    ..rows::RESOURCE_QUOTA
};

const OBJECTS: [&str; 9] = [
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
    "requests.storage",
];
const OF_PODS: [&str; 7] = ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const SCRATCH: [&str; 3] = ["ephemeral-storage", "requests.ephemeral-storage", "limits.ephemeral-storage"];
const OF_CLAIMS: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
/// Scopes that are or are not; the others have values.
const PLAIN_SCOPES: [&str; 5] =
    ["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "Terminating"];

fn is_standard(name: &str) -> bool {
    let huge = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
    huge || OBJECTS.contains(&name) || OF_PODS.contains(&name) || SCRATCH.contains(&name)
}

fn is_scope(name: &str) -> bool {
    PLAIN_SCOPES.contains(&name) || matches!(name, "PriorityClass" | "VolumeAttributesClass")
}

/// Whether a scope can narrow what is counted of a standard resource.
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => OF_CLAIMS.contains(&resource),
        scope if is_scope(scope) => OF_PODS.contains(&resource),
        _ => true,
    }
}

fn amounts(of: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for (name, amount) in of.as_object().into_iter().flatten() {
        let path = path.key(name);
        found.extend(resource_name(name, &path));
        if !name.contains('/') && !is_standard(name) {
            found.push(invalid(&path, name.as_str(), "must be a standard resource for quota"));
        }
        found.extend(quantity(amount).into_iter().flat_map(|amount| quantity_value(name, amount, &path)));
    }
    found
}

fn validate(quota: &Value) -> ErrorList {
    let (spec, path) = (&quota["spec"], Path::new("spec"));
    let mut found = amounts(&spec["hard"], &path.child("hard"));
    let standard: Vec<&str> =
        spec.entries("hard").map(|(name, _)| name.as_str()).filter(|name| is_standard(name)).collect();
    let misplaced = |scope: &str| standard.iter().filter(|resource| !fits(scope, resource)).count();
    let (scopes, at) = (&spec["scopes"], path.child("scopes"));
    for scope in spec.texts("scopes") {
        if !is_scope(scope) {
            found.push(invalid(&at, scopes.clone(), "unsupported scope"));
        }
        let wrong = invalid(&at, scopes.clone(), "unsupported scope applied to resource");
        found.extend(std::iter::repeat_n(wrong, misplaced(scope)));
    }
    found.extend(conflicts(spec.texts("scopes").collect(), scopes, &at));
    let Some(selector) = spec.field("scopeSelector") else { return found };
    let path = path.child("scopeSelector").child("matchExpressions");
    for requirement in selector.list("matchExpressions") {
        let scope = requirement.text("scopeName");
        if !is_scope(scope) {
            found.push(invalid(&path.child("scopeName"), scope, "unsupported scope"));
        }
        let detail = "unsupported scope applied to resource";
        let wrong = internal::invalid(&path, "ScopeSelector", selector, detail);
        found.extend(std::iter::repeat_n(wrong, misplaced(scope)));
        found.extend(validate_requirement(requirement, &path));
    }
    let names = selector.list("matchExpressions").iter().map(|requirement| requirement.text("scopeName"));
    found.extend(conflicts(names.collect(), scopes, &path));
    found
}

fn validate_requirement(requirement: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let (operator, values) = (requirement.text("operator"), requirement.list("values"));
    let (at, at_values) = (path.child("operator"), path.child("values"));
    if PLAIN_SCOPES.contains(&requirement.text("scopeName")) && operator != "Exists" {
        let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        found.push(invalid(&at, operator, detail));
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            found.push(required(&at_values, detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            found.push(invalid(&at_values, requirement["values"].clone(), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => found.push(invalid(&at, other, "not a valid selector operator")),
    }
    found
}

fn conflicts(scopes: Vec<&str>, shown: &Value, path: &Path) -> ErrorList {
    [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")]
        .into_iter()
        .filter(|(one, other)| scopes.contains(one) && scopes.contains(other))
        .map(|_| invalid(path, shown.clone(), "conflicting scopes"))
        .collect()
}

fn update(new: &Value, old: &Value) -> ErrorList {
    let mut found = validate(new);
    let scopes = |quota: &Value| quota["spec"].texts("scopes").map(str::to_owned).collect::<BTreeSet<_>>();
    if scopes(new) != scopes(old) {
        found.push(invalid(&Path::new("spec").child("scopes"), new["spec"]["scopes"].clone(), IMMUTABLE));
    }
    found
}
