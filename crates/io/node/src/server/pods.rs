//! `/pods`: what the node is to run, with what is known of it; `/runningpods/`: what the runtime has.

use super::{Body, json, text};
use crate::Shared;
use http::{Response, StatusCode};
use runtime::types::{ContainerState, SandboxStatus};
use serde_json::{Value, json};

pub(super) fn known(shared: &Shared) -> Value {
    let items = shared.pods.all().into_iter().map(|entry| {
        let mut pod = (*entry.pod).clone();
        if let Some(status) = entry.status {
            pod.status = Some((*status).clone());
        }
        json!(pod)
    });
    list(items.collect())
}

pub(super) async fn running(shared: &Shared) -> Response<Body> {
    match shared.runtime.list_sandboxes().await {
        Ok(sandboxes) => json(&list(sandboxes.iter().filter(|sandbox| sandbox.ready).map(of_sandbox).collect())),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn list(items: Vec<Value>) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

fn of_sandbox(sandbox: &SandboxStatus) -> Value {
    let running = sandbox.containers.iter().filter(|container| container.state == ContainerState::Running);
    let containers =
        running.map(|container| json!({"name": container.name, "image": container.user_image, "resources": {}}));
    let config = &sandbox.config;
    json!({
        "metadata": {"name": config.name, "namespace": config.namespace, "uid": config.uid},
        "spec": {"containers": containers.collect::<Vec<_>>()},
        "status": {},
    })
}
