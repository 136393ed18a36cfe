//! The process of the control plane and the nodes' kubelets: started, crashed, started again.

use crate::cluster::{NODES, Sim, SimWorld};
use crate::door::Inside;
use crate::faults::Order;
use crate::{history, node};
use apiserver::authentication::{Authenticator, User};
use apiserver::authorization::Authorizer;
use apiserver::pki::Pki;
use apiserver::server::{ApiServer, Config};
use client::transport::Transport;
use jiff::Timestamp;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use store::disk::faulty::{Faults, SimDisk};
use store::embedded::{Embedded, Options, Wait, Writer};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

/// Small files, so that a run passes through many of them.
const OPTIONS: Options =
    Options { segment_bytes: 256 << 10, reserve_bytes: 64 << 10, garbage_bytes: 256 << 10, recent_bytes: 64 << 10 };

/// A process that is up.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) number: u64,
    pub(crate) server: Arc<ApiServer>,
    pub(crate) store: Embedded,
}

/// Keys take time to make and have no part in a trace: all runs share them.
static PKI: LazyLock<Option<Pki>> = LazyLock::new(|| {
    let directory = tempfile::tempdir().ok()?;
    Pki::open(directory.path(), Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(24 * 365 * 50)).ok()
});

/// Keeps a process up for ever.
pub(crate) async fn supervise(sim: Arc<Sim>, mut orders: UnboundedReceiver<Order>) {
    for number in 1.. {
        let mut parts = JoinSet::new();
        let power_lost = match start(&sim, number, &mut parts).await {
            Ok(live) => {
                sim.trace("up");
                sim.live.send_replace(Some(live));
                tokio::select! {
                    biased;
                    order = orders.recv() => matches!(order, Some(Order::PowerLoss)),
                    // A part that fails takes the process with it; what was not synced may be gone by then.
                    ended = parts.join_next() => {
                        if let Some(Err(panic)) = ended {
                            sim.wrong(format!("a part panicked: {panic}"));
                        }
                        true
                    }
                }
            }
            Err(why) => {
                sim.trace(&format!("not started: {why}"));
                true
            }
        };
        sim.live.send_replace(None);
        parts.shutdown().await;
        drop(parts);
        for node in &sim.nodes {
            node.unsubscribe();
        }
        if power_lost {
            sim.disk.crash(|| sim.dice.percent(50));
        }
        sim.crashes.fetch_add(1, Ordering::Relaxed);
        sim.trace("down");
        tokio::time::sleep(sim.dice.millis(3000)).await;
    }
}

/// Starts everything; an error says what the disk did.
async fn start(sim: &Arc<Sim>, number: u64, parts: &mut JoinSet<()>) -> Result<Live, String> {
    let (store, writer) = match Embedded::open_with(sim.disk.clone(), OPTIONS, sim.store_now()) {
        Ok(opened) => opened,
        Err(error) => {
            sim.wrong(format!("the store does not open: {error}"));
            return Err(error.to_string());
        }
    };
    parts.spawn(write(sim.clone(), writer));
    history::resume(sim, &store, parts).await;
    let Some(pki) = &*PKI else { return Err("no keys".to_owned()) };
    let server = ApiServer::start(Config {
        kv: Arc::new(store.clone()),
        authenticator: Authenticator {
            certificates: pki.client_authority().map_err(|error| error.to_string())?,
            tokens: pki.tokens().map_err(|error| error.to_string())?,
        },
        authorizer: Authorizer::default(),
        world: Arc::new(SimWorld(sim.clone())),
        kubelet_client: None,
        advertised_address: "10.0.0.1:6443".to_owned(),
        service_cidrs: vec!["10.96.0.0/16".to_owned()],
        controllers: Vec::new(),
    });
    let server = server.await.map_err(|error| error.to_string())?;
    let feeding = server.clone();
    parts.spawn(async move {
        let _ = feeding.run(std::future::pending()).await;
    });
    start_controllers(sim, &server, parts);
    for number in 0..NODES {
        let user = format!("system:node:{}", node::name(number));
        parts.spawn(node::run(sim.clone(), number, component(&server, &user, &["system:nodes"])));
    }
    Ok(Live { number, server, store })
}

pub(crate) fn component(server: &Arc<ApiServer>, name: &str, groups: &[&str]) -> Arc<dyn Transport> {
    Arc::new(Inside { server: server.clone(), user: User::component(name, groups) })
}

fn start_controllers(sim: &Arc<Sim>, server: &Arc<ApiServer>, parts: &mut JoinSet<()>) {
    let controllers = control::controllers::all();
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    let writer = |name: &str| match name {
        "kube-scheduler" => component(server, "system:kube-scheduler", &[]),
        name => component(server, &format!("system:serviceaccount:kube-system:{name}"), &groups),
    };
    let writers = controllers.iter().map(|controller| writer(controller.name)).collect();
    let reader = component(server, "system:kube-controller-manager", &["system:masters"]);
    let config = api::controller::Config { root_ca: "not read in a simulation".to_owned() };
    let clock = sim.clone();
    parts.spawn(client::controllers::run(controllers, config, reader, writers, Arc::new(move || clock.wall())));
}

/// The store's thread. A sync takes its time, in which requests gather and crashes come.
async fn write(sim: Arc<Sim>, mut writer: Writer<SimDisk>) {
    loop {
        match writer.flush_once(sim.store_now()) {
            Wait::Nothing => tokio::time::sleep(sim.dice.millis(3)).await,
            Wait::Request { until_ms: None } => writer.requested().await,
            Wait::Request { until_ms: Some(until_ms) } => {
                let left_ms = until_ms.saturating_sub(sim.store_now().monotonic_ms);
                let expiry = tokio::time::sleep(Duration::from_millis(left_ms));
                tokio::select! {
                    biased;
                    () = writer.requested() => {}
                    () = expiry => {}
                }
            }
            Wait::Closed => return,
        }
    }
}

/// No fault is left over.
pub(crate) fn heal(sim: &Sim) {
    sim.disk.set_faults(Faults::default());
    sim.disk.set_capacity(None);
}
