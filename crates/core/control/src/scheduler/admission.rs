//! Whether a node takes a Pod that was bound to it (upstream `pkg/kubelet/lifecycle/predicate.go`, `AdmissionCheck`): nobody
//! need have asked the scheduler.

use super::node_resources_fit::{self, Shortage};
use super::{Cluster, Cycle, NodeInfo, Verdict, node_affinity, node_name, node_ports, taint_toleration};
use k8s_openapi::api::core::v1::Pod;

/// Why a Pod fails on its node: reason and message as its status and event show them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub message: String,
}

/// The reason of a Pod whose node has not the labels it asks for: the only one that a fresher Node may take back.
pub const NODE_AFFINITY: &str = "NodeAffinity";

/// The first thing that speaks against the Pod. `info.pods` are those that the node has taken and that have not ended.
pub fn refusal(pod: &Pod, info: &NodeInfo) -> Option<Refusal> {
    let shortage = node_resources_fit::shortages(pod, info).into_iter().find(|shortage| !is_unknown(shortage, info));
    if let Some(Shortage { name, requested, used, capacity }) = shortage {
        return Some(Refusal {
            reason: format!("OutOf{name}"),
            message: format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
        });
    }
    let cluster = Cluster::default();
    let cycle = Cycle { pod, cluster: &cluster, nodes: &[] };
    let predicates = [
        (NODE_AFFINITY, node_affinity::filter(&cycle, info)),
        ("NodeName", node_name::filter(&cycle, info)),
        ("NodePorts", node_ports::filter(&cycle, info)),
        ("TaintToleration", taint_toleration::evicts(pod, info)),
    ];
    predicates.into_iter().find_map(|(name, verdict)| match verdict {
        Verdict::Fits => None,
        Verdict::Fails { reasons, .. } => {
            let message = format!("Predicate {name} failed: {}", reasons.first()?);
            Some(Refusal { reason: name.to_owned(), message })
        }
    })
}

/// Extended resources that the node knows nothing of may belong to the cluster as a whole: they are not the node's to refuse.
fn is_unknown(shortage: &Shortage, info: &NodeInfo) -> bool {
    let known = info.node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    !api::kinds::core::pod::resources::is_native(&shortage.name)
        && known.is_none_or(|known| !known.contains_key(&shortage.name))
}
