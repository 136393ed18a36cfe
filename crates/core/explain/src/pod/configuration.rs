//! A container that cannot be configured: a ConfigMap, a Secret or a key is missing, or its user is forbidden.

use super::{statuses, waiting};
use crate::Cause;
use k8s_openapi::api::core::v1::{Event, Pod};

pub(super) fn rule(pod: &Pod, _: &[Event]) -> Option<Cause> {
    statuses(pod).find_map(|status| {
        let (reason, message) = waiting(status).filter(|(reason, _)| *reason == "CreateContainerConfigError")?;
        let name = &status.name;
        let fix = if message.contains("not found") {
            "create it in the Pod's namespace, or mark the reference `optional: true`"
        } else if message.contains("couldn't find key") {
            "add the key, or mark the reference `optional: true`"
        } else if message.contains("runAsNonRoot") || message.contains("non-root") {
            "set runAsUser to a number other than 0, use an image that has one, or drop runAsNonRoot"
        } else {
            "correct what the message names"
        };
        let what = format!("container `{name}` cannot be configured: {message}");
        Some(Cause { what, evidence: vec![format!("{name}: {reason}")], fix: fix.to_owned() })
    })
}
