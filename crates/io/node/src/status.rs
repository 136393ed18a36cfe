//! Writing a Pod's status: one writer per Pod, the newest status wins, as a merge patch of what differs. Deletion of
//! the object comes after the last status.

use crate::Shared;
use api::write::{Target, Verb, Write};
use client::transport::CallError;
use client::typed::{Client, target};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Between attempts at a status that the server did not take.
const RETRY: Duration = Duration::from_secs(1);

/// What the API should know of a Pod.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) status: Option<Box<PodStatus>>,
    /// Nothing of the Pod is left on the node: the object may go.
    pub(crate) deleted: bool,
}

/// Brings the API to what is wanted until the sender is dropped; `written` is called after each status.
pub(crate) async fn run(shared: Arc<Shared>, pod: Arc<Pod>, mut wanted: watch::Receiver<Wanted>, written: impl Fn()) {
    let meta = &pod.metadata;
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let target = Target { subresource: "status", ..target::<Pod>(namespace, name) };
    let mut last = serde_json::to_value(&pod.status).unwrap_or_default();
    while wanted.changed().await.is_ok() {
        let (mut status, mut deleted) = newest(&mut wanted);
        while let Some(new) = status {
            let new = serde_json::to_value(&*new).unwrap_or_default();
            match send(&shared, &pod, &target, &last, &new).await {
                Ok(()) => {
                    last = new;
                    written();
                    break;
                }
                Err(error) if error.is_not_found() || error.is_conflict() => return,
                Err(error) => {
                    tracing::warn!(pod = name, namespace, %error, "status not written, trying again");
                    tokio::time::sleep(RETRY).await;
                    (status, deleted) = newest(&mut wanted);
                }
            }
        }
        if deleted {
            delete_object(&shared.client, &pod).await;
        }
    }
}

fn newest(wanted: &mut watch::Receiver<Wanted>) -> (Option<Box<PodStatus>>, bool) {
    let wanted = wanted.borrow_and_update();
    (wanted.status.clone(), wanted.deleted)
}

async fn send(shared: &Shared, pod: &Pod, target: &Target, last: &Value, new: &Value) -> Result<(), CallError> {
    let Some(difference) = difference(last, new) else { return Ok(()) };
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": difference});
    let write = Write { verb: Verb::MergePatch, target: target.clone(), body: patch.to_string().into() };
    shared.client.transport().write(write).await.map(drop)
}

/// The API is told that nothing of the Pod is left. Gone or replaced already is as good.
async fn delete_object(client: &Client, pod: &Pod) {
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
}
