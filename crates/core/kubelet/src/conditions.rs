//! A Pod's conditions (upstream `pkg/kubelet/status/generate.go`).

use crate::phase::Phase;
use crate::status::{SandboxIs, View, time};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The conditions that only a kubelet writes.
const OWN: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "AllContainersRestarting",
    RESIZE_PENDING,
    RESIZE_IN_PROGRESS,
];
pub const RESIZE_PENDING: &str = "PodResizePending";
pub const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";

/// What a condition tells of a change of the Pod's resources: it is true while it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResizeCondition {
    pub reason: String,
    pub message: String,
    /// The change it speaks of.
    pub generation: i64,
    since: Timestamp,
    looked_at: Timestamp,
}

impl ResizeCondition {
    pub fn new(reason: &str, message: String, generation: i64, now: Timestamp) -> Self {
        Self { reason: reason.to_owned(), message, generation, since: now, looked_at: now }
    }

    /// As the API has it.
    pub fn adopt(condition: &PodCondition) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let at = |time: &Option<Time>| time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        Self {
            reason: text(&condition.reason),
            message: text(&condition.message),
            generation: condition.observed_generation.unwrap_or_default(),
            since: at(&condition.last_transition_time),
            looked_at: at(&condition.last_probe_time),
        }
    }

    /// With the age of `old`, if it is for the same reason.
    pub fn since(self, old: Option<&Self>) -> Self {
        match old {
            Some(old) if old.reason == self.reason => Self { since: old.since, ..self },
            _ => self,
        }
    }

    fn shown(&self, kind: &str) -> PodCondition {
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: text(&self.reason),
            message: text(&self.message),
            observed_generation: Some(self.generation),
            last_transition_time: Some(time(self.since)),
            last_probe_time: Some(time(self.looked_at)),
        }
    }
}

/// Whether a condition is the kubelet's; all others are left as they are found.
pub fn is_own(kind: &str) -> bool {
    OWN.contains(&kind)
}

/// Tells that a Pod goes for others' sake (KEP-3329); whoever ends it writes it.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";
pub const BY_KUBELET: &str = "TerminationByKubelet";

/// Whether the kubelet wrote, or is to write, this condition.
pub fn is_written(kind: &str, reason: &str) -> bool {
    is_own(kind) || (kind == DISRUPTION_TARGET && reason == BY_KUBELET)
}

/// What is said in one condition.
struct Says {
    status: &'static str,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Says {
    const TRUE: Self = Self { status: "True", reason: None, message: None };

    fn yes(reason: &'static str) -> Self {
        Self { reason: Some(reason), ..Self::TRUE }
    }

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Self { status: "False", reason: Some(reason), message }
    }
}

/// All conditions, those of others first. `phase` is what the Pod comes to, shown or not.
pub fn conditions(
    view: &View<'_>,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    phase: Phase,
) -> Vec<PodCondition> {
    let api = view.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let told = |condition: &PodCondition| view.disrupted.is_some_and(|own| own.type_ == condition.type_);
    let others = api.filter(|condition| !is_own(&condition.type_) && !told(condition));
    let mut conditions: Vec<_> = others.cloned().collect();
    if !view.over {
        let both = [RESIZE_PENDING, RESIZE_IN_PROGRESS].into_iter().zip(view.resize);
        conditions.extend(both.filter_map(|(kind, condition)| Some(condition?.shown(kind))));
    }
    let mut add = |kind: &str, says: Says, generation: Option<i64>| {
        let condition = condition(view, kind, says, generation);
        conditions.push(condition);
    };
    let generation = view.pod.metadata.generation;
    let containers_ready = || containers_ready(view, init, main, phase);
    add("PodReadyToStartContainers", sandbox(view), generation);
    add("Initialized", initialized(view, init, main, phase), generation);
    add("Ready", ready(view, containers_ready()), generation);
    add("ContainersReady", containers_ready(), generation);
    add("PodScheduled", Says::TRUE, generation);
    if view.pod.spec.as_ref().is_some_and(crate::restart::could_restart_all) {
        add("AllContainersRestarting", restarting_all(view, phase), None);
    }
    conditions.extend(view.disrupted.cloned());
    conditions
}

