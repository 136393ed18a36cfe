//! Taints of a node by its conditions (upstream `pkg/controller/nodelifecycle/node_lifecycle_controller.go`: doNoScheduleTaintingPass,
//! processTaintBaseEviction).

use super::itself;
use api::controller::{Config, Controller, Key, Plan, ResourceName, View};
use api::write::{Target, Verb, Write};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

const NODES: ResourceName = ResourceName { group: "", version: "v1", plural: "nodes" };
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, its status, and the taint that keeps new Pods away meanwhile.
const BY_CONDITION: &[(&str, &str, &str)] = &[
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

pub(super) fn controller() -> Controller {
    Controller { name: "node-controller", watches: &[(NODES, itself)], plan }
}

fn plan(_: &Config, view: &dyn View, key: &Key, now: Timestamp) -> Plan {
    let Some(node) = view.get(NODES, "", &key.name).and_then(|object| object.typed::<Node>().ok()) else {
        return Plan::default();
    };
    let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let new = taints(&node, &old, now);
    if new == old {
        return Plan::default();
    }
    let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": new}});
    let target = Target { version: "v1", plural: "nodes", name: key.name.clone(), ..Target::default() };
    let write = Write { verb: Verb::MergePatch, target, body: patch.to_string().into() };
    Plan { writes: vec![write], ..Plan::default() }
}

/// Taints of others stay in their place; ours are there exactly while they should be.
fn taints(node: &Node, old: &[Taint], now: Timestamp) -> Vec<Taint> {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is = |of: &str, status: &str| conditions.clone().any(|c| c.type_ == of && c.status == status);
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (condition, status, taint) in BY_CONDITION {
        if is(condition, status) {
            wanted.push((taint, "NoSchedule"));
        }
    }
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    for (status, taint) in [("False", NOT_READY), ("Unknown", UNREACHABLE)] {
        if is("Ready", status) {
            wanted.push((taint, "NoExecute"));
        }
    }
    let ours = |taint: &Taint| match taint.effect.as_str() {
        "NoSchedule" => taint.key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(_, _, key)| *key == taint.key),
        "NoExecute" => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    };
    let keep = |taint: &&Taint| !ours(taint) || wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> = old.iter().filter(keep).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            let whole_second = Timestamp::from_second(now.as_second()).unwrap_or(now);
            let time_added = (effect == "NoExecute").then_some(Time(whole_second));
            taints.push(Taint { key: key.to_owned(), effect: effect.to_owned(), time_added, value: None });
        }
    }
    taints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, plan_text};
    use expect_test::expect;

    fn planned(spec: &str, conditions: &str) -> String {
        let node = format!(
            r#"{{"metadata":{{"name":"n","resourceVersion":"7"}},"spec":{spec},"status":{{"conditions":[{conditions}]}}}}"#
        );
        plan_text(&controller(), &World::new().with(NODES, &node), "", "n")
    }

    #[test]
    fn a_ready_node_loses_our_taints_and_keeps_others() {
        let spec = r#"{"taints":[{"key":"node.kubernetes.io/not-ready","effect":"NoSchedule"},{"key":"mine","effect":"NoSchedule"}]}"#;
        expect![[r#"
            MergePatch v1 nodes /n {"metadata":{"resourceVersion":"7"},"spec":{"taints":[{"effect":"NoSchedule","key":"mine"}]}}
        "#]]
        .assert_eq(&planned(spec, r#"{"type":"Ready","status":"True"}"#));
        assert_eq!(planned("{}", r#"{"type":"Ready","status":"True"}"#), "");
    }

    #[test]
    fn conditions_and_cordon_taint() {
        expect![[r#"
            MergePatch v1 nodes /n {"metadata":{"resourceVersion":"7"},"spec":{"taints":[{"effect":"NoSchedule","key":"node.kubernetes.io/not-ready"},{"effect":"NoSchedule","key":"node.kubernetes.io/unschedulable"},{"effect":"NoExecute","key":"node.kubernetes.io/not-ready","timeAdded":"2027-01-15T08:00:00Z"}]}}
        "#]]
        .assert_eq(&planned(r#"{"unschedulable":true}"#, r#"{"type":"Ready","status":"False"}"#));
    }
}
