//! PodTopologyLabels: a Pod carries the zone and region of the node it is bound to.

use super::pod::text;
use super::{Operation, Request};
use crate::lookup::GroupResource;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];
const NODES: GroupResource = GroupResource::new("", "nodes");

pub(super) fn mutate(request: &Request<'_>, new: &mut Value) {
    if request.operation != Operation::Create || !request.group.is_empty() {
        return;
    }
    let node = match (request.resource, request.subresource) {
        ("pods", "") => text(&new["spec"], "nodeName").to_owned(),
        ("pods", "binding") | ("bindings", "") if text(&new["target"], "kind") == "Node" => {
            text(&new["target"], "name").to_owned()
        }
        _ => return,
    };
    if node.is_empty() {
        return;
    }
    let Some(node) = request.get::<Node>(NODES, "", &node) else {
        return;
    };
    for label in LABELS {
        if let Some(value) = node.metadata.labels.as_ref().and_then(|labels| labels.get(label)) {
            if !new["metadata"]["labels"].is_object() {
                new["metadata"]["labels"] = json!({});
            }
            new["metadata"]["labels"][label] = value.as_str().into();
        }
    }
}
