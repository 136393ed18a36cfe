//! `SchedulingGates`.

use k8s_openapi::api::core::v1::Pod;

/// What to say of a Pod that is not to be looked at yet.
pub(super) fn closed(pod: &Pod) -> Option<String> {
    let closed = pod.spec.as_ref()?.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    closed.then(|| "Scheduling is blocked due to non-empty scheduling gates".to_owned())
}
