//! Probes of running containers: asks at each probe's own times and sends every result that may change something to the
//! Pod's machine, which counts them (upstream `pkg/kubelet/prober`).
//!
//! Startup and liveness probes tick from when the Pod came to the node; a readiness probe ticks from when its container has
//! started. Nothing is asked before postStart is done, nothing but the startup probe before that has passed.

pub(crate) mod exec;
mod grpc;
pub(crate) mod http;
pub(crate) mod tcp;
mod tls;

use crate::{Shared, container};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use kubelet::container::Health;
use kubelet::pod::{ContainerName, HookKind, Input, PodEvent, ProbeKind};
use schema::field::go_quote;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

/// An error of the prober itself is tried again at once, so often in all.
const TRIES: usize = 3;

const SECOND_NS: i64 = 1_000_000_000;

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Success,
    /// A success with a remark.
    Warning(String),
    Failure(String),
    /// The prober could not ask; it counts as nothing.
    Unknown(String),
}

/// How far a probed container is.
#[derive(Debug, Clone, Copy)]
struct Stage {
    /// postStart runs.
    held: bool,
    /// The startup probe has passed, or there is none.
    started: bool,
    /// The Pod is being deleted.
    ending: bool,
}

struct Running {
    stage: Arc<watch::Sender<Stage>>,
    _task: AbortOnDropHandle<()>,
}

/// A task that ends with its handle.
#[allow(clippy::disallowed_methods, reason = "the handle owns the task")]
pub(crate) fn owned<F>(task: F) -> AbortOnDropHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    AbortOnDropHandle::new(tokio::task::spawn(task))
}

/// The probes of one Pod. Dropping it ends them.
pub(crate) struct Probers {
    shared: Arc<Shared>,
    outbox: mpsc::UnboundedSender<Input>,
    origin: Instant,
    ending: bool,
    /// By container id.
    running: BTreeMap<String, Running>,
}

impl Probers {
    pub(crate) fn new(shared: Arc<Shared>, outbox: mpsc::UnboundedSender<Input>) -> Self {
        Self { shared, outbox, origin: Instant::now(), ending: false, running: BTreeMap::new() }
    }

    /// Looks at what the machine is told.
    pub(crate) fn observe(&mut self, input: &Input) {
        match input {
            Input::Spec(pod) if pod.metadata.deletion_timestamp.is_some() => {
                self.ending = true;
                for running in self.running.values() {
                    running.stage.send_modify(|stage| stage.ending = true);
                }
            }
            Input::HookDone { id, hook: HookKind::PostStart, result: Ok(()), .. } => {
                if let Some(running) = self.running.get(id) {
                    running.stage.send_modify(|stage| stage.held = false);
                }
            }
            _ => {}
        }
    }

    /// `held`: its postStart begins now.
    pub(crate) fn start(&mut self, pod: &Arc<Pod>, name: ContainerName, id: String, held: bool) {
        let Some(container) = container::find(pod, &name.0) else { return };
        let started = container.startup_probe.is_none() || was_started(pod, &id);
        let (stage, _) = watch::channel(Stage { held, started, ending: self.ending });
        let stage = Arc::new(stage);
        let prober = Prober {
            shared: self.shared.clone(),
            outbox: self.outbox.clone(),
            pod: pod.clone(),
            container,
            name,
            id: id.clone(),
        };
        let task = owned(run(prober, stage.clone(), self.origin));
        self.running.insert(id, Running { stage, _task: task });
    }

    pub(crate) fn stop(&mut self, id: &str) {
        self.running.remove(id);
    }
}

/// Whether the API says so of this very container: minke was restarted meanwhile.
fn was_started(pod: &Pod, id: &str) -> bool {
    let Some(status) = &pod.status else { return false };
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let container_id = kubelet::status::container_id(id);
    statuses.filter(|status| status.container_id.as_deref() == Some(&container_id)).any(|s| s.started == Some(true))
}

/// When a probe is due.
#[derive(Debug, Clone, Copy)]
struct Rhythm {
    origin: Instant,
    /// The container's start; nothing is due before `delay` after it.
    began: Instant,
    delay: Duration,
    period: Duration,
}

impl Rhythm {
    fn of(probe: &Probe, origin: Instant, began: Instant) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
        Self { origin, began, delay: seconds(probe.initial_delay_seconds, 0), period }
    }

    /// The first tick at or after both `now` and the delay's end.
    fn first(&self, now: Instant) -> Instant {
        let due = now.max(self.began + self.delay);
        let passed = due.saturating_duration_since(self.origin);
        let ticks = passed.as_nanos().div_ceil(self.period.as_nanos());
        self.origin + self.period.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
    }
}

