//! How refusals are told (upstream `framework.FitError`).

use super::Verdict;
use std::collections::BTreeMap;

/// There is no node at all.
pub(super) const NO_NODES: &str = "no nodes available to schedule pods";

/// `0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.`
pub(super) fn refusals(verdicts: &[Verdict]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for verdict in verdicts {
        if let Verdict::Fails { reasons, .. } = verdict {
            reasons.iter().for_each(|reason| *counts.entry(reason).or_default() += 1);
        }
    }
    // Upstream sorts the finished texts.
    let mut texts: Vec<_> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort();
    let texts = if texts.is_empty() { String::new() } else { format!(" {}.", texts.join(", ")) };
    format!("0/{} nodes are available:{texts}", verdicts.len())
}

/// A refusal that no node can change; `not found` is upstream's own wording for what preemption has to say of it.
pub(super) fn pre_filter(nodes: usize, reason: &str) -> String {
    format!("0/{nodes} nodes are available: {reason}. not found")
}
