//! DefaultStorageClass and DefaultIngressClass: who names no class gets the newest of those marked as default.

use super::{Operation, Request};
use crate::lookup::GroupResource;
use k8s_openapi::api::networking::v1::IngressClass;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

const STORAGE_CLASSES: GroupResource = GroupResource::new("storage.k8s.io", "storageclasses");
const INGRESS_CLASSES: GroupResource = GroupResource::new("networking.k8s.io", "ingressclasses");
const DEFAULT_STORAGE: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const DEFAULT_INGRESS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];

pub(super) fn storage(request: &Request<'_>, claim: &mut Value) {
    let annotated = claim["metadata"]["annotations"].get("volume.beta.kubernetes.io/storage-class").is_some();
    let applies = request.is("", "persistentvolumeclaims") && request.operation == Operation::Create;
    if !applies || annotated || !claim["spec"]["storageClassName"].is_null() {
        return;
    }
    let classes = request.list::<StorageClass>(STORAGE_CLASSES, "");
    if let Some(name) = newest(classes.iter().map(|class| &class.metadata), &DEFAULT_STORAGE) {
        claim["spec"]["storageClassName"] = name.into();
    }
}

pub(super) fn ingress(request: &Request<'_>, ingress: &mut Value) {
    let annotated = ingress["metadata"]["annotations"].get("kubernetes.io/ingress.class").is_some();
    let applies = request.is("networking.k8s.io", "ingresses") && request.operation == Operation::Create;
    if !applies || annotated || !ingress["spec"]["ingressClassName"].is_null() {
        return;
    }
    let classes = request.list::<IngressClass>(INGRESS_CLASSES, "");
    if let Some(name) = newest(classes.iter().map(|class| &class.metadata), &DEFAULT_INGRESS) {
        ingress["spec"]["ingressClassName"] = name.into();
    }
}

/// The newest marked class, the first by name among equals.
fn newest<'a>(classes: impl Iterator<Item = &'a ObjectMeta>, marks: &[&str]) -> Option<String> {
    let marked = classes.filter(|class| {
        let annotations = class.annotations.as_ref();
        annotations.is_some_and(|all| marks.iter().any(|mark| all.get(*mark).is_some_and(|value| value == "true")))
    });
    let created = |class: &ObjectMeta| class.creation_timestamp.as_ref().map(|at| at.0);
    marked.min_by_key(|class| (std::cmp::Reverse(created(class)), class.name.clone()))?.name.clone()
}
