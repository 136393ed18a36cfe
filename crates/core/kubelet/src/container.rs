//! One container of a Pod: its states, and what is remembered beyond them.
//!
//! ```text
//!            turn          image        turn            started
//!   Idle ──────────▶ Pulling ─────▶ Pulled ─────▶ Starting ─────▶ Running ──▶ Stopping
//!    ▲                 │  ▲                          │  │            │            │
//!    │                 ▼  │ time                     │  │            │ exit       │ exit
//!    │               Hindered ◀──── not configured ──┘  │ not        ▼            │
//!    │                          or not created          │ started  Exited ◀───────┘
//!    │                                                  └────────────▶ │
//!    └── another sandbox, or the runtime lost it;  Exited ── restart ──┘──▶ Pulling
//! ```

use crate::allocated::Sizes;
use crate::backoff::BackOff;
use crate::pod::{ContainerName, PodEvent};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState as ApiState, ContainerStateTerminated, ContainerStatus, ContainerUser, PodSpec,
    Probe, ResourceRequirements, VolumeMount,
};
use std::time::Duration;

/// In which list of the Pod it stands, with native sidecars told from init containers that end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Init,
    Sidecar,
    Main,
    Ephemeral,
}

impl Kind {
    /// The list as events name it.
    pub fn field(self) -> &'static str {
        match self {
            Self::Init | Self::Sidecar => "initContainers",
            Self::Main => "containers",
            Self::Ephemeral => "ephemeralContainers",
        }
    }
}

/// The image a container is started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// As the spec said when it was asked for.
    pub name: String,
    pub id: String,
    /// What `imageID` shows.
    pub reference: String,
}

/// What the runtime has or had under a container's name.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub id: String,
    pub image: Image,
    pub user: Option<ContainerUser>,
}

/// postStart of a running container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostStart {
    Runs,
    /// Done, or none asked for.
    Done,
}

/// A probe that is counted against its thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The container has no such probe.
    Unasked,
    /// So many equal results in a row do not reach a threshold yet; `passed` is the verdict in force.
    Asked { passed: bool, streak: u32, streak_of: bool },
}

impl Health {
    /// A probe that counts as `passed` until its results say otherwise.
    pub fn of(probe: Option<&Probe>, passed: bool) -> Self {
        if probe.is_some() { Self::Asked { passed, streak: 0, streak_of: passed } } else { Self::Unasked }
    }

    /// Takes one result. Returns whether a threshold was reached just now (upstream `prober/worker.go`).
    pub fn take(&mut self, success: bool, probe: &Probe) -> bool {
        let Self::Asked { passed, streak, streak_of } = self else { return false };
        *streak = if *streak_of == success { streak.saturating_add(1) } else { 1 };
        *streak_of = success;
        let threshold =
            if success { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        if *streak < threshold.unsigned_abs() {
            return false;
        }
        *passed = success;
        true
    }

    /// One more success would change nothing: nobody need be told of it.
    pub fn is_settled(self, probe: &Probe) -> bool {
        let threshold = probe.success_threshold.unwrap_or(1).unsigned_abs();
        matches!(self, Self::Asked { passed: true, streak_of: true, streak } if streak >= threshold)
    }

    pub fn passed(self) -> bool {
        match self {
            Self::Unasked => true,
            Self::Asked { passed, .. } => passed,
        }
    }
}

/// A running container.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub id: String,
    /// The image as the spec named it: another name in the spec means a restart.
    pub image_name: String,
    /// The amounts that its status shows, and those that its cgroup has.
    pub given: ResourceRequirements,
    pub sizes: Sizes,
    pub started_at: Timestamp,
    pub post_start: PostStart,
    pub startup: Health,
    pub readiness: Health,
    pub liveness: Health,
}

impl Run {
    /// `started` in the status: what comes after a sidecar waits for it.
    pub fn is_started(&self) -> bool {
        self.startup.passed()
    }

    pub fn is_ready(&self) -> bool {
        self.is_started() && self.readiness.passed()
    }
}

