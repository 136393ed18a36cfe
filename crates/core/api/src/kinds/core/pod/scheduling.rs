//! Validation of what the scheduler reads: affinity, tolerations, topology spread, gates.

use super::validate::Lenient;
use crate::meta::{validate_label_name, validate_label_selector, validate_label_selector_lenient};
use crate::names;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, duplicate, forbidden, invalid, not_supported, required};
use serde_json::Value;
use std::collections::BTreeSet;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// `validateAffinity`.
pub(super) fn affinity(affinity: &Value, path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    if let Some(node) = affinity.field("nodeAffinity") {
        found.extend(node_affinity(node, &path.child("nodeAffinity"), lenient));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = affinity.field(kind) else { continue };
        let path = path.child(kind);
        for (i, term) in pods.list(REQUIRED).iter().enumerate() {
            found.extend(pod_term(term, &path.child(REQUIRED).index(i), lenient));
        }
        for (i, weighted) in pods.list(PREFERRED).iter().enumerate() {
            let at = path.child(PREFERRED).index(i);
            found.extend(weight(weighted, &at));
            found.extend(pod_term(&weighted["podAffinityTerm"], &at.child("podAffinityTerm"), lenient));
        }
    }
    found
}

fn weight(weighted: &Value, path: &Path) -> Option<schema::field::FieldError> {
    let weight = weighted.int("weight");
    (!(1..=100).contains(&weight)).then(|| invalid(&path.child("weight"), weight, "must be in the range 1-100"))
}

fn node_affinity(affinity: &Value, path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    if let Some(selector) = affinity.field(REQUIRED) {
        found.extend(node_selector(selector, &path.child(REQUIRED), lenient.node_affinity_values));
    }
    for (i, weighted) in affinity.list(PREFERRED).iter().enumerate() {
        let at = path.child(PREFERRED).index(i);
        found.extend(weight(weighted, &at));
        found.extend(node_selector_term(&weighted["preference"], &at.child("preference"), true));
    }
    found
}

/// `ValidateNodeSelector`.
pub(super) fn node_selector(selector: &Value, path: &Path, any_value: bool) -> ErrorList {
    let at = path.child("nodeSelectorTerms");
    let terms = selector.list("nodeSelectorTerms");
    if terms.is_empty() {
        return vec![required(&at, "must have at least one node selector term")];
    }
    let each = |(i, term)| node_selector_term(term, &at.index(i), any_value);
    terms.iter().enumerate().flat_map(each).collect()
}

fn node_selector_term(term: &Value, path: &Path, any_value: bool) -> ErrorList {
    let mut found = ErrorList::new();
    for (i, requirement) in term.list("matchExpressions").iter().enumerate() {
        found.extend(node_requirement(requirement, &path.child("matchExpressions").index(i), any_value));
    }
    for (i, requirement) in term.list("matchFields").iter().enumerate() {
        found.extend(node_field_requirement(requirement, &path.child("matchFields").index(i)));
    }
    found
}

