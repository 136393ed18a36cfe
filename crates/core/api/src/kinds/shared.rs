//! What many kinds have alike: a status that only `/status` writes, and Pod templates.

use crate::kinds::core::pod::defaults;
use crate::table;
use crate::tree::{Tree, keep, object_mut};
use schema::decode::{Decoded, normalize};
use serde_json::{Value, json};

/// The status of a new object: empty, with the fields that Go always writes.
pub(super) fn clear_status(object: &mut Value) {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let empty = Decoded { value: json!({"status": {}}), strict: Vec::new() };
    let of = table::type_of(group, version, &kind);
    let status =
        of.and_then(|of| normalize(table::table(), of, empty).ok()).map(|mut made| made.value["status"].take());
    object["status"] = status.filter(Value::is_object).unwrap_or_else(|| json!({}));
}

pub(super) fn keep_status(new: &mut Value, old: &Value) {
    keep(new, old, "status");
}

/// On `/status` all else stays.
pub(super) fn keep_spec(new: &mut Value, old: &Value) {
    keep(new, old, "spec");
}

/// On `/status` of these kinds the metadata stays as well (`ResetObjectMetaForStatus`).
pub(super) fn keep_spec_and_meta(new: &mut Value, old: &Value) {
    keep_spec(new, old);
    let Some(metadata) = object_mut(new, "metadata") else { return };
    for field in ["labels", "annotations", "finalizers", "ownerReferences", "generation", "deletionTimestamp"] {
        keep(metadata, &old["metadata"], field);
    }
}

/// Sets a field that is not there; unlike `default_to` a zero value stays.
pub(super) fn set_default(value: &mut Value, field: &str, default: impl Into<Value>) {
    if !value.has(field) {
        value[field] = default.into();
    }
}

/// Webhooks and API servers behind a Service listen on the port of HTTPS.
pub(super) fn default_service_port(of: &mut Value, service: &str) {
    if let Some(service) = of.pointer_mut(service).filter(|service| service.is_object()) {
        set_default(service, "port", 443);
    }
}

/// Defaults of the Pod template below `spec.template`.
pub(super) fn default_template(owner: &mut Value) {
    if let Some(template) = owner.get_mut("template").filter(|template| template.is_object()) {
        default_template_spec(template);
    }
}

/// Defaults of a Pod template.
pub(super) fn default_template_spec(template: &mut Value) {
    if let Some(spec) = object_mut(template, "spec") {
        defaults::pod_spec(spec);
    }
}
