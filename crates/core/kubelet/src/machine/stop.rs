//! Ending: containers in their order, then the sandbox, the volumes and the object.

use super::{DEADLINE, DEADLINE_MESSAGE, Place, PodMachine, PodState, Sandboxes, Turned, Volumes};
use crate::container::{ContainerState, Kind, Restart, Stop};
use crate::order;
use crate::pod::{Action, HookKind};
use crate::restart;
use crate::status::{View, status};
use k8s_openapi::api::core::v1::Container as Spec;
use std::time::Duration;

/// Upstream gives every Pod at least so long, whatever was asked for.
const MIN_GRACE: Duration = Duration::from_secs(1);
/// The shortest time between the stop signal and SIGKILL (upstream `minimumGracePeriodInSeconds`).
const MIN_SIGNAL: Duration = Duration::from_secs(2);
/// `terminationGracePeriodSeconds` where nothing is said.
const DEFAULT_GRACE_S: i64 = 30;

impl PodMachine {
    /// How long the Pod's containers have to end.
    pub(super) fn grace_period(&self) -> Duration {
        let metadata = &self.pod.metadata;
        if let Some(eviction) = self.eviction.as_ref().filter(|_| !self.removed) {
            return eviction.grace_period.max(MIN_GRACE);
        }
        let asked = if self.removed {
            Some(0)
        } else if metadata.deletion_timestamp.is_some() {
            metadata.deletion_grace_period_seconds
        } else {
            None
        };
        let seconds =
            asked.or_else(|| self.pod.spec.as_ref()?.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE_S);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default()).max(MIN_GRACE)
    }

    /// Begins the end of the whole Pod. From here on the status stands still until all containers have ended, as upstream's
    /// does: an exit seen meanwhile is told at the end.
    pub(super) fn begin_end(&mut self, place: Place, turned: &mut Turned) {
        let shown = Box::new(status(self.view(turned.now)));
        self.state = PodState::Ending { place, shown };
        for container in &mut self.containers {
            match &mut container.state {
                ContainerState::Pulling { .. } | ContainerState::Pulled { .. } | ContainerState::Hindered { .. } => {
                    container.state = ContainerState::Idle;
                }
                ContainerState::Exited { restart, .. } => *restart = Restart::Never,
                ContainerState::Stopping { restart, .. } => *restart = false,
                _ => {}
            }
        }
        self.end(turned);
    }

    pub(super) fn end(&mut self, turned: &mut Turned) {
        self.stop_all(turned);
        if self.removed {
            self.hasten(turned);
        }
        self.progress_stops(turned);
        if self.containers.iter().any(|container| container.may_live()) {
            return;
        }
        let PodState::Ending { place, shown } = &self.state else { return };
        match place.clone() {
            Place::Awaited { .. } => {}
            Place::Nowhere => self.finish(turned),
            Place::Here(sandbox) => {
                turned.act(Action::StopSandbox { id: sandbox.id.clone() });
                self.state = PodState::Stopping { sandbox, shown: shown.clone() };
            }
        }
    }

    /// Tells every running container to end: all hooks begin together, then each waits for its turn.
    pub(super) fn stop_all(&mut self, turned: &mut Turned) {
        let grace = self.grace_period();
        for i in 0..self.containers.len() {
            let message = format!("Stopping container {}", self.containers[i].name.0);
            self.stop(i, message, grace, false, turned);
        }
    }

    /// Tells a running container to end; one that is ending already is left to it. `restart`: it is started again whatever the
    /// policies say.
    pub(super) fn stop(&mut self, i: usize, message: String, grace: Duration, restart: bool, turned: &mut Turned) {
        let container = &mut self.containers[i];
        let ContainerState::Running { run } = &container.state else { return };
        let run = run.clone();
        turned.event(container.field_path(), false, "Killing", message);
        let common = self.pod.spec.as_ref().and_then(|spec| container.spec(spec)?.common);
        let has_hook =
            common.and_then(|spec| spec.lifecycle.as_ref()).is_some_and(|lifecycle| lifecycle.pre_stop.is_some());
        let stop = if has_hook && !grace.is_zero() && !self.removed {
            let (container, id) = (container.name.clone(), run.id.clone());
            turned.act(Action::RunHook { container, id, hook: HookKind::PreStop });
            Stop::PreStop
        } else {
            Stop::Turn
        };
        container.state = ContainerState::Stopping { run, stop, deadline: turned.now.mono + grace, restart };
    }

    /// A container that failed its startup or liveness probe.
    pub(super) fn stop_unhealthy(
        &mut self,
        i: usize,
        probe: &str,
        spec: &Spec,
        grace_period_s: Option<i64>,
        turned: &mut Turned,
    ) {
        let (kind, name) = (self.containers[i].kind, &spec.name);
        let again = self.pod.spec.as_ref().is_some_and(|pod| restart::after_probe(spec, pod));
        let message = match kind {
            Kind::Main if again => format!("Container {name} failed {probe} probe, will be restarted"),
            Kind::Main => format!("Container {name} failed {probe} probe"),
            _ => format!("Init container {name} failed {probe} probe"),
        };
        let own = grace_period_s.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let grace = own.unwrap_or_else(|| self.grace_period());
        self.stop(i, message, grace, again, turned);
    }

    /// Sends the stop signal to each container whose hook is done (or has used up its time) and whose turn has come. What is
    /// left of the grace period counts, but never less than two seconds.
    pub(super) fn progress_stops(&mut self, turned: &mut Turned) {
        let now = turned.now.mono;
        let in_order = matches!(self.state, PodState::Ending { .. });
        for i in 0..self.containers.len() {
            let may_end = !in_order || order::may_end(&self.containers, i);
            let ContainerState::Stopping { run, stop, deadline, .. } = &mut self.containers[i].state else { continue };
            let late = *deadline <= now;
            let ready = match stop {
                Stop::PreStop => late,
                Stop::Turn => may_end || late,
                Stop::Signalled { .. } => false,
            };
            if ready {
                let left = deadline.saturating_sub(now).max(MIN_SIGNAL);
                *stop = Stop::Signalled { kill_at: now + left };
                let id = run.id.clone();
                turned.act(Action::StopContainer {
                    container: self.containers[i].name.clone(),
                    id,
                    grace_period_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                });
            }
        }
    }

    /// The object is gone: nobody waits for hooks and turns any more.
    fn hasten(&mut self, turned: &mut Turned) {
        let now = turned.now.mono;
        for container in &mut self.containers {
            let ContainerState::Stopping { run, stop, deadline, .. } = &mut container.state else { continue };
            *deadline = (*deadline).min(now);
            if let Stop::Signalled { kill_at } = stop
                && *kill_at > now + MIN_SIGNAL
            {
                *kill_at = now + MIN_SIGNAL;
                turned.act(Action::StopContainer {
                    container: container.name.clone(),
                    id: run.id.clone(),
                    grace_period_ms: u64::try_from(MIN_SIGNAL.as_millis()).unwrap_or(u64::MAX),
                });
            }
        }
    }

    /// No container lives and no sandbox either: the last status, then the volumes go.
    pub(super) fn finish(&mut self, turned: &mut Turned) {
        if self.failed.as_ref().is_some_and(|failed| failed.reason == DEADLINE) {
            // Upstream tells of it each time it makes a status.
            turned.event(String::new(), false, DEADLINE, DEADLINE_MESSAGE.to_owned());
        }
        let shown = Box::new(status(View { over: true, ..self.view(turned.now) }));
        self.state = PodState::Ended { volumes: Volumes::Going, sandboxes: Sandboxes::Kept, shown, deleting: false };
        turned.act(Action::TearDownVolumes);
        self.clear(turned);
    }

    /// Once its deletion is asked for, an ended Pod's sandboxes go too, and when all is gone its object.
    pub(super) fn clear(&mut self, turned: &mut Turned) {
        if !self.is_deleted() {
            return;
        }
        let PodState::Ended { volumes, sandboxes, deleting, .. } = &mut self.state else { return };
        if *sandboxes == Sandboxes::Kept {
            let left = self.sandboxes.len();
            *sandboxes = if left == 0 { Sandboxes::Gone } else { Sandboxes::Going { left } };
            turned.actions.extend(self.sandboxes.drain(..).map(|id| Action::RemoveSandbox { id }));
        }
        if *volumes != Volumes::Gone || *sandboxes != Sandboxes::Gone {
            return;
        }
        if self.removed {
            self.state = PodState::Finished;
            turned.act(Action::Finished);
        } else if !*deleting && !self.writing {
            *deleting = true;
            turned.act(Action::DeleteObject);
        }
    }

    /// Readiness probes go on while a Pod ends; the rest of its status stands still.
    pub(super) fn show_readiness(&mut self, turned: &mut Turned) {
        let fresh = status(self.view(turned.now));
        let PodState::Ending { shown, .. } = &mut self.state else { return };
        let lists = [
            (&mut shown.container_statuses, &fresh.container_statuses),
            (&mut shown.init_container_statuses, &fresh.init_container_statuses),
        ];
        for (shown, fresh) in lists {
            for old in shown.iter_mut().flatten() {
                let new =
                    fresh.iter().flatten().find(|new| new.name == old.name && new.container_id == old.container_id);
                if let Some(new) = new {
                    old.ready = new.ready;
                }
            }
        }
        for condition in shown.conditions.iter_mut().flatten() {
            let new = fresh.conditions.iter().flatten().find(|new| new.type_ == condition.type_);
            if let Some(new) = new.filter(|new| new.type_ == "Ready" || new.type_ == "ContainersReady") {
                condition.clone_from(new);
            }
        }
    }
}
