//! The node's events: counted and aggregated by [`kubelet::recorder`], written here, in order, by one task.

use crate::{NodeError, Shared};
use api::write::Verb;
use client::typed::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kubelet::pod::PodEvent;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};

type Told = (Arc<Pod>, PodEvent, Timestamp);

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
        self.sender.send((pod.clone(), event.clone(), Timestamp::now())).ok();
    }
}

/// Writes what is told, for ever. An event that the server does not take is dropped, as upstream's are.
pub(crate) async fn run(shared: Arc<Shared>) -> Result<(), NodeError> {
    let recorder = &shared.events;
    let mut correlator = kubelet::recorder::Recorder::new("kubelet", &recorder.node);
    let mut told = recorder.receiver.lock().await;
    while let Some((pod, event, at)) = told.recv().await {
        let Some(write) = correlator.pod(&pod, &event, at) else { continue };
        let transport = recorder.client.transport();
        let mut result = transport.write(write.clone()).await;
        if write.verb != Verb::Create
            && result.as_ref().is_err_and(client::transport::CallError::is_not_found)
            && let Some(again) = correlator.create_again(&write)
        {
            result = transport.write(again).await;
        }
        if let Err(error) = result {
            tracing::debug!(reason = %event.reason, %error, "event not written");
        }
    }
    Ok(())
}
