//! A container: recorded, planned, started by the shim, ended, removed.

use super::sandbox::Sandbox;
use super::state::{self, ContainerRecord};
use super::{Inner, failed, lock, new_id, now_ns, purge, spec};
use crate::stats::FilesystemUsage;
use crate::types::{
    ContainerConfig, ContainerState, ContainerStatus, Exit, ProcessUser, Resources, RuntimeError, RuntimeEvent,
};
use images::Lease;
use shim::plan::ProcessPlan;
use shim::proto::{ExitRecord, Reply, Request, Stop, Target};
use shim::wire::Wire;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::watch;

/// How far a container is.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    Created,
    Starting,
    Running { pid: i32, started_at_ns: i64 },
    Exited { exit: Exit, started_at_ns: i64 },
}

pub(super) struct Container {
    pub(super) id: String,
    sandbox_id: String,
    pub(super) dir: PathBuf,
    pub(super) config: Arc<ContainerConfig>,
    created_at_ns: i64,
    stop_signal: i32,
    log_path: PathBuf,
    phase: watch::Sender<Phase>,
    user: OnceLock<ProcessUser>,
    /// What an exec starts from.
    process: Mutex<Option<Arc<ProcessPlan>>>,
    /// In force now.
    resources: Mutex<Resources>,
    /// What it wrote, as counted last.
    pub(super) layer: Mutex<Option<FilesystemUsage>>,
    /// Keeps the image's layers, and those of image volumes.
    _leases: Vec<Lease>,
}

impl Container {
    pub(super) fn new(
        sandbox: &Sandbox,
        id: String,
        record: ContainerRecord,
        phase: Phase,
        leases: Vec<Lease>,
    ) -> Container {
        let ContainerRecord { config, created_at_ns, stop_signal, resources } = record;
        let resources = resources.unwrap_or_else(|| config.resources.clone());
        Container {
            dir: sandbox.dir.join(state::CONTAINERS).join(&id),
            sandbox_id: sandbox.id.clone(),
            log_path: sandbox.config.log_directory.join(&config.log_path),
            id,
            config: Arc::new(config),
            created_at_ns,
            user: OnceLock::new(),
            stop_signal,
            phase: watch::Sender::new(phase),
            process: Mutex::default(),
            resources: Mutex::new(resources),
            layer: Mutex::default(),
            _leases: leases,
        }
    }

    pub(super) fn cgroup(&self, sandbox: &Sandbox) -> String {
        format!("{}/{}", sandbox.cgroup, self.id)
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Running { .. } | Phase::Starting)
    }

    /// Until it runs no more.
    pub(super) async fn wait(&self) {
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|phase| !matches!(phase, Phase::Running { .. } | Phase::Starting)).await;
    }

    pub(super) fn status(&self) -> ContainerStatus {
        let (state, started_at_ns, exit, pid) = match self.phase.borrow().clone() {
            Phase::Created | Phase::Starting => (ContainerState::Created, 0, None, None),
            Phase::Running { pid, started_at_ns } => (ContainerState::Running, started_at_ns, None, Some(pid)),
            Phase::Exited { exit, started_at_ns } => (ContainerState::Exited, started_at_ns, Some(exit), None),
        };
        ContainerStatus {
            id: self.id.clone(),
            sandbox_id: self.sandbox_id.clone(),
            name: self.config.name.clone(),
            attempt: self.config.attempt,
            state,
            created_at_ns: self.created_at_ns,
            started_at_ns,
            exit,
            image_id: self.config.image_id.clone(),
            user_image: self.config.user_image.clone(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            log_path: self.log_path.clone(),
            resources: lock(&self.resources).clone(),
            config: self.config.clone(),
            pid,
            user: self.user(),
        }
    }

    fn user(&self) -> Option<ProcessUser> {
        if let Some(user) = self.user.get() {
            return Some(user.clone());
        }
        let process = self.process().ok()?;
        Some(ProcessUser { uid: process.uid, gid: process.gid, supplemental_groups: process.groups.clone() })
    }

    /// The process an exec starts from; read back after a restart.
    pub(super) fn process(&self) -> Result<Arc<ProcessPlan>, RuntimeError> {
        let mut process = lock(&self.process);
        if let Some(process) = &*process {
            return Ok(process.clone());
        }
        let bytes = std::fs::read(self.dir.join(state::PROCESS)).map_err(failed("the container's process"))?;
        let plan = ProcessPlan::get(&bytes).map_err(|e| RuntimeError::Failed(e.to_string()))?;
        let plan = Arc::new(plan);
        *process = Some(plan.clone());
        Ok(plan)
    }
}

