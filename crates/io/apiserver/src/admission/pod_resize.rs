//! PodResize: a bound Pod is resized only to what its node could ever give (upstream `plugin/pkg/admission/podresize`).

use super::{Operation, Request};
use crate::lookup::GroupResource;
use crate::refusal::Refusal;
use crate::respond;
use api::kinds::core::pod::resources;
use api::meta;
use api::tree::Tree;
use serde_json::Value;

const NODES: GroupResource = GroupResource::new("", "nodes");

pub(super) fn validate(request: &Request<'_>, pod: &Value) -> Result<(), Refusal> {
    let is_resize = request.group.is_empty() && request.resource == "pods" && request.subresource == "resize";
    let node_name = pod["spec"].text("nodeName");
    let unchanged = request.old.is_some_and(|old| meta::generation(old) == meta::generation(pod));
    if !is_resize || request.operation != Operation::Update || node_name.is_empty() || unchanged {
        return Ok(());
    }
    let Some(node) = request.lookup.get(NODES, "", node_name) else {
        return Err(request.forbidden(pod, &format!("node \"{node_name}\" not found")));
    };
    let node = respond::tree_of(&node)?;
    if let Some(os) = meta::label(&node, "kubernetes.io/os").filter(|os| *os != "linux") {
        let why = format!("pod resize is only supported on linux nodes, node \"{node_name}\" is \"{os}\"");
        return Err(request.forbidden(pod, &why).with_cause("UnsupportedPlatform", "", ""));
    }
    let lacking = lacking(&pod["spec"], &node["status"]["allocatable"]);
    if lacking.is_empty() {
        return Ok(());
    }
    let why = format!("node didn't have enough allocatable resources: {}", lacking.join("; "));
    Err(request.forbidden(pod, &why).with_cause("NodeCapacity", "", ""))
}

/// What the Pod asks for beyond the node's allocatable, in thousandths of a core and in bytes.
fn lacking(spec: &Value, allocatable: &Value) -> Vec<String> {
    let (requests, allocatable) = (resources::of_pod(spec, "requests"), resources::amounts(allocatable));
    let mut found = Vec::new();
    for (name, number) in [
        ("cpu", schema::quantity::Quantity::milli_value as fn(&schema::quantity::Quantity) -> i64),
        ("memory", schema::quantity::Quantity::value),
    ] {
        let of = |all: &resources::Amounts| all.get(name).map_or(0, number);
        let (wanted, there) = (of(&requests), of(&allocatable));
        if wanted > there {
            found.push(format!("{name}, requested: {wanted}, allocatable: {there}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::lacking;
    use serde_json::json;

    #[test]
    fn a_resize_fits_its_node() {
        let spec = json!({"containers": [{"resources": {"requests": {"cpu": "9", "memory": "2Gi"}}}]});
        assert_eq!(lacking(&spec, &json!({"cpu": "9", "memory": "2Gi"})), Vec::<String>::new());
        assert_eq!(
            lacking(&spec, &json!({"cpu": "4", "memory": "1Gi"})),
            ["cpu, requested: 9000, allocatable: 4000", "memory, requested: 2147483648, allocatable: 1073741824"]
        );
    }
}
