//! The doors of a Pod's state machine: what it is told and what it asks for.

use crate::resources::Limits;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerUser, Pod, PodCondition, PodStatus};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Both clocks, as arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, without suspend: back-off, probes, grace periods.
    pub mono: Duration,
    /// Wall clock: what the API shows, `activeDeadlineSeconds`.
    pub wall: Timestamp,
}

/// A container as the machine names it: the list it stands in tells init, main and ephemeral apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerName(pub String);

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub code: i32,
    pub signal: i32,
    pub oom_killed: bool,
    pub started_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    /// The termination message by the container's policy, at most 4096 bytes.
    pub message: String,
    /// The runtime cannot tell how it ended.
    pub unknown: bool,
}

/// A container found at the runtime after a restart of minke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub name: ContainerName,
    pub id: String,
    pub attempt: u32,
    pub image_id: String,
    pub image_ref: String,
    pub started_at: Option<Timestamp>,
    /// `None`: it runs (or was created and never started, if `started_at` is `None` too).
    pub exit: Option<Exit>,
}

/// Why an image is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullFailure {
    /// `ErrImagePull` with the registry's words.
    Pull(String),
    /// `ErrImageNeverPull`.
    Never,
    /// `InvalidImageName`, with what is wrong: `couldn't parse image name "A:1": invalid reference format: …`.
    InvalidName(String),
}

/// Why a change of a Pod's resources waits.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingResize {
    /// The Pod as the API has it.
    pub wanted: Arc<Pod>,
    pub reason: String,
    pub message: String,
}

/// A memory limit that is made smaller: of a container (with its id) or of the whole Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryBound {
    pub of: Option<(ContainerName, String)>,
    pub limit_bytes: i64,
}

/// A change of limits while the Pod runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resize {
    /// Nothing is changed if more memory is in use than one of these.
    pub bounds: Vec<MemoryBound>,
    /// In this order, of a container or of the whole Pod; what is zero stays.
    pub steps: Vec<(Option<(ContainerName, String)>, Limits)>,
}

/// Everything that can happen to a Pod.
#[derive(Debug, Clone)]
pub enum Input {
    /// The Pod as the API (or a static source) has it now, deletion included. The first input.
    Spec(Arc<Pod>),
    /// The object is gone from its source: end everything now.
    Removed,
    /// What the runtime already has of this Pod; directly after the first `Spec` when minke was restarted.
    Recovered {
        sandbox_id: String,
        sandbox_ready: bool,
        attempt: u32,
        ips: Vec<IpAddr>,
        containers: Vec<Found>,
    },
    /// The node does not take the Pod (upstream's admission: `OutOfcpu`, `NodeAffinity`, `SysctlForbidden`, …) or evicts it.
    /// The Pod fails with this reason and message; what already runs is stopped.
    Rejected {
        reason: String,
        message: String,
    },
    /// As `Spec`, and the node has granted other amounts than before (KEP-1287).
    Granted(Arc<Pod>),
    /// The node has not granted what the Pod asks for in the API, or never will (reason `Infeasible`); `None`: it asks for
    /// what it has again.
    Pending(Option<PendingResize>),
    /// Answers `Resize`.
    Resized(Result<(), String>),
    /// The node ends it to free what it uses too much of, or needs itself: it fails with reason `Evicted`. Its containers have
    /// `grace_s` to end; `condition` (`DisruptionTarget`) is shown from now on.
    Evicted {
        message: String,
        grace_s: u32,
        condition: Option<PodCondition>,
    },
    VolumesReady,
    /// Volumes cannot be prepared; the node tries again when what was missing may be there and then answers again.
    VolumesFailed {
        reason: &'static str,
        message: String,
    },
    SandboxReady {
        id: String,
        ips: Vec<IpAddr>,
    },
    SandboxFailed {
        message: String,
    },
    SandboxDied {
        id: String,
    },
    /// `present`: it was there and no registry was asked.
    ImageReady {
        container: ContainerName,
        image_id: String,
        image_ref: String,
        size_bytes: u64,
        took: Duration,
        waited: Duration,
        present: bool,
    },
    /// `volume`: the image is not its own but that of a volume it mounts.
    ImageFailed {
        container: ContainerName,
        volume: Option<String>,
        failure: PullFailure,
    },
    /// The container's configuration cannot be made (missing ConfigMap key, runAsNonRoot, …): `CreateContainerConfigError`.
    ConfigFailed {
        container: ContainerName,
        message: String,
    },
    /// It was configured but not created or not started; `reason` is `CreateContainerError`, `RunContainerError`, …
    StartFailed {
        container: ContainerName,
        id: Option<String>,
        reason: &'static str,
        message: String,
    },
    /// `user`: whom its process runs as, for the status; `None` if the runtime cannot tell.
    Created {
        container: ContainerName,
        id: String,
        user: Option<ContainerUser>,
    },
    Started {
        container: ContainerName,
        id: String,
        at: Timestamp,
    },
    Exited {
        container: ContainerName,
        id: String,
        exit: Exit,
    },
    /// The container was removed at the runtime by somebody else.
    ContainerGone {
        container: ContainerName,
        id: String,
    },
    /// One result of one probe; the machine counts them against the thresholds (the next issue's prober sends them).
    Probed {
        container: ContainerName,
        id: String,
        probe: ProbeKind,
        success: bool,
        output: String,
    },
    /// A hook's end (postStart, preStop).
    HookDone {
        container: ContainerName,
        id: String,
        hook: HookKind,
        result: Result<(), String>,
    },
    SandboxStopped,
    SandboxRemoved,
    VolumesGone,
    /// The status was written and is what the API has (or the write failed and must be asked for again later).
    StatusWritten,
    /// The wake-up that was asked for.
    Woken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookKind {
    PostStart,
    PreStop,
}

/// An Event for the recorder, which counts and aggregates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEvent {
    /// `Normal` or `Warning`.
    pub warning: bool,
    pub reason: Cow<'static, str>,
    pub message: String,
    /// `spec.containers{name}`; empty for the Pod itself.
    pub field_path: String,
}

