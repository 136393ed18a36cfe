//! StorageObjectInUseProtection: claims and volumes in use outlive their deletion.

use super::pod::{items, push};
use super::{Operation, Request};
use serde_json::{Value, json};

pub(super) fn mutate(request: &Request<'_>, new: &mut Value) {
    let finalizer = match (request.group, request.resource) {
        ("", "persistentvolumeclaims") => "kubernetes.io/pvc-protection",
        ("", "persistentvolumes") => "kubernetes.io/pv-protection",
        ("storage.k8s.io", "volumeattributesclasses") => "kubernetes.io/vac-protection",
        _ => return,
    };
    if !request.subresource.is_empty() || request.operation != Operation::Create {
        return;
    }
    if items(&new["metadata"], "finalizers").any(|present| present == finalizer) {
        return;
    }
    if !new["metadata"].is_object() {
        new["metadata"] = json!({});
    }
    push(&mut new["metadata"], "finalizers", finalizer.into());
}
