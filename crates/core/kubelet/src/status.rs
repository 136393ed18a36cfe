//! A Pod's status from the states of its parts (upstream `kubelet_pods.go`, `status_manager.go`).

use crate::conditions::{self, ResizeCondition};
use crate::container::{Container, ContainerState, Kind, Restart};
use crate::phase::{Phase, phase};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMount, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::net::IpAddr;

/// The runtime's name in container ids.
const RUNTIME: &str = "minke";
/// All termination messages of a Pod together, in bytes (upstream `MaxPodTerminationMessageLogLength`).
const MESSAGES_BYTES: usize = 12 * 1024;

/// As the status names a container: `minke://ID`.
pub fn container_id(id: &str) -> String {
    format!("{RUNTIME}://{id}")
}

/// API times have whole seconds.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Whether the Pod has a network to start containers in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxIs {
    Absent,
    Ready,
    NotReady,
}

/// All that a status is made from.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub pod: &'a Pod,
    /// The Pod by which its cgroup was set.
    pub sized: &'a Pod,
    /// A change of its resources that waits, and one that is carried out.
    pub resize: [Option<&'a ResizeCondition>; 2],
    pub containers: &'a [Container],
    pub sandbox: SandboxIs,
    pub pod_ips: &'a [IpAddr],
    pub host_ips: &'a [IpAddr],
    /// The status before this one: what does not change is kept.
    pub old: &'a PodStatus,
    /// The Pod was failed as a whole: reason and message.
    pub failed: Option<(&'a str, &'a str)>,
    /// It was evicted for others' sake, which this tells.
    pub disrupted: Option<&'a PodCondition>,
    /// All containers are being ended to start the Pod anew.
    pub restarting_all: bool,
    /// No container is started any more, so none waits for a start.
    pub ending: bool,
    /// All containers have ended for good.
    pub over: bool,
    pub now: Timestamp,
}

/// The status that upstream would write for `view`. A terminal phase appears only when no container can run any more; the
/// conditions tell of it before.
pub fn status(view: View<'_>) -> PodStatus {
    let spec = view.pod.spec.as_ref();
    let of = |kinds: &[Kind]| -> Vec<ContainerStatus> {
        view.containers.iter().filter(|c| kinds.contains(&c.kind)).map(|c| container_status(&view, c)).collect()
    };
    let init = of(&[Kind::Init, Kind::Sidecar]);
    let mut main = of(&[Kind::Main]);
    let mut ephemeral = of(&[Kind::Ephemeral]);
    main.sort_by(|a, b| a.name.cmp(&b.name));
    ephemeral.sort_by(|a, b| a.name.cmp(&b.name));

    let computed = match view.failed {
        Some(_) => Phase::Failed,
        None => phase(spec, view.containers, init.iter().chain(&main), view.over),
    };
    let phase = if computed.is_terminal() && !view.over { Phase::of(view.old.phase.as_deref()) } else { computed };
    let (reason, message) = match view.failed {
        Some((reason, message)) if phase.is_terminal() => (Some(reason.to_owned()), Some(message.to_owned())),
        _ => (None, None),
    };
    let conditions = conditions::conditions(&view, &init, &main, computed);
    let mut status = PodStatus {
        phase: Some(phase.name().to_owned()),
        reason,
        message,
        conditions: Some(conditions),
        observed_generation: view.pod.metadata.generation,
        allocated_resources: crate::allocated::requests(view.pod),
        resources: Some(crate::allocated::resources(view.sized, view.old.phase.as_deref() == Some("Running"))),
        init_container_statuses: Some(init).filter(|list| !list.is_empty()),
        container_statuses: Some(main),
        ephemeral_container_statuses: Some(ephemeral).filter(|list| !list.is_empty()),
        ..bare(&view)
    };
    addresses(&view, &mut status);
    if view.over {
        terminate(&view, &mut status);
    }
    status
}

