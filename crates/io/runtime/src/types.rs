//! The interface of a container runtime, in CRI v1's terms: what the kubelet asks, what the CRI socket will serve,
//! what an external runtime will answer.

use crate::stats::{ContainerStats, ImageFs, SandboxStats};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

/// Which of a Pod's namespaces are its own, the node's or a container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    Pod,
    Container,
    Node,
}

/// CRI `UserNamespace`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserNamespace {
    #[default]
    Node,
    /// Where its users lie on the host; `None`: the runtime chooses, and says so in the sandbox's status.
    Pod(Option<UserRange>),
}

/// Users and groups 0 to `length` of a Pod, and what they are on the host (CRI `IDMapping`, of which there is one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRange {
    pub host_uid: u32,
    pub host_gid: u32,
    pub length: u32,
}

/// CRI `PodSandboxConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub attempt: u32,
    pub hostname: String,
    /// Directory of the Pod's logs; containers name theirs relative to it.
    pub log_directory: PathBuf,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub network: NamespaceMode,
    pub ipc: NamespaceMode,
    /// `Container`: each its own; `Pod`: one for all (`shareProcessNamespace`); `Node`: `hostPID`.
    pub pid: NamespaceMode,
    /// `hostUsers: false`: a user namespace of its own, which its other namespaces belong to.
    #[serde(default)]
    pub users: UserNamespace,
    pub sysctls: BTreeMap<String, String>,
    /// Below the instance's root: `burstable/podUID`. Made by the caller's resource limits.
    pub cgroup_parent: String,
    pub resources: Resources,
    pub port_mappings: Vec<PortMapping>,
    /// Of the Pod's RuntimeClass; empty: the default one.
    #[serde(default)]
    pub runtime_handler: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    pub container_port: u16,
    pub host_port: u16,
    pub host_ip: Option<IpAddr>,
}

/// CRI `LinuxContainerResources`; 0 and empty: unset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    pub cpu_period_us: u64,
    pub cpu_quota_us: i64,
    pub cpu_shares: u64,
    pub memory_limit_bytes: i64,
    pub oom_score_adj: i32,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub pids_limit: i64,
    pub hugepage_limits: BTreeMap<String, u64>,
    /// cgroup v2 files, `memory.min` and the like.
    pub unified: BTreeMap<String, String>,
}

impl Resources {
    /// Takes over what `update` sets.
    pub fn update(&mut self, update: &Resources) {
        let Resources {
            cpu_period_us,
            cpu_quota_us,
            cpu_shares,
            memory_limit_bytes,
            oom_score_adj,
            cpuset_cpus,
            cpuset_mems,
            pids_limit,
            hugepage_limits,
            unified,
        } = update;
        fn set<T: Clone + Default + PartialEq>(old: &mut T, new: &T) {
            if *new != T::default() {
                old.clone_from(new);
            }
        }
        set(&mut self.cpu_period_us, cpu_period_us);
        set(&mut self.cpu_quota_us, cpu_quota_us);
        set(&mut self.cpu_shares, cpu_shares);
        set(&mut self.memory_limit_bytes, memory_limit_bytes);
        set(&mut self.oom_score_adj, oom_score_adj);
        set(&mut self.cpuset_cpus, cpuset_cpus);
        set(&mut self.cpuset_mems, cpuset_mems);
        set(&mut self.pids_limit, pids_limit);
        self.hugepage_limits.extend(hugepage_limits.clone());
        self.unified.extend(unified.clone());
    }
}

/// CRI `Mount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub container_path: PathBuf,
    pub host_path: PathBuf,
    pub readonly: bool,
    pub recursive_readonly: bool,
    pub propagation: Propagation,
    /// An image to mount instead of a host path (image volumes).
    pub image: Option<String>,
    pub image_sub_path: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

