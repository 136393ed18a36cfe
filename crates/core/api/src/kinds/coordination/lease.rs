//! `coordination.k8s.io/v1` Lease.

use crate::human;
use crate::kinds::columns;
use crate::names::NEGATIVE;
use crate::rules::Rules;
use crate::tree::{Tree, object_mut, remove};
use jiff::Timestamp;
use schema::field::{ErrorList, Path, invalid};
use serde_json::{Value, json};

pub static RULES: Rules = Rules {
    prepare_create: |lease| drop_disabled(lease, &Value::Null),
    prepare_update: drop_disabled,
    validate,
    validate_update: |new, _| validate(new),
    columns: columns::LEASE,
    row,
    unconditional_update: false,
    create_on_update: true,
    ..Rules::PLAIN
};

/// Fields of coordinated leader election, whose gate is off upstream.
fn drop_disabled(lease: &mut Value, old: &Value) {
    for field in ["strategy", "preferredHolder"] {
        if !old["spec"].has(field)
            && let Some(spec) = object_mut(lease, "spec")
        {
            remove(spec, field);
        }
    }
}

fn row(lease: &Value, now: Timestamp) -> Vec<Value> {
    let metadata = &lease["metadata"];
    vec![
        json!(metadata.text("name")),
        json!(lease["spec"].text("holderIdentity")),
        json!(human::age(&metadata["creationTimestamp"], now)),
    ]
}

fn validate(lease: &Value) -> ErrorList {
    let (spec, path) = (&lease["spec"], Path::new("spec"));
    let mut found = ErrorList::new();
    if let Some(duration) = spec.int_opt("leaseDurationSeconds").filter(|duration| *duration <= 0) {
        found.push(invalid(&path.child("leaseDurationSeconds"), duration, "must be greater than 0"));
    }
    if let Some(transitions) = spec.int_opt("leaseTransitions").filter(|transitions| *transitions < 0) {
        found.push(invalid(&path.child("leaseTransitions"), transitions, NEGATIVE));
    }
    found
}
