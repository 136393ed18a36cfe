//! `NodeAffinity`: `nodeSelector` and affinity to nodes.

use super::{Cycle, NodeInfo, Verdict};
use k8s_openapi::api::core::v1::{NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, Pod};

pub(super) fn filter(cycle: &Cycle<'_>, info: &NodeInfo) -> Verdict {
    if matches(cycle.pod, info) {
        Verdict::Fits
    } else {
        Verdict::never("node(s) didn't match Pod's node affinity/selector")
    }
}

/// The sum of the weights of the preferred terms that match, against the best node's.
pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let preferred =
        affinity(cycle.pod).and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
    let sum = |info: &&NodeInfo| -> i64 {
        let terms = preferred.into_iter().flatten().filter(|term| has(&term.preference, info));
        terms.map(|term| i64::from(term.weight)).sum()
    };
    let sums: Vec<_> = nodes.iter().map(sum).collect();
    let most = sums.iter().max().copied().unwrap_or_default();
    sums.into_iter().map(|sum| if most == 0 { 0 } else { sum * 100 / most }).collect()
}

fn affinity(pod: &Pod) -> Option<&NodeAffinity> {
    pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()
}

/// Whether the node is one that the Pod asks for.
pub(super) fn matches(pod: &Pod, info: &NodeInfo) -> bool {
    let selector = pod.spec.iter().flat_map(|spec| spec.node_selector.iter().flatten());
    let selected = selector.into_iter().all(|(key, value)| info.label(key) == Some(value));
    let required =
        affinity(pod).and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| has(term, info)))
}

/// An empty term matches nothing.
fn has(term: &NodeSelectorTerm, info: &NodeInfo) -> bool {
    let (expressions, fields) = (term.match_expressions.iter().flatten(), term.match_fields.iter().flatten());
    let mut any = false;
    let labels =
        expressions.inspect(|_| any = true).all(|requirement| holds(requirement, info.label(&requirement.key)));
    let mut named = false;
    let field = |requirement: &NodeSelectorRequirement| {
        holds(requirement, (requirement.key == "metadata.name").then(|| info.name()))
    };
    let fields = fields.inspect(|_| named = true).all(field);
    (any || named) && labels && fields
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let named = value.is_some_and(|value| values.iter().any(|one| one == value));
    let compare = |holds: fn(i64, i64) -> bool| {
        let (a, b) = (value.and_then(|value| value.parse().ok()), values.first().and_then(|value| value.parse().ok()));
        a.zip(b).is_some_and(|(a, b)| holds(a, b))
    };
    match requirement.operator.as_str() {
        "In" => named,
        "NotIn" => !named,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|a, b| a > b),
        "Lt" => compare(|a, b| a < b),
        _ => false,
    }
}
