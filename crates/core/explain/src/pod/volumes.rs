//! Volumes that cannot be prepared.

use crate::Cause;
use k8s_openapi::api::core::v1::{Event, Pod};

pub(super) fn rule(pod: &Pod, events: &[Event]) -> Option<Cause> {
    let pending = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Pending"));
    let event = events.iter().rfind(|event| event.reason.as_deref() == Some("FailedMount")).filter(|_| pending)?;
    let message = event.message.clone().unwrap_or_default();
    let fix = if message.contains("not found") {
        "create it in the Pod's namespace, or mark the volume `optional: true`"
    } else if message.contains("hostPath type check failed") {
        "correct the path or its `type`; DirectoryOrCreate and FileOrCreate make what is missing"
    } else {
        "correct what the message names"
    };
    let what = "a volume cannot be prepared, so no container starts".to_owned();
    Some(Cause { what, evidence: vec![message], fix: fix.to_owned() })
}
