//! Starting: the sandbox, then containers as their turn comes.

use super::runs::has_probes;
use super::take::RETRY;
use super::{PodMachine, PodState, Sandbox, Turned};
use crate::allocated::Sizes;
use crate::backoff::go_seconds;
use crate::container::{ContainerState, Hindrance, Kind, Restart};
use crate::order::{self, Turn};
use crate::pod::Action;
use crate::termination;
use std::time::Duration;

/// Containers of a Pod that starts anew as a whole are not waited for.
const NO_GRACE: Duration = Duration::ZERO;

impl PodMachine {
    pub(super) fn create_sandbox(&mut self, attempt: u32, turned: &mut Turned) {
        self.state = PodState::Creating { attempt };
        self.sized = self.pod.clone();
        turned.act(Action::CreateSandbox { attempt });
    }

    /// Starts what may be started, ends what must be another, in a Pod that is up.
    pub(super) fn run(&mut self, turned: &mut Turned) {
        if self.restarting_all {
            return self.restart_all(turned);
        }
        self.resize(turned);
        for i in 0..self.containers.len() {
            // One start may change the next one's turn.
            let turn = order::turns(&self.containers)[i];
            self.run_container(i, turn, turned);
        }
        self.progress_stops(turned);
    }

    fn run_container(&mut self, i: usize, turn: Turn, turned: &mut Turned) {
        let now = turned.now.mono;
        match &self.containers[i].state {
            ContainerState::Running { .. } => self.stop_if_changed(i, turned),
            _ if turn == Turn::Later => {}
            ContainerState::Idle => self.fetch(i, turned),
            ContainerState::Exited { restart: Restart::At { at, back_off }, finished, .. } if *at <= now => {
                let (finished, back_off) = (*finished, *back_off);
                self.containers[i].backoff.tried(finished, now);
                if let Some(wait) = back_off {
                    let (wait, title) = (go_seconds(wait), self.title());
                    let name = self.containers[i].name.0.clone();
                    let message = format!("back-off {wait} restarting failed container={name} pod={title}");
                    self.containers[i].history.hinder("CrashLoopBackOff", &message);
                }
                self.fetch(i, turned);
            }
            ContainerState::Hindered { hindrance } => {
                let hindrance = hindrance.clone();
                self.look_again(i, hindrance, turned);
            }
            _ => {}
        }
        if turn == Turn::Start && !self.resize.is_asked() {
            self.start(i, turned);
        }
    }

    fn fetch(&mut self, i: usize, turned: &mut Turned) {
        let container = &mut self.containers[i];
        let Some(spec) = self.pod.spec.as_ref().and_then(|spec| container.spec(spec)) else { return };
        let image_name = spec.image.to_owned();
        container.state = ContainerState::Pulling { image_name: image_name.clone() };
        turned.act(Action::EnsureImage { container: container.name.clone(), image: image_name });
    }

    fn start(&mut self, i: usize, turned: &mut Turned) {
        let container = &mut self.containers[i];
        let ContainerState::Pulled { image, event } = &mut container.state else { return };
        let (image, event) = (image.clone(), event.take());
        if let Some(event) = event {
            turned.act(Action::Event(event));
        }
        turned.act(Action::StartContainer {
            container: container.name.clone(),
            attempt: container.history.next_attempt(),
            image_id: image.id.clone(),
        });
        let spec = self.pod.spec.as_ref();
        let given = spec.and_then(|spec| container.spec(spec)?.resources).cloned().unwrap_or_default();
        let sizes = Sizes::of(spec.and_then(|spec| spec.resources.as_ref()), Some(&given));
        container.state = ContainerState::Starting { image, given, sizes, created: None };
    }

    /// While a pull backs off this is told of every ten seconds or so, as upstream's pod workers do.
    fn look_again(&mut self, i: usize, hindrance: Hindrance, turned: &mut Turned) {
        let now = turned.now.mono;
        match hindrance {
            Hindrance::Start { retry_at } if retry_at <= now => self.fetch(i, turned),
            Hindrance::Image { look_at, until, .. } if look_at <= now && until <= now => self.fetch(i, turned),
            Hindrance::Image { look_at, .. } if look_at <= now => self.tell_of_pull_back_off(i, turned),
            _ => {}
        }
    }

    pub(super) fn tell_of_pull_back_off(&mut self, i: usize, turned: &mut Turned) {
        let look_at = turned.now.mono + self.lengthened(RETRY);
        let container = &mut self.containers[i];
        let ContainerState::Hindered { hindrance: Hindrance::Image { image_name, error, look_at: next, .. } } =
            &mut container.state
        else {
            return;
        };
        *next = look_at;
        let message = format!("Back-off pulling image \"{image_name}\"");
        let reason = format!("{message}: ErrImagePull: {error}");
        turned.event(container.field_path(), false, "BackOff", message);
        turned.event(container.field_path(), true, "Failed", "Error: ImagePullBackOff".to_owned());
        container.history.hinder("ImagePullBackOff", &reason);
    }