/// What the machine wants done. Each is answered by the input that its comment names.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// → `VolumesReady` | `VolumesFailed`
    PrepareVolumes,
    /// → `SandboxReady` | `SandboxFailed`
    CreateSandbox {
        attempt: u32,
    },
    /// Its image and those of the volumes it mounts. → `ImageReady` | `ImageFailed`. The node sends the `Pulling` event itself only if it really pulls.
    EnsureImage {
        container: ContainerName,
        image: String,
    },
    /// Configure, create, start. → (`ConfigFailed` | `Created` then `Started` | `StartFailed`), later `Exited`
    StartContainer {
        container: ContainerName,
        attempt: u32,
        image_id: String,
    },
    /// Stop signal, then SIGKILL after `grace_period_ms`. → `Exited`. Asked again for the same container, the earlier end counts
    /// (a forced deletion).
    StopContainer {
        container: ContainerName,
        id: String,
        grace_period_ms: u64,
    },
    /// Forget a dead container (its logs stay while it is the last one). No answer.
    RemoveContainer {
        container: ContainerName,
        id: String,
    },
    /// → `HookDone`, unless the container ends before.
    RunHook {
        container: ContainerName,
        id: String,
        hook: HookKind,
    },
    StartProbes {
        container: ContainerName,
        id: String,
    },
    StopProbes {
        container: ContainerName,
        id: String,
    },
    /// → `Resized`
    Resize(Resize),
    /// Ends every process. → `SandboxStopped`
    StopSandbox {
        id: String,
    },
    /// → `SandboxRemoved`
    RemoveSandbox {
        id: String,
    },
    /// → `VolumesGone`. Comes after `PrepareVolumes` was answered or not; a preparation under way is given up.
    TearDownVolumes,
    /// Write the status, after those asked for before; one may be left out if the next shows all that it shows
    /// ([`crate::status::shows_all_of`]). → `StatusWritten`
    WriteStatus(Box<PodStatus>),
    /// Everything is gone from the node: delete the object (grace 0, precondition UID), after the status writes asked for
    /// before. Answered by `Removed` once it is gone (finalizers may hold it).
    DeleteObject,
    Event(PodEvent),
    /// The machine is done; forget it.
    Finished,
}

/// What one step gives.
#[derive(Debug, Default)]
pub struct Step {
    pub actions: Vec<Action>,
    /// When to send `Woken`, on the monotonic clock; replaces the wake-up asked for before.
    pub wake_at: Option<Duration>,
}
