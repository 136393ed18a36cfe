//! `DefaultPreemption`: Pods of lower priority make room.

use super::{Cycle, NodeInfo, Preemption, Verdict, filter, message, priority};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

/// What preemption has to say, and what it does.
pub(super) fn preempt(cycle: &Cycle<'_>, verdicts: &[Verdict]) -> (String, Preemption) {
    if let Some(reason) = not_eligible(cycle, verdicts) {
        return (reason.to_owned(), Preemption::Keep);
    }
    let (mut candidates, mut refusals) = (Vec::new(), Vec::new());
    for (info, verdict) in cycle.nodes.iter().zip(verdicts) {
        if matches!(verdict, Verdict::Fails { resolvable: false, .. }) {
            refusals.push(Verdict::never("Preemption is not helpful for scheduling"));
            continue;
        }
        match victims(cycle, info) {
            Ok(victims) => candidates.push((info.name(), victims)),
            Err(refusal) => refusals.push(refusal),
        }
    }
    let Some((node, victims)) = candidates.into_iter().min_by_key(|(_, victims)| cost(victims)) else {
        return (message::refusals(&refusals), Preemption::Forget);
    };
    let said = format!("found a potential placement for pod on node {node}, preempting {} victims", victims.len());
    (said, Preemption::Evict { node: node.to_owned(), victims })
}

fn not_eligible(cycle: &Cycle<'_>, verdicts: &[Verdict]) -> Option<&'static str> {
    let spec = cycle.pod.spec.as_ref()?;
    if spec.preemption_policy.as_deref() == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = cycle.pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref())?;
    let (info, verdict) = cycle.nodes.iter().zip(verdicts).find(|(info, _)| info.name() == nominated)?;
    let hopeless = matches!(verdict, Verdict::Fails { resolvable: false, .. });
    let goes = |pod: &Arc<Pod>| priority(pod) < priority(cycle.pod) && is_preempted(pod);
    (!hopeless && info.pods.iter().any(goes)).then_some("not eligible due to a terminating pod on the nominated node.")
}

fn is_preempted(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_some()
        && conditions
            .into_iter()
            .any(|c| c.type_ == "DisruptionTarget" && c.reason.as_deref() == Some("PreemptionByScheduler"))
}

/// The fewest Pods of lower priority without which the Pod fits on this node: all go, then as many as possible stay, the more
/// important ones first.
fn victims(cycle: &Cycle<'_>, info: &NodeInfo) -> Result<Vec<Arc<Pod>>, Verdict> {
    let lower = |pod: &&Arc<Pod>| priority(pod) < priority(cycle.pod);
    let mut going: Vec<_> = info.pods.iter().filter(lower).cloned().collect();
    if going.is_empty() {
        return Err(Verdict::never("No preemption victims found for incoming pod"));
    }
    // Most important first: higher priority, then longer running.
    going.sort_by_key(|pod| (-i64::from(priority(pod)), start(pod)));
    let staying: Vec<_> = info.pods.iter().filter(|pod| !lower(pod)).cloned().collect();
    let fits = |pods: Vec<Arc<Pod>>| {
        let mut nodes = cycle.nodes.to_vec();
        let Some(i) = nodes.iter().position(|node| node.name() == info.name()) else { return Verdict::Fits };
        nodes[i].pods = pods;
        let cycle = Cycle { nodes: &nodes, ..*cycle };
        filter(&cycle, &nodes[i])
    };
    match fits(staying.clone()) {
        Verdict::Fits => {}
        refusal => return Err(refusal),
    }
    let (mut kept, mut victims) = (staying, Vec::new());
    for pod in going {
        let with: Vec<_> = kept.iter().cloned().chain([pod.clone()]).collect();
        if fits(with.clone()) == Verdict::Fits {
            kept = with;
        } else {
            victims.push(pod);
        }
    }
    Ok(victims)
}

fn start(pod: &Pod) -> Option<jiff::Timestamp> {
    pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0)
}

/// Upstream prefers, in this order: the lowest highest priority, the lowest sum of priorities, the fewest, those that started
/// last.
fn cost(victims: &[Arc<Pod>]) -> (i32, i64, usize, std::cmp::Reverse<Option<jiff::Timestamp>>) {
    let highest = victims.iter().map(|pod| priority(pod)).max().unwrap_or(i32::MIN);
    let sum = victims.iter().map(|pod| i64::from(priority(pod)) + i64::from(i32::MAX) + 1).sum();
    let top = victims.iter().filter(|pod| priority(pod) == highest);
    (highest, sum, victims.len(), std::cmp::Reverse(top.filter_map(|pod| start(pod)).min()))
}
