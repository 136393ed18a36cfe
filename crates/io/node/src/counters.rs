//! What the kubelet counts for its metrics since it began.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A family that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counted {
    StartedPods,
    /// By `container_type`.
    StartedContainers,
    /// By `eviction_signal`.
    Evictions,
    /// By `reason`.
    ImagesCollected,
    /// By `probe_type`, `result`, `container`, `pod`, `namespace`, `pod_uid`.
    Probes,
}

#[derive(Default)]
pub(crate) struct Counters(Mutex<BTreeMap<(Counted, Vec<String>), u64>>);

impl Counters {
    pub(crate) fn add(&self, counted: Counted, labels: &[&str]) {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        *self.lock().entry((counted, labels)).or_default() += 1;
    }

    /// Values by their labels.
    pub(crate) fn of(&self, counted: Counted) -> Vec<(Vec<String>, u64)> {
        let all = self.lock();
        all.iter().filter(|((of, _), _)| *of == counted).map(|((_, labels), n)| (labels.clone(), *n)).collect()
    }

    /// Forgets what a Pod's probes gave: it is gone.
    pub(crate) fn forget_pod(&self, uid: &str) {
        self.lock().retain(|(of, labels), _| *of != Counted::Probes || labels.last().is_none_or(|last| last != uid));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Counted, Vec<String>), u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
