//! What each input changes.

use super::images::pulled;
use super::{Eviction, Place, PodMachine, PodState, Sandbox, Sandboxes, Turned, Volumes};
use crate::container::{ContainerState, Reason, Restart};
use crate::pod::{Action, Input};
use crate::{container, eviction, status};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use std::sync::Arc;
use std::time::Duration;

/// What is not tried again at a time of its own is tried again after so long (kubelet's `backOffPeriod`).
pub(super) const RETRY: Duration = Duration::from_secs(10);

impl PodMachine {
    pub(super) fn take(&mut self, input: Input, turned: &mut Turned) {
        match input {
            Input::Spec(pod) => self.take_spec(pod, turned),
            Input::Granted(pod) => self.take_granted(pod, turned),
            Input::Pending(pending) => {
                let refusal = pending.map(|pending| (pending.wanted, pending.reason, pending.message));
                self.take_pending(refusal, turned);
            }
            Input::Resized(result) => self.take_resized(result, turned),
            Input::Removed => self.removed = true,
            Input::Recovered { sandbox_id, sandbox_ready, attempt, ips, containers } => {
                let sandbox = Sandbox { id: sandbox_id, attempt };
                self.recover(sandbox, sandbox_ready, ips, containers, turned);
            }
            Input::Rejected { reason, message } => self.take_rejection(reason, message, turned),
            Input::Evicted { message, grace_s, condition } => self.take_eviction(message, grace_s, condition, turned),
            Input::VolumesReady => self.take_volumes(turned),
            Input::VolumesFailed { reason, message } => {
                self.settle();
                turned.event(String::new(), true, reason, message);
            }
            Input::SandboxReady { id, ips } => self.take_sandbox(id, ips),
            Input::SandboxFailed { message } => self.take_sandbox_failure(&message, turned),
            Input::SandboxDied { id } => self.take_sandbox_death(&id, turned),
            Input::ImageReady { container, image_id, image_ref, size_bytes, took, waited, present } => {
                let event = move |name: &str| pulled(name, present, size_bytes, took, waited);
                self.take_image(&container, image_id, image_ref, present, event, turned);
            }
            Input::ImageFailed { container, volume, failure } => {
                self.take_image_failure(&container, volume, failure, turned);
            }
            Input::ConfigFailed { container, message } => {
                self.take_start_failure(&container, None, "CreateContainerConfigError", &message, turned);
            }
            Input::StartFailed { container, id, reason, message } => {
                self.take_start_failure(&container, id, reason, &message, turned);
            }
            Input::Created { container, id, user } => self.take_created(&container, id, user, turned),
            Input::Started { container, id, at } => self.take_started(&container, &id, at, turned),
            Input::Exited { container, id, exit } => self.take_exit(&container, &id, &exit, turned),
            Input::ContainerGone { container, id } => self.take_loss(&container, &id, turned),
            Input::Probed { container, id, probe, success, output } => {
                self.take_probe(&container, &id, probe, success, &output, turned);
            }
            Input::HookDone { container, id, hook, result } => self.take_hook(&container, &id, hook, result, turned),
            Input::SandboxStopped => self.take_sandbox_end(turned),
            Input::SandboxRemoved => {
                if let PodState::Ended { sandboxes, .. } = &mut self.state
                    && let Sandboxes::Going { left } = *sandboxes
                {
                    *sandboxes = if left > 1 { Sandboxes::Going { left: left - 1 } } else { Sandboxes::Gone };
                }
            }
            Input::VolumesGone => {
                if let PodState::Ended { volumes, .. } = &mut self.state {
                    *volumes = Volumes::Gone;
                }
            }
            Input::StatusWritten => self.writing = false,
            Input::Woken => {}
        }
    }

    pub(super) fn take_spec(&mut self, pod: Arc<Pod>, turned: &mut Turned) {
        let old = std::mem::replace(&mut self.pod, pod);
        if self.state == PodState::New {
            return self.take_first_spec(turned);
        }
        let generation = self.pod.metadata.generation;
        if let PodState::Ending { shown, .. } | PodState::Stopping { shown, .. } | PodState::Ended { shown, .. } =
            &mut self.state
        {
            observe(shown, &self.pod, generation);
        }
        let Some(spec) = &self.pod.spec else { return };
        for container in container::of(spec) {
            if self.find(&container.name).is_none() {
                self.containers.push(container);
            }
        }
        let now = turned.now.mono;
        for container in &mut self.containers {
            let before = old.spec.as_ref().and_then(|spec| Some(container.spec(spec)?.image.to_owned()));
            let after = container.spec(spec).map(|spec| spec.image.to_owned());
            if before.is_none() || before == after {
                continue;
            }
            // Another image is another thing: it has not failed yet.
            container.backoff.reset();
            container.image_backoff.reset();
            match &mut container.state {
                ContainerState::Hindered { .. } | ContainerState::Pulled { .. } => {
                    container.state = ContainerState::Idle
                }
                ContainerState::Exited { restart: Restart::At { at, .. }, .. } => *at = now,
                _ => {}
            }
        }
    }

