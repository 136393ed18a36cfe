//! Writing a Pod's status: one writer per Pod, every status in turn, as a strategic merge patch of what differs. One is passed over
//! only if the next shows all that it shows, or if the server could not be reached meanwhile.
//! Conditions are merged by type and only the kubelet's own are sent: others (readiness gates) have other writers. Deletion
//! of the object comes after the last status.

use crate::Shared;
use api::write::{Target, Verb, Write};
use client::transport::CallError;
use client::typed::{Client, target};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Between attempts at a status that the server did not take.
const RETRY: Duration = Duration::from_secs(1);

/// What the API should know of a Pod.
pub(crate) enum Wanted {
    Status(Arc<PodStatus>),
    /// Nothing of the Pod is left on the node: the object may go.
    Deleted,
}

/// What is wanted, in its order; one may be looked at ahead.
struct Queue {
    receiver: mpsc::UnboundedReceiver<Wanted>,
    ahead: Option<Wanted>,
}

impl Queue {
    async fn next(&mut self) -> Option<Wanted> {
        let next = match self.ahead.take() {
            Some(next) => next,
            None => self.receiver.recv().await?,
        };
        self.ahead = self.receiver.try_recv().ok();
        Some(next)
    }

    /// The status behind this one, if there is one already.
    fn later(&self) -> Option<&Arc<PodStatus>> {
        match &self.ahead {
            Some(Wanted::Status(later)) => Some(later),
            _ => None,
        }
    }

    /// The newest status before anything else.
    fn newest(&mut self, mut status: Arc<PodStatus>) -> Arc<PodStatus> {
        while let Some(later) = self.later().cloned() {
            status = later;
            self.ahead = self.receiver.try_recv().ok();
        }
        status
    }
}

/// Brings the API to what is wanted until the sender is dropped; `written` is called after each status.
pub(crate) async fn run(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    receiver: mpsc::UnboundedReceiver<Wanted>,
    written: impl Fn(),
) {
    let meta = &pod.metadata;
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let uid = meta.uid.as_deref().unwrap_or_default();
    let target = Target { subresource: "status", ..target::<Pod>(namespace, name) };
    let mut last = serde_json::to_value(&pod.status).unwrap_or_default();
    let mut queue = Queue { receiver, ahead: None };
    while let Some(wanted) = queue.next().await {
        let Wanted::Status(mut status) = wanted else {
            delete_object(&shared.client, &pod).await;
            continue;
        };
        if queue.later().is_some_and(|later| kubelet::status::shows_all_of(later, &status)) {
            continue;
        }
        loop {
            let new = serde_json::to_value(&*status).unwrap_or_default();
            match send(&shared, uid, &target, &last, &new).await {
                Ok(()) => {
                    last = new;
                    written();
                    break;
                }
                Err(error) if error.is_not_found() || error.is_conflict() => return,
                Err(error) => {
                    tracing::warn!(pod = name, namespace, %error, "status not written, trying again");
                    tokio::time::sleep(RETRY).await;
                    status = queue.newest(status);
                }
            }
        }
    }
}

/// Turns the status `last` of the Pod with that UID into `new`.
pub(crate) async fn send(
    shared: &Shared,
    uid: &str,
    target: &Target,
    last: &Value,
    new: &Value,
) -> Result<(), CallError> {
    let Some(difference) = status_patch(last, new) else { return Ok(()) };
    let patch = json!({"metadata": {"uid": uid}, "status": difference});
    let write = Write { verb: Verb::StrategicPatch, target: target.clone(), body: patch.to_string().into() };
    shared.client.transport().write(write).await.map(drop)
}

/// The API is told that nothing of the Pod is left. Gone or replaced already is as good.
pub(crate) async fn delete_object(client: &Client, pod: &Pod) {
    let meta = &pod.metadata;
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": meta.uid}});
    let mut wait = Duration::from_millis(100);
    while let Err(error) = client.delete::<Pod>(namespace, name, &options).await {
        if error.is_not_found() || error.is_conflict() {
            return;
        }
        tracing::warn!(pod = name, namespace, %error, "not deleted from the API, trying again");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(10));
    }
}

/// The other lists of a status that a strategic merge patch would merge: each is written as a whole.
const MERGED: [&str; 3] = ["podIPs", "hostIPs", "resourceClaimStatuses"];
const CONDITIONS: &str = "conditions";
const ORDER: &str = "$setElementOrder/conditions";

