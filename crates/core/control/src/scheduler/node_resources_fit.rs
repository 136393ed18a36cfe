//! `NodeResourcesFit` and `NodeResourcesBalancedAllocation`.

use super::requests::{self, Amounts};
use super::{Cycle, NodeInfo, Verdict};
use k8s_openapi::api::core::v1::Pod;

fn allocatable(info: &NodeInfo) -> Amounts {
    requests::amounts(info.node.status.as_ref().and_then(|status| status.allocatable.as_ref()))
}

/// A resource that the Pod asks more of than is left: processor time in thousandths, everything else in units.
pub(super) struct Shortage {
    pub(super) name: String,
    pub(super) requested: i64,
    pub(super) used: i64,
    pub(super) capacity: i64,
}

/// In upstream's order: the number of Pods, what every node has, then the others by name.
pub(super) fn shortages(pod: &Pod, info: &NodeInfo) -> Vec<Shortage> {
    const FIRST: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
    let (mut wanted, allocatable) = (requests::of(pod), allocatable(info));
    let used: Vec<_> = info.pods.iter().map(|pod| requests::held(pod)).collect();
    let first = FIRST.iter().filter_map(|name| wanted.remove_entry(*name)).collect::<Vec<_>>();
    let count = i64::try_from(info.pods.len()).unwrap_or(i64::MAX);
    let others = first.into_iter().chain(wanted).filter(|(name, amount)| *amount > 0 && name != "pods");
    let others = others.map(|(name, requested)| {
        let used = used.iter().filter_map(|used| used.get(&name)).sum();
        (name, requested, used)
    });
    let all = std::iter::once(("pods".to_owned(), 1, count)).chain(others).map(|(name, requested, used)| {
        let capacity = allocatable.get(&name).copied().unwrap_or_default();
        Shortage { name, requested, used, capacity }
    });
    all.filter(|shortage| shortage.requested > shortage.capacity - shortage.used).collect()
}

pub(super) fn filter(cycle: &Cycle<'_>, info: &NodeInfo) -> Verdict {
    let shortages = shortages(cycle.pod, info);
    let resolvable =
        shortages.iter().all(|shortage| shortage.name == "pods" || shortage.requested <= shortage.capacity);
    let words = |shortage: Shortage| match shortage.name.as_str() {
        "pods" => "Too many pods".to_owned(),
        name => format!("Insufficient {name}"),
    };
    let reasons: Vec<_> = shortages.into_iter().map(words).collect();
    if reasons.is_empty() { Verdict::Fits } else { Verdict::Fails { reasons, resolvable } }
}

/// The shares of processor and memory that would be in use, in thousandths.
fn shares(cycle: &Cycle<'_>, info: &NodeInfo, of: fn(&Pod) -> Amounts, held: fn(&Pod) -> Amounts) -> Vec<i64> {
    let (wanted, allocatable) = (of(cycle.pod), allocatable(info));
    let used: Vec<_> = info.pods.iter().map(|pod| held(pod)).collect();
    let share = |name: &str| {
        let capacity = allocatable.get(name).copied().filter(|capacity| *capacity > 0)?;
        let sum: i64 = used.iter().chain([&wanted]).filter_map(|used| used.get(name)).sum();
        let share = i128::from(sum) * 1000 / i128::from(capacity);
        Some(i64::try_from(share).unwrap_or(i64::MAX).min(1000))
    };
    ["cpu", "memory"].into_iter().filter_map(share).collect()
}

/// The emptier the better.
pub(super) fn least_allocated(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let score = |info: &&NodeInfo| {
        let shares = shares(cycle, info, requests::scored, requests::held_scored);
        let free: i64 = shares.iter().map(|share| (1000 - share) / 10).sum();
        free / i64::try_from(shares.len().max(1)).unwrap_or(1)
    };
    nodes.iter().map(score).collect()
}

/// The more evenly processor and memory are used the better.
pub(super) fn balanced_allocation(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let score = |info: &&NodeInfo| match shares(cycle, info, requests::of, requests::held).as_slice() {
        [cpu, memory] => 100 - (cpu - memory).abs() / 20,
        _ => 100,
    };
    nodes.iter().map(score).collect()
}
