//! A Pod's state machine.
//!
//! ```text
//!        Spec             VolumesReady              SandboxReady
//!  New ───────▶ Volumes ───────────────▶ Creating ───────────────▶ Up ◀ ─ ─ ─ containers start, exit, restart
//!                  │                       │ ▲  ▲                   │
//!                  │        SandboxFailed  ▼ │  │                   │ SandboxDied
//!                  │                     Retrying  SandboxStopped   ▼
//!                  │                       │    └────────────── Replacing
//!                  │ deleted, removed, failed as a whole, or     │  │
//!                  │ nothing more to do                          │  │
//!                  └──────────────┬──────────────────────────────┴──┘
//!                                 ▼
//!                              Ending       containers are ended in order; the status stands still
//!                                 ▼ none lives
//!                             Stopping      the sandbox
//!                                 ▼ SandboxStopped: the last status
//!                              Ended        volumes are torn down; rests until it is deleted, then the sandboxes are
//!                                 ▼         removed and the object is deleted
//!                             Finished      Removed, and all is gone
//! ```
//!
//! `step` takes one input, then does what is due in the state it finds (level-triggered: nothing is lost if an input comes
//! twice or late), then tells the status if it is another one. All times are on the monotonic clock unless they are shown.

pub mod images;
mod recover;
mod resize;
mod runs;
mod start;
mod stop;
mod take;

use crate::container::{Container, ContainerState, Hindrance, Reason, Restart, Stop};
use crate::order::{self, Turn};
use crate::phase::Phase;
use crate::pod::{Action, ContainerName, Input, Now, PodEvent, Step};
use crate::status::{SandboxIs, View, status};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The reason and event of a Pod that was active for too long.
const DEADLINE: &str = "DeadlineExceeded";
const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// What a machine must know of its node.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub node_ips: Vec<IpAddr>,
    /// Chance: lengthens back-offs. Give each Pod another.
    pub seed: u64,
}

/// A sandbox at the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
}

/// The sandbox of a Pod that is being ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Nowhere,
    /// It was asked for, so its answer must be awaited.
    Awaited {
        attempt: u32,
    },
    Here(Sandbox),
}

/// The volumes of a Pod that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volumes {
    Going,
    Gone,
}

/// The sandboxes of a Pod that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandboxes {
    Kept,
    Going { left: usize },
    Gone,
}

/// Where a Pod stands. See the diagram above.
#[derive(Debug, Clone, PartialEq)]
pub enum PodState {
    New,
    /// `found`: a sandbox of before minke was restarted, and whether it lives. `unsure`: the API tells of containers, and what
    /// became of them is not known yet.
    Volumes {
        found: Option<(Sandbox, bool)>,
        unsure: bool,
    },
    Creating {
        attempt: u32,
    },
    Retrying {
        attempt: u32,
        at: Duration,
    },
    Up {
        sandbox: Sandbox,
    },
    /// It has died, and was told to stop. `stopped`: it has, but starts that were asked for are not answered yet.
    Replacing {
        sandbox: Sandbox,
        stopped: bool,
    },
    Ending {
        place: Place,
        shown: Box<PodStatus>,
    },
    Stopping {
        sandbox: Sandbox,
        shown: Box<PodStatus>,
    },
    /// `deleting`: the object was asked to be deleted.
    Ended {
        volumes: Volumes,
        sandboxes: Sandboxes,
        shown: Box<PodStatus>,
        deleting: bool,
    },
    Finished,
}

/// One Pod on its node. Make it with [`PodMachine::new`], then feed [`PodMachine::step`]: first `Input::Spec`, then, if the
/// runtime has something of the Pod (minke was restarted), `Input::Recovered`.
#[derive(Debug)]
pub struct PodMachine {
    config: Config,
    /// As the node has granted it: it may ask for more in the API.
    pod: Arc<Pod>,
    /// The Pod by which its cgroup was set.
    sized: Arc<Pod>,
    resize: resize::Progress,
    state: PodState,
    containers: Vec<Container>,
    pod_ips: Vec<IpAddr>,
    /// The Pod has failed as a whole.
    failed: Option<Reason>,
    /// Why it has failed, if it was evicted.
    eviction: Option<Eviction>,
    /// The object is gone from its source.
    removed: bool,
    /// All containers are being ended to start the Pod anew (KEP-5532).
    restarting_all: bool,
    /// All sandboxes that the runtime still has of this Pod.
    sandboxes: Vec<String>,
    /// The last status that was asked to be written, or what the API has.
    status: PodStatus,
    /// A status write is under way.
    writing: bool,
    nonce: u64,
}

/// How a Pod is evicted.
#[derive(Debug)]
struct Eviction {
    grace_period: Duration,
    /// Shown from then on.
    condition: Option<PodCondition>,
}

/// What one step collects.
struct Turned {
    now: Now,
    actions: Vec<Action>,
}

