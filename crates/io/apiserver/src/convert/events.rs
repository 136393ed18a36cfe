//! `v1` and `events.k8s.io/v1` Events: the same content under other names (upstream `apis/events/v1/conversion.go`).

use super::rename;
use serde_json::Value;

/// Name in `v1`, name in `events.k8s.io/v1`.
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

pub(super) fn from_core(event: &mut Value) {
    rename(event, NAMES);
}

pub(super) fn to_core(event: &mut Value) {
    let back: Vec<(&str, &str)> = NAMES.iter().map(|(core, events)| (*events, *core)).collect();
    rename(event, &back);
}