    /// A container whose image was changed in the spec is started anew, under every restart policy.
    fn stop_if_changed(&mut self, i: usize, turned: &mut Turned) {
        let container = &self.containers[i];
        let wanted = self.pod.spec.as_ref().and_then(|spec| container.spec(spec)).map(|spec| spec.image);
        let has = container.run().map(|run| run.image_name.as_str());
        if wanted.is_none() || wanted == has {
            return;
        }
        let name = &container.name.0;
        let message = match container.kind {
            Kind::Main => format!("Container {name} definition changed, will be restarted"),
            Kind::Sidecar => format!("Init container {name} definition changed"),
            Kind::Init | Kind::Ephemeral => return,
        };
        let grace = self.grace_period();
        self.stop(i, message, grace, true, turned);
    }

    /// The sandbox has died: what is left of it is ended, then another one is made.
    pub(super) fn replace(&mut self, sandbox: Sandbox, turned: &mut Turned) {
        for container in &self.containers {
            if container.run().is_some() {
                let message = format!("Stopping container {}", container.name.0);
                turned.event(container.field_path(), false, "Killing", message);
            }
        }
        turned.act(Action::StopSandbox { id: sandbox.id.clone() });
        self.state = PodState::Replacing { sandbox, stopped: false };
    }

    /// With its sandbox every container has ended; whose end was not told of before has an unknown one.
    pub(super) fn bury(&mut self, turned: &mut Turned) {
        for container in &mut self.containers {
            if container.run().is_some_and(has_probes) {
                let id = container.run().map(|run| run.id.clone()).unwrap_or_default();
                turned.act(Action::StopProbes { container: container.name.clone(), id });
            }
            if container.run().is_some() {
                let end = termination::unknown();
                let exit_code = end.exit_code;
                container.history.end(end);
                container.state =
                    ContainerState::Exited { exit_code, finished: turned.now.mono, restart: Restart::Never };
            }
        }
    }

    /// Everything runs again from the first init container on, in a new sandbox; unless policies forbid it (upstream
    /// `computePodActions`).
    pub(super) fn start_over(&mut self, attempt: u32, turned: &mut Turned) {
        let pod = self.pod.clone();
        let Some(spec) = &pod.spec else { return };
        let never = spec.restart_policy.as_deref() == Some("Never");
        let done = |container: &crate::container::Container| {
            let own = container.spec(spec).and_then(|spec| spec.common?.restart_policy.as_deref());
            let once = own.or(spec.restart_policy.as_deref()) == Some("OnFailure");
            container.kind == Kind::Ephemeral || (container.kind == Kind::Main && once && container.is_complete())
        };
        let mains = || self.containers.iter().filter(|container| container.kind == Kind::Main);
        let all_done = mains().all(done);
        if (never && self.any_ran()) || all_done {
            for container in &mut self.containers {
                if let ContainerState::Exited { restart, .. } = &mut container.state {
                    *restart = Restart::Never;
                }
            }
            return self.begin_end(super::Place::Nowhere, turned);
        }
        for container in &mut self.containers {
            container.ran_here = false;
            if !done(container)
                && matches!(container.state, ContainerState::Exited { .. } | ContainerState::Hindered { .. })
            {
                container.state = ContainerState::Idle;
            }
        }
        turned.event(
            String::new(),
            false,
            "SandboxChanged",
            "Pod sandbox changed, it will be killed and re-created.".to_owned(),
        );
        self.create_sandbox(attempt, turned);
    }

    /// Ends all containers at once, then forgets them, so that the Pod starts anew in its sandbox (KEP-5532).
    fn restart_all(&mut self, turned: &mut Turned) {
        for i in 0..self.containers.len() {
            if self.containers[i].kind != Kind::Ephemeral {
                self.stop(i, "killing".to_owned(), NO_GRACE, false, turned);
            }
        }
        self.progress_stops(turned);
        if self.containers.iter().any(|container| container.kind != Kind::Ephemeral && container.may_live()) {
            return;
        }
        self.restarting_all = false;
        for container in self.containers.iter_mut().filter(|container| container.kind != Kind::Ephemeral) {
            if matches!(container.state, ContainerState::Exited { .. } | ContainerState::Hindered { .. }) {
                container.state = ContainerState::Idle;
            }
            container.ran_here = false;
            let dead = container.history.facts.take().map(|facts| facts.id);
            if dead.is_none() {
                continue;
            }
            for id in dead.into_iter().chain(container.history.kept.take()) {
                turned.act(Action::RemoveContainer { container: container.name.clone(), id });
            }
            container.history.end(termination::restarting_all());
            container.history.lost = true;
            container.history.hinder(termination::RESTARTING_ALL, termination::RESTARTING_ALL_MESSAGE);
        }
    }
}
