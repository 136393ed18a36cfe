//! Role and ClusterRole.

use crate::meta::validate_label_selector;
use crate::names;
use crate::rules::Rules;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, invalid, required};
use serde_json::Value;

pub static ROLE: Rules = Rules {
    validate: |role| validate_rules(role, true),
    validate_update: |new, _| validate_rules(new, true),
    validate_name: names::path_segment_name,
    create_on_update: true,
    ..Rules::PLAIN
};

pub static CLUSTER_ROLE: Rules =
    Rules { validate: validate_cluster_role, validate_update: |new, _| validate_cluster_role(new), ..ROLE };

fn validate_rules(role: &Value, namespaced: bool) -> ErrorList {
    let rules = || role.list("rules").iter().enumerate().map(|(at, rule)| (rule, Path::new("rules").index(at)));
    let mut found: ErrorList = rules().flat_map(|(rule, path)| validate_rule(rule, namespaced, &path)).collect();
    // Upstream's declarative rules come last.
    let without = rules().filter(|(rule, _)| rule.list("verbs").is_empty());
    found.extend(without.map(|(_, path)| required(&path.child("verbs"), "")));
    found
}

fn validate_rule(rule: &Value, namespaced: bool, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let has = |field: &str| !rule.list(field).is_empty();
    if has("nonResourceURLs") {
        let (path, urls) = (path.child("nonResourceURLs"), || rule["nonResourceURLs"].clone());
        if namespaced {
            found.push(invalid(&path, urls(), "namespaced rules cannot apply to non-resource URLs"));
        }
        if has("apiGroups") || has("resources") || has("resourceNames") {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            found.push(invalid(&path, urls(), detail));
        }
        return found;
    }
    if !has("apiGroups") {
        found.push(required(&path.child("apiGroups"), "resource rules must supply at least one api group"));
    }
    if !has("resources") {
        found.push(required(&path.child("resources"), "resource rules must supply at least one resource"));
    }
    found
}

fn validate_cluster_role(role: &Value) -> ErrorList {
    let mut found = validate_rules(role, false);
    let Some(aggregation) = role.field("aggregationRule") else {
        return found;
    };
    let path = Path::new("aggregationRule").child("clusterRoleSelectors");
    let selectors = aggregation.list("clusterRoleSelectors");
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        found.push(required(&path, detail));
    }
    for (at, selector) in selectors.iter().enumerate() {
        found.extend(validate_label_selector(Some(selector), &path.index(at)));
        if schema::selector::LabelSelector::from_value(selector).is_err() {
            found.push(invalid(&path.index(at), Value::Null, "invalid label selector."));
        }
    }
    found
}
