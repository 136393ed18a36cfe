//! `NodeResourcesFit` and `NodeResourcesBalancedAllocation`.

use super::requests::{self, Amounts};
use super::{Cycle, NodeInfo, Verdict};

fn allocatable(info: &NodeInfo) -> Amounts {
    requests::amounts(info.node.status.as_ref().and_then(|status| status.allocatable.as_ref()))
}

pub(super) fn filter(cycle: &Cycle<'_>, info: &NodeInfo) -> Verdict {
    let (wanted, allocatable) = (requests::of(cycle.pod), allocatable(info));
    let capacity = |name: &str| allocatable.get(name).copied().unwrap_or_default();
    let used: Vec<_> = info.pods.iter().map(|pod| requests::of(pod)).collect();
    let (mut reasons, mut resolvable) = (Vec::new(), true);
    if i64::try_from(info.pods.len()).unwrap_or(i64::MAX) >= capacity("pods") {
        reasons.push("Too many pods".to_owned());
    }
    for (name, amount) in wanted.iter().filter(|(name, amount)| **amount > 0 && *name != "pods") {
        let used: i64 = used.iter().filter_map(|used| used.get(name)).sum();
        if *amount > capacity(name) - used {
            reasons.push(format!("Insufficient {name}"));
            resolvable &= *amount <= capacity(name);
        }
    }
    if reasons.is_empty() { Verdict::Fits } else { Verdict::Fails { reasons, resolvable } }
}

/// The shares of processor and memory that would be in use, in thousandths.
fn shares(cycle: &Cycle<'_>, info: &NodeInfo, of: fn(&k8s_openapi::api::core::v1::Pod) -> Amounts) -> Vec<i64> {
    let (wanted, allocatable) = (of(cycle.pod), allocatable(info));
    let used: Vec<_> = info.pods.iter().map(|pod| of(pod)).collect();
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
        let shares = shares(cycle, info, requests::scored);
        let free: i64 = shares.iter().map(|share| (1000 - share) / 10).sum();
        free / i64::try_from(shares.len().max(1)).unwrap_or(1)
    };
    nodes.iter().map(score).collect()
}

/// The more evenly processor and memory are used the better.
pub(super) fn balanced_allocation(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let score = |info: &&NodeInfo| match shares(cycle, info, requests::of).as_slice() {
        [cpu, memory] => 100 - (cpu - memory).abs() / 20,
        _ => 100,
    };
    nodes.iter().map(score).collect()
}
