//! Grants changes of Pods' processor and memory where the node has room, and lets the others wait for it (KEP-1287,
//! upstream `allocation.Manager`); carries out what a machine wants changed.

use crate::{Shared, container};
use control::scheduler::NodeInfo;
use control::scheduler::admission::{self, Refusal};
use k8s_openapi::api::core::v1::{Node, Pod};
use kubelet::allocation::{Allocation, in_order};
use kubelet::pod::{Input, MemoryBound, PendingResize, Resize};
use std::sync::Arc;

/// Looks at every change that waits, the most urgent first. `others` are the Pods that count on the node beside one, as they
/// were granted.
pub(crate) fn grant(shared: &Shared, node: Option<Arc<Node>>, others: impl Fn(&str) -> Vec<Arc<Pod>>) {
    let (waiting, Some(node)) = (shared.pods.waiting(), node) else { return };
    for (pod, _) in in_order(waiting.into_iter().map(|entry| (entry.pod, entry.allocation)).collect()) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let info = NodeInfo { node: node.clone(), pods: others(&uid) };
        let input = match admission::refusal(&pod, &info) {
            None => {
                shared.pods.set_allocation(&uid, Allocation::of(&pod));
                Input::Granted(pod)
            }
            Some(Refusal { reason, message }) => Input::Pending(Some(PendingResize { wanted: pod, reason, message })),
        };
        if let Some(entry) = shared.pods.get(&uid) {
            entry.inbox.send(input).ok();
        }
    }
}

/// Changes limits in the order asked for, unless a memory limit would come below what is in use.
pub(crate) async fn carry_out(shared: &Shared, uid: &str, resize: &Resize) -> Result<(), String> {
    let sandbox = shared.pods.get(uid).map(|entry| entry.sandbox_id).unwrap_or_default();
    let mut errors = Vec::new();
    for bound in &resize.bounds {
        errors.extend(check(shared, &sandbox, bound).await.err());
    }
    match errors.as_slice() {
        [] => {}
        [error] => return Err(format!("cannot decrease memory limits: {error}")),
        errors => return Err(format!("cannot decrease memory limits: [{}]", errors.join(", "))),
    }
    for (target, limits) in &resize.steps {
        let resources = container::resources(*limits, 0);
        let done = match target {
            Some((_, id)) => shared.runtime.update_container_resources(id, &resources).await,
            None => shared.runtime.update_sandbox_resources(&sandbox, &resources).await,
        };
        done.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn check(shared: &Shared, sandbox: &str, bound: &MemoryBound) -> Result<(), String> {
    let (what, usage) = match &bound.of {
        Some((name, id)) => {
            let stats = shared.runtime.container_stats(id).await;
            (format!("container {:?}", name.0), stats.map(|stats| stats.usage))
        }
        None => ("pod".to_owned(), shared.runtime.sandbox_stats(sandbox).await.map(|stats| stats.usage)),
    };
    let usage = usage.map_err(|error| format!("unable to read memory usage: {error}"))?;
    let (limit, used) = (bound.limit_bytes, usage.map(|usage| usage.memory.usage_bytes));
    match used {
        None => Err(format!("missing {what} memory usage")),
        Some(used) if used >= limit.unsigned_abs() => {
            Err(format!("attempting to set {what} memory limit ({limit}) below current usage ({used})"))
        }
        Some(_) => Ok(()),
    }
}
