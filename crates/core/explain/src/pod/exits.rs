//! Containers that end though they should run.

use super::{last_end, statuses};
use crate::Cause;
use k8s_openapi::api::core::v1::{Event, Pod};

pub(super) fn rule(pod: &Pod, _: &[Event]) -> Option<Cause> {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    statuses(pod).find_map(|status| {
        let end = last_end(status)?;
        let (name, code, again) = (&status.name, end.exit_code, status.restart_count);
        let is_init = pod.status.iter().flat_map(|s| s.init_container_statuses.iter().flatten()).any(|s| s.name == *name);
        let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
        if running && status.ready {
            return None;
        }
        let reason = end.reason.as_deref().unwrap_or_default();
        let (what, fix) = match (reason, code) {
            ("OOMKilled", _) => (
                format!("container `{name}` used more memory than its limit and was killed"),
                "raise resources.limits.memory, or make the program use less".to_owned(),
            ),
            (_, 0) if is_init || policy != "Always" => return None,
            (_, 0) => (
                format!("container `{name}` ends by itself (exit code 0), and restartPolicy Always starts it again each time, so it is not ready in between"),
                "let its program run for ever; for work that ends use restartPolicy OnFailure or Never, or a Job".to_owned(),
            ),
            (_, code) => (
                format!("container `{name}` fails with exit code {code}{}", meaning(code)),
                format!("read what it said: kubectl logs {} -c {name}{}", pod.metadata.name.as_deref().unwrap_or_default(), if again > 0 { " --previous" } else { "" }),
            ),
        };
        let mut evidence = vec![format!("{name}: {reason}, exit code {code}, restarted {again} times")];
        evidence.extend(end.message.clone().filter(|message| !message.is_empty()));
        Some(Cause { what, evidence, fix })
    })
}

/// What shells and kernels mean by a code.
fn meaning(code: i32) -> &'static str {
    match code {
        126 => " (its shell found the program, but cannot execute it)",
        127 => " (its shell did not find the program)",
        134 => " (it aborted itself)",
        137 => " (it was killed)",
        139 => " (it accessed memory it may not: a crash)",
        143 => " (it was asked to end)",
        _ => "",
    }
}
