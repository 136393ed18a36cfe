//! Eviction by pressure (upstream `pkg/kubelet/eviction`): from what a node has left to its conditions, to what must be
//! reclaimed, and to whose Pod goes first. Time is the monotonic clock.

mod local_storage;
mod rank;
mod settings;

pub use local_storage::{Local, over_limit};
pub use rank::{ContainerUsage, Usage, Used, message, rank};
pub use settings::{Settings, Threshold, Wrong};

use crate::conditions::{BY_KUBELET, DISRUPTION_TARGET};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schema::quantity::{Quantity, Suffix};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The reason of Pods that were evicted, and of the event.
pub const REASON: &str = "Evicted";
/// How long a Pod has to end that is evicted at once.
pub const IMMEDIATE_S: u32 = 1;

/// Something that a node may run out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    // In the order in which they are reclaimed: memory first.
    MemoryAvailable,
    NodeFsAvailable,
    NodeFsInodesFree,
    ImageFsAvailable,
    ImageFsInodesFree,
    PidAvailable,
}

impl Signal {
    const ALL: [Self; 6] = [
        Self::MemoryAvailable,
        Self::NodeFsAvailable,
        Self::NodeFsInodesFree,
        Self::ImageFsAvailable,
        Self::ImageFsInodesFree,
        Self::PidAvailable,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::NodeFsAvailable => "nodefs.available",
            Self::NodeFsInodesFree => "nodefs.inodesFree",
            Self::ImageFsAvailable => "imagefs.available",
            Self::ImageFsInodesFree => "imagefs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }

    /// What is scarce then, as messages name it.
    pub fn resource(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory",
            Self::NodeFsAvailable | Self::ImageFsAvailable => "ephemeral-storage",
            Self::NodeFsInodesFree | Self::ImageFsInodesFree => "inodes",
            Self::PidAvailable => "pids",
        }
    }

    fn condition(self) -> Condition {
        match self {
            Self::MemoryAvailable => Condition::MemoryPressure,
            Self::PidAvailable => Condition::PIDPressure,
            _ => Condition::DiskPressure,
        }
    }

    /// As quantities of it are written.
    fn suffix(self) -> Suffix {
        match self {
            Self::MemoryAvailable | Self::NodeFsAvailable | Self::ImageFsAvailable => Suffix::Binary,
            _ => Suffix::Decimal,
        }
    }
}

/// A condition of the Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    MemoryPressure,
    DiskPressure,
    PIDPressure,
}

/// How much there is, and is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    pub available: u64,
    pub capacity: u64,
}

pub type Observations = BTreeMap<Signal, Observation>;

/// What pressure there was, and since when.
#[derive(Debug, Default)]
pub struct Manager {
    /// Thresholds that were met for their grace period, by their place in the settings.
    met: BTreeSet<usize>,
    first_seen: BTreeMap<usize, Duration>,
    last_seen: BTreeMap<Condition, Duration>,
}

/// What follows from an observation.
#[derive(Debug, Default, PartialEq)]
pub struct Turn {
    /// The conditions that the Node has.
    pub conditions: BTreeSet<Condition>,
    /// What must be reclaimed, most urgent first.
    pub reclaim: Vec<Threshold>,
}

impl Manager {
    pub fn observe(&mut self, settings: &Settings, observations: &Observations, now: Duration) -> Turn {
        let thresholds = settings.thresholds.iter().enumerate();
        // One that was met holds until as much is there again as it wants back beyond its amount.
        let met: BTreeSet<usize> = thresholds
            .filter(|(at, threshold)| threshold.is_met(observations, self.met.contains(at)))
            .map(|(at, _)| at)
            .collect();
        self.first_seen.retain(|at, _| met.contains(at));
        for at in &met {
            self.first_seen.entry(*at).or_insert(now);
            self.last_seen.insert(settings.thresholds[*at].signal.condition(), now);
        }
        let period = settings.transition_period;
        self.last_seen.retain(|_, seen| *seen == now || now.saturating_sub(*seen) < period);
        let long_enough = |at: &usize| {
            let since = self.first_seen.get(at).copied().unwrap_or(now);
            now.saturating_sub(since) >= settings.thresholds[*at].grace_period.unwrap_or_default()
        };
        self.met = met.into_iter().filter(long_enough).collect();
        let mut reclaim: Vec<_> = self.met.iter().map(|at| settings.thresholds[*at].clone()).collect();
        reclaim.sort_by_key(|threshold| threshold.signal != Signal::MemoryAvailable);
        Turn { conditions: self.last_seen.keys().copied().collect(), reclaim }
    }
}

/// Whether nothing is scarce any more, minimum reclaims included: nobody need be evicted.
pub fn is_relieved(settings: &Settings, observations: &Observations) -> bool {
    !settings.thresholds.iter().any(|threshold| threshold.is_met(observations, true))
}

/// What an evicted Pod's status shows when it goes for others' sake (KEP-3329).
pub fn condition(pod: &Pod, message: &str, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: DISRUPTION_TARGET.to_owned(),
        status: "True".to_owned(),
        reason: Some(BY_KUBELET.to_owned()),
        message: Some(message.to_owned()),
        observed_generation: pod.metadata.generation,
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    }
}

/// Why a node under pressure takes no more Pods (upstream `Admit`): the message for the reason [`REASON`]. `best_effort` and
/// `tolerates` (the taint of memory pressure) as the Pod is.
pub fn refusal(conditions: &BTreeSet<Condition>, critical: bool, best_effort: bool, tolerates: bool) -> Option<String> {
    let only_memory = conditions.iter().eq([&Condition::MemoryPressure]);
    if conditions.is_empty() || critical || (only_memory && (!best_effort || tolerates)) {
        return None;
    }
    let names: Vec<_> = conditions.iter().map(|condition| format!("{condition:?}")).collect();
    Some(format!("The node had condition: [{}]. ", names.join(" ")))
}

/// A number as a quantity in powers of 1024: `100Mi`.
fn binary(bytes: u64) -> String {
    quantity(bytes, Suffix::Binary)
}

fn quantity(value: u64, suffix: Suffix) -> String {
    Quantity::from_value(i64::try_from(value).unwrap_or(i64::MAX), suffix).canonical()
}

#[cfg(test)]
mod tests;
