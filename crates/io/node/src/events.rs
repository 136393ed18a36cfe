//! The node's events: counted and aggregated by [`kubelet::recorder`], written here, in order, by one task.

use crate::{NodeError, Shared};
use api::write::Verb;
use client::typed::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kubelet::pod::PodEvent;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};

/// What an event is about, and when it happened.
enum Told {
    Pod(Arc<Pod>, PodEvent, Timestamp),
    Node { warning: bool, reason: &'static str, message: String, at: Timestamp },
}

/// Takes events from anywhere on the node; never blocks.
pub(crate) struct Recorder {
    sender: mpsc::UnboundedSender<Told>,
    receiver: Mutex<mpsc::UnboundedReceiver<Told>>,
    client: Client,
    node: String,
}

impl Recorder {
    pub(crate) fn new(client: Client, node: &str) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Mutex::new(receiver), client, node: node.to_owned() }
    }

    pub(crate) fn pod(&self, pod: &Arc<Pod>, event: &PodEvent) {
        self.sender.send(Told::Pod(pod.clone(), event.clone(), Timestamp::now())).ok();
    }

    /// An event of this node.
    pub(crate) fn node(&self, warning: bool, reason: &'static str, message: String) {
        self.sender.send(Told::Node { warning, reason, message, at: Timestamp::now() }).ok();
    }
}

/// Writes what is told, for ever. An event that the server does not take is dropped, as upstream's are.
pub(crate) async fn run(shared: Arc<Shared>) -> Result<(), NodeError> {
    let recorder = &shared.events;
    let mut correlator = kubelet::recorder::Recorder::new("kubelet", &recorder.node);
    let mut told = recorder.receiver.lock().await;
    // As upstream's kubelet names its node: the name stands for the UID.
    let name = Some(recorder.node.clone());
    let node = ObjectReference { kind: Some("Node".to_owned()), uid: name.clone(), name, ..ObjectReference::default() };
    while let Some(told) = told.recv().await {
        let (write, reason) = match told {
            Told::Pod(pod, event, at) => (correlator.pod(&pod, &event, at), event.reason),
            Told::Node { warning, reason, message, at } => {
                (correlator.record(node.clone(), warning, reason, &message, at), reason.into())
            }
        };
        let Some(write) = write else { continue };
        let transport = recorder.client.transport();
        let mut result = transport.write(write.clone()).await;
        if write.verb != Verb::Create
            && result.as_ref().is_err_and(client::transport::CallError::is_not_found)
            && let Some(again) = correlator.create_again(&write)
        {
            result = transport.write(again).await;
        }
        if let Err(error) = result {
            tracing::debug!(%reason, %error, "event not written");
        }
    }
    Ok(())
}