/// Whether `later` leaves nothing out that `earlier` shows, so that nobody misses `earlier`: what runs, ended or waits for a
/// reason of its own is the same, nothing that was ready or true is no more. That a container merely starts is nothing to show.
pub fn shows_all_of(later: &PodStatus, earlier: &PodStatus) -> bool {
    let lists = |status: &PodStatus| -> Vec<ContainerStatus> {
        let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
        lists.into_iter().flatten().flatten().cloned().collect()
    };
    let now = lists(later);
    let kept = |old: &ContainerStatus| {
        let Some(new) = now.iter().find(|new| new.name == old.name) else { return false };
        let state = old.state.as_ref().is_none_or(is_mere_start) || old.state == new.state;
        let last =
            old.last_state.as_ref().is_none_or(|last| last.terminated.is_none()) || old.last_state == new.last_state;
        state && last && old.ready <= new.ready && (old.started != Some(true) || new.started == Some(true))
    };
    let is_true = |status: &PodStatus, kind: &str| {
        status.conditions.iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let mut conditions = earlier.conditions.iter().flatten().filter(|condition| condition.status == "True");
    let phase = earlier.phase == later.phase || earlier.phase.as_deref() == Some(Phase::Pending.name());
    phase && lists(earlier).iter().all(kept) && conditions.all(|condition| is_true(later, &condition.type_))
}

fn is_mere_start(state: &ApiState) -> bool {
    let reason = state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
    matches!(reason, Some("ContainerCreating" | "PodInitializing"))
}

/// The status of a Pod that the node does not take at all.
pub fn rejected(view: View<'_>) -> PodStatus {
    let (reason, message) = view.failed.unwrap_or_default();
    PodStatus {
        phase: Some(Phase::Failed.name().to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        observed_generation: view.pod.metadata.generation,
        ..bare(&view)
    }
}

/// What every status has, and what others than the kubelet write.
fn bare(view: &View<'_>) -> PodStatus {
    let api = view.pod.status.as_ref();
    PodStatus {
        start_time: Some(view.old.start_time.clone().unwrap_or_else(|| time(view.now))),
        qos_class: api.and_then(|status| status.qos_class.clone()),
        nominated_node_name: api.and_then(|status| status.nominated_node_name.clone()),
        resource_claim_statuses: api.and_then(|status| status.resource_claim_statuses.clone()),
        ..PodStatus::default()
    }
}

fn addresses(view: &View<'_>, status: &mut PodStatus) {
    let host_network = view.pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let ips = if host_network { view.host_ips } else { view.pod_ips };
    status.host_ip = view.host_ips.first().map(IpAddr::to_string);
    status.host_ips = listed(view.host_ips, |ip| HostIP { ip });
    status.pod_ip = ips.first().map(IpAddr::to_string);
    status.pod_ips = listed(ips, |ip| PodIP { ip });
}

fn listed<T>(ips: &[IpAddr], make: impl Fn(String) -> T) -> Option<Vec<T>> {
    Some(ips.iter().map(|ip| make(ip.to_string())).collect()).filter(|list: &Vec<T>| !list.is_empty())
}

/// At its end a Pod has a terminal phase, and containers without a trace count as failed (upstream `TerminatePod`). What ran
/// is judged by the status before, as upstream judges by what the API shows.
fn terminate(view: &View<'_>, status: &mut PodStatus) {
    if !Phase::of(status.phase.as_deref()).is_terminal() {
        status.phase = Some(Phase::Failed.name().to_owned());
    }
    let unknown = || ApiState { terminated: Some(crate::termination::unknown()), ..ApiState::default() };
    if was_initialized(view) {
        for container in status.container_statuses.iter_mut().flatten() {
            if container.state.as_ref().is_none_or(|state| state.terminated.is_none()) {
                container.state = Some(unknown());
            }
        }
    }
    if let Some(init) = &mut status.init_container_statuses {
        let has_run = |c: &ContainerStatus| {
            let waits = c.state.as_ref().is_some_and(|state| state.waiting.is_some());
            !waits || c.last_state.as_ref().is_some_and(|state| state.terminated.is_some())
        };
        let upto = init.iter().rposition(has_run).unwrap_or(0);
        for container in init.iter_mut().take(upto + 1) {
            if container.state.as_ref().is_none_or(|state| state.terminated.is_none()) {
                container.state = Some(unknown());
            }
        }
    }
}

/// Upstream `hasPodInitialized`, on the status before the end.
fn was_initialized(view: &View<'_>) -> bool {
    let spec = view.pod.spec.as_ref();
    let Some(last) = spec.and_then(|spec| spec.init_containers.as_ref()?.last()) else { return true };
    let terminated = |state: &Option<ApiState>| state.as_ref().and_then(|state| state.terminated.clone());
    let moved = |c: &ContainerStatus| {
        terminated(&c.last_state).is_some() || c.state.as_ref().is_some_and(|state| state.waiting.is_none())
    };
    if view.old.container_statuses.iter().flatten().any(moved) {
        return true;
    }
    let Some(status) = view.old.init_container_statuses.iter().flatten().find(|c| c.name == last.name) else {
        return false;
    };
    if last.restart_policy.as_deref() == Some("Always") {
        return status.started == Some(true) && status.state.as_ref().is_some_and(|state| state.running.is_some());
    }
    [terminated(&status.state), terminated(&status.last_state)].into_iter().flatten().any(|end| end.exit_code == 0)
}

fn container_status(view: &View<'_>, container: &Container) -> ContainerStatus {
    let history = &container.history;
    let spec = view.pod.spec.as_ref().and_then(|spec| container.spec(spec));
    let (state, last) = states(view, container);
    let complete = container.kind == Kind::Init && state.terminated.as_ref().is_some_and(|end| end.exit_code == 0);
    let run = container.run();
    let ready = match container.kind {
        Kind::Init => complete,
        Kind::Ephemeral => false,
        Kind::Sidecar | Kind::Main => run.is_some_and(crate::container::Run::is_ready),
    };
    let resources = spec.and_then(|spec| spec.resources).cloned().unwrap_or_default();
    let known = history.facts.as_ref();
    ContainerStatus {
        name: container.name.0.clone(),
        container_id: known.map(|facts| container_id(&facts.id)),
        image: match known {
            Some(facts) => facts.image.name.clone(),
            None => spec.map(|spec| spec.image.to_owned()).unwrap_or_default(),
        },
        image_id: known.map(|facts| facts.image.reference.clone()).unwrap_or_default(),
        user: known.and_then(|facts| facts.user.clone()),
        allocated_resources: known.and(resources.requests.clone()).filter(|requests| !requests.is_empty()),
        resources: known.map(|_| match run {
            Some(run) => crate::allocated::actual(&resources, &run.given),
            None => resources,
        }),
        restart_count: history.restarts(),
        ready,
        started: (container.kind != Kind::Ephemeral).then(|| run.is_some_and(crate::container::Run::is_started)),
        state: Some(state),
        last_state: Some(last),
        volume_mounts: spec
            .map(|spec| spec.volume_mounts.iter().map(mount).collect())
            .filter(|list: &Vec<_>| !list.is_empty()),
        ..ContainerStatus::default()
    }
}

/// `state` and `lastState`.
fn states(view: &View<'_>, container: &Container) -> (ApiState, ApiState) {
    let history = &container.history;
    let limit = MESSAGES_BYTES / view.containers.len().max(1);
    let ended = |end: Option<&ContainerStateTerminated>| ApiState {
        terminated: end.map(|end| cut(end, limit)),
        ..ApiState::default()
    };
    let waiting = |reason: &str, message: Option<String>| {
        let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
        ApiState { waiting: Some(waiting), ..ApiState::default() }
    };
    if let Some(run) = container.run() {
        let running = ContainerStateRunning { started_at: Some(time(run.started_at)) };
        return (ApiState { running: Some(running), ..ApiState::default() }, ended(history.latest.as_ref()));
    }
    if let (true, None, Some(latest)) = (history.replaced && !view.ending, &history.reason, &history.latest) {
        let running = ContainerStateRunning { started_at: latest.started_at.clone() };
        return (ApiState { running: Some(running), ..ApiState::default() }, ended(history.before.as_ref()));
    }
    let over = matches!(container.state, ContainerState::Exited { restart: Restart::Never, .. });
    match (&history.reason, &history.latest) {
        (Some(reason), latest) if !view.ending && !over => {
            (waiting(&reason.reason, Some(reason.message.clone()).filter(|m| !m.is_empty())), ended(latest.as_ref()))
        }
        (_, Some(latest)) if !history.lost => (ended(Some(latest)), ended(history.before.as_ref())),
        (_, latest) => {
            let init = view.containers.iter().any(|c| matches!(c.kind, Kind::Init | Kind::Sidecar));
            (waiting(if init { "PodInitializing" } else { "ContainerCreating" }, None), ended(latest.as_ref()))
        }
    }
}

fn cut(end: &ContainerStateTerminated, limit: usize) -> ContainerStateTerminated {
    let mut end = end.clone();
    if let Some(message) = &mut end.message {
        message.truncate(message.floor_char_boundary(limit));
    }
    end
}

fn mount(mount: &VolumeMount) -> VolumeMountStatus {
    let read_only = mount.read_only == Some(true);
    let recursive = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
    VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: read_only.then_some(true),
        recursive_read_only: read_only.then(|| if recursive { "Enabled" } else { "Disabled" }.to_owned()),
        volume_status: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn only_what_the_next_status_shows_too_is_left_out() {
        let status = |phase: &str, state: &Value, last: &Value, ready: bool| -> PodStatus {
            let flag = if ready { "True" } else { "False" };
            let container = json!({"name": "c", "image": "i", "imageID": "", "restartCount": 0, "ready": ready,
                "started": state.get("running").is_some(), "state": state, "lastState": last});
            let conditions = json!([{"type": "Ready", "status": flag}]);
            serde_json::from_value(json!({"phase": phase, "containerStatuses": [container], "conditions": conditions}))
                .unwrap()
        };
        let none = json!({});
        let waits = |reason: &str| json!({"waiting": {"reason": reason}});
        let runs = |at: &str| json!({"running": {"startedAt": at}});
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        let (first, second) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
        let creating = status("Pending", &waits("ContainerCreating"), &none, false);
        let running = status("Running", &runs(first), &none, true);
        let not_ready = status("Running", &runs(first), &none, false);
        let over = status("Running", &ended(1), &none, false);
        let crashed = status("Running", &waits("CrashLoopBackOff"), &ended(1), false);
        let creating_again = status("Running", &waits("ContainerCreating"), &ended(1), false);
        let again = status("Running", &runs(second), &ended(1), true);
        let succeeded = status("Succeeded", &ended(0), &none, false);
        let cases = [
            (&creating, &running, true),
            (&creating, &over, true),
            (&running, &running, true),
            (&not_ready, &running, true),
            (&running, &not_ready, false),
            (&running, &over, false),
            (&over, &crashed, false),
            (&over, &again, false),
            (&crashed, &again, false),
            (&creating_again, &again, true),
            (&again, &running, false),
            (&running, &succeeded, false),
        ];
        for (number, (earlier, later, expected)) in cases.into_iter().enumerate() {
            assert_eq!(shows_all_of(later, earlier), expected, "case {number}");
        }
    }
}