pub(super) fn exit_of(record: &ExitRecord) -> (Exit, i64) {
    let exit = Exit {
        code: record.code,
        signal: record.signal,
        oom_killed: record.oom_killed,
        finished_at_ns: record.finished_at_ns,
        unknown: false,
    };
    (exit, record.started_at_ns)
}

/// The shim said that it ended. Told once.
pub(super) fn ended(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
    container: &Arc<Container>,
    (exit, started_at_ns): (Exit, i64),
) {
    let news = container.phase.send_if_modified(|phase| {
        let news = !matches!(phase, Phase::Exited { .. });
        if news {
            if matches!(phase, Phase::Starting) && started_at_ns != 0 {
                inner.tell(&started(sandbox, container));
            }
            *phase = Phase::Exited { exit: exit.clone(), started_at_ns };
        }
        news
    });
    if !news {
        return;
    }
    inner.tell(&RuntimeEvent::ContainerExited {
        sandbox_id: sandbox.id.clone(),
        container_id: container.id.clone(),
        exit,
    });
    let (tasks, inner, cgroup) = (inner.tasks.tracker.clone(), inner.clone(), container.cgroup(sandbox));
    tasks.spawn_blocking(move || {
        if let Err(e) = inner.hierarchies.kill(&cgroup).and_then(|()| inner.hierarchies.remove(&cgroup)) {
            tracing::warn!(cgroup, error = %e, "an ended container's cgroup was not removed");
        }
    });
}

fn started(sandbox: &Sandbox, container: &Container) -> RuntimeEvent {
    RuntimeEvent::ContainerStarted { sandbox_id: sandbox.id.clone(), container_id: container.id.clone() }
}

/// Its shim died: it ended as the shim wrote down, or nobody knows how.
pub(super) fn lost(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>, container: &Arc<Container>) {
    let phase = container.phase.borrow().clone();
    let started_at_ns = match phase {
        Phase::Running { started_at_ns, .. } => started_at_ns,
        Phase::Starting => 0,
        Phase::Created | Phase::Exited { .. } => return,
    };
    let end = match shim::read_exit(&container.dir) {
        Ok(Some(record)) => exit_of(&record),
        Ok(None) | Err(_) => (unknown_exit(), started_at_ns),
    };
    ended(inner, sandbox, container, end);
}

pub(super) fn unknown_exit() -> Exit {
    Exit { code: 255, signal: 0, oom_killed: false, finished_at_ns: now_ns(), unknown: true }
}

