//! The embedded runtime: one shim per sandbox does the work, this side plans it, remembers it and tells of it.
//!
//! ```text
//! DIR/sandboxes/ID/sandbox.json            what it is to be; written before anything of it is made
//! DIR/sandboxes/ID/ready.json              its addresses; written when all of it is made
//! DIR/sandboxes/ID/stopped                 stopped for good
//! DIR/sandboxes/ID/shim.sock, shim.log
//! DIR/sandboxes/ID/containers/ID/container.json
//! DIR/sandboxes/ID/containers/ID/process   the planned process: an exec starts from it
//! DIR/sandboxes/ID/containers/ID/exit      written by the shim before anyone is told
//! DIR/sandboxes/ID/containers/ID/{upper,work}
//! DIR/cgroup                               where the groups below lie
//! /sys/fs/cgroup/…/minke-INSTANCE/shims    the shims
//! /sys/fs/cgroup/…/minke-INSTANCE/pods/PARENT/CONTAINER
//! ```

mod container;
mod groups;
mod link;
mod purge;
mod recovery;
mod sandbox;
mod scope;
mod session;
mod shims;
mod spec;
mod state;
mod usage;
pub(crate) mod user_ranges;

pub use purge::{purge, shims};

use crate::stats::{ContainerStats, ImageFs, SandboxStats};
use crate::types::{
    Auth, ContainerConfig, ContainerStatus, Duplex, ExecConfig, Image, PodNetwork, Resources, Runtime, RuntimeError,
    RuntimeEvent, SandboxConfig, SandboxStatus, Session,
};
use async_trait::async_trait;
use container::Container;
use images::{Images, PullError, RemoveError};
use sandbox::Sandbox;
use shim::cgroup::Hierarchies;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What an instance's runtime is built from.
pub struct Options {
    /// The instance's id: part of the name of everything made.
    pub instance: String,
    /// Directory of the runtime's own state.
    pub dir: PathBuf,
    /// Program that calls [`shim::main`] when it is started under the name [`shim::NAME`].
    pub shim_program: PathBuf,
    pub images: Images,
    pub network: Arc<dyn PodNetwork>,
}

/// The embedded runtime. Sandboxes and containers go on without it.
pub struct Embedded {
    inner: Arc<Inner>,
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.inner.tasks.stop.cancel();
    }
}

struct Inner {
    dir: PathBuf,
    images: Images,
    network: Arc<dyn PodNetwork>,
    hierarchies: Hierarchies,
    groups: groups::Groups,
    shims: shims::Shims,
    sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    listeners: Mutex<Vec<mpsc::UnboundedSender<RuntimeEvent>>>,
    users: Mutex<BTreeMap<String, Arc<spec::Users>>>,
    user_ranges: user_ranges::UserRanges,
    tasks: Tasks,
}

/// Locks, also after a panic elsewhere: the maps behind are always whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> RuntimeError {
    move |e| RuntimeError::Failed(format!("{what}: {e}"))
}

/// The runtime's tasks: each ends with the connection or process it serves, and all with the runtime.
#[derive(Clone, Default)]
struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) -> tokio::task::JoinHandle<()> {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            stop.run_until_cancelled(task).await;
        })
    }

    /// Runs what blocks for moments (cgroups, mounts, small files) off the event loop.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        match self.tracker.spawn_blocking(work).await {
            Ok(result) => result,
            Err(e) => Err(RuntimeError::Failed(format!("the runtime failed: {e}"))),
        }
    }
}

