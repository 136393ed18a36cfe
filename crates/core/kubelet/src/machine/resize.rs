//! Changing processor and memory of a Pod in place (KEP-1287, KEP-5419; upstream `computePodResizeAction`,
//! `doPodResizeAction`). The Pod that the machine knows asks for what the node has granted; here that is carried out.

use super::take::RETRY;
use super::{PodMachine, PodState, Turned};
use crate::allocated::{Sizes, same};
use crate::allocation::summary;
use crate::conditions::{RESIZE_IN_PROGRESS, RESIZE_PENDING, ResizeCondition};
use crate::container::{ContainerState, Kind};
use crate::pod::{Action, ContainerName, MemoryBound, Resize};
use crate::resources::{self, Limits};
use k8s_openapi::api::core::v1::{Container as Spec, ContainerStatus, Pod, ResourceRequirements};
use std::sync::Arc;
use std::time::Duration;

/// How far a change is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The node has not granted it yet, or never will.
    pub(super) pending: Option<ResizeCondition>,
    pub(super) in_progress: Option<ResizeCondition>,
    /// What was asked of the runtime and is not answered yet: the Pod as it was then, and the containers by their ids.
    asked: Option<(Arc<Pod>, Vec<String>)>,
    /// It failed and is tried again then.
    retry_at: Option<Duration>,
}

/// A container as it runs and as it shall be.
struct Change {
    container: ContainerName,
    id: String,
    from: Sizes,
    to: Sizes,
}

impl Progress {
    /// What the API tells of it after a restart of minke.
    pub(super) fn adopt(pod: &Pod) -> Self {
        let conditions = || pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let of = |kind: &str| conditions().find(|condition| condition.type_ == kind).map(ResizeCondition::adopt);
        Self { pending: of(RESIZE_PENDING), in_progress: of(RESIZE_IN_PROGRESS), asked: None, retry_at: None }
    }

    pub(super) fn retry_at(&self) -> Option<Duration> {
        self.retry_at
    }

    /// Containers wait for their start until the Pod's own limits are set.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }
}

/// What a container has, by its status: what it was started with, or changed to since.
pub(super) fn given(api: Option<&ContainerStatus>, wanted: Option<&ResourceRequirements>) -> ResourceRequirements {
    let wanted = wanted.cloned().unwrap_or_default();
    match api.and_then(|api| api.resources.as_ref()) {
        Some(shown) => crate::allocated::actual(&wanted, shown),
        None => wanted,
    }
}

impl PodMachine {
    /// The node has granted what the Pod now asks for.
    pub(super) fn take_granted(&mut self, pod: Arc<Pod>, turned: &mut Turned) {
        let generation = pod.metadata.generation.unwrap_or_default();
        self.take_spec(pod, turned);
        self.resize.pending = None;
        self.resize.retry_at = None;
        self.resize.in_progress = Some(ResizeCondition::new("", String::new(), generation, turned.now.wall));
        let message = format!("Pod resize started: {}", summary(&self.pod, generation, ""));
        turned.event(String::new(), false, "ResizeStarted", message);
    }

    /// The node cannot grant what `wanted` asks for, now or ever; `None`: it asks for what it has.
    pub(super) fn take_pending(&mut self, refusal: Option<(Arc<Pod>, String, String)>, turned: &mut Turned) {
        let Some((wanted, reason, message)) = refusal else {
            self.resize.pending = None;
            return;
        };
        let infeasible = reason == "Infeasible";
        let generation = wanted.metadata.generation.unwrap_or_default();
        let shown = if infeasible { "Infeasible" } else { "Deferred" };
        let old = self.resize.pending.take();
        let same = old.as_ref().is_some_and(|old| old.reason == shown && old.generation == generation);
        if !same {
            let event = if infeasible { "ResizeInfeasible" } else { "ResizeDeferred" };
            let text = format!("Pod resize {reason}: {}", summary(&wanted, generation, &message));
            turned.event(String::new(), true, event, text);
        }
        if same && old.as_ref().is_some_and(|old| old.message == message) {
            self.resize.pending = old;
            return;
        }
        let new = ResizeCondition::new(shown, message, generation, turned.now.wall);
        self.resize.pending = Some(new.since(old.as_ref()));
    }

