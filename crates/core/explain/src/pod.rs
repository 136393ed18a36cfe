//! Pods. Each rule is one file; the first that finds something wins, the most specific stands first.

mod configuration;
mod exits;
mod image;
mod scheduling;
mod start;
mod unheeded;
mod volumes;

use crate::Cause;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Pod};
pub use unheeded::unheeded;

/// A rule sees the Pod and its events, oldest first.
type Rule = fn(&Pod, &[Event]) -> Option<Cause>;

const RULES: &[Rule] = &[image::rule, configuration::rule, start::rule, exits::rule, volumes::rule, scheduling::rule];

/// The cause that keeps `pod` from running as its owner wants; `None` when nothing is wrong that is known here.
pub fn explain(pod: &Pod, events: &[Event]) -> Option<Cause> {
    RULES.iter().find_map(|rule| rule(pod, events))
}

/// Statuses of all containers, init containers first.
fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|s| s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten()))
}

/// Reason and message while a container waits.
fn waiting(status: &ContainerStatus) -> Option<(&str, &str)> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    Some((waiting.reason.as_deref()?, waiting.message.as_deref().unwrap_or_default()))
}

/// How it ended last, whether it waits, runs again or stays ended.
fn last_end(status: &ContainerStatus) -> Option<&k8s_openapi::api::core::v1::ContainerStateTerminated> {
    let ended = |state: &'_ Option<ContainerState>| state.as_ref().is_some_and(|state| state.terminated.is_some());
    let state = if ended(&status.state) { &status.state } else { &status.last_state };
    state.as_ref()?.terminated.as_ref()
}

#[cfg(test)]
mod tests;