/// Asks in the probe's rhythm until its verdict is final. `tell` takes each result that counts.
async fn rounds<F: Future<Output = Option<(bool, String)>>>(
    kind: ProbeKind,
    probe: &Probe,
    rhythm: Rhythm,
    stage: &watch::Sender<Stage>,
    mut ask: impl FnMut() -> F,
    mut tell: impl FnMut(bool, String),
) {
    let may = |stage: &Stage| !stage.held && stage.started != (kind == ProbeKind::Startup);
    if stage.subscribe().wait_for(may).await.is_err() {
        return;
    }
    let now = Instant::now();
    let rhythm = if kind == ProbeKind::Readiness { Rhythm { origin: now, ..rhythm } } else { rhythm };
    let mut ticks = tokio::time::interval_at(rhythm.first(now), rhythm.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut health = Health::of(Some(probe), kind == ProbeKind::Liveness);
    loop {
        ticks.tick().await;
        let Some((success, output)) = ask().await else { continue };
        if success && health.is_settled(probe) {
            continue;
        }
        tell(success, output);
        if !health.take(success, probe) {
            continue;
        }
        match kind {
            ProbeKind::Startup => {
                stage.send_modify(|stage| stage.started = success);
                return;
            }
            // It is being killed: asking on would only disturb it.
            ProbeKind::Liveness if !success => return,
            ProbeKind::Liveness | ProbeKind::Readiness => {}
        }
    }
}

async fn run(prober: Prober, stage: Arc<watch::Sender<Stage>>, origin: Instant) {
    let began = prober.began().await;
    let (prober, stage) = (&prober, &*stage);
    let cycle = |kind: ProbeKind| async move {
        let Some(probe) = prober.probe_of(kind) else { return };
        let asked = rounds(
            kind,
            probe,
            Rhythm::of(probe, origin, began),
            stage,
            || prober.ask(kind, probe),
            |success, output| prober.tell(kind, success, output),
        );
        let mut ending = stage.subscribe();
        tokio::select! {
            () = asked => {}
            _ = ending.wait_for(|stage| stage.ending), if kind != ProbeKind::Readiness => {}
        }
    };
    tokio::join!(cycle(ProbeKind::Startup), cycle(ProbeKind::Readiness), cycle(ProbeKind::Liveness));
}

/// Asks one container.
struct Prober {
    shared: Arc<Shared>,
    outbox: mpsc::UnboundedSender<Input>,
    pod: Arc<Pod>,
    container: Container,
    name: ContainerName,
    id: String,
}

impl Prober {
    fn probe_of(&self, kind: ProbeKind) -> Option<&Probe> {
        match kind {
            ProbeKind::Startup => self.container.startup_probe.as_ref(),
            ProbeKind::Readiness => self.container.readiness_probe.as_ref(),
            ProbeKind::Liveness => self.container.liveness_probe.as_ref(),
        }
    }

    async fn began(&self) -> Instant {
        let now = Instant::now();
        let Ok(status) = self.shared.runtime.container_status(&self.id).await else { return now };
        // Upstream knows the second only.
        let started = i128::from(status.started_at_ns.div_euclid(SECOND_NS)) * i128::from(SECOND_NS);
        let age_ns = Timestamp::now().as_nanosecond() - started;
        let age = Duration::from_nanos(u64::try_from(age_ns).unwrap_or_default());
        now.checked_sub(age).unwrap_or(now)
    }

    fn tell(&self, probe: ProbeKind, success: bool, output: String) {
        let (container, id) = (self.name.clone(), self.id.clone());
        self.outbox.send(Input::Probed { container, id, probe, success, output }).ok();
    }

    fn event(&self, reason: &'static str, message: String) {
        let field_path = container::field_path(&self.pod, &self.name.0);
        self.shared.events.pod(&self.pod, &PodEvent { warning: true, reason: reason.into(), message, field_path });
    }

    /// One result; `None` if there is none that counts.
    async fn ask(&self, kind: ProbeKind, probe: &Probe) -> Option<(bool, String)> {
        let asked = AssertUnwindSafe(self.outcome(probe)).catch_unwind().await;
        let outcome = asked.unwrap_or_else(|_| {
            tracing::error!(container = self.name.0, "a probe panicked");
            Outcome::Unknown("the prober panicked".to_owned())
        });
        match outcome {
            Outcome::Success => Some((true, String::new())),
            Outcome::Warning(words) => {
                self.event("ProbeWarning", format!("{} probe warning: {words}", title(kind)));
                Some((true, words))
            }
            Outcome::Failure(words) => Some((false, words)),
            Outcome::Unknown(words) => {
                let title = title(kind);
                self.event("Unhealthy", format!("{title} probe errored and resulted in unknown state: {words}"));
                None
            }
        }
    }

    async fn outcome(&self, probe: &Probe) -> Outcome {
        let mut outcome = Outcome::Unknown(String::new());
        for _ in 0..TRIES {
            outcome = self.once(probe).await;
            if !matches!(outcome, Outcome::Unknown(_)) {
                break;
            }
        }
        outcome
    }

    async fn once(&self, probe: &Probe) -> Outcome {
        let timeout_s = probe.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(1).max(1);
        let timeout = Duration::from_secs(timeout_s);
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let ips = self.shared.pods.get(uid).map(|entry| entry.ips).unwrap_or_default();
        let pod_ip = ips.first().map(ToString::to_string).unwrap_or_default();
        let agent = crate::hooks::agent("probe", &self.shared.config.version);
        if let Some(action) = &probe.exec {
            let command = expanded(action.command.as_deref().unwrap_or_default(), &self.container);
            return self.exec(&command, timeout).await;
        }
        if let Some(action) = &probe.http_get {
            if action.protocol.as_deref().is_some_and(|protocol| protocol == "HTTP2") {
                return Outcome::Failure("HTTP probes with protocol HTTP2 are not supported by minke yet".to_owned());
            }
            return match http::Get::new(action, &self.container, &pod_ip, &agent) {
                Ok(get) => http_outcome(get, timeout).await,
                Err(words) => Outcome::Unknown(words),
            };
        }
        if let Some(action) = &probe.tcp_socket {
            let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&pod_ip);
            return match tcp::port(&action.port, &self.container) {
                Ok(port) => tcp_outcome(host, port, timeout).await,
                Err(words) => Outcome::Unknown(words),
            };
        }
        let Some(action) = &probe.grpc else { return Outcome::Unknown("missing probe handler".to_owned()) };
        let check = grpc::Check {
            host: &pod_ip,
            port: action.port.try_into().unwrap_or_default(),
            service: action.service.as_deref().unwrap_or_default(),
            tls: action.mode.as_deref() == Some("TLS"),
            agent: &agent,
        };
        grpc::check(&check, timeout).await.map_or_else(Outcome::Failure, |()| Outcome::Success)
    }

    async fn exec(&self, command: &[String], timeout: Duration) -> Outcome {
        let run = exec::run(&*self.shared.runtime, &self.id, command);
        match tokio::time::timeout(timeout, run).await {
            Ok(Ok(output)) if output.code == 0 => Outcome::Success,
            Ok(Ok(output)) => Outcome::Failure(exec::combined(&output)),
            Ok(Err(error)) => Outcome::Unknown(error.to_string()),
            Err(_) => Outcome::Failure(timed_out(command, timeout)),
        }
    }
}