/// CRI `LinuxContainerSecurityContext`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityContext {
    pub privileged: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    /// A number; `None` with an empty `run_as_username` means the image's user.
    pub run_as_user: Option<i64>,
    pub run_as_username: String,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    /// `SupplementalGroupsPolicy: Strict`: ignore the image's `/etc/group`.
    pub strict_groups: bool,
    pub readonly_rootfs: bool,
    pub no_new_privs: bool,
    pub seccomp: Seccomp,
    pub apparmor: AppArmor,
    /// `user:role:type:level`; empty: nothing is asked for.
    pub selinux_label: String,
    /// Both empty for `procMount: Unmasked`.
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// A profile file on the node.
    Localhost(PathBuf),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppArmor {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// A profile loaded on the node.
    Localhost(String),
}

/// CRI `ContainerConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub name: String,
    pub attempt: u32,
    /// The image's id, as `pull_image` or `image_status` told it.
    pub image_id: String,
    /// The image as the user wrote it.
    pub user_image: String,
    /// Replaces the image's ENTRYPOINT; empty keeps it.
    pub command: Vec<String>,
    /// Replaces the image's CMD; empty keeps it unless `command` is set.
    pub args: Vec<String>,
    pub working_dir: String,
    pub envs: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<(PathBuf, PathBuf, String)>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Relative to the sandbox's `log_directory`: `main/0.log`.
    pub log_path: PathBuf,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: Resources,
    pub security: SecurityContext,
    /// Signal name (`SIGTERM`); empty: the image's, else SIGTERM.
    pub stop_signal: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    Unknown,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 128 + signal when killed by one.
    pub code: i32,
    pub signal: i32,
    pub oom_killed: bool,
    /// Unix time in nanoseconds.
    pub finished_at_ns: i64,
    /// Where it could not be told (its shim died): 255 and `ContainerStatusUnknown` upstream-like.
    pub unknown: bool,
}

/// CRI `ContainerStatus`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStatus {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub attempt: u32,
    pub state: ContainerState,
    pub created_at_ns: i64,
    /// 0: never started.
    pub started_at_ns: i64,
    pub exit: Option<Exit>,
    pub image_id: String,
    pub user_image: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub log_path: PathBuf,
    /// In force now: what it was created with, and every update since.
    pub resources: Resources,
    /// What it was made from.
    pub config: Arc<ContainerConfig>,
    /// Host pid of its first process while it runs.
    pub pid: Option<i32>,
    /// Whom its first process runs as.
    pub user: Option<ProcessUser>,
}

/// CRI `LinuxContainerUser`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessUser {
    pub uid: u32,
    pub gid: u32,
    pub supplemental_groups: Vec<u32>,
}

/// CRI `PodSandboxStatus` with its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxStatus {
    pub id: String,
    pub config: SandboxConfig,
    pub ready: bool,
    pub created_at_ns: i64,
    pub ips: Vec<IpAddr>,
    pub containers: Vec<ContainerStatus>,
}

/// What happened, told as soon as the shim tells it, whoever asked for it: the kubelet or a hand (`crictl`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// It is ready.
    SandboxStarted {
        sandbox_id: String,
    },
    ContainerCreated {
        sandbox_id: String,
        container_id: String,
    },
    ContainerStarted {
        sandbox_id: String,
        container_id: String,
    },
    ContainerExited {
        sandbox_id: String,
        container_id: String,
        exit: Exit,
    },
    /// The sandbox's shim is gone, and all its containers with it.
    SandboxDied {
        sandbox_id: String,
    },
    /// It begins to end: somebody stops it (`crictl stopp`), or its shim has died. Told before the exits of its containers, so
    /// that whoever keeps the Pod does not restart them in it.
    SandboxStopping {
        sandbox_id: String,
    },
    /// It is stopped; the exits of its containers were told before.
    SandboxStopped {
        sandbox_id: String,
    },
    /// Somebody removed the container at the runtime (`crictl rm`).
    ContainerRemoved {
        sandbox_id: String,
        container_id: String,
    },
    /// With all its containers, of which nothing more is told (`crictl rmp`).
    SandboxRemoved {
        sandbox_id: String,
    },
}

/// CRI `Image`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `sha256:…` of the config.
    pub id: String,
    /// Normalised: `docker.io/library/busybox:1.37`.
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub size_bytes: u64,
    /// The user of the image's config: a number or a name, with a group behind a colon.
    pub user: String,
    /// Not to be collected. The embedded runtime pins nothing: its Pods need no pause image.
    pub pinned: bool,
}

