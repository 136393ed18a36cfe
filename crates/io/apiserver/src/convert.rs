//! Between the version that is stored and the version that is asked for, where a resource is served in several: Events
//! (`v1` is stored) and HorizontalPodAutoscalers (`autoscaling/v2` is).

mod autoscaling;
mod events;

use api::resource::Resource;
use schema::decode::{self, Decoded};
use serde_json::Value;

/// An object as stored, in the version of `resource`.
pub(crate) fn from_stored(resource: &Resource, tree: Value) -> Value {
    if resource.stored {
        return tree;
    }
    let mut tree = tree;
    match (resource.group, resource.plural) {
        ("events.k8s.io", "events") => events::from_core(&mut tree),
        ("autoscaling", "horizontalpodautoscalers") => autoscaling::to_v1(&mut tree),
        _ => {}
    }
    finish(resource, tree)
}

/// An object in the version of `from`, as it is stored in `to`.
pub(crate) fn to_stored(from: &Resource, to: &Resource, tree: Value) -> Value {
    if from.stored {
        return tree;
    }
    let mut tree = tree;
    match (from.group, from.plural) {
        ("events.k8s.io", "events") => events::to_core(&mut tree),
        ("autoscaling", "horizontalpodautoscalers") => autoscaling::to_v2(&mut tree),
        _ => {}
    }
    finish(to, tree)
}

/// Names the version and brings the tree to its normal form.
fn finish(resource: &Resource, mut tree: Value) -> Value {
    tree["apiVersion"] = resource.api_version().into();
    tree["kind"] = resource.kind.into();
    let decoded = Decoded { value: tree.clone(), strict: Vec::new() };
    decode::normalize(api::table::table(), resource.of, decoded).map_or(tree, |decoded| decoded.value)
}

/// Moves fields to other names.
fn rename(tree: &mut Value, names: &[(&str, &str)]) {
    let Some(map) = tree.as_object_mut() else {
        return;
    };
    for (from, to) in names {
        if let Some(value) = map.remove(*from) {
            map.insert((*to).to_owned(), value);
        }
    }
}
