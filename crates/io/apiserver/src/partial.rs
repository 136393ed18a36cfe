//! `PartialObjectMetadata`: an object without anything but its metadata.

use serde_json::{Value, json};

/// In upstream's own form of DaemonSets it is a field of the spec.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(crate) fn object(tree: &Value, version: &str) -> Value {
    let mut metadata = tree.get("metadata").cloned().unwrap_or_else(|| json!({}));
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
        && annotations.remove(TEMPLATE_GENERATION).is_some()
        && annotations.is_empty()
    {
        api::tree::remove(&mut metadata, "annotations");
    }
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
    })
}
