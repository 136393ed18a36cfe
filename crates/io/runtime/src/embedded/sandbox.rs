//! A Pod's sandbox: its shim, namespaces, cgroup and network.

use super::container::{self, Container};
use super::link::{Link, LinkEvent};
use super::state::{self, ReadyRecord, SandboxRecord};
use super::{Inner, failed, lock, new_id, now_ns, purge};
use crate::types::{NamespaceMode, RuntimeError, RuntimeEvent, SandboxConfig, SandboxStatus, UserNamespace, UserRange};
use shim::plan::SandboxPlan;
use shim::proto::{Empty, Request};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::mpsc;

pub(super) struct Sandbox {
    pub(super) id: String,
    pub(super) dir: PathBuf,
    pub(super) config: SandboxConfig,
    pub(super) created_at_ns: i64,
    /// Of the Pod, below every hierarchy.
    pub(super) cgroup: String,
    live: Mutex<Live>,
    /// Held while it is stopped or removed.
    stopping: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Live {
    ips: Vec<IpAddr>,
    link: Option<Arc<Link>>,
    /// No more of it is wanted: the shim's end is no news.
    stopped: bool,
    containers: BTreeMap<String, Arc<Container>>,
}

impl Sandbox {
    pub(super) fn new(id: String, dir: PathBuf, record: SandboxRecord) -> Sandbox {
        let SandboxRecord { config, created_at_ns, cgroup } = record;
        Sandbox {
            id,
            dir,
            config,
            created_at_ns,
            cgroup,
            live: Mutex::default(),
            stopping: tokio::sync::Mutex::default(),
        }
    }

    /// Of the pause process, where there is one: v2 lets no process live beside the containers' groups.
    fn pause_cgroup(&self) -> Option<String> {
        (self.config.pid == NamespaceMode::Pod).then(|| format!("{}/{}", self.cgroup, self.id))
    }

    /// What its users are on the host, where it has users of its own.
    pub(super) fn users(&self) -> Option<shim::plan::UserRange> {
        match self.config.users {
            UserNamespace::Pod(Some(UserRange { host_uid, host_gid, length })) => {
                Some(shim::plan::UserRange { host_uid, host_gid, length })
            }
            _ => None,
        }
    }

    pub(super) fn link(&self) -> Result<Arc<Link>, RuntimeError> {
        let link = lock(&self.live).link.clone();
        link.ok_or_else(|| RuntimeError::Failed(format!("sandbox {} is not running", self.id)))
    }

    pub(super) fn container(&self, id: &str) -> Option<Arc<Container>> {
        lock(&self.live).containers.get(id).cloned()
    }

    pub(super) fn containers(&self) -> Vec<Arc<Container>> {
        lock(&self.live).containers.values().cloned().collect()
    }

    pub(super) fn insert(&self, container: Arc<Container>) {
        lock(&self.live).containers.insert(container.id.clone(), container);
    }

    pub(super) fn forget(&self, container_id: &str) {
        lock(&self.live).containers.remove(container_id);
    }

    pub(super) fn is_stopped(&self) -> bool {
        lock(&self.live).stopped
    }

    pub(super) fn set_stopped(&self) {
        lock(&self.live).stopped = true;
    }

    pub(super) fn set_ips(&self, ips: Vec<IpAddr>) {
        lock(&self.live).ips = ips;
    }

    /// Takes up a connection to the shim; `events` are handled from now on.
    pub(super) fn adopt(self: &Arc<Self>, inner: &Arc<Inner>, link: Link, events: mpsc::UnboundedReceiver<LinkEvent>) {
        lock(&self.live).link = Some(Arc::new(link));
        inner.tasks.spawn(watch(Arc::downgrade(inner), Arc::downgrade(self), events));
    }

