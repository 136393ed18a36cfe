//! `TaintToleration`.

use super::{Cycle, NodeInfo, Verdict};
use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

pub(super) fn filter(cycle: &Cycle<'_>, info: &NodeInfo) -> Verdict {
    tolerated(cycle.pod, info, &["NoSchedule", "NoExecute"])
}

/// What a node asks of a Pod that was bound to it.
pub(super) fn evicts(pod: &Pod, info: &NodeInfo) -> Verdict {
    tolerated(pod, info, &["NoExecute"])
}

fn tolerated(pod: &Pod, info: &NodeInfo, effects: &[&str]) -> Verdict {
    if taints(info).filter(|taint| effects.contains(&taint.effect.as_str())).all(|taint| tolerates(pod, taint)) {
        Verdict::Fits
    } else {
        Verdict::never("node(s) had untolerated taint(s)")
    }
}

/// Fewer `PreferNoSchedule` taints that are not tolerated are better.
pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let intolerable = |info: &&NodeInfo| {
        let soft = taints(info).filter(|taint| taint.effect == "PreferNoSchedule");
        i64::try_from(soft.filter(|taint| !tolerates(cycle.pod, taint)).count()).unwrap_or(i64::MAX)
    };
    let counts: Vec<_> = nodes.iter().map(intolerable).collect();
    let most = counts.iter().max().copied().unwrap_or_default();
    counts.into_iter().map(|count| if most == 0 { 100 } else { 100 - count * 100 / most }).collect()
}

fn taints(info: &NodeInfo) -> impl Iterator<Item = &Taint> {
    info.node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

/// Whether any of the Pod's tolerations covers the taint.
pub(super) fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten()).any(|toleration| covers(toleration, taint))
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let of = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let effect = of(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let key = of(&toleration.key);
    let (value, tainted) =
        (toleration.value.as_deref().unwrap_or_default(), taint.value.as_deref().unwrap_or_default());
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = |holds: fn(i64, i64) -> bool| number(tainted).zip(number(value)).is_some_and(|(a, b)| holds(a, b));
    effect
        && key.as_ref().is_none_or(|key| *key == taint.key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            Some("Gt") => compare(|a, b| a > b),
            Some("Lt") => compare(|a, b| a < b),
            _ => key.is_some() && value == tainted,
        }
}
