//! What becomes of a container's runs: starts, exits and what follows them, losses, probes, hooks.

use super::take::RETRY;
use super::{PodMachine, PodState, Turned};
use crate::allocated::Sizes;
use crate::container::{ContainerState, Facts, Health, Hindrance, Kind, PostStart, Restart, Run, Stop};
use crate::pod::{Action, ContainerName, Exit, HookKind, ProbeKind};
use crate::restart::{self, Verdict};
use crate::{status, termination};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, ContainerUser, ResourceRequirements};

impl PodMachine {
    /// Not configured or not created: all is tried again. Created and not started: it counts as an exit.
    pub(super) fn take_start_failure(
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
        let ContainerState::Starting { image, created, .. } = &mut container.state else { return };
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

    pub(super) fn take_created(
        &mut self,
        name: &ContainerName,
        id: String,
        user: Option<ContainerUser>,
        turned: &mut Turned,
    ) {
        let Some(i) = self.find(name) else { return };
        let container = &mut self.containers[i];
        let ContainerState::Starting { image, created, .. } = &mut container.state else { return };
        *created = Some(Facts { id, image: image.clone(), user });
        turned.event(container.field_path(), false, "Created", "Container created".to_owned());
    }

    pub(super) fn take_started(&mut self, name: &ContainerName, id: &str, at: Timestamp, turned: &mut Turned) {
        let Some(i) = self.find(name) else { return };
        let pod = self.pod.clone();
        let container = &mut self.containers[i];
        let ContainerState::Starting { image, given, sizes, created } = &mut container.state else { return };
        let (given, sizes) = (std::mem::take(given), *sizes);
        let unseen = || Facts { id: id.to_owned(), image: image.clone(), user: None };
        let facts = created.take().unwrap_or_else(unseen);
        let common = pod.spec.as_ref().and_then(|spec| container.spec(spec)?.common);
        let run = Run { given, sizes, ..new_run(id, &facts.image.name, at, common) };
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

    pub(super) fn take_exit(&mut self, name: &ContainerName, id: &str, exit: &Exit, turned: &mut Turned) {
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
    pub(super) fn take_loss(&mut self, name: &ContainerName, id: &str, turned: &mut Turned) {
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

    pub(super) fn take_probe(
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

    pub(super) fn take_hook(
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

pub(super) fn new_run(id: &str, image_name: &str, at: Timestamp, common: Option<&Spec>) -> Run {
    let hook = common.and_then(|spec| spec.lifecycle.as_ref()).is_some_and(|lifecycle| lifecycle.post_start.is_some());
    let probe = |of: fn(&Spec) -> Option<&k8s_openapi::api::core::v1::Probe>| common.and_then(of);
    Run {
        id: id.to_owned(),
        image_name: image_name.to_owned(),
        given: ResourceRequirements::default(),
        sizes: Sizes::default(),
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