    /// Carries out what was granted and not carried out yet: containers whose policy says so are restarted, the others and the
    /// Pod's own limits are changed, each in an order in which no part is ever larger than the whole.
    pub(super) fn resize(&mut self, turned: &mut Turned) {
        let pod = self.pod.clone();
        let Some(spec) = &pod.spec else { return };
        let mut changes = Vec::new();
        for i in 0..self.containers.len() {
            let container = &self.containers[i];
            let (ContainerState::Running { run }, true) = (&container.state, container.kind != Kind::Ephemeral) else {
                continue;
            };
            let Some(common) = container.spec(spec).and_then(|spec| spec.common) else { continue };
            let to = Sizes::of(spec.resources.as_ref(), common.resources.as_ref());
            let (from, id) = (run.sizes, run.id.clone());
            if from == to {
                continue;
            }
            if needs_restart(common, from, to) {
                let message = format!("Container {} resize requires restart", common.name);
                let grace = self.grace_period();
                self.stop(i, message, grace, true, turned);
            } else {
                changes.push(Change { container: container.name.clone(), id, from, to });
            }
        }
        let ends = |container: &crate::container::Container| {
            matches!(container.state, ContainerState::Stopping { restart: true, .. })
        };
        let (old, new) = (resources::pod(&self.sized), resources::pod(&pod));
        let nothing = changes.is_empty() && old == new;
        if nothing || self.resize.retry_at.is_some_and(|at| at <= turned.now.mono) {
            self.resize.retry_at = None;
        }
        let waits = self.resize.asked.is_some() || self.resize.retry_at.is_some();
        if nothing || waits || self.containers.iter().any(ends) {
            return;
        }
        let resize = Resize { bounds: bounds(old, new, &changes), steps: steps(old, new, &changes) };
        let ids = changes.into_iter().map(|change| change.id).collect();
        self.resize.asked = Some((pod, ids));
        turned.act(Action::Resize(resize));
    }

    pub(super) fn take_resized(&mut self, result: Result<(), String>, turned: &mut Turned) {
        let Some((pod, ids)) = self.resize.asked.take() else { return };
        if let Err(message) = result {
            self.resize.retry_at = Some(turned.now.mono + self.lengthened(RETRY));
            return self.resize_failed(message, turned);
        }
        self.resize.retry_at = None;
        let Some(spec) = &pod.spec else { return };
        for container in &mut self.containers {
            let Some(wanted) = container.spec(spec).map(|spec| spec.resources.cloned().unwrap_or_default()) else {
                continue;
            };
            if let Some(run) = container.run_mut().filter(|run| ids.contains(&run.id)) {
                run.sizes = Sizes::of(spec.resources.as_ref(), Some(&wanted));
                run.given = wanted;
            }
        }
        self.sized = pod;
    }

    fn resize_failed(&mut self, message: String, turned: &mut Turned) {
        let generation = self.pod.metadata.generation.unwrap_or_default();
        let old = self.resize.in_progress.take();
        let generation = old.as_ref().map_or(generation, |old| old.generation);
        let same = old.as_ref().is_some_and(|old| old.reason == "Error" && old.message == message);
        if !same {
            let text = format!("Pod resize error: {}", summary(&self.pod, generation, &message));
            turned.event(String::new(), true, "ResizeError", text);
        }
        let new = ResizeCondition::new("Error", message, generation, turned.now.wall);
        self.resize.in_progress = Some(new.since(old.as_ref()));
    }

    /// Tells when everything is as it was granted.
    pub(super) fn complete_resize(&mut self, turned: &mut Turned) {
        let lives = matches!(
            self.state,
            PodState::Volumes { unsure: false, .. }
                | PodState::Creating { .. }
                | PodState::Retrying { .. }
                | PodState::Up { .. }
        );
        if !lives || self.resize.asked.is_some() || self.is_resizing() {
            return;
        }
        if let Some(done) = self.resize.in_progress.take() {
            let message = format!("Pod resize completed: {}", summary(&self.pod, done.generation, ""));
            turned.event(String::new(), false, "ResizeCompleted", message);
        }
    }

