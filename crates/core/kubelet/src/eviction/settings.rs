//! The flags: `--eviction-hard memory.available<100Mi,nodefs.available<10%` and the like (upstream `ParseThresholdConfig`).

use super::{Observations, Signal, binary};
use schema::quantity::Quantity;
use std::collections::BTreeMap;
use std::time::Duration;

/// Upstream's `DefaultEvictionHard` on Linux.
const USUAL: &str =
    "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%";

/// Upstream's percentages are meant for disks that are the node's. A laptop's is its owner's, who may well have filled it to
/// nine tenths: where nobody asked for a percentage, no more than this must be free.
const USUAL_AT_MOST: u64 = 1 << 30;

fn usual_limit(signal: Signal) -> Option<u64> {
    matches!(signal, Signal::NodeFsAvailable | Signal::ImageFsAvailable).then_some(USUAL_AT_MOST)
}

/// Under which circumstances a node is short of something.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub thresholds: Vec<Threshold>,
    /// How long a condition stays after the pressure was last seen.
    pub transition_period: Duration,
    /// How long Pods have at most that are evicted because of a soft threshold.
    pub max_pod_grace_period_s: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub value: Amount,
    /// `None`: hard, nothing is waited for.
    pub grace_period: Option<Duration>,
    /// So much more must be there before the pressure counts as over.
    pub minimum_reclaim: Option<Amount>,
    /// The amount is no more than this.
    pub at_most: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    Absolute(u64),
    /// A fraction of the capacity.
    Fraction(f64),
}

impl Amount {
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Absolute(amount) => amount,
            Self::Fraction(fraction) => (capacity as f64 * fraction) as u64,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| format!("{text:?} is no percentage"))?;
            if !(0.0..=100.0).contains(&percent) {
                return Err(format!("{text:?} must be a percentage between 0% and 100%"));
            }
            return Ok(Self::Fraction(percent / 100.0));
        }
        let quantity = Quantity::parse(text).map_err(|_| format!("{text:?} is no quantity"))?;
        u64::try_from(quantity.value()).map(Self::Absolute).map_err(|_| format!("{text:?} must not be negative"))
    }
}

impl Threshold {
    /// Whether there is less than the amount; `held`: than what was wanted back as well.
    pub(super) fn is_met(&self, observations: &Observations, held: bool) -> bool {
        let Some(observed) = observations.get(&self.signal) else { return false };
        let reclaim = self.minimum_reclaim.filter(|_| held).map_or(0, |amount| amount.of(observed.capacity));
        observed.available < self.amount_of(observed.capacity).saturating_add(reclaim)
    }

    fn amount_of(&self, capacity: u64) -> u64 {
        self.value.of(capacity).min(self.at_most.unwrap_or(u64::MAX))
    }

    fn text(&self) -> String {
        match self.value {
            Amount::Absolute(amount) => super::quantity(amount, self.signal.suffix()),
            Amount::Fraction(fraction) => format!("{}%", fraction * 100.0),
        }
    }

    /// The amount as messages tell it.
    pub(super) fn amount(&self, capacity: u64) -> String {
        let amount = self.amount_of(capacity);
        match self.value {
            Amount::Absolute(_) => super::quantity(amount, self.signal.suffix()),
            Amount::Fraction(_) => binary(amount),
        }
    }
}

/// What is wrong with a flag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{flag}: {why}")]
pub struct Wrong {
    flag: &'static str,
    why: String,
}

impl Settings {
    /// From the flags as given; without `--eviction-hard` upstream's defaults hold.
    ///
    /// # Errors
    /// What is wrong with which flag.
    pub fn parse(
        hard: Option<&str>,
        soft: Option<&str>,
        soft_grace_period: Option<&str>,
        minimum_reclaim: Option<&str>,
    ) -> Result<Self, Wrong> {
        let grace_periods = pairs("--eviction-soft-grace-period", soft_grace_period, '=')?;
        let reclaims = pairs("--eviction-minimum-reclaim", minimum_reclaim, '=')?;
        let reclaim = |signal: Signal| {
            let parse =
                |text: &&str| Amount::parse(text).map_err(|why| Wrong { flag: "--eviction-minimum-reclaim", why });
            reclaims.get(&signal).map(parse).transpose()
        };
        let mut thresholds = Vec::new();
        for (flag, given) in [("--eviction-hard", Some(hard.unwrap_or(USUAL))), ("--eviction-soft", soft)] {
            for (signal, text) in pairs(flag, given, '<')? {
                let wrong = |why: String| Wrong { flag, why };
                let value = Amount::parse(text).map_err(wrong)?;
                let grace_period = match flag {
                    "--eviction-hard" => None,
                    _ => Some(grace_period(signal, &grace_periods)?),
                };
                // Zero, as upstream says, switches a threshold off.
                if value != Amount::Absolute(0) && value != Amount::Fraction(0.0) {
                    let at_most = if flag == "--eviction-hard" && hard.is_none() { usual_limit(signal) } else { None };
                    let minimum_reclaim = reclaim(signal)?;
                    thresholds.push(Threshold { signal, value, grace_period, minimum_reclaim, at_most });
                }
            }
        }
        Ok(Self { thresholds, transition_period: Duration::from_secs(300), max_pod_grace_period_s: 0 })
    }
}

impl Settings {
    /// The hard or the soft thresholds as flags name them: signal and amount.
    pub fn shown(&self, soft: bool) -> BTreeMap<&'static str, String> {
        let of_kind = self.thresholds.iter().filter(|threshold| threshold.grace_period.is_some() == soft);
        of_kind.map(|threshold| (threshold.signal.name(), threshold.text())).collect()
    }
}

fn grace_period(signal: Signal, given: &BTreeMap<Signal, &str>) -> Result<Duration, Wrong> {
    let flag = "--eviction-soft-grace-period";
    let text = given.get(&signal).ok_or_else(|| Wrong {
        flag,
        why: format!("grace period must be specified for the soft eviction threshold {}", signal.name()),
    })?;
    let span: Result<jiff::SignedDuration, _> = text.parse();
    let period = span.ok().and_then(|span| Duration::try_from(span).ok());
    period.ok_or_else(|| Wrong { flag, why: format!("{text:?} is no duration") })
}

fn pairs<'a>(flag: &'static str, given: Option<&'a str>, separator: char) -> Result<BTreeMap<Signal, &'a str>, Wrong> {
    let mut pairs = BTreeMap::new();
    for part in given.unwrap_or_default().split(',').filter(|part| !part.trim().is_empty()) {
        let wrong = |why: String| Wrong { flag, why };
        let (name, value) = part
            .split_once(separator)
            .ok_or_else(|| wrong(format!("{part:?} is not of the form SIGNAL{separator}VALUE")))?;
        let signal =
            Signal::of(name.trim()).ok_or_else(|| wrong(format!("unsupported eviction signal {}", name.trim())))?;
        pairs.insert(signal, value.trim());
    }
    Ok(pairs)
}