fn timed_out(command: &[String], timeout: Duration) -> String {
    let command = go_quote(&command.join(" "));
    format!("command timed out: {command} timed out after {}", go_seconds(timeout.as_secs()))
}

async fn http_outcome(get: http::Get, timeout: Duration) -> Outcome {
    let late = get.failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
    match tokio::time::timeout(timeout, http::get(get)).await {
        Err(_) => Outcome::Failure(late),
        Ok(Err(http::Failure::NoAnswer(words))) => Outcome::Failure(words),
        Ok(Err(http::Failure::Body(words))) => Outcome::Unknown(words),
        Ok(Ok(http::Answer { status: 200..=299, .. })) => Outcome::Success,
        Ok(Ok(http::Answer { status: 300..=399, body })) => {
            Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        Ok(Ok(answer)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {}", answer.status)),
    }
}

async fn tcp_outcome(host: &str, port: u16, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, tcp::dial(host, port)).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(words)) => Outcome::Failure(words),
        Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", tcp::join(host, port))),
    }
}

fn title(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Readiness => "Readiness",
        ProbeKind::Liveness => "Liveness",
    }
}

/// A probe's command knows only the variables that the spec gives a value (upstream
/// `ExpandContainerCommandOnlyStatic`).
fn expanded(command: &[String], container: &Container) -> Vec<String> {
    let lookup = |name: &str| {
        let variable = container.env.iter().flatten().rev().find(|variable| variable.name == name)?;
        variable.value_from.is_none().then(|| variable.value.clone().unwrap_or_default())
    };
    command.iter().map(|part| kubelet::env::expand(part, lookup)).collect()
}

/// Whole seconds as Go prints a duration: `1s`, `1m30s`, `1h0m0s`.
fn go_seconds(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests;