    fn is_resizing(&self) -> bool {
        let Some(spec) = &self.pod.spec else { return false };
        let whole = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.resources.clone());
        let of_pod = spec.resources.is_some()
            && matches!(self.state, PodState::Up { .. })
            && !same(whole(&self.sized).as_ref(), spec.resources.as_ref());
        let differs = |container: &crate::container::Container| {
            let common = container.spec(spec).and_then(|spec| spec.common);
            let to = common.map(|common| Sizes::of(spec.resources.as_ref(), common.resources.as_ref()));
            container.kind != Kind::Ephemeral && container.run().zip(to).is_some_and(|(run, to)| run.sizes != to)
        };
        of_pod || self.containers.iter().any(differs)
    }
}

/// Whether a changed resource's policy is `RestartContainer`.
fn needs_restart(container: &Spec, from: Sizes, to: Sizes) -> bool {
    let policies = container.resize_policy.iter().flatten();
    let mut restarting = policies.filter(|policy| policy.restart_policy == "RestartContainer");
    restarting.any(|policy| match policy.resource_name.as_str() {
        "cpu" => (from.cpu_request_milli, from.cpu_limit_milli) != (to.cpu_request_milli, to.cpu_limit_milli),
        "memory" => {
            (from.memory_request_bytes, from.memory_limit_bytes) != (to.memory_request_bytes, to.memory_limit_bytes)
        }
        _ => false,
    })
}

/// The memory limits that become smaller: none may be below what is in use.
fn bounds(old: Limits, new: Limits, changes: &[Change]) -> Vec<MemoryBound> {
    let shrinks = |old: i64, new: i64| new > 0 && (old <= 0 || new < old);
    let whole = shrinks(old.memory_limit_bytes, new.memory_limit_bytes)
        .then_some(MemoryBound { of: None, limit_bytes: new.memory_limit_bytes });
    let each = changes.iter().filter(|change| shrinks(change.from.memory_limit_bytes, change.to.memory_limit_bytes));
    let each = each.map(|change| MemoryBound {
        of: Some((change.container.clone(), change.id.clone())),
        limit_bytes: change.to.memory_limit_bytes,
    });
    whole.into_iter().chain(each).collect()
}

/// Memory, then processor: the Pod grows before its containers and shrinks after them; containers shrink before others grow.
fn steps(old: Limits, new: Limits, changes: &[Change]) -> Vec<(Option<(ContainerName, String)>, Limits)> {
    let only_memory = |limits: Limits| Limits { memory_limit_bytes: limits.memory_limit_bytes, ..Limits::default() };
    let only_quota = |limits: Limits| Limits { cpu_quota_us: limits.cpu_quota_us, ..Limits::default() };
    let only_shares = |limits: Limits| Limits { cpu_shares: limits.cpu_shares, ..Limits::default() };
    let no_memory = |limits: Limits| Limits { memory_limit_bytes: 0, ..limits };
    let mut steps = Vec::new();
    let mut part = |of: &dyn Fn(&Limits) -> i64, whole: &[(i64, i64, Limits)], only: &dyn Fn(Limits) -> Limits| {
        // A limit that is no more stays, as upstream's does.
        let grows = whole.iter().filter(|(old, new, _)| new > old && *new > 0).map(|(.., step)| (None, *step));
        steps.extend(grows);
        let mut those: Vec<_> = changes
            .iter()
            .filter_map(|change| {
                let (from, to) = (resources::container(change.from), resources::container(change.to));
                let target = Some((change.container.clone(), change.id.clone()));
                (only(from) != only(to)).then(|| (of(&to) > of(&from), target, only(to)))
            })
            .collect();
        those.sort_by_key(|(grows, ..)| *grows);
        steps.extend(those.into_iter().map(|(_, target, step)| (target, step)));
        let shrinks = whole.iter().rev().filter(|(old, new, _)| new < old && *new > 0).map(|(.., step)| (None, *step));
        steps.extend(shrinks);
    };
    let memory = [(old.memory_limit_bytes, new.memory_limit_bytes, only_memory(new))];
    part(&|limits| limits.memory_limit_bytes, &memory, &only_memory);
    let shares = |limits: Limits| limits.cpu_shares.cast_signed();
    let processor =
        [(old.cpu_quota_us, new.cpu_quota_us, only_quota(new)), (shares(old), shares(new), only_shares(new))];
    part(&|limits| limits.cpu_quota_us, &processor, &no_memory);
    steps
}
