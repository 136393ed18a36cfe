//! TaintNodesByCondition: a new node takes no Pods until it has said that it is ready.

use super::pod::{items, push, text};
use super::{Operation, Request};
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) fn mutate(request: &Request<'_>, node: &mut Value) {
    if !request.is("", "nodes") || request.operation != Operation::Create {
        return;
    }
    let is = |taint: &Value| text(taint, "key") == NOT_READY && text(taint, "effect") == "NoSchedule";
    if items(&node["spec"], "taints").any(is) {
        return;
    }
    if !node["spec"].is_object() {
        node["spec"] = json!({});
    }
    push(&mut node["spec"], "taints", json!({"key": NOT_READY, "effect": "NoSchedule"}));
}