pub(super) async fn create(
    inner: &Arc<Inner>,
    sandbox_id: &str,
    config: ContainerConfig,
) -> Result<String, RuntimeError> {
    let sandbox = inner.sandbox(sandbox_id)?;
    sandbox.link()?;
    let leases = leases(inner, &config)?;
    let image = image(inner, &config.image_id)?;
    spec::check(&config, &image.config)?;
    let stop_signal = spec::stop_signal(&config.stop_signal, &image.config.stop_signal);
    let id = new_id()?;
    let record = ContainerRecord { config, created_at_ns: now_ns(), stop_signal, resources: None };
    let container = Arc::new(Container::new(&sandbox, id.clone(), record.clone(), Phase::Created, leases));
    let (made, inner2, users) = (container.clone(), inner.clone(), sandbox.users());
    let make = move || {
        let user = spec::user(&inner2, &made.config, &image)?;
        made.user.set(user).ok();
        let dir = &made.dir;
        for part in ["upper", "work"] {
            std::fs::create_dir_all(dir.join(part)).map_err(failed(dir.display()))?;
        }
        if let Some(users) = users {
            let upper = dir.join("upper");
            std::os::unix::fs::chown(&upper, Some(users.host_uid), Some(users.host_gid))
                .map_err(failed(upper.display()))?;
        }
        if let Some(logs) = made.log_path.parent() {
            std::fs::create_dir_all(logs).map_err(failed(logs.display()))?;
        }
        state::write(dir, state::CONTAINER, &record).map_err(failed(dir.display()))
    };
    inner.tasks.blocking(make).await?;
    sandbox.insert(container);
    inner.tell(&RuntimeEvent::ContainerCreated { sandbox_id: sandbox.id.clone(), container_id: id.clone() });
    Ok(id)
}

fn image(inner: &Inner, id: &str) -> Result<images::Image, RuntimeError> {
    inner.images.resolve(id).ok_or_else(|| RuntimeError::NotFound { what: "image", id: id.to_owned() })
}

/// Holds the images a container needs.
pub(super) fn leases(inner: &Inner, config: &ContainerConfig) -> Result<Vec<Lease>, RuntimeError> {
    let volumes = config.mounts.iter().filter_map(|mount| mount.image.as_deref());
    let mut leases = Vec::new();
    for name in volumes.chain([config.image_id.as_str()]) {
        let id = inner.images.resolve(name).map_or_else(|| name.to_owned(), |image| image.id);
        let lease = inner.images.lease(&id);
        leases.push(lease.ok_or_else(|| RuntimeError::NotFound { what: "image", id: name.to_owned() })?);
    }
    Ok(leases)
}

pub(super) async fn start(inner: &Arc<Inner>, id: &str) -> Result<ContainerStatus, RuntimeError> {
    let (sandbox, container) = inner.container(id)?;
    let link = sandbox.link()?;
    let starting = container.phase.send_if_modified(|phase| {
        let created = matches!(phase, Phase::Created);
        if created {
            *phase = Phase::Starting;
        }
        created
    });
    if !starting {
        return Err(RuntimeError::Failed(format!("container {id:?} was started before")));
    }
    match launch(inner, &sandbox, &container, &link).await {
        Ok((pid, started_at_ns)) => {
            container.phase.send_if_modified(|phase| {
                // It may have ended already.
                let running = matches!(phase, Phase::Starting);
                if running {
                    *phase = Phase::Running { pid, started_at_ns };
                    // Here, so that the exit is never told before.
                    inner.tell(&started(&sandbox, &container));
                }
                running
            });
            Ok(container.status())
        }
        Err(e) => {
            give_up(inner, &sandbox, &container).await;
            Err(e)
        }
    }
}

async fn launch(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
    container: &Arc<Container>,
    link: &super::link::Link,
) -> Result<(i32, i64), RuntimeError> {
    let (inner2, sandbox2, container2) = (inner.clone(), sandbox.clone(), container.clone());
    let plan = inner
        .tasks
        .blocking(move || {
            let image = image(&inner2, &container2.config.image_id)?;
            let plan = spec::plan(&inner2, &sandbox2, &container2, &image)?;
            let cgroup = container2.cgroup(&sandbox2);
            inner2.hierarchies.create(&cgroup).map_err(failed("the container's cgroup"))?;
            let mut limits = super::limits(&lock(&container2.resources));
            limits.devices = spec::device_rules(&container2.config);
            // The kubelet's default where there is v2 (`singleProcessOOMKill: false`).
            limits.oom_group = true;
            inner2.hierarchies.limit(&cgroup, &limits).map_err(failed("the container's limits"))?;
            let mut bytes = Vec::new();
            plan.process.put(&mut bytes);
            state::write_bytes(&container2.dir, state::PROCESS, &bytes).map_err(failed(container2.dir.display()))?;
            *lock(&container2.process) = Some(Arc::new(plan.process.clone()));
            Ok(plan)
        })
        .await?;
    link.call(Request::Create(plan)).await?;
    match link.call(Request::Start(Target { id: container.id.clone() })).await? {
        Reply::Started(started) => Ok((started.pid, started.at_ns)),
        other => Err(RuntimeError::Failed(format!("the shim answered {other:?}"))),
    }
}