fn condition(view: &View<'_>, kind: &str, says: Says, generation: Option<i64>) -> PodCondition {
    let find = |status: Option<&PodStatus>| {
        status.and_then(|status| {
            status.conditions.iter().flatten().find(|old| old.type_ == kind && old.status == says.status).cloned()
        })
    };
    let old = find(Some(view.old)).or_else(|| find(view.pod.status.as_ref()));
    PodCondition {
        type_: kind.to_owned(),
        status: says.status.to_owned(),
        reason: says.reason.map(str::to_owned),
        message: says.message,
        observed_generation: generation,
        last_transition_time: old.and_then(|old| old.last_transition_time).or_else(|| Some(time(view.now))),
        last_probe_time: None,
    }
}

fn sandbox(view: &View<'_>) -> Says {
    let message = match view.sandbox {
        SandboxIs::Ready => return Says::TRUE,
        SandboxIs::Absent => "no pod sandbox exists",
        SandboxIs::NotReady => "pod sandbox is not ready",
    };
    Says::no("PodSandboxNotReady", Some(message.to_owned()))
}

fn initialized(view: &View<'_>, init: &[ContainerStatus], main: &[ContainerStatus], phase: Phase) -> Says {
    if phase == Phase::Succeeded {
        return Says::yes("PodCompleted");
    }
    let has_run = |c: &ContainerStatus| {
        c.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    let is_sidecar =
        |name: &str| view.containers.iter().any(|c| c.name.0 == name && c.kind == crate::container::Kind::Sidecar);
    let done = |c: &ContainerStatus| if is_sidecar(&c.name) { c.started == Some(true) } else { c.ready };
    let incomplete = names(init.iter().filter(|c| !done(c)));
    let already = view.old.conditions.iter().flatten().any(|c| c.type_ == "Initialized" && c.status == "True");
    if main.iter().any(has_run) || incomplete.is_empty() || already {
        return Says::TRUE;
    }
    Says::no("ContainersNotInitialized", Some(format!("containers with incomplete status: [{incomplete}]")))
}

fn containers_ready(view: &View<'_>, init: &[ContainerStatus], main: &[ContainerStatus], phase: Phase) -> Says {
    match phase {
        Phase::Succeeded => return Says::no("PodCompleted", None),
        Phase::Failed => return Says::no("PodFailed", None),
        Phase::Pending | Phase::Running => {}
    }
    let sidecar = |c: &&ContainerStatus| {
        view.containers.iter().any(|o| o.name.0 == c.name && o.kind == crate::container::Kind::Sidecar)
    };
    // Upstream names them in the order of the spec.
    let statuses = init.iter().filter(sidecar).chain(main);
    let unready: Vec<_> = statuses.filter(|c| !c.ready).collect();
    let in_order = view.containers.iter().filter_map(|o| unready.iter().find(|c| c.name == o.name.0).copied());
    let unready = names(in_order);
    if unready.is_empty() {
        return Says::TRUE;
    }
    Says::no("ContainersNotReady", Some(format!("containers with unready status: [{unready}]")))
}

fn ready(view: &View<'_>, containers_ready: Says) -> Says {
    if containers_ready.status != "True" {
        return containers_ready;
    }
    let conditions = || view.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let gates = view.pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let closed: Vec<_> = gates
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match conditions().find(|condition| condition.type_ == *kind) {
                None => Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if closed.is_empty() { Says::TRUE } else { Says::no("ReadinessGatesNotReady", Some(closed.join(", "))) }
}

fn restarting_all(view: &View<'_>, phase: Phase) -> Says {
    match phase {
        Phase::Succeeded => Says::no("PodCompleted", None),
        Phase::Failed => Says::no("PodFailed", None),
        Phase::Pending | Phase::Running if view.restarting_all => Says {
            status: "True",
            reason: Some("RestartAllContainersStarted"),
            message: Some("container exited with restart policy rule".to_owned()),
        },
        Phase::Pending | Phase::Running => Says { status: "False", reason: None, message: None },
    }
}

fn names<'a>(statuses: impl Iterator<Item = &'a ContainerStatus>) -> String {
    statuses.map(|c| c.name.as_str()).collect::<Vec<_>>().join(" ")
}