/// How far the end of a running container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// preStop runs.
    PreStop,
    /// Others must end before it.
    Turn,
    /// The stop signal was sent; SIGKILL follows at the given time.
    Signalled { kill_at: Duration },
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq)]
pub enum ContainerState {
    Idle,
    Pulling {
        image_name: String,
    },
    /// The image is there; the event is told when the container is started.
    Pulled {
        image: Image,
        event: Option<PodEvent>,
    },
    Hindered {
        hindrance: Hindrance,
    },
    /// `given`: as in [`Run`].
    Starting {
        image: Image,
        given: ResourceRequirements,
        sizes: Sizes,
        created: Option<Facts>,
    },
    Running {
        run: Run,
    },
    Stopping {
        run: Run,
        stop: Stop,
        deadline: Duration,
        restart: bool,
    },
    Exited {
        exit_code: i32,
        finished: Duration,
        restart: Restart,
    },
}

/// What keeps a container from being started, beyond its turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Hindrance {
    /// The image could not be pulled. At `look_at` the back-off is told of again or, from `until` on, the pull is tried again.
    Image { image_name: String, error: String, look_at: Duration, until: Duration },
    /// Anything else: all is tried again.
    Start { retry_at: Duration },
}

/// What follows an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    Never,
    /// At this time; `back_off` is the wait that `CrashLoopBackOff` names, `None` if it restarts at once.
    At {
        at: Duration,
        back_off: Option<Duration>,
    },
}

/// Why a container waits, as the status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub reason: String,
    pub message: String,
}

/// What a container's status tells of earlier runs.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The number of the latest run, from 0; `None` if there was none.
    pub attempt: Option<u32>,
    pub facts: Option<Facts>,
    /// How the latest run ended, unless it still runs.
    pub latest: Option<ContainerStateTerminated>,
    /// How the run before it ended.
    pub before: Option<ContainerStateTerminated>,
    /// The latest run is shown as `lastState` although no other followed: the runtime has lost it.
    pub lost: bool,
    /// The latest run was ended only to be replaced, where the policy alone would not start another: until that one runs
    /// nothing of it is shown, because the API lets no such container leave the terminated state.
    pub replaced: bool,
    /// What hindered the last start, until one succeeds (upstream's reason cache).
    pub reason: Option<Reason>,
    /// The dead container before the latest, whose logs are still kept.
    pub kept: Option<String>,
}

impl History {
    /// The number that the next run gets.
    pub fn next_attempt(&self) -> u32 {
        self.attempt.map_or(0, |attempt| attempt + 1)
    }

    /// `restartCount`.
    pub fn restarts(&self) -> i32 {
        let restarts = self.attempt.unwrap_or_default() + u32::from(self.lost);
        i32::try_from(restarts).unwrap_or(i32::MAX)
    }

    /// A run has begun.
    pub fn begin(&mut self, facts: Facts) {
        self.replaced = false;
        self.attempt = Some(self.next_attempt());
        self.lost = false;
        self.facts = Some(facts);
    }

    /// The latest run has ended.
    pub fn end(&mut self, terminated: ContainerStateTerminated) {
        self.before = self.latest.replace(terminated);
    }

    /// The runtime has no trace of the latest run, which was running.
    pub fn lose(&mut self) {
        self.end(crate::termination::lost());
        self.lost = true;
    }

    pub fn hinder(&mut self, reason: &str, message: &str) {
        self.reason = Some(Reason { reason: reason.to_owned(), message: message.to_owned() });
    }

    /// What the API has of it, after a restart of minke.
    pub fn adopt(status: &ContainerStatus) -> Self {
        let id = status.container_id.as_deref().map(|id| id.split_once("://").map_or(id, |(_, id)| id));
        let facts = id.filter(|id| !id.is_empty()).map(|id| Facts {
            id: id.to_owned(),
            image: Image { name: status.image.clone(), id: String::new(), reference: status.image_id.clone() },
            user: status.user.clone(),
        });
        let terminated = |state: Option<&ApiState>| state.and_then(|state| state.terminated.clone());
        let (state, last) = (terminated(status.state.as_ref()), terminated(status.last_state.as_ref()));
        let ran = facts.is_some() || status.restart_count > 0 || last.is_some();
        let (latest, before) = if state.is_some() { (state, last) } else { (last, None) };
        Self {
            attempt: ran.then(|| u32::try_from(status.restart_count).unwrap_or_default()),
            facts,
            latest,
            before,
            ..Self::default()
        }
    }
}

