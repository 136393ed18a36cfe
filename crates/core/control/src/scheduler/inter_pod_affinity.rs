//! `InterPodAffinity`, its hard terms.

use super::{Cycle, NodeInfo, Verdict};
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schema::selector::LabelSelector;
use std::collections::BTreeMap;

pub(super) fn filter(cycle: &Cycle<'_>, info: &NodeInfo) -> Verdict {
    let near = terms(cycle.pod, false);
    if !near.is_empty() && !has_company(cycle, info, &near) {
        return Verdict::never("node(s) didn't match pod affinity rules");
    }
    let apart = terms(cycle.pod, true);
    if apart.iter().any(|term| any_in_domain(cycle, info, term, cycle.pod)) {
        return Verdict::fails("node(s) didn't match pod anti-affinity rules");
    }
    if keeps_away(cycle, info) {
        return Verdict::fails("node(s) didn't satisfy existing pods anti-affinity rules");
    }
    Verdict::Fits
}

/// Every term finds a Pod in the node's domain; or no Pod anywhere matches and the Pod is the first of its kind.
fn has_company(cycle: &Cycle<'_>, info: &NodeInfo, near: &[PodAffinityTerm]) -> bool {
    if near.iter().any(|term| info.label(&term.topology_key).is_none()) {
        return false;
    }
    // Upstream looks for Pods that match all terms.
    let all = |pod: &Pod| near.iter().all(|term| means(cycle, term, cycle.pod, pod));
    let here = near.iter().all(|term| {
        let domain = info.label(&term.topology_key);
        let mut nodes = cycle.nodes.iter().filter(|node| node.label(&term.topology_key) == domain);
        nodes.any(|node| node.pods.iter().any(|pod| all(pod)))
    });
    let anywhere = || {
        let placed = |node: &NodeInfo| near.iter().any(|term| node.label(&term.topology_key).is_some());
        cycle.nodes.iter().any(|node| placed(node) && node.pods.iter().any(|pod| all(pod)))
    };
    here || (all(cycle.pod) && !anywhere())
}

/// Whether a Pod that the term of `owner` means is in the node's domain.
fn any_in_domain(cycle: &Cycle<'_>, info: &NodeInfo, term: &PodAffinityTerm, owner: &Pod) -> bool {
    let Some(domain) = info.label(&term.topology_key) else { return false };
    let mut nodes = cycle.nodes.iter().filter(|node| node.label(&term.topology_key) == Some(domain));
    nodes.any(|node| node.pods.iter().any(|pod| means(cycle, term, owner, pod)))
}

/// Whether a Pod that is there does not want the new one in the node's domain.
fn keeps_away(cycle: &Cycle<'_>, info: &NodeInfo) -> bool {
    cycle.nodes.iter().any(|node| {
        node.pods.iter().any(|other| {
            terms(other, true).iter().any(|term| {
                let domain = info.label(&term.topology_key);
                domain.is_some() && domain == node.label(&term.topology_key) && means(cycle, term, other, cycle.pod)
            })
        })
    })
}

fn terms(pod: &Pod, apart: bool) -> Vec<PodAffinityTerm> {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let list = if apart {
        let anti = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        anti.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.clone())
    } else {
        let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
        near.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.clone())
    };
    list.unwrap_or_default()
}

/// Whether a term of `owner` means `other`: its namespace and its labels.
fn means(cycle: &Cycle<'_>, term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
    let namespace = other.metadata.namespace.as_deref().unwrap_or_default();
    let listed = term.namespaces.iter().flatten().any(|name| name == namespace);
    let selected =
        term.namespace_selector.as_ref().is_some_and(|by| selects(Some(by), cycle.cluster.namespaces.get(namespace)));
    let own = term.namespaces.as_ref().is_none_or(Vec::is_empty) && term.namespace_selector.is_none();
    let in_namespace = listed || selected || (own && other.metadata.namespace == owner.metadata.namespace);
    in_namespace && selects(term.label_selector.as_ref(), other.metadata.labels.as_ref())
}

/// Whether a selector as it stands in an object means these labels. None means nothing, and so does one that the API server
/// should have refused.
pub(super) fn selects(selector: Option<&meta::LabelSelector>, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value = serde_json::to_value(selector).unwrap_or_default();
    let none = BTreeMap::new();
    LabelSelector::from_value(&value).is_ok_and(|selector| selector.matches(labels.unwrap_or(&none)))
}
