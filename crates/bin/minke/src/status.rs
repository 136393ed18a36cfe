//! What a running instance knows of itself.

use client::typed::Client;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

/// Healthy: the node, if there is one, is Ready.
pub(crate) async fn observe(client: &Client, facts: &Value) -> Value {
    let mut facts = facts.clone();
    facts["version"] = json!(env!("CARGO_PKG_VERSION"));
    facts["pid"] = json!(std::process::id());
    let Some(name) = facts["node"].as_str() else {
        facts["healthy"] = json!(true);
        return facts;
    };
    let node = client.get::<Node>("", name).await;
    let ready = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    match node {
        Ok(node) => facts["healthy"] = json!(ready(&node)),
        Err(error) => {
            facts["healthy"] = json!(false);
            facts["problem"] = json!(error.to_string());
        }
    }
    facts
}