    fn take_first_spec(&mut self, turned: &mut Turned) {
        let (Some(spec), status) = (self.pod.spec.clone(), self.pod.status.clone().unwrap_or_default()) else { return };
        self.containers = container::of(&spec);
        self.status = status;
        self.resize = super::resize::Progress::adopt(&self.pod);
        self.sized = self.pod.clone();
        if self.is_terminal_in_api() {
            let shown = Box::new(self.status.clone());
            self.state =
                PodState::Ended { volumes: Volumes::Going, sandboxes: Sandboxes::Kept, shown, deleting: false };
            return turned.act(Action::TearDownVolumes);
        }
        let unsure = self.adopt();
        self.state = PodState::Volumes { found: None, unsure };
        if !self.must_end() || unsure {
            turned.act(Action::PrepareVolumes);
        }
    }

    fn take_rejection(&mut self, reason: String, message: String, turned: &mut Turned) {
        let untouched = matches!(self.state, PodState::Volumes { found: None, .. }) && !self.any_ran();
        let shown = format!("Pod was rejected: {message}");
        turned.event(String::new(), true, reason.clone(), message);
        self.failed = Some(Reason { reason, message: shown });
        if untouched {
            let shown = Box::new(status::rejected(self.view(turned.now)));
            self.state =
                PodState::Ended { volumes: Volumes::Going, sandboxes: Sandboxes::Kept, shown, deleting: false };
            turned.act(Action::TearDownVolumes);
        }
    }

    fn take_eviction(&mut self, message: String, grace_s: u32, condition: Option<PodCondition>, turned: &mut Turned) {
        let ends = matches!(self.state, PodState::Ending { .. } | PodState::Stopping { .. } | PodState::Ended { .. });
        if ends || self.failed.is_some() {
            return;
        }
        turned.event(String::new(), true, eviction::REASON, message.clone());
        self.failed = Some(Reason { reason: eviction::REASON.to_owned(), message });
        self.eviction = Some(Eviction { grace_period: Duration::from_secs(grace_s.into()), condition });
    }

    fn take_volumes(&mut self, turned: &mut Turned) {
        self.settle();
        if self.must_end() {
            return;
        }
        let PodState::Volumes { found, .. } = &mut self.state else { return };
        match found.take() {
            Some((sandbox, true)) => self.state = PodState::Up { sandbox },
            Some((sandbox, false)) => self.replace(sandbox, turned),
            None if self.any_ran() => self.start_over(1, turned),
            None => self.create_sandbox(0, turned),
        }
    }

    fn take_sandbox(&mut self, id: String, ips: Vec<std::net::IpAddr>) {
        self.sandboxes.push(id.clone());
        self.pod_ips = ips;
        match &mut self.state {
            PodState::Creating { attempt } => self.state = PodState::Up { sandbox: Sandbox { id, attempt: *attempt } },
            PodState::Ending { place, .. } => {
                if let Place::Awaited { attempt } = *place {
                    *place = Place::Here(Sandbox { id, attempt });
                }
            }
            _ => {}
        }
    }

    fn take_sandbox_failure(&mut self, message: &str, turned: &mut Turned) {
        match &mut self.state {
            PodState::Creating { attempt } => {
                let attempt = *attempt + 1;
                let at = turned.now.mono + self.lengthened(RETRY);
                self.state = PodState::Retrying { attempt, at };
                turned.event(
                    String::new(),
                    true,
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {message}"),
                );
            }
            PodState::Ending { place, .. } => *place = Place::Nowhere,
            _ => {}
        }
    }

    fn take_sandbox_death(&mut self, id: &str, turned: &mut Turned) {
        match &self.state {
            PodState::Up { sandbox } if sandbox.id == id => {
                let sandbox = sandbox.clone();
                self.replace(sandbox, turned);
            }
            PodState::Volumes { found: Some((sandbox, _)), unsure } if sandbox.id == id => {
                self.state = PodState::Volumes { found: Some((sandbox.clone(), false)), unsure: *unsure };
            }
            _ => {}
        }
    }

    fn take_sandbox_end(&mut self, turned: &mut Turned) {
        match &self.state {
            PodState::Stopping { .. } => self.finish(turned),
            PodState::Replacing { sandbox, .. } => {
                self.state = PodState::Replacing { sandbox: sandbox.clone(), stopped: true };
                self.bury(turned);
            }
            _ => {}
        }
    }
}

/// Takes over what others may change in a status that stands still.
fn observe(shown: &mut PodStatus, pod: &Pod, generation: Option<i64>) {
    shown.observed_generation = generation;
    let own = shown
        .conditions
        .take()
        .unwrap_or_default()
        .into_iter()
        .filter(|condition| crate::conditions::is_own(&condition.type_));
    let own = own.map(|mut condition| {
        if condition.observed_generation.is_some() {
            condition.observed_generation = generation;
        }
        condition
    });
    let api = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let others = api.filter(|condition| !crate::conditions::is_own(&condition.type_)).cloned();
    let conditions: Vec<_> = others.chain(own).collect();
    shown.conditions = Some(conditions).filter(|list| !list.is_empty());
}
