//! `PodTopologySpread`, its hard constraints.

use super::{Cycle, NodeInfo, Verdict, node_affinity, taint_toleration};
use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use std::collections::BTreeMap;

const UNEVEN: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

pub(super) fn filter(cycle: &Cycle<'_>, info: &NodeInfo) -> Verdict {
    let hard = |constraint: &&TopologySpreadConstraint| constraint.when_unsatisfiable == "DoNotSchedule";
    let spec = cycle.pod.spec.iter();
    let constraints: Vec<_> =
        spec.flat_map(|spec| spec.topology_spread_constraints.iter().flatten()).filter(hard).collect();
    for constraint in &constraints {
        let Some(domain) = info.label(&constraint.topology_key) else { return Verdict::never(NO_LABEL) };
        let counts = counts(cycle, constraint, &constraints);
        let enough =
            constraint.min_domains.is_none_or(|least| counts.len() >= usize::try_from(least).unwrap_or_default());
        let least = if enough { counts.values().min().copied().unwrap_or_default() } else { 0 };
        let here = counts.get(domain).copied().unwrap_or_default();
        let itself = i32::from(selects(constraint, cycle.pod));
        if here + itself - least > constraint.max_skew {
            return Verdict::fails(UNEVEN);
        }
    }
    Verdict::Fits
}

/// How many of the Pods meant are in each domain; only nodes that have all the keys and are meant count.
fn counts<'a>(
    cycle: &'a Cycle<'_>,
    constraint: &TopologySpreadConstraint,
    all: &[&TopologySpreadConstraint],
) -> BTreeMap<&'a str, i32> {
    let mut counts = BTreeMap::new();
    for info in cycle.nodes {
        let complete = all.iter().all(|constraint| info.label(&constraint.topology_key).is_some());
        let Some(domain) =
            info.label(&constraint.topology_key).filter(|_| complete && is_meant(cycle, constraint, info))
        else {
            continue;
        };
        let meant = |pod: &Pod| {
            pod.metadata.namespace == cycle.pod.metadata.namespace
                && pod.metadata.deletion_timestamp.is_none()
                && selects(constraint, pod)
        };
        let count = info.pods.iter().filter(|pod| meant(pod)).count();
        *counts.entry(domain).or_insert(0) += i32::try_from(count).unwrap_or(i32::MAX);
    }
    counts
}

fn is_meant(cycle: &Cycle<'_>, constraint: &TopologySpreadConstraint, info: &NodeInfo) -> bool {
    let affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    (!affinity || node_affinity::matches(cycle.pod, info))
        && (!taints || taint_toleration::filter(cycle, info) == Verdict::Fits)
}

fn selects(constraint: &TopologySpreadConstraint, pod: &Pod) -> bool {
    super::inter_pod_affinity::selects(constraint.label_selector.as_ref(), pod.metadata.labels.as_ref())
}
