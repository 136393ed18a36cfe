//! `PartialObjectMetadata`: an object without anything but its metadata.

use serde_json::{Value, json};

pub(crate) fn object(tree: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": tree.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}
