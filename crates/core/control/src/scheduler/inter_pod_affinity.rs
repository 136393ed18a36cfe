//! `InterPodAffinity`: hard terms filter, soft ones score.

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

/// What a Pod that is there counts for its hard wish for company (upstream `hardPodAffinityWeight`).
const HARD_WEIGHT: i64 = 1;

/// The sum of the weights of the soft terms that find company in the node's domains, those of the Pods there as well as the
/// new one's; stretched from the worst node to the best.
pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let mut domains: BTreeMap<(String, &str), i64> = BTreeMap::new();
    let wanted = weighted(cycle.pod);
    for node in cycle.nodes {
        let mut count = |term: &PodAffinityTerm, weight| {
            if let Some(domain) = node.label(&term.topology_key) {
                *domains.entry((term.topology_key.clone(), domain)).or_default() += weight;
            }
        };
        for other in &node.pods {
            let ours = wanted.iter().filter(|(term, _)| means(cycle, term, cycle.pod, other));
            ours.for_each(|(term, weight)| count(term, *weight));
            let soft = weighted(other).into_iter();
            let theirs = soft.chain(terms(other, false).into_iter().map(|term| (term, HARD_WEIGHT)));
            theirs
                .filter(|(term, _)| means(cycle, term, other, cycle.pod))
                .for_each(|(term, weight)| count(&term, weight));
        }
    }
    let of = |info: &&NodeInfo| -> i64 {
        let here = domains.iter().filter(|((key, domain), _)| info.label(key) == Some(domain));
        here.map(|(_, weight)| weight).sum()
    };
    let sums: Vec<_> = nodes.iter().map(of).collect();
    let (least, most) = (sums.iter().min().copied().unwrap_or(0), sums.iter().max().copied().unwrap_or(0));
    sums.into_iter().map(|sum| if most == least { 0 } else { (sum - least) * 100 / (most - least) }).collect()
}

/// The soft terms; those of staying apart count against.
fn weighted(pod: &Pod) -> Vec<(PodAffinityTerm, i64)> {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
    let near = near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref());
    let apart = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let apart = apart.and_then(|apart| apart.preferred_during_scheduling_ignored_during_execution.as_ref());
    let near = near.into_iter().flatten().map(|term| (term, i64::from(term.weight)));
    let apart = apart.into_iter().flatten().map(|term| (term, -i64::from(term.weight)));
    near.chain(apart).map(|(term, weight)| (term.pod_affinity_term.clone(), weight)).collect()
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
