//! The scheduler as a controller: from the view to a decision, and from the decision to writes.

use super::{Cluster, Decision, NAME, Preemption, node_of, plan};
use api::controller::{Config, Controller, Key, Plan, ResourceName, View};
use api::object::Object;
use api::write::{Target, Verb, Write};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolumeClaim, Pod};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

const PODS: ResourceName = ResourceName { group: "", version: "v1", plural: "pods" };
const NODES: ResourceName = ResourceName { group: "", version: "v1", plural: "nodes" };
const NAMESPACES: ResourceName = ResourceName { group: "", version: "v1", plural: "namespaces" };
const CLAIMS: ResourceName = ResourceName { group: "", version: "v1", plural: "persistentvolumeclaims" };
/// An event's note, in bytes (upstream `schedule_one.go`).
const NOTE_BYTES: usize = 1024;

/// Keys are Pods without a node. Its writes are made as `system:kube-scheduler`.
pub fn controller() -> Controller {
    Controller {
        name: "kube-scheduler",
        watches: &[(PODS, concerned_by_pod), (NODES, concerned_by_node), (CLAIMS, concerned_by_claim)],
        plan: plan_key,
    }
}

fn plan_key(_: &Config, view: &dyn View, key: &Key, now: Timestamp) -> Plan {
    let Some((cluster, object, pod)) = observe(view, key) else { return Plan::default() };
    writes(&cluster, &object, &pod, now)
}

fn is_pending(pod: &Pod) -> bool {
    let ours = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or(NAME) == NAME;
    ours && node_of(pod).is_none() && pod.metadata.deletion_timestamp.is_none()
}

/// The Pods that wait, of one namespace or of all.
fn pending(view: &dyn View, namespace: &str, only_refused: bool) -> Vec<Key> {
    let waits = |pod: &Pod| {
        is_pending(pod) && (!only_refused || condition(pod).is_some_and(|condition| condition["status"] == "False"))
    };
    let pods = view.list(PODS, namespace).into_iter();
    pods.filter(|object| object.typed::<Pod>().is_ok_and(|pod| waits(&pod)))
        .map(|object| Key { namespace: object.namespace.clone(), name: object.name.clone() })
        .collect()
}

/// A waiting Pod concerns itself; any other may have made room for those that were refused.
fn concerned_by_pod(view: &dyn View, object: &Object) -> Vec<Key> {
    let waits = object.typed::<Pod>().is_ok_and(|pod| is_pending(&pod));
    let here = view.get(PODS, &object.namespace, &object.name).is_some();
    if waits && here {
        vec![Key { namespace: object.namespace.clone(), name: object.name.clone() }]
    } else {
        pending(view, "", true)
    }
}

fn concerned_by_node(view: &dyn View, _: &Object) -> Vec<Key> {
    pending(view, "", false)
}

fn concerned_by_claim(view: &dyn View, object: &Object) -> Vec<Key> {
    pending(view, &object.namespace, true)
}

fn typed<K: DeserializeOwned + Send + Sync + 'static>(
    view: &dyn View,
    resource: ResourceName,
) -> Vec<(Arc<Object>, Arc<K>)> {
    let objects = view.list(resource, "").into_iter();
    objects.filter_map(|object| Some((object.clone(), object.typed::<K>().ok()?))).collect()
}

fn observe(view: &dyn View, key: &Key) -> Option<(Cluster, Arc<Object>, Arc<Pod>)> {
    let object = view.get(PODS, &key.namespace, &key.name)?;
    let pod = object.typed::<Pod>().ok()?;
    if !is_pending(&pod) {
        return None;
    }
    let nodes = typed::<Node>(view, NODES).into_iter().map(|(_, node)| node);
    let pods = typed::<Pod>(view, PODS).into_iter().map(|(_, pod)| pod);
    let mut cluster = Cluster::new(nodes, pods);
    for (object, namespace) in typed::<Namespace>(view, NAMESPACES) {
        cluster.namespaces.insert(object.name.clone(), namespace.metadata.labels.clone().unwrap_or_default());
    }
    for (object, claim) in typed::<PersistentVolumeClaim>(view, CLAIMS) {
        cluster.claims.insert((object.namespace.clone(), object.name.clone()), claim);
    }
    Some((cluster, object, pod))
}

/// The writes of one decision. What the API has already is not written again.
fn writes(cluster: &Cluster, object: &Arc<Object>, pod: &Pod, now: Timestamp) -> Plan {
    match plan(cluster, pod) {
        Decision::None => Plan::default(),
        Decision::Bind { node } => bind(object, pod, &node, now),
        Decision::Gated { message } => {
            let mut plan = Plan::default();
            plan.writes.extend(status(pod, "SchedulingGated", &message, None, now));
            plan
        }
        Decision::Unschedulable { message, preemption } => {
            let mut plan = Plan::default();
            let nominated = match &preemption {
                Preemption::Keep => None,
                Preemption::Forget => Some(""),
                Preemption::Evict { node, .. } => Some(node.as_str()),
            };
            if let Some(write) = status(pod, "Unschedulable", &message, nominated, now) {
                plan.writes.push(write);
                plan.writes.push(event(pod, true, "FailedScheduling", "Scheduling", &message, now));
            }
            if let Preemption::Evict { node, victims } = &preemption {
                plan.writes.extend(victims.iter().flat_map(|victim| evict(pod, victim, node, now)));
            }
            plan
        }
    }
}

