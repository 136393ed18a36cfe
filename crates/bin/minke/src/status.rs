//! What a running instance knows of itself.

use crate::host;
use client::typed::Client;
use k8s_openapi::api::core::v1::Node as NodeObject;
use node::Node;
use serde_json::{Value, json};
use std::path::PathBuf;

/// `facts` with what is true now. Healthy: the node, if there is one, is Ready.
pub(crate) async fn observe(client: &Client, node: Option<&Node>, facts: &Value) -> Value {
    let mut facts = facts.clone();
    facts["version"] = json!(crate::version::OWN);
    facts["pid"] = json!(std::process::id());
    let of = |name: &str| facts[name].as_str().unwrap_or_default().to_owned();
    let (id, directory) = (of("id"), PathBuf::from(of("dataDir")));
    let has_node = facts["node"].is_string();
    let looked = tokio::task::spawn_blocking(move || {
        (host::memory(&id, &directory), if has_node { host::observe() } else { Vec::new() })
    });
    if let Ok(((server, shims, count), host)) = looked.await {
        facts["memoryBytes"] = json!({"server": server, "shims": shims, "shimCount": count});
        facts["host"] = json!(host);
    }
    if let Some(node) = node {
        facts["manifests"] = json!(node.manifest_problems());
    }
    let mut problem = None;
    if let Some(name) = facts["node"].as_str().map(str::to_owned) {
        let node = client.get::<NodeObject>("", &name).await;
        problem = problem_of(node, &name, &mut facts["kubernetesVersion"]);
    }
    facts["healthy"] = json!(problem.is_none());
    if let Some(problem) = problem {
        facts["problem"] = json!(problem);
    }
    facts
}

fn problem_of<E: std::fmt::Display>(
    node: Result<std::sync::Arc<NodeObject>, E>,
    name: &str,
    version: &mut Value,
) -> Option<String> {
    let node = match node {
        Ok(node) => node,
        Err(error) => return Some(format!("node {name} cannot be read: {error}")),
    };
    let status = node.status.clone().unwrap_or_default();
    *version = json!(status.node_info.map(|info| info.kubelet_version));
    let ready = status.conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    match ready {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(format!("node {name} is not Ready: {}", ready.message.unwrap_or_default())),
        None => Some(format!("node {name} has not told yet whether it is Ready")),
    }
}