/// 64 random hexadecimal digits, as container ids are.
fn new_id() -> Result<String, RuntimeError> {
    let mut bytes = [0u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| RuntimeError::Failed(format!("no random numbers: {e}")))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Unix time in nanoseconds.
fn now_ns() -> i64 {
    shim::sys::now_ns()
}

impl Embedded {
    /// Opens the state directory and takes up what runs there: live shims are reconnected to, dead ones' containers
    /// are killed and reported as unknown.
    pub async fn open(options: Options) -> Result<Embedded, RuntimeError> {
        let Options { instance, dir, shim_program, images, network } = options;
        if instance.is_empty() || !instance.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(RuntimeError::Failed(format!("instance id {instance:?}: letters, digits and - only")));
        }
        for name in ["sandboxes", purge::REMOVED] {
            std::fs::create_dir_all(dir.join(name)).map_err(failed(dir.display()))?;
        }
        let mut hierarchies = Hierarchies::observe().map_err(failed("cgroups"))?;
        let groups = groups::Groups::make(&instance, &dir, &mut hierarchies)?;
        let executable = shim::executable::seal(&shim_program).map_err(failed(shim_program.display()))?;
        let plan = hierarchies.plan(&groups.shims());
        let joined = plan.v1.iter().chain((!plan.unified.is_empty()).then_some(&plan.unified));
        let joined = joined.map(|group| group.to_string_lossy().into_owned()).collect();
        let shims = shims::Shims::new(&instance, joined, executable);
        let inner = Arc::new(Inner {
            dir,
            images,
            network,
            hierarchies,
            groups,
            shims,
            sandboxes: Mutex::default(),
            listeners: Mutex::default(),
            users: Mutex::default(),
            user_ranges: user_ranges::UserRanges::default(),
            tasks: Tasks::default(),
        });
        recovery::recover(&inner).await?;
        Ok(Embedded { inner })
    }

    /// Ends its tasks and returns when they have ended: the state directory is free then, and everything runs on.
    pub async fn close(self) {
        let tasks = self.inner.tasks.clone();
        drop(self);
        tasks.tracker.close();
        tasks.tracker.wait().await;
    }

    /// The store behind the image calls.
    pub fn images(&self) -> &Images {
        &self.inner.images
    }
}

impl Inner {
    fn tell(&self, event: &RuntimeEvent) {
        lock(&self.listeners).retain(|listener| listener.send(event.clone()).is_ok());
    }

    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, RuntimeError> {
        let found = lock(&self.sandboxes).get(id).cloned();
        found.ok_or_else(|| RuntimeError::NotFound { what: "sandbox", id: id.to_owned() })
    }

    fn container(&self, id: &str) -> Result<(Arc<Sandbox>, Arc<Container>), RuntimeError> {
        for sandbox in lock(&self.sandboxes).values() {
            if let Some(container) = sandbox.container(id) {
                return Ok((sandbox.clone(), container));
            }
        }
        Err(RuntimeError::NotFound { what: "container", id: id.to_owned() })
    }
}

fn limits(resources: &Resources) -> shim::cgroup::Limits {
    shim::cgroup::Limits {
        cpu_shares: resources.cpu_shares,
        cpu_quota_us: resources.cpu_quota_us,
        cpu_period_us: resources.cpu_period_us,
        memory_bytes: resources.memory_limit_bytes,
        pids: resources.pids_limit,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepages: resources.hugepage_limits.clone(),
        oom_group: false,
        unified: resources.unified.clone(),
        devices: None,
    }
}

fn image_of(image: images::Image) -> Image {
    Image {
        id: image.id,
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        size_bytes: image.size_bytes,
        user: image.config.user.clone(),
        pinned: false,
    }
}

