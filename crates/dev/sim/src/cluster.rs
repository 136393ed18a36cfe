//! One run from its seed to its report.

use crate::check::Checks;
use crate::dice::Dice;
use crate::history::History;
use crate::process::Live;
use crate::runtime::Runtime;
use crate::{check, clients, faults, process, watcher};
use apiserver::world::World;
use jiff::Timestamp;
use kubelet::pod::Now as PodNow;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::disk::faulty::SimDisk;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long clients work and faults happen.
const SAFETY: Duration = Duration::from_secs(60);
/// How long everything may take to come to rest afterwards: longer than the longest back-off.
const LIVENESS: Duration = Duration::from_secs(30 * 60);
/// 2026-01-01
const EPOCH_MS: i64 = 1_767_225_600_000;
pub(crate) const NODES: usize = 2;

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Over everything that was written, told and run.
    pub trace_hash: u64,
    pub revisions: u64,
    pub crashes: u64,
    pub acknowledged: usize,
    pub containers_started: u64,
    /// Virtual.
    pub took: Duration,
}

/// What everything in a run shares.
pub(crate) struct Sim {
    pub(crate) dice: Dice,
    pub(crate) disk: SimDisk,
    pub(crate) nodes: Vec<Runtime>,
    /// The process that is up.
    pub(crate) live: watch::Sender<Option<Live>>,
    pub(crate) orders: tokio::sync::mpsc::UnboundedSender<faults::Order>,
    pub(crate) history: Mutex<History>,
    pub(crate) checks: Mutex<Checks>,
    pub(crate) crashes: AtomicU64,
    start: Instant,
    /// The wall clock's steps.
    offset_ms: AtomicI64,
}

impl Sim {
    pub(crate) fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn wall(&self) -> Timestamp {
        let elapsed_ms = i64::try_from(self.monotonic().as_millis()).unwrap_or(0);
        let ms = EPOCH_MS + self.offset_ms.load(Ordering::Relaxed) + elapsed_ms;
        Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Sets the wall clock forward or back.
    pub(crate) fn step_clock(&self, by_ms: i64) {
        self.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    pub(crate) fn store_now(&self) -> store::clock::Now {
        let wall_ms = u64::try_from(self.wall().as_millisecond()).unwrap_or(0);
        store::clock::Now { monotonic_ms: u64::try_from(self.monotonic().as_millis()).unwrap_or(0), wall_ms }
    }

    pub(crate) fn pod_now(&self) -> PodNow {
        PodNow { mono: self.monotonic(), wall: self.wall() }
    }

    pub(crate) fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn checks(&self) -> std::sync::MutexGuard<'_, Checks> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened that must never happen.
    pub(crate) fn wrong(&self, what: impl Into<String>) {
        let what = format!("at {:?}: {}", self.monotonic(), what.into());
        self.checks().wrong.push(what);
    }

    pub(crate) fn trace(&self, what: &str) {
        self.checks().trace(self.monotonic(), what);
    }
}

/// The simulated machine as the API server's world.
pub(crate) struct SimWorld(pub(crate) Arc<Sim>);

impl World for SimWorld {
    fn now(&self) -> Timestamp {
        self.0.wall()
    }

    fn random(&self) -> u64 {
        self.0.dice.number()
    }
}

/// Runs one seed.
///
/// # Errors
/// Everything that was wrong, and the seed.
pub fn run(seed: u64) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let result = runtime.block_on(simulate(seed));
    result.map_err(|wrong| anyhow::anyhow!("seed {seed}:\n{}", wrong.join("\n")))
}

async fn simulate(seed: u64) -> Result<Report, Vec<String>> {
    let (orders, receiver) = tokio::sync::mpsc::unbounded_channel();
    let sim = Arc::new(Sim {
        dice: Dice::new(seed),
        disk: SimDisk::new(),
        nodes: (0..NODES).map(Runtime::new).collect(),
        live: watch::Sender::new(None),
        orders,
        history: Mutex::default(),
        checks: Mutex::default(),
        crashes: AtomicU64::new(0),
        start: Instant::now(),
        offset_ms: AtomicI64::new(0),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(process::supervise(sim.clone(), receiver));
    for plural in ["pods", "configmaps"] {
        tasks.spawn(watcher::run(sim.clone(), plural));
    }
    let work = async {
        let mut clients = JoinSet::new();
        clients.spawn(faults::run(sim.clone(), SAFETY));
        for number in 0..3 {
            clients.spawn(clients::run(sim.clone(), number, SAFETY));
        }
        while let Some(ended) = clients.join_next().await {
            if let Err(panic) = ended {
                sim.wrong(format!("a client panicked: {panic}"));
            }
        }
        check::converge(&sim, LIVENESS).await;
    };
    tokio::select! {
        biased;
        ended = tasks.join_next() => sim.wrong(format!("a task ended: {ended:?}")),
        () = work => {}
    }
    check::finish(&sim).await;
    tasks.shutdown().await;
    for node in &sim.nodes {
        node.end();
    }
    let report = check::report(&sim);
    sim.live.send_replace(None);
    let wrong = std::mem::take(&mut sim.checks().wrong);
    if wrong.is_empty() { Ok(report) } else { Err(wrong) }
}
