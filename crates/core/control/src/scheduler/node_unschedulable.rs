//! `NodeUnschedulable`: a cordoned node takes only Pods that tolerate it.

use super::taint_toleration::tolerates;
use super::{Cycle, NodeInfo, Verdict};
use k8s_openapi::api::core::v1::Taint;

pub(super) fn filter(cycle: &Cycle<'_>, info: &NodeInfo) -> Verdict {
    let cordoned = info.node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let key = "node.kubernetes.io/unschedulable".to_owned();
    let taint = Taint { key, effect: "NoSchedule".to_owned(), ..Taint::default() };
    if cordoned && !tolerates(cycle.pod, &taint) { Verdict::never("node(s) were unschedulable") } else { Verdict::Fits }
}