#[async_trait]
impl Runtime for Embedded {
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        sandbox::run(&self.inner, config).await
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        sandbox::stop(&self.inner, id).await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        sandbox::remove(&self.inner, id).await
    }

    async fn update_sandbox_resources(&self, id: &str, resources: &Resources) -> Result<(), RuntimeError> {
        let sandbox = self.inner.sandbox(id)?;
        let (inner, limits) = (self.inner.clone(), limits(resources));
        self.inner
            .tasks
            .blocking(move || inner.hierarchies.limit(&sandbox.cgroup, &limits).map_err(failed("limits")))
            .await
    }

    async fn create_container(&self, sandbox_id: &str, config: ContainerConfig) -> Result<String, RuntimeError> {
        container::create(&self.inner, sandbox_id, config).await
    }

    async fn start_container(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        container::start(&self.inner, id).await
    }

    async fn stop_container(&self, id: &str, grace_period_ms: u64) -> Result<(), RuntimeError> {
        container::stop(&self.inner, id, grace_period_ms).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        container::remove(&self.inner, id).await
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        let (_, container) = self.inner.container(id)?;
        Ok(container.status())
    }

    async fn update_container_resources(&self, id: &str, resources: &Resources) -> Result<(), RuntimeError> {
        let (sandbox, container) = self.inner.container(id)?;
        let (inner, resources) = (self.inner.clone(), resources.clone());
        self.inner.tasks.blocking(move || container::update(&inner, &sandbox, &container, &resources)).await
    }

    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        let (sandbox, container) = self.inner.container(id)?;
        let target = shim::proto::Target { id: container.id.clone() };
        sandbox.link()?.call(shim::proto::Request::ReopenLog(target)).await.map(drop)
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats, RuntimeError> {
        let (sandbox, container) = self.inner.container(id)?;
        let inner = self.inner.clone();
        self.inner.tasks.blocking(move || usage::container(&inner, &sandbox, &container)).await
    }

    async fn sandbox_stats(&self, id: &str) -> Result<SandboxStats, RuntimeError> {
        let sandbox = self.inner.sandbox(id)?;
        let inner = self.inner.clone();
        self.inner.tasks.blocking(move || usage::sandbox(&inner, &sandbox)).await
    }

    async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let sandboxes: Vec<Arc<Sandbox>> = lock(&self.inner.sandboxes).values().cloned().collect();
        Ok(sandboxes.iter().map(|sandbox| sandbox.status()).collect())
    }

    fn events(&self) -> mpsc::UnboundedReceiver<RuntimeEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        lock(&self.inner.listeners).push(sender);
        receiver
    }

    async fn exec(&self, id: &str, config: ExecConfig) -> Result<Session, RuntimeError> {
        session::exec(&self.inner, id, config).await
    }

    async fn attach(&self, id: &str, config: ExecConfig) -> Result<Session, RuntimeError> {
        session::attach(&self.inner, id, config).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        session::port_forward(&self.inner, sandbox_id, port).await
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError> {
        if let Some(found) = self.inner.images.resolve(image) {
            return Ok(Some(image_of(found)));
        }
        match images::Reference::parse(image) {
            Ok(_) | Err(images::InvalidReference::Id(_)) => Ok(None),
            Err(reason) => {
                Err(RuntimeError::InvalidImageName(format!("couldn't parse image name {image:?}: {reason}")))
            }
        }
    }

    async fn pull_image(&self, image: &str, auths: &[Auth]) -> Result<Image, RuntimeError> {
        let auths: Vec<images::Auth> = auths
            .iter()
            .map(|auth| images::Auth {
                username: auth.username.clone(),
                password: auth.password.clone(),
                identity_token: auth.identity_token.clone(),
            })
            .collect();
        match self.inner.images.pull(image, &auths, |_| {}).await {
            Ok(image) => Ok(image_of(image)),
            Err(e @ PullError::InvalidName { .. }) => Err(RuntimeError::InvalidImageName(e.to_string())),
            Err(e) if e.is_unreachable() => Err(RuntimeError::Unreachable(e.to_string())),
            Err(e) => Err(RuntimeError::Pull(e.to_string())),
        }
    }

    async fn image_fs(&self) -> Result<ImageFs, RuntimeError> {
        let inner = self.inner.clone();
        self.inner.tasks.blocking(move || usage::image_fs(&inner)).await
    }

    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(self.inner.images.list().into_iter().map(image_of).collect())
    }

    async fn remove_image(&self, image: &str) -> Result<(), RuntimeError> {
        let (images, image) = (self.inner.images.clone(), image.to_owned());
        self.inner
            .tasks
            .blocking(move || match images.remove(&image) {
                // CRI: removing what is not there is no error.
                Ok(()) | Err(RemoveError::NotFound(_)) => Ok(()),
                Err(e) => Err(RuntimeError::Failed(e.to_string())),
            })
            .await
    }
}
