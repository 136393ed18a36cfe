//! What happens, as a stream (KEP-3386): with each event the Pod as it stands.

use super::v1::{ContainerEventResponse, ContainerEventType};
use super::{Server, tell};
use crate::types::{RuntimeEvent, SandboxStatus};
use futures::Stream;
use futures::stream::unfold;
use std::sync::Arc;

/// Of whom an event tells: the sandbox, and the container if it is not the sandbox itself.
fn kind(event: RuntimeEvent) -> Option<(ContainerEventType, String, Option<String>)> {
    use ContainerEventType::{
        ContainerCreatedEvent, ContainerDeletedEvent, ContainerStartedEvent, ContainerStoppedEvent,
    };
    Some(match event {
        RuntimeEvent::SandboxStarted { sandbox_id } => (ContainerStartedEvent, sandbox_id, None),
        RuntimeEvent::SandboxDied { sandbox_id } | RuntimeEvent::SandboxStopped { sandbox_id } => {
            (ContainerStoppedEvent, sandbox_id, None)
        }
        RuntimeEvent::SandboxStopping { .. } => return None,
        RuntimeEvent::SandboxRemoved { sandbox_id } => (ContainerDeletedEvent, sandbox_id, None),
        RuntimeEvent::ContainerCreated { sandbox_id, container_id } => {
            (ContainerCreatedEvent, sandbox_id, Some(container_id))
        }
        RuntimeEvent::ContainerStarted { sandbox_id, container_id } => {
            (ContainerStartedEvent, sandbox_id, Some(container_id))
        }
        RuntimeEvent::ContainerExited { sandbox_id, container_id, .. } => {
            (ContainerStoppedEvent, sandbox_id, Some(container_id))
        }
        RuntimeEvent::ContainerRemoved { sandbox_id, container_id } => {
            (ContainerDeletedEvent, sandbox_id, Some(container_id))
        }
    })
}

/// From now on, for as long as somebody listens.
pub(super) fn stream(server: Arc<Server>) -> impl Stream<Item = ContainerEventResponse> + Send + 'static {
    let events = server.runtime.events();
    unfold((server, events), |(server, mut events)| async move {
        loop {
            let Some((kind, sandbox_id, container_id)) = kind(events.recv().await?) else { continue };
            let sandboxes = server.runtime.list_sandboxes().await.unwrap_or_default();
            let sandbox = sandboxes.into_iter().find(|sandbox| sandbox.id == sandbox_id);
            let event = response(kind, container_id.unwrap_or(sandbox_id), sandbox.as_ref());
            return Some((event, (server, events)));
        }
    })
}

fn response(kind: ContainerEventType, id: String, sandbox: Option<&SandboxStatus>) -> ContainerEventResponse {
    let containers = sandbox.iter().flat_map(|sandbox| &sandbox.containers);
    ContainerEventResponse {
        container_id: id,
        container_event_type: kind.into(),
        created_at: shim::sys::now_ns(),
        pod_sandbox_status: sandbox.map(tell::sandbox_status),
        containers_statuses: containers.map(|container| tell::container_status(container, None)).collect(),
    }
}
