//! `policy/v1` PodDisruptionBudget.

use super::rows;
use super::workloads::checks::{at_most_all, int_or_percent, not_negative};
use crate::internal;
use crate::meta::validate_label_selector;
use crate::names;
use crate::rules::Rules;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, not_supported};
use serde_json::Value;

pub static POD_DISRUPTION_BUDGET: Rules = Rules {
    validate,
    validate_update: |new, _| validate(new),
    validate_status_update: |new, _| {
        let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        not_negative(&new["status"], &counts, &Path::new("status"))
    },
    // Upstream asks no more of the name.
    validate_name: names::path_segment_name,
    ..rows::POD_DISRUPTION_BUDGET
};

fn validate(budget: &Value) -> ErrorList {
    let (spec, path) = (&budget["spec"], Path::new("spec"));
    let mut found = ErrorList::new();
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        found.push(internal::invalid(&path, "PodDisruptionBudgetSpec", spec, detail));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        if let Some(amount) = spec.field(field) {
            found.extend(int_or_percent(amount, &path.child(field)));
            found.extend(at_most_all(amount, &path.child(field)));
        }
    }
    found.extend(validate_label_selector(spec.field("selector"), &path.child("selector")));
    if let Some(policy) = spec.text_opt("unhealthyPodEvictionPolicy") {
        let known = ["AlwaysAllow", "IfHealthyBudget"];
        if !known.contains(&policy) {
            found.push(not_supported(&path.child("unhealthyPodEvictionPolicy"), policy, &known));
        }
    }
    found
}
