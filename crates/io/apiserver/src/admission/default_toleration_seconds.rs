//! DefaultTolerationSeconds: a Pod stays 300 s on a node that is not ready or cannot be reached.

use super::pod::{items, push, text};
use super::{Operation, Request};
use serde_json::{Value, json};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const TOLERATION_S: i64 = 300;

pub(super) fn mutate(request: &Request<'_>, pod: &mut Value) {
    if !request.is("", "pods") || !matches!(request.operation, Operation::Create | Operation::Update) {
        return;
    }
    let tolerated = |pod: &Value, taint: &str| {
        items(&pod["spec"], "tolerations").any(|toleration| {
            matches!(text(toleration, "effect"), "" | "NoExecute")
                && (text(toleration, "key") == taint || text(toleration, "key").is_empty())
        })
    };
    let missing: Vec<&str> = TAINTS.into_iter().filter(|taint| !tolerated(pod, taint)).collect();
    for taint in missing {
        let toleration = json!({
            "key": taint,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": TOLERATION_S,
        });
        push(&mut pod["spec"], "tolerations", toleration);
    }
}