/// A container of the Pod.
#[derive(Debug, Clone)]
pub struct Container {
    pub name: ContainerName,
    pub kind: Kind,
    pub state: ContainerState,
    /// It was started (or tried to) in the present sandbox.
    pub ran_here: bool,
    pub history: History,
    pub backoff: BackOff,
    pub image_backoff: BackOff,
}

impl Container {
    pub fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: ContainerName(name.to_owned()),
            kind,
            state: ContainerState::Idle,
            ran_here: false,
            history: History::default(),
            backoff: BackOff::default(),
            image_backoff: BackOff::default(),
        }
    }

    /// The running container, one that is told to end included.
    pub fn run(&self) -> Option<&Run> {
        match &self.state {
            ContainerState::Running { run } | ContainerState::Stopping { run, .. } => Some(run),
            _ => None,
        }
    }

    pub fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.state {
            ContainerState::Running { run } | ContainerState::Stopping { run, .. } => Some(run),
            _ => None,
        }
    }

    /// A process of it may live: it runs, or the runtime was asked to start it.
    pub fn may_live(&self) -> bool {
        self.run().is_some() || matches!(self.state, ContainerState::Starting { .. })
    }

    /// It ended and is not started again.
    pub fn is_over(&self) -> bool {
        matches!(self.state, ContainerState::Exited { restart: Restart::Never, .. })
    }

    /// An init container that did its work.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, ContainerState::Exited { exit_code: 0, .. })
    }

    /// As events name it: `spec.containers{name}`.
    pub fn field_path(&self) -> String {
        format!("spec.{}{{{}}}", self.kind.field(), self.name.0)
    }

    /// Its part of the spec, ephemeral containers in the shape of the others; `None` if it is no longer there.
    pub fn spec<'a>(&self, spec: &'a PodSpec) -> Option<SpecOf<'a>> {
        match self.kind {
            Kind::Init | Kind::Sidecar => find(spec.init_containers.as_deref().unwrap_or_default(), &self.name),
            Kind::Main => find(&spec.containers, &self.name),
            Kind::Ephemeral => {
                let container = spec.ephemeral_containers.iter().flatten().find(|c| c.name == self.name.0)?;
                Some(SpecOf {
                    image: container.image.as_deref().unwrap_or_default(),
                    volume_mounts: container.volume_mounts.as_deref().unwrap_or_default(),
                    resources: container.resources.as_ref(),
                    common: None,
                })
            }
        }
    }
}

/// What the machine asks of a container's spec.
#[derive(Debug, Clone, Copy)]
pub struct SpecOf<'a> {
    pub image: &'a str,
    pub volume_mounts: &'a [VolumeMount],
    pub resources: Option<&'a ResourceRequirements>,
    /// `None` for ephemeral containers, which have neither probes nor hooks nor a restart policy.
    pub common: Option<&'a Spec>,
}

fn find<'a>(containers: &'a [Spec], name: &ContainerName) -> Option<SpecOf<'a>> {
    let container = containers.iter().find(|container| container.name == name.0)?;
    Some(SpecOf {
        image: container.image.as_deref().unwrap_or_default(),
        volume_mounts: container.volume_mounts.as_deref().unwrap_or_default(),
        resources: container.resources.as_ref(),
        common: Some(container),
    })
}

/// All containers of a spec: init containers and sidecars in their order, then main ones, then ephemeral ones.
pub fn of(spec: &PodSpec) -> Vec<Container> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        Container::new(&container.name, if sidecar { Kind::Sidecar } else { Kind::Init })
    });
    let main = spec.containers.iter().map(|container| Container::new(&container.name, Kind::Main));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    init.chain(main).chain(ephemeral.map(|container| Container::new(&container.name, Kind::Ephemeral))).collect()
}
