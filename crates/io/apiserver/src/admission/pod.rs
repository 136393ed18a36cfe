//! Walking a Pod's tree.

use serde_json::Value;

pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
pub(super) const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];

pub(super) fn items<'a>(object: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object[list].as_array().into_iter().flatten()
}

/// Init containers, then containers, of a Pod spec.
pub(super) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    CONTAINER_LISTS.into_iter().flat_map(|list| items(spec, list))
}

/// Init, plain and ephemeral containers of a Pod spec.
pub(super) fn all_containers(spec: &Value) -> impl Iterator<Item = &Value> {
    containers(spec).chain(items(spec, "ephemeralContainers"))
}

pub(super) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

pub(super) fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

/// Appends to a list that may not be there yet.
pub(super) fn push(object: &mut Value, list: &str, item: Value) {
    match object[list].as_array_mut() {
        Some(all) => all.push(item),
        None => object[list] = Value::Array(vec![item]),
    }
}