    pub(super) fn status(&self) -> SandboxStatus {
        let live = lock(&self.live);
        SandboxStatus {
            id: self.id.clone(),
            config: self.config.clone(),
            ready: live.link.is_some() && !live.stopped,
            created_at_ns: self.created_at_ns,
            ips: live.ips.clone(),
            containers: live.containers.values().map(|container| container.status()).collect(),
        }
    }
}

/// Hears what a sandbox's shim says, until it is gone.
async fn watch(inner: Weak<Inner>, sandbox: Weak<Sandbox>, mut events: mpsc::UnboundedReceiver<LinkEvent>) {
    while let Some(event) = events.recv().await {
        let (Some(inner), Some(sandbox)) = (inner.upgrade(), sandbox.upgrade()) else { return };
        match event {
            LinkEvent::Exited(exit) => {
                if let Some(container) = sandbox.container(&exit.id) {
                    container::ended(&inner, &sandbox, &container, container::exit_of(&exit));
                }
            }
            LinkEvent::Closed => return shim_died(&inner, &sandbox).await,
        }
    }
}

/// The shim ended without being asked to: nobody can tell of its containers any more, so they end, too.
async fn shim_died(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) {
    {
        let mut live = lock(&sandbox.live);
        live.link = None;
        if live.stopped {
            return;
        }
    }
    tracing::warn!(sandbox = sandbox.id, "the sandbox's shim died");
    inner.tell(&RuntimeEvent::SandboxStopping { sandbox_id: sandbox.id.clone() });
    lose_containers(inner, sandbox).await;
    inner.tell(&RuntimeEvent::SandboxDied { sandbox_id: sandbox.id.clone() });
}

/// Kills what may still run and records the end of each container as the shim did, or as unknown.
pub(super) async fn lose_containers(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) {
    for container in sandbox.containers() {
        let (inner2, cgroup) = (inner.clone(), container.cgroup(sandbox));
        let killed = inner
            .tasks
            .blocking(move || {
                inner2.hierarchies.kill(&cgroup).map_err(failed(&cgroup))?;
                inner2.hierarchies.remove(&cgroup).map_err(failed(&cgroup))
            })
            .await;
        if let Err(e) = killed {
            tracing::warn!(container = container.id, error = %e, "what a dead shim left was not removed");
        }
        container::lost(inner, sandbox, &container);
    }
}

pub(super) async fn run(inner: &Arc<Inner>, mut config: SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
    let id = new_id()?;
    let dir = inner.dir.join("sandboxes").join(&id);
    let cgroup = inner.groups.pod(&config.cgroup_parent);
    if config.cgroup_parent.split('/').any(|part| part == "..") {
        return Err(RuntimeError::Failed(format!("cgroup parent {:?} leads out", config.cgroup_parent)));
    }
    check_handler(&config.runtime_handler)?;
    inner.user_ranges.choose(&mut config)?;
    let record = SandboxRecord { config, created_at_ns: now_ns(), cgroup };
    let sandbox = Arc::new(Sandbox::new(id.clone(), dir, record.clone()));
    match make(inner, &sandbox, record).await {
        Ok(()) => {
            lock(&inner.sandboxes).insert(id.clone(), sandbox.clone());
            inner.tell(&RuntimeEvent::SandboxStarted { sandbox_id: id });
            Ok(sandbox.status())
        }
        Err(e) => {
            if let Err(more) = discard(inner, &sandbox).await {
                tracing::warn!(sandbox = id, error = %more, "a sandbox that could not be made was not removed");
            }
            Err(e)
        }
    }
}

/// There is one runtime, which does what runc does; the words are containerd's.
fn check_handler(handler: &str) -> Result<(), RuntimeError> {
    match handler {
        "" | "runc" => Ok(()),
        _ => {
            let text = format!("failed to get sandbox runtime: no runtime for {handler:?} is configured");
            Err(RuntimeError::Unsupported(text))
        }
    }
}

async fn make(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>, record: SandboxRecord) -> Result<(), RuntimeError> {
    let plan = plan(inner, sandbox);
    let (inner2, sandbox2) = (inner.clone(), sandbox.clone());
    inner.tasks.blocking(move || prepare(&inner2, &sandbox2, &record)).await?;
    let (sender, events) = mpsc::unbounded_channel();
    let link = Link::open(&inner.tasks, &sandbox.dir, &sandbox.id, sender).await?;
    link.call(Request::Setup(plan)).await?;
    let pid = link.pid;
    sandbox.adopt(inner, link, events);
    let mut ips = Vec::new();
    if sandbox.config.network != NamespaceMode::Node {
        let netns = std::fs::File::open(format!("/proc/{pid}/ns/net")).map_err(failed("network namespace"))?;
        let attached = inner.network.attach(&sandbox.config, &sandbox.id, netns.into()).await;
        ips = attached.map_err(|e| RuntimeError::Failed(format!("failed to set up network for sandbox: {e}")))?;
    }
    sandbox.set_ips(ips.clone());
    state::write(&sandbox.dir, state::READY, &ReadyRecord { ips }).map_err(failed(sandbox.dir.display()))
}

/// Writes it down, makes its cgroups and starts its shim.
fn prepare(inner: &Inner, sandbox: &Sandbox, record: &SandboxRecord) -> Result<(), RuntimeError> {
    let (dir, hierarchies) = (&sandbox.dir, &inner.hierarchies);
    std::fs::create_dir_all(dir.join(state::CONTAINERS)).map_err(failed(dir.display()))?;
    state::write(dir, state::SANDBOX, record).map_err(failed(dir.display()))?;
    hierarchies.create(&sandbox.cgroup).map_err(failed("the Pod's cgroup"))?;
    let limits = super::limits(&sandbox.config.resources);
    hierarchies.limit(&sandbox.cgroup, &limits).map_err(failed("the Pod's limits"))?;
    if let Some(cgroup) = sandbox.pause_cgroup() {
        hierarchies.create(&cgroup).map_err(failed("the pause process's cgroup"))?;
    }
    start_shim(inner, sandbox)
}

fn plan(inner: &Inner, sandbox: &Sandbox) -> SandboxPlan {
    let config = &sandbox.config;
    let mut namespaces = 0;
    let mut sysctls = BTreeMap::new();
    if config.network != NamespaceMode::Node {
        namespaces |= libc::CLONE_NEWNET as u64 | libc::CLONE_NEWUTS as u64;
        // As containerd since 2.0: a Pod's own network lets everyone ping and bind low ports.
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    let own_ipc = config.ipc != NamespaceMode::Node;
    if own_ipc {
        namespaces |= libc::CLONE_NEWIPC as u64;
    }
    if config.pid == NamespaceMode::Pod {
        namespaces |= libc::CLONE_NEWPID as u64;
    }
    sysctls.extend(config.sysctls.clone());
    SandboxPlan {
        id: sandbox.id.clone(),
        namespaces,
        hostname: super::spec::c_string(&config.hostname),
        sysctls: sysctls.into_iter().collect(),
        cgroup: sandbox.pause_cgroup().map(|cgroup| inner.hierarchies.plan(&cgroup)).unwrap_or_default(),
        shm_bytes: if own_ipc { 64 << 20 } else { 0 },
        users: sandbox.users(),
    }
}

/// Starts the shim with the socket it listens on: it can be connected to before it runs.
fn start_shim(inner: &Inner, sandbox: &Sandbox) -> Result<(), RuntimeError> {
    let listener = listen(&sandbox.dir).map_err(failed("the shim's socket"))?;
    let log = sandbox.dir.join("shim.log");
    let log = std::fs::File::options().append(true).create(true).open(&log).map_err(failed(log.display()))?;
    inner.shims.spawn(&sandbox.id, &listener.into(), &log.into()).map_err(failed("starting the shim"))
}

fn listen(dir: &Path) -> std::io::Result<UnixListener> {
    let handle = std::fs::File::open(dir)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{}", handle.as_raw_fd(), state::SOCKET))
}

pub(super) async fn stop(inner: &Arc<Inner>, id: &str) -> Result<(), RuntimeError> {
    let sandbox = match inner.sandbox(id) {
        // CRI: idempotent.
        Err(RuntimeError::NotFound { .. }) => return Ok(()),
        found => found?,
    };
    let _stopping = sandbox.stopping.lock().await;
    stop_locked(inner, &sandbox).await
}

async fn stop_locked(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<(), RuntimeError> {
    if sandbox.link().is_ok() {
        inner.tell(&RuntimeEvent::SandboxStopping { sandbox_id: sandbox.id.clone() });
    }
    let containers = sandbox.containers();
    for container in &containers {
        if let (true, Ok(link)) = (container.is_running(), sandbox.link()) {
            let target = shim::proto::Target { id: container.id.clone() };
            // One that ended meanwhile cannot be killed, and need not be.
            let _ = link.call(Request::Kill(target)).await;
        }
    }
    for container in &containers {
        container.wait().await;
    }
    let (news, link) = {
        let mut live = lock(&sandbox.live);
        (!std::mem::replace(&mut live.stopped, true), live.link.take())
    };
    if !sandbox.dir.join(state::STOPPED).exists() {
        std::fs::write(sandbox.dir.join(state::STOPPED), "").map_err(failed(sandbox.dir.display()))?;
    }
    if let Some(link) = link {
        // It answers, or is gone: either way it ends.
        let _ = link.call(Request::Shutdown(Empty {})).await;
    }
    if news {
        inner.tell(&RuntimeEvent::SandboxStopped { sandbox_id: sandbox.id.clone() });
    }
    if sandbox.config.network != NamespaceMode::Node {
        let detached = inner.network.detach(&sandbox.id).await;
        detached.map_err(|e| RuntimeError::Failed(format!("failed to destroy network for sandbox: {e}")))?;
    }
    Ok(())
}

pub(super) async fn remove(inner: &Arc<Inner>, id: &str) -> Result<(), RuntimeError> {
    let sandbox = match inner.sandbox(id) {
        Err(RuntimeError::NotFound { .. }) => return Ok(()),
        found => found?,
    };
    let _stopping = sandbox.stopping.lock().await;
    if !sandbox.is_stopped() {
        stop_locked(inner, &sandbox).await?;
    }
    discard(inner, &sandbox).await?;
    lock(&inner.sandboxes).remove(id);
    inner.tell(&RuntimeEvent::SandboxRemoved { sandbox_id: id.to_owned() });
    Ok(())
}

/// Takes away all there is of a sandbox, however far it was made.
pub(super) async fn discard(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<(), RuntimeError> {
    let link = {
        let mut live = lock(&sandbox.live);
        live.stopped = true;
        live.link.take()
    };
    if let Some(link) = link {
        let _ = link.call(Request::Shutdown(Empty {})).await;
    }
    if sandbox.config.network != NamespaceMode::Node {
        let _ = inner.network.detach(&sandbox.id).await;
    }
    let others: Vec<Arc<Sandbox>> = lock(&inner.sandboxes).values().cloned().collect();
    let shared = others.iter().any(|other| other.id != sandbox.id && other.cgroup == sandbox.cgroup);
    let config = sandbox.config.clone();
    let (inner2, sandbox) = (inner.clone(), sandbox.clone());
    let discard = move || {
        let containers = sandbox.containers();
        for cgroup in containers.iter().map(|container| container.cgroup(&sandbox)).chain(sandbox.pause_cgroup()) {
            inner2.hierarchies.kill(&cgroup).map_err(failed(&cgroup))?;
            inner2.hierarchies.remove(&cgroup).map_err(failed(&cgroup))?;
        }
        // Another attempt at the same Pod lives in the same group.
        if !shared {
            inner2.hierarchies.kill(&sandbox.cgroup).map_err(failed(&sandbox.cgroup))?;
            inner2.hierarchies.remove(&sandbox.cgroup).map_err(failed(&sandbox.cgroup))?;
        }
        purge::put_away(&inner2.dir, &sandbox.dir)
    };
    inner.tasks.blocking(discard).await?;
    inner.user_ranges.give_back(&config);
    let state = inner.dir.clone();
    inner.tasks.tracker.spawn_blocking(move || purge::clear_removed(&state));
    Ok(())
}