fn target(pod: &Pod, subresource: &'static str) -> Target {
    let metadata = &pod.metadata;
    Target {
        group: "",
        version: "v1",
        plural: "pods",
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        subresource,
    }
}

fn write(verb: Verb, target: Target, body: &Value) -> Write {
    Write { verb, target, body: body.to_string().into() }
}

fn bind(object: &Arc<Object>, pod: &Pod, node: &str, now: Timestamp) -> Plan {
    let metadata = &pod.metadata;
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
        "target": {"kind": "Node", "name": node},
    });
    let (namespace, name) =
        (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
    let said = format!("Successfully assigned {namespace}/{name} to {node}");
    let writes = vec![
        write(Verb::Create, target(pod, "binding"), &binding),
        event(pod, false, "Scheduled", "Binding", &said, now),
    ];
    // Until the watch tells of it, the next Pod's plan must count this one.
    let mut bound: Value = serde_json::from_slice(&object.json()).unwrap_or_default();
    bound["spec"]["nodeName"] = json!(node);
    let bound = Object::new(object.namespace.clone(), object.name.clone(), object.revision, bound.to_string().into());
    Plan { writes, again_at: None, assume: vec![(PODS, Arc::new(bound))] }
}

/// `PodScheduled` as the API has it.
fn condition(pod: &Pod) -> Option<Value> {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    serde_json::to_value(conditions.find(|condition| condition.type_ == "PodScheduled")?).ok()
}

/// Says in the Pod's status why it waits; `None` if that is said already.
fn status(pod: &Pod, reason: &str, message: &str, nominated: Option<&str>, now: Timestamp) -> Option<Write> {
    let old = condition(pod);
    let same = |key: &str, value: &str| old.as_ref().is_some_and(|old| old[key] == value);
    let was = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref()).unwrap_or_default();
    let renominated = nominated.filter(|nominated| *nominated != was);
    if same("status", "False") && same("reason", reason) && same("message", message) && renominated.is_none() {
        return None;
    }
    let since = old.filter(|old| old["status"] == "False").map(|old| old["lastTransitionTime"].clone());
    let mut status = json!({"conditions": [{
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": message,
        "observedGeneration": pod.metadata.generation,
        "lastProbeTime": null,
        "lastTransitionTime": since.unwrap_or_else(|| json!(seconds(now))),
    }]});
    match renominated {
        Some("") => status["nominatedNodeName"] = Value::Null,
        Some(node) => status["nominatedNodeName"] = json!(node),
        None => {}
    }
    let body = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
    Some(write(Verb::StrategicPatch, target(pod, "status"), &body))
}

/// A victim is told why, then deleted.
fn evict(pod: &Pod, victim: &Pod, node: &str, now: Timestamp) -> Vec<Write> {
    if victim.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": format!("{NAME}: preempting to accommodate a higher priority pod"),
        "observedGeneration": victim.metadata.generation,
        "lastProbeTime": null,
        "lastTransitionTime": seconds(now),
    });
    let uid = &victim.metadata.uid;
    let told = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
    let said = format!("Preempted by pod {} on node {node}", pod.metadata.uid.as_deref().unwrap_or_default());
    vec![
        write(Verb::StrategicPatch, target(victim, "status"), &told),
        write(Verb::Delete, target(victim, ""), &options),
        event(victim, false, "Preempted", "Preempting", &said, now),
    ]
}

/// An event of the new form: with an action and a time, without a count.
fn event(pod: &Pod, warning: bool, reason: &str, action: &str, message: &str, now: Timestamp) -> Write {
    let metadata = &pod.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let note = &message[..message.floor_char_boundary(NOTE_BYTES)];
    let body = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": format!("{name}.{:x}", now.as_nanosecond()), "namespace": metadata.namespace},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": metadata.namespace, "name": name, "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
        },
        "type": if warning { "Warning" } else { "Normal" },
        "reason": reason,
        "action": action,
        "message": note,
        "eventTime": format!("{now:.6}"),
        "reportingComponent": NAME,
        "reportingInstance": NAME,
    });
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let target = Target { group: "", version: "v1", plural: "events", namespace, name: String::new(), subresource: "" };
    write(Verb::Create, target, &body)
}

fn seconds(now: Timestamp) -> String {
    format!("{now:.0}")
}