/// Credentials of one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Auth {
    pub username: String,
    pub password: String,
    pub identity_token: String,
}

/// Why the runtime did not do it. `Display` is what the user reads in an event.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("{what} {id:?} not found")]
    NotFound { what: &'static str, id: String },
    /// The container's program cannot be started: missing, not executable, bad working directory, …; worded as runc
    /// does (`exec: "nope": executable file not found in $PATH`).
    #[error("{0}")]
    Start(String),
    /// The registry's own words.
    #[error("{0}")]
    Pull(String),
    /// No registry answered at all.
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    InvalidImageName(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    Failed(String),
}

pub type Reader = Pin<Box<dyn AsyncRead + Send>>;
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// An exec or attach under way. Dropping it closes its streams; an exec's process is killed.
pub struct Session {
    pub stdin: Option<Writer>,
    pub stdout: Option<Reader>,
    /// Absent with a terminal.
    pub stderr: Option<Reader>,
    /// Columns and rows.
    pub resize: Option<mpsc::Sender<(u16, u16)>>,
    /// The exit code; for an attach, of the container.
    pub exit: oneshot::Receiver<Result<i32, RuntimeError>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecConfig {
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// A two-way byte stream (port-forward).
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Gives a sandbox its network; the embedded runtime calls it once the namespace exists. Made by `node`.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Sets up `netns` for the sandbox and returns its addresses, the primary first. Idempotent.
    async fn attach(&self, sandbox: &SandboxConfig, id: &str, netns: OwnedFd) -> Result<Vec<IpAddr>, String>;
    /// Takes everything back. Idempotent; also for a sandbox whose namespace is already gone.
    async fn detach(&self, id: &str) -> Result<(), String>;
}

/// A container runtime: the embedded one or, later, any behind a CRI socket.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxStatus, RuntimeError>;
    /// Ends every process in it and takes its network away. Idempotent.
    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// Removes what is left of it, containers included. Idempotent.
    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// Changes the limits of the Pod's cgroup.
    async fn update_sandbox_resources(&self, id: &str, resources: &Resources) -> Result<(), RuntimeError>;

    async fn create_container(&self, sandbox_id: &str, config: ContainerConfig) -> Result<String, RuntimeError>;
    /// Returns when the program has been executed (or could not be).
    async fn start_container(&self, id: &str) -> Result<ContainerStatus, RuntimeError>;
    /// Sends the stop signal, after `grace_period_ms` SIGKILL; returns at once, the exit comes as an event.
    async fn stop_container(&self, id: &str, grace_period_ms: u64) -> Result<(), RuntimeError>;
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;
    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError>;
    async fn update_container_resources(&self, id: &str, resources: &Resources) -> Result<(), RuntimeError>;
    /// Goes on with a new file of the log's name, whatever became of the old one.
    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError>;
    async fn container_stats(&self, id: &str) -> Result<ContainerStats, RuntimeError>;
    /// With those of its containers.
    async fn sandbox_stats(&self, id: &str) -> Result<SandboxStats, RuntimeError>;

    /// Everything there is, e.g. after a restart.
    async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError>;
    /// Events from now on; each caller gets all of them. Call before `list_sandboxes`.
    fn events(&self) -> mpsc::UnboundedReceiver<RuntimeEvent>;

    async fn exec(&self, id: &str, config: ExecConfig) -> Result<Session, RuntimeError>;
    async fn attach(&self, id: &str, config: ExecConfig) -> Result<Session, RuntimeError>;
    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>, RuntimeError>;

    /// By any name, digest or id a user may write.
    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError>;
    /// Tries `auths` in turn, then anonymously.
    async fn pull_image(&self, image: &str, auths: &[Auth]) -> Result<Image, RuntimeError>;
    /// What the images take, and what containers wrote.
    async fn image_fs(&self) -> Result<ImageFs, RuntimeError>;
    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError>;
    async fn remove_image(&self, image: &str) -> Result<(), RuntimeError>;
}
