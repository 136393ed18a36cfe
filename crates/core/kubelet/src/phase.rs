//! A Pod's phase from its containers' statuses (upstream `getPhase`).

use crate::container::{Container, Kind};
use crate::restart::{Verdict, verdict};
use crate::termination::RESTARTING_ALL;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, PodSpec};

/// `status.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    pub fn of(name: Option<&str>) -> Self {
        match name {
            Some("Running") => Self::Running,
            Some("Succeeded") => Self::Succeeded,
            Some("Failed") => Self::Failed,
            _ => Self::Pending,
        }
    }

    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

#[derive(Default)]
struct Counts {
    pending_init: u32,
    pending_sidecars: u32,
    failed_init: u32,
    waiting: u32,
    running: u32,
    stopped: u32,
    stopped_for_good: u32,
    succeeded: u32,
}

/// `over`: all containers have ended, so restart policies no longer count.
pub fn phase<'a>(
    spec: Option<&PodSpec>,
    containers: &[Container],
    statuses: impl Iterator<Item = &'a ContainerStatus>,
    over: bool,
) -> Phase {
    let mut counts = Counts::default();
    for status in statuses {
        let Some(container) = containers.iter().find(|c| c.name.0 == status.name) else { continue };
        count(&mut counts, spec, container, status);
    }
    let main_ran = containers.iter().any(|c| c.kind == Kind::Main && c.ran_here);
    let Counts { stopped, succeeded, .. } = counts;
    let ended = if stopped == succeeded { Phase::Succeeded } else { Phase::Failed };
    if counts.failed_init > 0 {
        Phase::Failed
    } else if counts.pending_init > 0 || (counts.pending_sidecars > 0 && !main_ran) || counts.waiting > 0 {
        Phase::Pending
    } else if counts.running > 0 {
        Phase::Running
    } else if stopped == 0 {
        Phase::Pending
    } else if over || stopped == counts.stopped_for_good {
        ended
    } else {
        Phase::Running
    }
}

fn count(counts: &mut Counts, spec: Option<&PodSpec>, container: &Container, status: &ContainerStatus) {
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.as_ref().and_then(|state| state.terminated.clone());
    let for_good = |end: &ContainerStateTerminated| {
        let common = spec.and_then(|spec| Some((spec, container.spec(spec)?.common?)));
        let again = common.is_some_and(|(spec, common)| verdict(common, spec, end.exit_code) != Verdict::Stay);
        !again && end.reason.as_deref() != Some(RESTARTING_ALL)
    };
    let end = state.terminated.or(last.filter(|_| state.waiting.is_some()));
    let is_waiting = state.waiting.is_some() && end.is_none();
    match (container.kind, state.running.is_some(), end) {
        (Kind::Init, true, _) | (Kind::Init, _, None) => counts.pending_init += 1,
        (Kind::Init, _, Some(end)) => counts.failed_init += u32::from(end.exit_code != 0 && for_good(&end)),
        (Kind::Sidecar, true, _) => {
            counts.running += 1;
            counts.pending_sidecars += u32::from(status.started != Some(true));
        }
        (Kind::Sidecar, _, None) => {
            counts.pending_sidecars += 1;
            counts.waiting += u32::from(is_waiting);
        }
        (Kind::Main, true, _) => counts.running += 1,
        (Kind::Main, _, Some(end)) => {
            counts.stopped += 1;
            counts.stopped_for_good += u32::from(for_good(&end));
            counts.succeeded +=
                u32::from(status.state.as_ref().is_some_and(|s| s.terminated.is_some()) && end.exit_code == 0);
        }
        (Kind::Main, _, None) => counts.waiting += 1,
        (Kind::Sidecar, _, Some(_)) | (Kind::Ephemeral, ..) => {}
    }
}
