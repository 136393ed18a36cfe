//! Whose Pod goes first, and what it is told (upstream `rank*Pressure`, `evictionMessage`).

use super::{Observations, Signal, Threshold, binary, quantity};
use std::cmp::Reverse;

/// A Pod that may be evicted, and what it uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    pub uid: String,
    pub priority: i32,
    /// `None`: nothing is known; such a Pod goes first.
    pub used: Option<Used>,
    pub memory_request: u64,
    pub storage_request: u64,
    pub containers: Vec<ContainerUsage>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub memory: u64,
    /// Of the file system in question: logs, writable layers, local volumes.
    pub storage: u64,
    pub inodes: u64,
    pub pids: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    pub name: String,
    pub memory: u64,
    pub memory_request: u64,
    /// Writable layer and logs.
    pub storage: u64,
    pub storage_request: u64,
}

/// Orders the Pods: the first goes first. Those over their requests, then by priority, then by what they use beyond.
pub fn rank(signal: Signal, pods: &mut [Usage]) {
    pods.sort_by_key(|pod| {
        let Some(used) = pod.used else { return (false, Reverse(false), i32::MIN, Reverse(i128::MAX)) };
        let (amount, request) = match signal {
            Signal::MemoryAvailable => (used.memory, pod.memory_request),
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => (used.storage, pod.storage_request),
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => (used.inodes, 0),
            // Nobody can request processes: all are alike over it.
            Signal::PidAvailable => (used.pids, 0),
        };
        let over = signal == Signal::PidAvailable || amount > request;
        (true, Reverse(over), pod.priority, Reverse(i128::from(amount) - i128::from(request)))
    });
}

/// What the status and the event of an evicted Pod say.
pub fn message(signal: Signal, pod: &Usage, thresholds: &[Threshold], observations: &Observations) -> String {
    let resource = signal.resource();
    let mut message = format!("The node was low on resource: {resource}. ");
    let met = thresholds.iter().find(|threshold| threshold.signal.resource() == resource);
    if let Some((threshold, observed)) = met.and_then(|met| Some((met, observations.get(&met.signal)?))) {
        let available = quantity(observed.available, threshold.signal.suffix());
        let amount = threshold.amount(observed.capacity);
        message += &format!("Threshold quantity: {amount}, available: {available}. ");
    }
    for container in &pod.containers {
        let (used, request) = match resource {
            "memory" => (container.memory, container.memory_request),
            "ephemeral-storage" => (container.storage, container.storage_request),
            _ => continue,
        };
        if used > request {
            let (name, used, request) = (&container.name, binary(used), binary(request));
            message += &format!(
                "Container {name} was using {used}, request is {request}, has larger consumption of {resource}. "
            );
        }
    }
    message
}
