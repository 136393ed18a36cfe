//! The scheduler: [`plan`] finds the node for one Pod, or says why there is none, in upstream's words. Each plug-in is a file.
//!
//! A Pod goes through the pre-filters (what no node can change), then the filters per node (the first that refuses a node is
//! heard, as upstream), then preemption, or the scores of the nodes that are left.

pub mod admission;
pub mod controller;
mod inter_pod_affinity;
mod message;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod pod_topology_spread;
mod preemption;
mod requests;
mod scheduling_gates;
mod taint_toleration;
#[cfg(test)]
mod tests;
mod volume_binding;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The `schedulerName` that is ours.
pub const NAME: &str = "default-scheduler";

/// A node and the Pods that count on it.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    pub node: Arc<Node>,
    pub pods: Vec<Arc<Pod>>,
}

impl NodeInfo {
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// A label's value.
    fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }
}

/// The observed cluster.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// In the order of their names.
    pub nodes: Vec<NodeInfo>,
    /// Pods that wait for their node to become free (`status.nominatedNodeName`).
    pub nominated: Vec<Arc<Pod>>,
    /// The labels of each namespace.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// By namespace and name.
    pub claims: BTreeMap<(String, String), Arc<PersistentVolumeClaim>>,
}

impl Cluster {
    /// Puts every Pod that was bound and has not ended on its node.
    pub fn new(nodes: impl IntoIterator<Item = Arc<Node>>, pods: impl IntoIterator<Item = Arc<Pod>>) -> Self {
        let mut nodes: Vec<_> = nodes.into_iter().map(|node| NodeInfo { node, pods: Vec::new() }).collect();
        nodes.sort_by(|a, b| a.name().cmp(b.name()));
        let mut cluster = Self { nodes, ..Self::default() };
        for pod in pods {
            let status = pod.status.as_ref();
            let over = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
            let bound = node_of(&pod);
            if over {
                continue;
            } else if let Some(name) = bound {
                if let Some(info) = cluster.nodes.iter_mut().find(|info| info.name() == name) {
                    info.pods.push(pod);
                }
            } else if status
                .is_some_and(|status| status.nominated_node_name.as_deref().is_some_and(|name| !name.is_empty()))
            {
                cluster.nominated.push(pod);
            }
        }
        cluster
    }
}

/// What a plug-in says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Fits,
    /// `resolvable`: other Pods' going could make it fit.
    Fails {
        reasons: Vec<String>,
        resolvable: bool,
    },
}

impl Verdict {
    fn fails(reason: &str) -> Self {
        Self::Fails { reasons: vec![reason.to_owned()], resolvable: true }
    }

    /// No other Pod's going would help.
    fn never(reason: &str) -> Self {
        Self::Fails { reasons: vec![reason.to_owned()], resolvable: false }
    }
}

/// What is to become of a Pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It is not ours to schedule, or needs no node any more.
    None,
    /// `SchedulingGated`, with its message.
    Gated {
        message: String,
    },
    Bind {
        node: String,
    },
    Unschedulable {
        message: String,
        preemption: Preemption,
    },
}

/// What is done beside waiting.
#[derive(Debug, Clone, PartialEq)]
pub enum Preemption {
    /// The nomination stays as it is.
    Keep,
    /// A nomination is no use any more.
    Forget,
    /// These Pods (namespace, name, UID) go from this node.
    Evict { node: String, victims: Vec<Arc<Pod>> },
}

/// One Pod against the cluster as it is, or as it would be without some Pods.
pub(crate) struct Cycle<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) cluster: &'a Cluster,
    pub(crate) nodes: &'a [NodeInfo],
}

type Filter = fn(&Cycle<'_>, &NodeInfo) -> Verdict;

/// In upstream's order (`apis/config/v1/default_plugins.go`).
const FILTERS: [Filter; 8] = [
    node_unschedulable::filter,
    node_name::filter,
    taint_toleration::filter,
    node_affinity::filter,
    node_ports::filter,
    node_resources_fit::filter,
    pod_topology_spread::filter,
    inter_pod_affinity::filter,
];

/// Scores from 0 to 100 for each node that fits, and their weight.
type Score = fn(&Cycle<'_>, &[&NodeInfo]) -> Vec<i64>;

const SCORES: [(Score, i64); 5] = [
    (taint_toleration::score, 3),
    (node_affinity::score, 2),
    (inter_pod_affinity::score, 2),
    (node_resources_fit::least_allocated, 1),
    (node_resources_fit::balanced_allocation, 1),
];

/// Decides on one Pod. Same observations, same decision: among nodes of equal score the first by name is taken.
pub fn plan(cluster: &Cluster, pod: &Pod) -> Decision {
    let ours = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or(NAME) == NAME;
    if !ours || node_of(pod).is_some() || pod.metadata.deletion_timestamp.is_some() || pod.spec.is_none() {
        return Decision::None;
    }
    if let Some(message) = scheduling_gates::closed(pod) {
        return Decision::Gated { message };
    }
    if cluster.nodes.is_empty() {
        return Decision::Unschedulable { message: message::NO_NODES.to_owned(), preemption: Preemption::Keep };
    }
    if let Some(reason) = volume_binding::pre_filter(cluster, pod) {
        let message = message::pre_filter(cluster.nodes.len(), &reason);
        return Decision::Unschedulable { message, preemption: Preemption::Keep };
    }
    let nodes = with_nominated(cluster, pod);
    let cycle = Cycle { pod, cluster, nodes: &nodes };
    let verdicts: Vec<_> = nodes.iter().map(|info| filter(&cycle, info)).collect();
    let fitting: Vec<_> =
        nodes.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Fits).map(|(info, _)| info).collect();
    if !fitting.is_empty() {
        return Decision::Bind { node: best(&cycle, &fitting).to_owned() };
    }
    let (said, preemption) = preemption::preempt(&cycle, &verdicts);
    let message = format!("{} preemption: {said}", message::refusals(&verdicts));
    Decision::Unschedulable { message, preemption }
}

/// The first refusal, by the plug-ins' order.
fn filter(cycle: &Cycle<'_>, info: &NodeInfo) -> Verdict {
    FILTERS.iter().map(|filter| filter(cycle, info)).find(|verdict| *verdict != Verdict::Fits).unwrap_or(Verdict::Fits)
}

/// The nodes with the Pods that are nominated to them and of no lower priority than `pod`.
fn with_nominated(cluster: &Cluster, pod: &Pod) -> Vec<NodeInfo> {
    let mut nodes = cluster.nodes.clone();
    for other in &cluster.nominated {
        let itself = other.metadata.uid == pod.metadata.uid && other.metadata.name == pod.metadata.name;
        let name = other.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
        if itself || priority(other) < priority(pod) {
            continue;
        }
        if let Some(info) = nodes.iter_mut().find(|info| Some(info.name()) == name) {
            info.pods.push(other.clone());
        }
    }
    nodes
}

fn best<'a>(cycle: &Cycle<'_>, fitting: &[&'a NodeInfo]) -> &'a str {
    let mut totals = vec![0; fitting.len()];
    for (score, weight) in SCORES {
        for (total, score) in totals.iter_mut().zip(score(cycle, fitting)) {
            *total += score * weight;
        }
    }
    let best = totals.iter().max().copied().unwrap_or_default();
    fitting.iter().zip(&totals).find(|(_, total)| **total == best).map(|(info, _)| info.name()).unwrap_or_default()
}

/// The node that a Pod is bound to.
fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default()
}