/// Changes its limits. Blocks.
pub(super) fn update(
    inner: &Inner,
    sandbox: &Sandbox,
    container: &Container,
    update: &Resources,
) -> Result<(), RuntimeError> {
    let mut resources = lock(&container.resources);
    if container.is_running() {
        let limits = super::limits(update);
        inner.hierarchies.limit(&container.cgroup(sandbox), &limits).map_err(failed("limits"))?;
    }
    resources.update(update);
    let record = ContainerRecord {
        config: (*container.config).clone(),
        created_at_ns: container.created_at_ns,
        stop_signal: container.stop_signal,
        resources: Some(resources.clone()),
    };
    state::write(&container.dir, state::CONTAINER, &record).map_err(failed(container.dir.display()))
}

/// It could not be started: 128, as containerd says; that it ended is no event, the caller is told.
async fn give_up(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>, container: &Arc<Container>) {
    let exit = Exit { code: 128, signal: 0, oom_killed: false, finished_at_ns: now_ns(), unknown: false };
    let record = ExitRecord {
        id: container.id.clone(),
        code: 128,
        finished_at_ns: exit.finished_at_ns,
        ..ExitRecord::default()
    };
    container.phase.send_replace(Phase::Exited { exit, started_at_ns: 0 });
    let (inner2, cgroup, dir) = (inner.clone(), container.cgroup(sandbox), container.dir.clone());
    let clean = move || {
        let mut bytes = Vec::new();
        record.put(&mut bytes);
        state::write_bytes(&dir, "exit", &bytes).map_err(failed(dir.display()))?;
        inner2.hierarchies.kill(&cgroup).map_err(failed(&cgroup))?;
        inner2.hierarchies.remove(&cgroup).map_err(failed(&cgroup))
    };
    if let Err(e) = inner.tasks.blocking(clean).await {
        tracing::warn!(container = container.id, error = %e, "a container that did not start was not cleaned up");
    }
}

pub(super) async fn stop(inner: &Arc<Inner>, id: &str, grace_period_ms: u64) -> Result<(), RuntimeError> {
    let (sandbox, container) = inner.container(id)?;
    if !container.is_running() {
        return Ok(());
    }
    let stop = Stop { id: id.to_owned(), signal: container.stop_signal, grace_period_ms };
    sandbox.link()?.call(Request::Stop(stop)).await.map(drop)
}

pub(super) async fn remove(inner: &Arc<Inner>, id: &str) -> Result<(), RuntimeError> {
    let (sandbox, container) = match inner.container(id) {
        // CRI: idempotent.
        Err(RuntimeError::NotFound { .. }) => return Ok(()),
        found => found?,
    };
    if container.is_running() {
        let kill = sandbox.link()?.call(Request::Kill(Target { id: id.to_owned() })).await;
        kill?;
        container.wait().await;
    }
    if let Ok(link) = sandbox.link() {
        // It may never have come to the shim.
        let _ = link.call(Request::Delete(Target { id: id.to_owned() })).await;
    }
    let (inner2, cgroup, dir) = (inner.clone(), container.cgroup(&sandbox), container.dir.clone());
    let removing = move || {
        inner2.hierarchies.kill(&cgroup).map_err(failed(&cgroup))?;
        inner2.hierarchies.remove(&cgroup).map_err(failed(&cgroup))?;
        purge::remove_dir(&dir)
    };
    inner.tasks.blocking(removing).await?;
    sandbox.forget(id);
    inner.tell(&RuntimeEvent::ContainerRemoved { sandbox_id: sandbox.id.clone(), container_id: id.to_owned() });
    Ok(())
}
