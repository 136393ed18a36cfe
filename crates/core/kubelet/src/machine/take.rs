//! What each input changes.

use super::{Place, PodMachine, PodState, Sandbox, Sandboxes, Turned, Volumes};
use crate::backoff::go_seconds;
use crate::container::{ContainerState, Facts, Health, Hindrance, Image, Kind, PostStart, Reason, Restart, Run, Stop};
use crate::pod::{Action, ContainerName, Exit, HookKind, Input, ProbeKind, PullFailure};
use crate::restart::{self, Verdict};
use crate::{container, status, termination};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, ContainerUser, Pod, PodStatus};
use std::sync::Arc;
use std::time::Duration;

/// What is not tried again at a time of its own is tried again after so long (kubelet's `backOffPeriod`).
pub(super) const RETRY: Duration = Duration::from_secs(10);

impl PodMachine {
    pub(super) fn take(&mut self, input: Input, turned: &mut Turned) {
        match input {
            Input::Spec(pod) => self.take_spec(pod, turned),
            Input::Removed => self.removed = true,
            Input::Recovered { sandbox_id, sandbox_ready, attempt, ips, containers } => {
                let sandbox = Sandbox { id: sandbox_id, attempt };
                self.recover(sandbox, sandbox_ready, ips, containers, turned);
            }
            Input::Rejected { reason, message } => self.take_rejection(reason, message, turned),
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
            Input::ImageFailed { container, failure } => self.take_image_failure(&container, failure, turned),
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

    fn take_spec(&mut self, pod: Arc<Pod>, turned: &mut Turned) {
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

    fn take_image(
        &mut self,
        name: &ContainerName,
        id: String,
        reference: String,
        present: bool,
        event: impl FnOnce(&str) -> String,
        turned: &mut Turned,
    ) {
        let Some(i) = self.find(name) else { return };
        let path = self.containers[i].field_path();
        let container = &mut self.containers[i];
        let ContainerState::Pulling { image_name } = &container.state else { return };
        let image = Image { name: image_name.clone(), id, reference };
        if !present {
            container.image_backoff.reset();
        }
        let event = crate::pod::PodEvent {
            warning: false,
            reason: "Pulled".into(),
            message: event(&image.name),
            field_path: path,
        };
        let wanted = self.pod.spec.as_ref().and_then(|spec| container.spec(spec)).map(|spec| spec.image);
        if wanted.is_some_and(|wanted| wanted != image.name) {
            container.state = ContainerState::Idle;
            return;
        }
        // A pull has taken time and is told of at once; an image that was there is told of when it is used.
        let event = if present {
            Some(event)
        } else {
            turned.act(Action::Event(event));
            None
        };
        container.state = ContainerState::Pulled { image, event };
    }

    fn take_image_failure(&mut self, name: &ContainerName, failure: PullFailure, turned: &mut Turned) {
        let Some(i) = self.find(name) else { return };
        let retry_at = turned.now.mono + self.lengthened(RETRY);
        let (now, path) = (turned.now.mono, self.containers[i].field_path());
        let container = &mut self.containers[i];
        let ContainerState::Pulling { image_name } = &container.state else { return };
        let image = image_name.clone();
        let (reason, message, hindrance) = match failure {
            PullFailure::Pull(error) => {
                turned.event(path.clone(), true, "Failed", format!("Failed to pull image \"{image}\": {error}"));
                container.image_backoff.tried(now, now);
                let wait = container.image_backoff.period(now).unwrap_or(RETRY);
                let (look_at, until) = (retry_at, now + wait);
                ("ErrImagePull", error.clone(), Hindrance::Image { image_name: image, error, look_at, until })
            }
            PullFailure::Never => {
                let message = format!("Container image \"{image}\" is not present with pull policy of Never");
                turned.event(path.clone(), true, "ErrImageNeverPull", message.clone());
                ("ErrImageNeverPull", message, Hindrance::Start { retry_at })
            }
            PullFailure::InvalidName(error) => {
                let message = format!("Failed to apply default image tag \"{image}\": {error}");
                turned.event(path.clone(), true, "InspectFailed", message.clone());
                ("InvalidImageName", message, Hindrance::Start { retry_at })
            }
        };
        turned.event(path, true, "Failed", format!("Error: {reason}"));
        container.history.hinder(reason, &message);
        container.state = ContainerState::Hindered { hindrance };
    }

    /// Not configured or not created: all is tried again. Created and not started: it counts as an exit.
    fn take_start_failure(
        &mut self,
        name: &ContainerName,
        id: Option<String>,
        reason: &str,
        message: &str,
        turned: &mut Turned,
    ) {
        let Some(i) = self.find(name) else { return };
        let retry_at = turned.now.mono + self.lengthened(RETRY);
        let path = self.containers[i].field_path();
        let container = &mut self.containers[i];
        let ContainerState::Starting { image, created } = &mut container.state else { return };
        turned.event(path, true, "Failed", format!("Error: {message}"));
        container.history.hinder(reason, message);
        let Some(id) = id else {
            container.state = ContainerState::Hindered { hindrance: Hindrance::Start { retry_at } };
            return;
        };
        let facts = created.take().unwrap_or(Facts { id: id.clone(), image: image.clone(), user: None });
        container.ran_here = true;
        container.history.begin(facts);
        let end = termination::not_started(message, &id, turned.now.wall);
        let exit_code = end.exit_code;
        container.history.end(end);
        self.exited(i, exit_code, false, turned);
    }

    fn take_created(&mut self, name: &ContainerName, id: String, user: Option<ContainerUser>, turned: &mut Turned) {
        let Some(i) = self.find(name) else { return };
        let container = &mut self.containers[i];
        let ContainerState::Starting { image, created } = &mut container.state else { return };
        *created = Some(Facts { id, image: image.clone(), user });
        turned.event(container.field_path(), false, "Created", "Container created".to_owned());
    }

    fn take_started(&mut self, name: &ContainerName, id: &str, at: Timestamp, turned: &mut Turned) {
        let Some(i) = self.find(name) else { return };
        let pod = self.pod.clone();
        let container = &mut self.containers[i];
        let ContainerState::Starting { image, created } = &mut container.state else { return };
        let unseen = || Facts { id: id.to_owned(), image: image.clone(), user: None };
        let facts = created.take().unwrap_or_else(unseen);
        let common = pod.spec.as_ref().and_then(|spec| container.spec(spec)?.common);
        let run = new_run(id, &facts.image.name, at, common);
        let hook = run.post_start == PostStart::Runs;
        turned.event(container.field_path(), false, "Started", "Container started".to_owned());
        // Of the dead containers the last one's logs are kept.
        let dead = container.history.facts.as_ref().map(|facts| facts.id.clone());
        if let Some(old) = std::mem::replace(&mut container.history.kept, dead) {
            turned.act(Action::RemoveContainer { container: name.clone(), id: old });
        }
        container.ran_here = true;
        container.history.begin(facts);
        container.history.reason = None;
        if has_probes(&run) {
            turned.act(Action::StartProbes { container: name.clone(), id: id.to_owned() });
        }
        container.state = ContainerState::Running { run };
        self.tell_of_others(i, turned);
        if hook && !matches!(self.state, PodState::Ending { .. }) {
            turned.act(Action::RunHook { container: name.clone(), id: id.to_owned(), hook: HookKind::PostStart });
        }
    }

    fn take_exit(&mut self, name: &ContainerName, id: &str, exit: &Exit, turned: &mut Turned) {
        let Some(i) = self.find(name) else { return };
        // A process may end before its start was told of.
        if let ContainerState::Starting { created: Some(facts), .. } = &self.containers[i].state
            && facts.id == id
        {
            let at = exit.started_at.unwrap_or(exit.finished_at);
            self.take_started(name, id, at, turned);
        }
        let container = &mut self.containers[i];
        let Some(run) = container.run() else { return };
        if run.id != id {
            return;
        }
        if has_probes(run) {
            turned.act(Action::StopProbes { container: name.clone(), id: id.to_owned() });
        }
        let mut end = termination::exited(exit, id);
        if end.started_at.is_none() && !exit.unknown {
            end.started_at = Some(status::time(run.started_at));
        }
        let exit_code = end.exit_code;
        let forced = matches!(container.state, ContainerState::Stopping { restart: true, .. });
        container.history.end(end);
        self.exited(i, exit_code, forced, turned);
        self.tell_of_others(i, turned);
    }

    /// Decides what follows an exit. `forced`: the container was ended in order to restart it.
    pub(super) fn exited(&mut self, i: usize, exit_code: i32, forced: bool, turned: &mut Turned) {
        let now = turned.now.mono;
        let restart =
            if self.follows_restart(i, exit_code, forced) { self.restart_at(i, turned) } else { Restart::Never };
        self.containers[i].state = ContainerState::Exited { exit_code, finished: now, restart };
    }

    fn follows_restart(&mut self, i: usize, exit_code: i32, forced: bool) -> bool {
        let ends = matches!(self.state, PodState::Ending { .. } | PodState::Replacing { .. });
        let container = &self.containers[i];
        let done = container.kind == Kind::Ephemeral || (container.kind == Kind::Init && exit_code == 0);
        if ends || self.is_deleted() || (done && !forced) {
            return false;
        }
        let Some(spec) = &self.pod.spec else { return false };
        let Some(common) = container.spec(spec).and_then(|spec| spec.common) else { return false };
        let verdict = restart::verdict(common, spec, exit_code);
        self.containers[i].history.replaced = forced && matches!(verdict, Verdict::Stay);
        match verdict {
            _ if forced => true,
            Verdict::Stay => false,
            Verdict::Restart => true,
            Verdict::RestartAll => {
                self.restarting_all = true;
                true
            }
        }
    }

    /// At once the first time, then after the back-off.
    fn restart_at(&mut self, i: usize, turned: &mut Turned) -> Restart {
        let now = turned.now.mono;
        let Some(wait) = self.containers[i].backoff.period(now) else { return Restart::At { at: now, back_off: None } };
        let at = now + self.lengthened(wait);
        self.tell_of_back_off(i, turned);
        Restart::At { at, back_off: Some(wait) }
    }

    /// Upstream looks at the whole Pod whenever something happened at the runtime, and says each time what backs off.
    pub(super) fn tell_of_others(&mut self, i: usize, turned: &mut Turned) {
        if !matches!(self.state, PodState::Up { .. }) {
            return;
        }
        for j in (0..self.containers.len()).filter(|j| *j != i) {
            match &self.containers[j].state {
                ContainerState::Exited { restart: Restart::At { at, back_off: Some(_) }, .. }
                    if *at > turned.now.mono =>
                {
                    self.tell_of_back_off(j, turned);
                }
                ContainerState::Hindered { hindrance: Hindrance::Image { until, .. } } if *until > turned.now.mono => {
                    self.tell_of_pull_back_off(j, turned);
                }
                _ => {}
            }
        }
    }

    fn tell_of_back_off(&self, i: usize, turned: &mut Turned) {
        let container = &self.containers[i];
        let message = format!("Back-off restarting failed container {} in pod {}", container.name.0, self.title());
        turned.event(container.field_path(), true, "BackOff", message);
    }

    /// Somebody removed the container at the runtime. One that ran is made again at once.
    fn take_loss(&mut self, name: &ContainerName, id: &str, turned: &mut Turned) {
        let Some(i) = self.find(name) else { return };
        let ends = matches!(self.state, PodState::Ending { .. } | PodState::Replacing { .. });
        let container = &mut self.containers[i];
        if container.history.kept.as_deref() == Some(id) {
            container.history.kept = None;
        }
        if container.run().is_none_or(|run| run.id != id) {
            return;
        }
        if container.run().is_some_and(has_probes) {
            turned.act(Action::StopProbes { container: name.clone(), id: id.to_owned() });
        }
        if ends {
            container.history.end(termination::unknown());
            container.state =
                ContainerState::Exited { exit_code: 137, finished: turned.now.mono, restart: Restart::Never };
        } else {
            container.history.lose();
            container.history.facts = None;
            container.state = ContainerState::Idle;
        }
    }

    fn take_probe(
        &mut self,
        name: &ContainerName,
        id: &str,
        kind: ProbeKind,
        success: bool,
        output: &str,
        turned: &mut Turned,
    ) {
        let Some(i) = self.find(name) else { return };
        let pod = self.pod.clone();
        let Some(spec) = &pod.spec else { return };
        let ends = matches!(self.state, PodState::Ending { .. });
        let container = &mut self.containers[i];
        let path = container.field_path();
        let Some(common) = container.spec(spec).and_then(|spec| spec.common) else { return };
        let stopping = matches!(container.state, ContainerState::Stopping { .. });
        let Some(run) = container.run_mut().filter(|run| run.id == id) else { return };
        let (health, probe, title) = match kind {
            ProbeKind::Startup => (&mut run.startup, &common.startup_probe, "Startup"),
            ProbeKind::Readiness => (&mut run.readiness, &common.readiness_probe, "Readiness"),
            ProbeKind::Liveness => (&mut run.liveness, &common.liveness_probe, "Liveness"),
        };
        let Some(probe) = probe else { return };
        let ignored = (ends || stopping) && kind != ProbeKind::Readiness;
        if ignored {
            return;
        }
        if !success {
            turned.event(path, true, "Unhealthy", format!("{title} probe failed: {output}"));
        }
        let reached = health.take(success, probe);
        if reached && !success && kind != ProbeKind::Readiness {
            let what = if kind == ProbeKind::Startup { "startup" } else { "liveness" };
            let grace_period_s = probe.termination_grace_period_seconds;
            self.stop_unhealthy(i, what, common, grace_period_s, turned);
        } else if reached && ends {
            self.show_readiness(turned);
        }
    }

    fn take_hook(
        &mut self,
        name: &ContainerName,
        id: &str,
        hook: HookKind,
        result: Result<(), String>,
        turned: &mut Turned,
    ) {
        let Some(i) = self.find(name) else { return };
        let container = &mut self.containers[i];
        let path = container.field_path();
        if container.run().is_none_or(|run| run.id != id) {
            return;
        }
        match (hook, result) {
            (HookKind::PostStart, Ok(())) => {
                if let Some(run) = container.run_mut() {
                    run.post_start = PostStart::Done;
                }
            }
            (HookKind::PostStart, Err(message)) => {
                turned.event(path, true, "FailedPostStartHook", "PostStartHook failed".to_owned());
                if matches!(container.state, ContainerState::Running { .. }) {
                    container.history.hinder("PostStartHookError", &message);
                    let grace = self.grace_period();
                    self.stop(i, "FailedPostStartHook".to_owned(), grace, false, turned);
                }
            }
            (HookKind::PreStop, result) => {
                if result.is_err() {
                    turned.event(path, true, "FailedPreStopHook", "PreStopHook failed".to_owned());
                }
                if let ContainerState::Stopping { stop, .. } = &mut container.state
                    && *stop == Stop::PreStop
                {
                    *stop = Stop::Turn;
                }
            }
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

pub(super) fn new_run(id: &str, image_name: &str, at: Timestamp, common: Option<&Spec>) -> Run {
    let hook = common.and_then(|spec| spec.lifecycle.as_ref()).is_some_and(|lifecycle| lifecycle.post_start.is_some());
    let probe = |of: fn(&Spec) -> Option<&k8s_openapi::api::core::v1::Probe>| common.and_then(of);
    Run {
        id: id.to_owned(),
        image_name: image_name.to_owned(),
        started_at: at,
        post_start: if hook { PostStart::Runs } else { PostStart::Done },
        startup: Health::of(probe(|spec| spec.startup_probe.as_ref()), false),
        readiness: Health::of(probe(|spec| spec.readiness_probe.as_ref()), false),
        liveness: Health::of(probe(|spec| spec.liveness_probe.as_ref()), true),
    }
}

pub(super) fn has_probes(run: &Run) -> bool {
    [run.startup, run.readiness, run.liveness].iter().any(|health| *health != Health::Unasked)
}

fn pulled(name: &str, present: bool, size_bytes: u64, took: Duration, waited: Duration) -> String {
    if present {
        return format!("Container image \"{name}\" already present on machine and can be accessed by the pod");
    }
    let (took, waited) = (go_millis(took), go_millis(waited));
    format!(
        "Successfully pulled image \"{name}\" in {took} ({waited} including waiting). Image size: {size_bytes} bytes."
    )
}

/// As Go prints a duration that was cut to milliseconds: `0s`, `81ms`, `1.204s`, `1m2.5s`.
fn go_millis(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let fraction = format!("{:03}", ms % 1000);
    let fraction = fraction.trim_end_matches('0');
    let seconds = go_seconds(Duration::from_secs(duration.as_secs()));
    let whole = seconds.trim_end_matches('s');
    if fraction.is_empty() { seconds } else { format!("{whole}.{fraction}s") }
}
