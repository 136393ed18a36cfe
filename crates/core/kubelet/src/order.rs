//! In which order containers start and end: all the rules, in one place (upstream `computePodActions`,
//! `computeInitContainerActions`, `kuberuntime_termination_order.go`; KEP-753).

use crate::container::{Container, ContainerState, Kind, PostStart};

/// Whether a container's turn to start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Not even its image is asked for.
    Later,
    /// The image may be fetched; the start waits for another of its list.
    Fetch,
    Start,
}

/// The turn of each container, by its place in `containers` (the order of [`crate::container::of`]).
///
/// Init containers follow each other; a sidecar lets the next one go once it has started; main containers start one after
/// another, each as soon as the one before was started and its postStart is done (or it could not be started); ephemeral ones at
/// any time. What is past stays past: when a later container has run in this sandbox, earlier ones do not hold it up, and an
/// init container that ended is never run again.
pub fn turns(containers: &[Container]) -> Vec<Turn> {
    let mut turns = vec![Turn::Later; containers.len()];
    let latest_run = containers.iter().rposition(|c| c.ran_here && c.kind != Kind::Ephemeral);
    let mut open = true;
    let mut main_busy = false;
    for (i, container) in containers.iter().enumerate() {
        let passed = latest_run.is_some_and(|latest| i < latest);
        match container.kind {
            Kind::Ephemeral => turns[i] = Turn::Start,
            Kind::Init if passed => {}
            Kind::Init => {
                turns[i] = if open { Turn::Start } else { Turn::Later };
                open &= container.is_complete();
            }
            Kind::Sidecar => {
                turns[i] = if open || passed { Turn::Start } else { Turn::Later };
                open &= passed || has_started(container);
            }
            Kind::Main if !open => {}
            Kind::Main => {
                turns[i] = if main_busy { Turn::Fetch } else { Turn::Start };
                main_busy |= is_about_to_start(container);
            }
        }
    }
    turns
}

/// The init containers are done and the sidecars have started: main containers may run.
pub fn is_initialized(containers: &[Container]) -> bool {
    let turns = turns(containers);
    containers.iter().zip(turns).any(|(container, turn)| container.kind == Kind::Main && turn != Turn::Later)
}

/// A sidecar that lets the next container go.
fn has_started(container: &Container) -> bool {
    container.run().is_some_and(|run| run.is_started() && run.post_start == PostStart::Done)
}

/// The next main container waits for this one.
fn is_about_to_start(container: &Container) -> bool {
    match &container.state {
        ContainerState::Idle
        | ContainerState::Pulling { .. }
        | ContainerState::Pulled { .. }
        | ContainerState::Starting { .. } => true,
        ContainerState::Running { run } => run.post_start == PostStart::Runs,
        ContainerState::Hindered { .. } | ContainerState::Stopping { .. } | ContainerState::Exited { .. } => false,
    }
}

/// Whether the container at `i` may be told to end now, if the whole Pod ends: sidecars wait for all main containers and for
/// the sidecars after them.
pub fn may_end(containers: &[Container], i: usize) -> bool {
    if containers[i].kind != Kind::Sidecar {
        return true;
    }
    !containers.iter().enumerate().any(|(j, other)| {
        let before_it = other.kind == Kind::Main || (other.kind == Kind::Sidecar && j > i);
        before_it && other.may_live()
    })
}

/// The Pod has nothing more to do: every main container has ended for good, or an init container has failed for good.
pub fn is_over(containers: &[Container]) -> bool {
    let failed = containers.iter().any(|c| c.kind == Kind::Init && c.is_over() && !c.is_complete());
    failed || containers.iter().filter(|c| c.kind == Kind::Main).all(Container::is_over)
}