impl Turned {
    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn event(&mut self, field_path: String, warning: bool, reason: impl Into<Cow<'static, str>>, message: String) {
        let reason = reason.into();
        self.act(Action::Event(PodEvent { warning, reason, message, field_path }));
    }
}

impl PodMachine {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            pod: Arc::default(),
            sized: Arc::default(),
            resize: resize::Progress::default(),
            state: PodState::New,
            containers: Vec::new(),
            pod_ips: Vec::new(),
            failed: None,
            eviction: None,
            removed: false,
            restarting_all: false,
            sandboxes: Vec::new(),
            status: PodStatus::default(),
            writing: false,
            nonce: 0,
        }
    }

    /// Takes one input and says what is to be done, in this order, and when to come again.
    pub fn step(&mut self, input: Input, now: Now) -> Step {
        let mut turned = Turned { now, actions: Vec::new() };
        self.take(input, &mut turned);
        self.advance(&mut turned);
        self.complete_resize(&mut turned);
        self.publish(&mut turned);
        Step { actions: turned.actions, wake_at: self.wake_at(now) }
    }

    /// The status as last asked to be written, or as the API had it at first.
    pub fn status(&self) -> &PodStatus {
        &self.status
    }

    /// Where it stands, for logs and tests.
    pub fn state(&self) -> &PodState {
        &self.state
    }

    /// Its containers: init containers and sidecars, main ones, ephemeral ones.
    pub fn containers(&self) -> &[Container] {
        &self.containers
    }

    /// The object's deletion was asked for, or it is gone already.
    fn is_deleted(&self) -> bool {
        self.removed || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// A start was asked for and is not answered yet.
    fn is_starting(&self) -> bool {
        self.containers.iter().any(|container| matches!(container.state, ContainerState::Starting { .. }))
    }

    /// The Pod's work is done, or can never be.
    fn is_over(&self) -> bool {
        !self.restarting_all && order::is_over(&self.containers)
    }

    fn must_end(&self) -> bool {
        self.is_deleted() || self.failed.is_some()
    }

    /// Does what is due in the present state.
    fn advance(&mut self, turned: &mut Turned) {
        self.check_deadline(turned);
        match &self.state {
            PodState::New | PodState::Volumes { unsure: true, .. } | PodState::Finished => {}
            PodState::Volumes { found, .. } if self.must_end() => {
                let place = found.clone().map_or(Place::Nowhere, |(sandbox, _)| Place::Here(sandbox));
                self.begin_end(place, turned);
            }
            PodState::Volumes { .. } => {}
            PodState::Creating { attempt } if self.must_end() => {
                let place = Place::Awaited { attempt: *attempt };
                self.begin_end(place, turned);
            }
            PodState::Creating { .. } => {}
            PodState::Retrying { .. } if self.must_end() => self.begin_end(Place::Nowhere, turned),
            PodState::Retrying { attempt, at } if *at <= turned.now.mono => self.create_sandbox(*attempt, turned),
            PodState::Retrying { .. } => {}
            PodState::Up { sandbox } if self.must_end() || self.is_over() => {
                let place = Place::Here(sandbox.clone());
                self.begin_end(place, turned);
            }
            PodState::Up { .. } => self.run(turned),
            // Its end is awaited first, even if the Pod is deleted meanwhile.
            PodState::Replacing { stopped: true, .. } if !self.is_starting() && self.must_end() => {
                self.begin_end(Place::Nowhere, turned);
            }
            PodState::Replacing { sandbox, stopped: true } if !self.is_starting() => {
                let attempt = sandbox.attempt + 1;
                self.start_over(attempt, turned);
            }
            PodState::Replacing { .. } => {}
            PodState::Ending { .. } => self.end(turned),
            PodState::Stopping { .. } => {}
            PodState::Ended { .. } => self.clear(turned),
        }
    }

    /// `activeDeadlineSeconds` counts from the Pod's start on the wall clock.
    fn check_deadline(&mut self, turned: &mut Turned) {
        let lives = !matches!(
            self.state,
            PodState::New
                | PodState::Ending { .. }
                | PodState::Stopping { .. }
                | PodState::Ended { .. }
                | PodState::Finished
        );
        if !lives || self.failed.is_some() || self.time_left(turned.now) != Some(Duration::ZERO) {
            return;
        }
        self.failed = Some(Reason { reason: DEADLINE.to_owned(), message: DEADLINE_MESSAGE.to_owned() });
        turned.event(String::new(), false, DEADLINE, DEADLINE_MESSAGE.to_owned());
    }

    /// How long the Pod may still be active, if it has a deadline and has started.
    fn time_left(&self, now: Now) -> Option<Duration> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        let start = self.status.start_time.as_ref()?.0;
        let left_ms = start.as_millisecond() + seconds.saturating_mul(1000) - now.wall.as_millisecond();
        Some(Duration::from_millis(u64::try_from(left_ms).unwrap_or_default()))
    }

    /// Asks for the status to be written if it is another one.
    fn publish(&mut self, turned: &mut Turned) {
        if self.removed {
            return;
        }
        let status = match &self.state {
            PodState::New | PodState::Volumes { unsure: true, .. } | PodState::Finished => return,
            PodState::Ending { shown, .. } | PodState::Stopping { shown, .. } | PodState::Ended { shown, .. } => {
                (**shown).clone()
            }
            _ => status(self.view(turned.now)),
        };
        // What the Pod's cgroup is set to is looked at again only when something else has changed, as upstream does.
        let same = PodStatus { resources: self.status.resources.clone(), ..status.clone() } == self.status;
        if !same {
            self.status = status;
            self.writing = true;
            turned.act(Action::WriteStatus(Box::new(self.status.clone())));
        }
    }

    fn view(&self, now: Now) -> View<'_> {
        View {
            pod: &self.pod,
            sized: &self.sized,
            resize: [self.resize.pending.as_ref(), self.resize.in_progress.as_ref()],
            containers: &self.containers,
            sandbox: match self.state {
                PodState::Up { .. } | PodState::Volumes { found: Some((_, true)), .. } => SandboxIs::Ready,
                PodState::Ending { place: Place::Here(_), .. } => SandboxIs::Ready,
                _ if self.sandboxes.is_empty() => SandboxIs::Absent,
                _ => SandboxIs::NotReady,
            },
            pod_ips: &self.pod_ips,
            host_ips: &self.config.node_ips,
            old: &self.status,
            failed: self.failed.as_ref().map(|failed| (failed.reason.as_str(), failed.message.as_str())),
            disrupted: self.eviction.as_ref().and_then(|eviction| eviction.condition.as_ref()),
            restarting_all: self.restarting_all,
            ending: self.is_deleted(),
            over: false,
            now: now.wall,
        }
    }

    /// `wait` lengthened by chance.
    fn lengthened(&mut self, wait: Duration) -> Duration {
        self.nonce += 1;
        crate::backoff::lengthened(wait, self.config.seed, self.nonce)
    }

    /// When something is due that no input will tell of.
    fn wake_at(&self, now: Now) -> Option<Duration> {
        let stops = self.containers.iter().filter_map(|container| match container.state {
            ContainerState::Stopping { stop: Stop::PreStop | Stop::Turn, deadline, .. } => Some(deadline),
            _ => None,
        });
        match &self.state {
            PodState::New | PodState::Stopping { .. } | PodState::Ended { .. } | PodState::Finished => None,
            PodState::Ending { .. } => stops.min(),
            PodState::Up { .. } if self.restarting_all => stops.min(),
            PodState::Up { .. } => {
                let turns = order::turns(&self.containers);
                let due = self.containers.iter().zip(turns).filter(|(_, turn)| *turn != Turn::Later);
                let starts = due.filter_map(|(container, _)| match container.state {
                    ContainerState::Hindered { hindrance: Hindrance::Image { look_at, .. } } => Some(look_at),
                    ContainerState::Hindered { hindrance: Hindrance::Start { retry_at } } => Some(retry_at),
                    ContainerState::Exited { restart: Restart::At { at, .. }, .. } => Some(at),
                    _ => None,
                });
                starts.chain(stops).chain(self.resize.retry_at()).chain(self.deadline(now)).min()
            }
            PodState::Retrying { at, .. } => [*at].into_iter().chain(self.deadline(now)).min(),
            PodState::Volumes { .. } | PodState::Creating { .. } | PodState::Replacing { .. } => {
                stops.chain(self.deadline(now)).min()
            }
        }
    }

    fn deadline(&self, now: Now) -> Option<Duration> {
        if self.failed.is_some() { None } else { Some(now.mono + self.time_left(now)?) }
    }

    fn find(&self, name: &ContainerName) -> Option<usize> {
        self.containers.iter().position(|container| container.name == *name)
    }

    /// `NAME_NAMESPACE(UID)`, as messages name a Pod.
    fn title(&self) -> String {
        let metadata = &self.pod.metadata;
        let or = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}_{}({})", or(&metadata.name), or(&metadata.namespace), or(&metadata.uid))
    }

    /// Whether the API already shows how the Pod ended.
    fn is_terminal_in_api(&self) -> bool {
        Phase::of(self.pod.status.as_ref().and_then(|status| status.phase.as_deref())).is_terminal()
    }

    fn any_ran(&self) -> bool {
        self.containers.iter().any(|container| container.history.attempt.is_some())
    }
}

/// As events name a container: `spec.containers{name}`; empty if the Pod has no such container.
pub fn field_path(pod: &Pod, name: &ContainerName) -> String {
    let containers = pod.spec.as_ref().map(crate::container::of).unwrap_or_default();
    containers.iter().find(|container| container.name == *name).map(Container::field_path).unwrap_or_default()
}