fn node_requirement(requirement: &Value, path: &Path, any_value: bool) -> ErrorList {
    let mut found = ErrorList::new();
    let values = requirement.list("values");
    let at = path.child("values");
    match requirement.text("operator") {
        "In" | "NotIn" if values.is_empty() => {
            found.push(required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            found.push(forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            found.push(required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'"));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => found.push(invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    found.extend(validate_label_name(requirement.text("key"), &path.child("key")));
    if !any_value {
        for (i, value) in requirement.texts("values").enumerate() {
            found.extend(names::errors(&at.index(i), value, names::label_value(value)));
        }
    }
    found
}

fn node_field_requirement(requirement: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    match requirement.text("operator") {
        "In" | "NotIn" => {
            if requirement.list("values").len() != 1 {
                let text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                found.push(required(&path.child("values"), text));
            }
        }
        other => found.push(invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    match requirement.text("key") {
        "metadata.name" => {
            for (i, name) in requirement.texts("values").enumerate() {
                found.extend(names::errors(&path.child("values").index(i), name, names::dns_subdomain(name)));
            }
        }
        other => found.push(invalid(&path.child("key"), other, "not a valid field selector key")),
    }
    found
}

fn pod_term(term: &Value, path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = pod_term_selectors(term, path, lenient.selector_values);
    for namespace in term.texts("namespaces") {
        found.extend(names::errors(&path.child("namespace"), namespace, names::dns_label(namespace)));
    }
    found.extend(label_keys(term, path));
    let at = path.child("topologyKey");
    let key = term.text("topologyKey");
    if key.is_empty() {
        found.push(required(&at, "can not be empty"));
    }
    found.extend(validate_label_name(key, &at));
    found
}

fn pod_term_selectors(term: &Value, path: &Path, any_value: bool) -> ErrorList {
    let fields = ["labelSelector", "namespaceSelector"];
    let each = |field: &&str| {
        let selector = term.field(field)?;
        Some(validate_label_selector_lenient(selector, &path.child(field), any_value))
    };
    fields.iter().filter_map(each).flatten().collect()
}

/// `ValidateMatchLabelKeysAndMismatchLabelKeys`.
fn label_keys(term: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let selector = term.field("labelSelector");
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        if term.list(list).is_empty() {
            continue;
        }
        if selector.is_none() {
            found.push(forbidden(&path.child(list), "must not be specified when labelSelector is not set"));
            continue;
        }
        for (i, key) in term.texts(list).enumerate() {
            found.extend(validate_label_name(key, &path.child(list).index(i)));
        }
    }
    if let Some(selector) = selector {
        // Preparation adds an expression per key: one more of the same key was the writer's.
        let mut seen: BTreeSet<&str> = selector.pairs("matchLabels").map(|(key, _)| key).collect();
        for expression in selector.list("matchExpressions") {
            let key = expression.text("key");
            let at = term.list("matchLabelKeys").iter().rposition(|k| k.as_str() == Some(key));
            if let Some(i) = at.filter(|_| seen.contains(key)) {
                found.push(invalid(&path.index(i), key, "exists in both matchLabelKeys and labelSelector"));
            }
            seen.insert(key);
        }
    }
    for (i, key) in term.texts("matchLabelKeys").enumerate() {
        if term.texts("mismatchLabelKeys").any(|k| k == key) {
            let at = path.child("matchLabelKeys").index(i);
            found.push(invalid(&at, key, "exists in both matchLabelKeys and mismatchLabelKeys"));
        }
    }
    found
}

/// `ValidateMatchLabelKeysInTopologySpread`: the rule before label keys were merged into the selector.
fn label_keys_of_old(constraint: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    if constraint.list("matchLabelKeys").is_empty() {
        return found;
    }
    let selector = &constraint["labelSelector"];
    if !constraint.has("labelSelector") {
        found.push(forbidden(path, "must not be specified when labelSelector is not set"));
    }
    for (i, key) in constraint.texts("matchLabelKeys").enumerate() {
        let at = path.index(i);
        found.extend(validate_label_name(key, &at));
        let expressed = selector.list("matchExpressions").iter().any(|e| e.text("key") == key);
        if expressed || selector["matchLabels"].has(key) {
            found.push(invalid(&at, key, "exists in both matchLabelKeys and labelSelector"));
        }
    }
    found
}

/// `validateTopologySpreadConstraints`.
pub(super) fn topology_spread(constraints: &[Value], path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    let positive = |path: &Path, value: i64| (value <= 0).then(|| invalid(path, value, "must be greater than zero"));
    for (i, constraint) in constraints.iter().enumerate() {
        let at = path.index(i);
        let (key, action) = (constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"));
        found.extend(positive(&at.child("maxSkew"), constraint.int("maxSkew")));
        if key.is_empty() {
            found.push(required(&at.child("topologyKey"), "can not be empty"));
        }
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&action) {
            found.push(not_supported(&at.child("whenUnsatisfiable"), action, &actions));
        }
        let same = |other: &&Value| other.text("topologyKey") == key && other.text("whenUnsatisfiable") == action;
        if constraints.iter().skip(i + 1).any(|other| same(&other)) {
            found.push(duplicate(&at.child("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}")));
        }
        if let Some(domains) = constraint.int_opt("minDomains") {
            let at = at.child("minDomains");
            found.extend(positive(&at, domains));
            if action != "DoNotSchedule" {
                let text = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                found.push(invalid(&at, domains, &text));
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = constraint.text_opt(field).filter(|p| !["Honor", "Ignore"].contains(p)) {
                found.push(not_supported(&at.child(field), policy, &["Honor", "Ignore"]));
            }
        }
        if lenient.spread_label_keys {
            found.extend(label_keys_of_old(constraint, &at.child("matchLabelKeys")));
        } else {
            found.extend(label_keys(constraint, &at));
        }
        if !lenient.spread_selectors {
            found.extend(validate_label_selector(constraint.field("labelSelector"), &at.child("labelSelector")));
        }
    }
    found
}

/// `ValidateTolerations`.
pub(super) fn tolerations(tolerations: &[Value], path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    for (i, toleration) in tolerations.iter().enumerate() {
        let at = path.index(i);
        let (key, operator) = (toleration.text("key"), toleration.text("operator"));
        let (value, effect) = (toleration.text("value"), toleration.text("effect"));
        let at_operator = at.child("operator");
        if !key.is_empty() {
            found.extend(validate_label_name(key, &at.child("key")));
        } else if operator != "Exists" {
            let text = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            found.push(invalid(&at_operator, operator, text));
        }
        if toleration.has("tolerationSeconds") && effect != "NoExecute" {
            let text = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            found.push(invalid(&at.child("effect"), effect, text));
        }
        match operator {
            "Equal" | "" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    found.push(invalid(&at_operator, value, &messages.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                found.push(invalid(&at_operator, value, "value must be empty when `operator` is 'Exists'"));
            }
            "Exists" => {}
            "Lt" | "Gt" if lenient.toleration_comparison => {
                found.extend(names::errors(&at.child("value"), value, names::decimal_integer(value)));
                if value.parse::<i64>().is_err() {
                    let text = format!("strconv.ParseInt: parsing \"{value}\": invalid syntax");
                    found.push(invalid(&at.child("value"), value, &text));
                }
            }
            "Lt" | "Gt" => {
                found.push(not_supported(&at_operator, operator, &["Equal", "Exists", "Lt", "Gt"]));
            }
            _ => found.push(not_supported(&at_operator, operator, &["Equal", "Exists"])),
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if !effect.is_empty() && !effects.contains(&effect) {
            found.push(not_supported(&at.child("effect"), effect, &effects));
        }
    }
    found
}

/// `validateSchedulingGates`.
pub(super) fn gates(gates: &[Value], path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (i, gate) in gates.iter().enumerate() {
        let name = gate.text("name");
        found.extend(validate_label_name(name, &path.index(i)));
        if !seen.insert(name) {
            found.push(duplicate(&path.index(i), name));
        }
    }
    found
}

/// Whether an old spec has values that are refused today: in selectors of Pod affinity, in required node affinity.
pub(super) fn has_invalid_values(spec: &Value) -> (bool, bool) {
    let affinity = &spec["affinity"];
    let nowhere = Path::default();
    let terms = ["podAffinity", "podAntiAffinity"].into_iter().flat_map(|kind| {
        let weighted = affinity[kind].list(PREFERRED).iter().map(|w| &w["podAffinityTerm"]);
        affinity[kind].list(REQUIRED).iter().chain(weighted)
    });
    let in_pods = terms.into_iter().any(|term| !pod_term_selectors(term, &nowhere, false).is_empty());
    let node_terms = affinity["nodeAffinity"][REQUIRED].list("nodeSelectorTerms");
    let mut values = node_terms.iter().flat_map(|t| t.list("matchExpressions")).flat_map(|e| e.texts("values"));
    (in_pods, values.any(|value| !names::label_value(value).is_empty()))
}

/// Whether an old spec has spread constraints that are refused today: selectors, label keys.
pub(super) fn has_invalid_spread(spec: &Value) -> (bool, bool) {
    let nowhere = Path::default();
    let constraints = spec.list("topologySpreadConstraints");
    let selector = |c: &Value| !validate_label_selector(c.field("labelSelector"), &nowhere).is_empty();
    (constraints.iter().any(selector), constraints.iter().any(|c| !label_keys(c, &nowhere).is_empty()))
}
