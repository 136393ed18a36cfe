//! A node: drives one [`kubelet`] machine per Pod, carries out its actions on the runtime, keeps the Node object alive,
//! and answers the kubelet's HTTPS API.

pub mod config;
mod container;
mod counters;
mod disk;
mod effects;
mod events;
mod eviction;
mod garbage;
mod hooks;
mod live;
mod log_links;
mod log_rotation;
mod mirror;
pub mod network;
mod podfiles;
mod pods;
mod prober;
mod pull;
mod register;
mod resize;
pub mod server;
mod sources;
mod static_pods;
mod stats;
mod status;
pub mod volumes;
mod worker;

use client::typed::Client;
use config::Config;
use runtime::types::Runtime;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why a node cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("cannot register node {name}")]
    Register {
        name: String,
        #[source]
        source: client::transport::CallError,
    },
    #[error("the container runtime failed")]
    Runtime(#[source] runtime::types::RuntimeError),
    #[error("a part of the node panicked: {0}")]
    Panic(String),
    #[error("a part of the node ended")]
    Ended,
}

/// Ticks now and then by a period, for what has no event; each use says why.
pub(crate) fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now(), period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// What every part of the node shares.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) volumes: volumes::Volumes,
    pub(crate) events: events::Recorder,
    pub(crate) pods: pods::Index,
    pub(crate) watches: live::Watches,
    pub(crate) mirrors: mirror::Mirrors,
    pub(crate) manifests: static_pods::Problems,
    pub(crate) stats: stats::Stats,
    pub(crate) counters: counters::Counters,
    pub(crate) images: garbage::Collector,
    pub(crate) pressure: eviction::Pressure,
    pub(crate) reviews: server::auth::Reviews,
    /// What runs beside the parts: streams of exec and attach, the end of orphans. It ends with the node.
    pub(crate) tasks: TaskTracker,
    /// Set off when the node has told the API that it is Ready.
    pub(crate) ready: Notify,
    /// Set off when the Node object is another one.
    pub(crate) node_changed: Notify,
}

/// A node, wired but not running.
pub struct Node {
    shared: Arc<Shared>,
}

impl Node {
    /// `client` speaks as `system:node:NAME`.
    pub fn build(config: Config, client: Client, runtime: Arc<dyn Runtime>) -> Self {
        let volumes =
            volumes::Volumes::new(&config.kubelet_root, client.clone()).allocatable(register::allocatable(&config));
        let events = events::Recorder::new(client.clone(), &config.name);
        let shared = Shared {
            config,
            client,
            runtime,
            volumes,
            events,
            pods: pods::Index::default(),
            watches: live::Watches::default(),
            mirrors: mirror::Mirrors::default(),
            manifests: static_pods::Problems::default(),
            stats: stats::Stats::default(),
            counters: counters::Counters::default(),
            images: garbage::Collector::default(),
            pressure: eviction::Pressure::default(),
            reviews: server::auth::Reviews::default(),
            tasks: TaskTracker::new(),
            ready: Notify::new(),
            node_changed: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Waits until the node is registered and Ready.
    pub async fn ready(&self) {
        self.shared.ready.notified().await;
    }

    /// What is wrong with manifests of static Pods: `FILE: WHY`.
    pub fn manifest_problems(&self) -> Vec<String> {
        self.shared.manifests.list()
    }

    /// Ends every Pod's processes and takes back what was made for them on this machine; the API keeps its objects. To be
    /// called when [`Self::run`] has returned.
    ///
    /// # Errors
    /// What could not be ended; the rest is.
    pub async fn tear_down(&self) -> Result<(), NodeError> {
        let runtime = &self.shared.runtime;
        let mut result = Ok(());
        for sandbox in runtime.list_sandboxes().await.map_err(NodeError::Runtime)? {
            if let Err(error) = pods::end_sandbox(&**runtime, &sandbox.id).await {
                result = Err(NodeError::Runtime(error));
            }
            if let Err(error) = self.shared.volumes.tear_down(&sandbox.config.uid).await {
                tracing::warn!(uid = sandbox.config.uid, error, "volumes not removed");
            }
        }
        result
    }

    /// Runs until `shutdown`; Pods go on after that. `listener` is where the kubelet's API is served.
    ///
    /// # Errors
    /// When a part fails that the node cannot do without.
    pub async fn run(&self, listener: tokio::net::TcpListener, shutdown: CancellationToken) -> Result<(), NodeError> {
        let mut parts = tokio::task::JoinSet::new();
        parts.spawn(register::run(self.shared.clone()));
        parts.spawn(pods::run(self.shared.clone()));
        parts.spawn(events::run(self.shared.clone()));
        parts.spawn(server::run(self.shared.clone(), listener));
        parts.spawn(log_rotation::run(self.shared.clone()));
        parts.spawn(garbage::run(self.shared.clone()));
        parts.spawn(eviction::run(self.shared.clone()));
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = parts.join_next() => match ended {
                Some(Ok(Err(error))) => Err(error),
                Some(Err(panic)) => Err(NodeError::Panic(panic.to_string())),
                Some(Ok(Ok(()))) | None => Err(NodeError::Ended),
            },
        }
    }
}