/// The strategic merge patch that turns the status `old` into `new`; `None` when there is nothing to tell.
fn status_patch(old: &Value, new: &Value) -> Option<Value> {
    let without = |status: &Value| {
        let mut fields = status.as_object().cloned().unwrap_or_default();
        let conditions = fields.remove(CONDITIONS);
        (Value::Object(fields), conditions.and_then(|list| list.as_array().cloned()).unwrap_or_default())
    };
    let ((old, old_conditions), (new, new_conditions)) = (without(old), without(new));
    let mut patch = match difference(&old, &new) {
        Some(Value::Object(patch)) => patch,
        _ => Map::new(),
    };
    for list in MERGED {
        if let Some(Value::Array(items)) = patch.get_mut(list) {
            items.push(json!({"$patch": "replace"}));
        }
    }
    let conditions = conditions_patch(&old_conditions, &new_conditions);
    if !conditions.is_empty() {
        let order: Vec<_> = new_conditions.iter().map(|condition| json!({"type": condition["type"]})).collect();
        patch.insert(ORDER.to_owned(), order.into());
        patch.insert(CONDITIONS.to_owned(), conditions.into());
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// What differs of the kubelet's own conditions.
fn conditions_patch(old: &[Value], new: &[Value]) -> Vec<Value> {
    let kind = |condition: &Value| condition["type"].as_str().unwrap_or_default().to_owned();
    let is_written = |condition: &Value| {
        let reason = condition["reason"].as_str().unwrap_or_default();
        kubelet::conditions::is_written(&kind(condition), reason)
    };
    let own = |list: &[Value]| -> BTreeMap<String, Value> {
        let own = list.iter().filter(|condition| is_written(condition));
        own.map(|condition| (kind(condition), condition.clone())).collect()
    };
    let mut old = own(old);
    let mut patch = Vec::new();
    for condition in new.iter().filter(|condition| is_written(condition)) {
        let changed = match old.remove(&kind(condition)) {
            Some(before) => difference(&before, condition),
            None => Some(condition.clone()),
        };
        patch.extend(changed.map(|mut changed| {
            changed["type"] = condition["type"].clone();
            changed
        }));
    }
    patch.extend(old.into_keys().map(|kind| json!({"$patch": "delete", "type": kind})));
    patch
}

/// The merge patch (RFC 7386) that turns `old` into `new`; `None` when they are equal.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return Some(new.clone()) };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(before) => patch.extend(difference(before, value).map(|changed| (key.clone(), changed))),
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    patch.extend(old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null)));
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_merge_patches() {
        for (old, new, patch) in [
            (json!({"a": 1}), json!({"a": 1}), None),
            (json!({"a": 1, "b": 2}), json!({"a": 3}), Some(json!({"a": 3, "b": null}))),
            (json!({"a": {"x": 1, "y": 2}}), json!({"a": {"x": 1, "y": 3}}), Some(json!({"a": {"y": 3}}))),
            (json!({"l": [1, 2]}), json!({"l": [1]}), Some(json!({"l": [1]}))),
            (json!(null), json!({"phase": "Pending"}), Some(json!({"phase": "Pending"}))),
        ] {
            assert_eq!(difference(&old, &new), patch, "{old} -> {new}");
        }
    }

    #[test]
    fn conditions_are_merged_by_type_and_others_left_alone() {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
        let old = json!({"phase": "Pending", "podIPs": [{"ip": "::1"}], "conditions": [
            condition("example.com/gate", "False"), condition("Ready", "False"), condition("Initialized", "True"),
            {"type": "ContainersReady", "status": "False", "reason": "ContainersNotReady"},
        ]});
        let new = json!({"phase": "Running", "podIPs": [{"ip": "::2"}], "conditions": [
            condition("example.com/gate", "Unknown"), condition("Ready", "True"), condition("ContainersReady", "True"),
            condition("PodScheduled", "True"),
        ]});
        let patch = json!({
            "phase": "Running",
            "podIPs": [{"ip": "::2"}, {"$patch": "replace"}],
            "$setElementOrder/conditions": [
                {"type": "example.com/gate"}, {"type": "Ready"}, {"type": "ContainersReady"}, {"type": "PodScheduled"}
            ],
            "conditions": [
                condition("Ready", "True"),
                {"type": "ContainersReady", "status": "True", "reason": null},
                condition("PodScheduled", "True"),
                {"$patch": "delete", "type": "Initialized"},
            ],
        });
        assert_eq!(status_patch(&old, &new), Some(patch));
        let others = json!({"conditions": [condition("example.com/gate", "True")]});
        assert_eq!(status_patch(&json!({}), &others), None);
    }
}
