//! What `kubectl get pods` shows (upstream `printPod`).

use super::is_sidecar;
use crate::human;
use crate::rules::Column;
use crate::tree::Tree;
use jiff::Timestamp;
use serde_json::{Value, json};

const fn column(name: &'static str, description: &'static str, priority: i32) -> Column {
    Column { name, of: "string", format: "", description, priority }
}

pub const COLUMNS: &[Column] = &[
    human::NAME_COLUMN,
    column("Ready", "The aggregate readiness state of this pod for accepting traffic.", 0),
    column("Status", "The aggregate status of the containers in this pod.", 0),
    column(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        0,
    ),
    human::AGE_COLUMN,
    column(
        "IP",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
        1,
    ),
    column(
        "Node",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
        1,
    ),
    column(
        "Nominated Node",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods. This field does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is scheduled.",
        1,
    ),
    column(
        "Readiness Gates",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
        1,
    ),
];

/// How far a Pod is, as the Ready, Status and Restarts columns tell it.
struct Progress {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

pub fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let progress = progress(pod);
    let restarts = match progress.last_restart {
        Some(last) if progress.restarts != 0 => format!("{} ({} ago)", progress.restarts, human::since(last, now)),
        _ => progress.restarts.to_string(),
    };
    let or_none = |text: &str| if text.is_empty() { "<none>".to_owned() } else { text.to_owned() };
    let ip = status.list("podIPs").first().map_or("", |ip| ip.text("ip"));
    vec![
        json!(pod["metadata"].text("name")),
        json!(format!("{}/{}", progress.ready, progress.total)),
        json!(progress.reason),
        json!(restarts),
        json!(human::age(&pod["metadata"]["creationTimestamp"], now)),
        json!(or_none(ip)),
        json!(or_none(spec.text("nodeName"))),
        json!(or_none(status.text("nominatedNodeName"))),
        json!(readiness_gates(spec, status)),
    ]
}

/// Ended Pods are told so to clients that wait.
pub fn row_conditions(pod: &Value) -> Vec<Value> {
    let (reason, message) = match pod["status"].text("phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

fn readiness_gates(spec: &Value, status: &Value) -> String {
    let gates = spec.list("readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let is_true = |gate: &&Value| {
        let condition = status.list("conditions").iter().find(|c| c.text("type") == gate.text("conditionType"));
        condition.is_some_and(|c| c.text("status") == "True")
    };
    format!("{}/{}", gates.iter().filter(is_true).count(), gates.len())
}

fn condition_is_true(status: &Value, of: &str) -> bool {
    status.list("conditions").iter().any(|c| c.text("type") == of && c.text("status") == "True")
}

/// When the run before the present one ended.
fn last_end(container: &Value) -> Option<Timestamp> {
    container["lastState"]["terminated"].text_opt("finishedAt").and_then(|t| t.parse().ok())
}

fn ended_reason(terminated: &Value) -> String {
    match (terminated.text("reason"), terminated.int("signal")) {
        ("", 0) => format!("ExitCode:{}", terminated.int("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn progress(pod: &Value) -> Progress {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let init = spec.list("initContainers");
    let mut progress = Progress {
        ready: 0,
        total: spec.list("containers").len() + init.iter().filter(|c| is_sidecar(c)).count(),
        reason: match status.text("reason") {
            "" => status.text("phase").to_owned(),
            reason => reason.to_owned(),
        },
        restarts: 0,
        last_restart: None,
    };
    let gated = |c: &Value| c.text("type") == "PodScheduled" && c.text("reason") == "SchedulingGated";
    if status.list("conditions").iter().any(gated) {
        "SchedulingGated".clone_into(&mut progress.reason);
    }
    let sidecars = SidecarRestarts::default();
    let (initializing, sidecars) = add_init_containers(&mut progress, spec, status, sidecars);
    if !initializing || condition_is_true(status, "Initialized") {
        progress.restarts = sidecars.count;
        progress.last_restart = sidecars.last;
        add_containers(&mut progress, status);
    }
    let deleted = pod["metadata"].has("deletionTimestamp");
    if deleted && status.text("reason") == "NodeLost" {
        "Unknown".clone_into(&mut progress.reason);
    } else if deleted && !matches!(status.text("phase"), "Failed" | "Succeeded") {
        "Terminating".clone_into(&mut progress.reason);
    }
    progress
}

#[derive(Default)]
struct SidecarRestarts {
    count: i64,
    last: Option<Timestamp>,
}

/// Whether initialization goes on (or has failed), and how often sidecars were restarted.
fn add_init_containers(
    progress: &mut Progress,
    spec: &Value,
    status: &Value,
    mut sidecars: SidecarRestarts,
) -> (bool, SidecarRestarts) {
    let init = spec.list("initContainers");
    let mut initializing = false;
    for (i, container) in status.list("initContainerStatuses").iter().enumerate() {
        let sidecar = init.iter().any(|c| c.text("name") == container.text("name") && is_sidecar(c));
        progress.restarts += container.int("restartCount");
        progress.last_restart = progress.last_restart.max(last_end(container));
        if sidecar {
            sidecars.count += container.int("restartCount");
            sidecars.last = sidecars.last.max(last_end(container));
        }
        let state = &container["state"];
        let waiting = state["waiting"].text("reason");
        if state.field("terminated").is_some_and(|ended| ended.int("exitCode") == 0) {
            continue;
        }
        if sidecar && container.flag("started") {
            progress.ready += usize::from(container.flag("ready"));
            continue;
        }
        progress.reason = if let Some(ended) = state.field("terminated") {
            format!("Init:{}", ended_reason(ended))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", init.len())
        };
        initializing = true;
        break;
    }
    (initializing, sidecars)
}

fn add_containers(progress: &mut Progress, status: &Value) {
    let mut running = false;
    let mut error = None;
    for container in status.list("containerStatuses").iter().rev() {
        progress.restarts += container.int("restartCount");
        progress.last_restart = progress.last_restart.max(last_end(container));
        let state = &container["state"];
        let waiting = state["waiting"].text("reason");
        if !waiting.is_empty() {
            waiting.clone_into(&mut progress.reason);
        } else if let Some(ended) = state.field("terminated") {
            progress.reason = ended_reason(ended);
            if ended.int("exitCode") != 0 {
                error = Some(progress.reason.clone());
            }
        } else if container.flag("ready") && state.has("running") {
            running = true;
            progress.ready += 1;
        }
    }
    if progress.reason == "Completed" {
        if running && condition_is_true(status, "Ready") {
            "Running".clone_into(&mut progress.reason);
        } else if let Some(error) = error {
            progress.reason = error;
        } else if running {
            "NotReady".clone_into(&mut progress.reason);
        }
    }
}
