//! A Pod that no node takes.

use crate::Cause;
use k8s_openapi::api::core::v1::{Event, Pod};

pub(super) fn rule(pod: &Pod, _: &[Event]) -> Option<Cause> {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let refused = conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let message = refused.message.clone().unwrap_or_default();
    let fix = if refused.reason.as_deref() == Some("SchedulingGated") {
        "whoever set spec.schedulingGates must remove them"
    } else if message.contains("Insufficient") {
        "lower resources.requests, or free what other Pods request (kubectl describe node)"
    } else if message.contains("taint") {
        "add a toleration, or remove the taint (kubectl describe node)"
    } else if message.contains("affinity") || message.contains("selector") {
        "correct nodeSelector and affinity, or label a node so that it fits"
    } else if message.contains("free ports") {
        "another Pod has this hostPort: choose another"
    } else {
        "correct what the message names"
    };
    let what = "no node takes this Pod".to_owned();
    Some(Cause { what, evidence: vec![message], fix: fix.to_owned() })
}
