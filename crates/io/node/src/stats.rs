//! What the node and its Pods use. Sampled when somebody asks; a sample serves those who ask within a second. Rates are
//! between two samples that lie some seconds apart, the first since the start of what is measured.

pub(crate) mod host;
pub(crate) mod summary;

use crate::disk::{self, Room, Used};
use crate::pods::Entry;
use crate::{Shared, container};
use host::Host;
use runtime::stats::{ImageFs, SandboxStats};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How old a sample may be that is given out again.
const AGE: Duration = Duration::from_secs(1);
/// Rates are over at least so long (upstream's housekeeping interval).
const WINDOW_NS: i64 = 10_000_000_000;
/// How old a count of directories may be (upstream `volumeStatsAggPeriod`): walking them takes time.
const DISK_AGE: Duration = Duration::from_secs(60);

/// All figures of one moment.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// Unix time in nanoseconds.
    pub(crate) at_ns: i64,
    pub(crate) host: Host,
    pub(crate) node_fs: Room,
    pub(crate) image_fs: Option<(ImageFs, Room)>,
    pub(crate) pods: Vec<PodSample>,
    /// Nanocores by what uses them: empty for the node, a Pod's UID, a container's id.
    pub(crate) rates: BTreeMap<String, u64>,
}

#[derive(Debug)]
pub(crate) struct PodSample {
    pub(crate) entry: Entry,
    pub(crate) stats: SandboxStats,
    pub(crate) disk: Disk,
}

/// What a Pod has on the node's disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Disk {
    /// By volume; those that are file systems of their own have a room of their own.
    pub(crate) volumes: BTreeMap<String, (Used, Room)>,
    /// By container.
    pub(crate) logs: BTreeMap<String, Used>,
}

/// Takes samples and remembers what rates need.
#[derive(Default)]
pub(crate) struct Stats(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    last: Option<(Instant, Arc<Sample>)>,
    /// The counters that rates are told from, and when.
    base: Counters,
    disks: BTreeMap<String, (Instant, Disk)>,
}

/// Nanoseconds of processors by what used them, at a time.
#[derive(Debug, Clone, Default)]
struct Counters {
    at_ns: i64,
    cpu_ns: BTreeMap<String, u64>,
}

impl Stats {
    /// The figures of now. `fresh`: disks are counted anew.
    pub(crate) async fn sample(&self, shared: &Shared, fresh: bool) -> Arc<Sample> {
        let mut inner = self.0.lock().await;
        if let Some((at, sample)) = &inner.last
            && at.elapsed() < AGE
            && !fresh
        {
            return sample.clone();
        }
        let mut sample = observe(shared).await;
        for pod in &mut sample.pods {
            pod.disk = inner.disk(shared, &pod.entry, fresh).await;
        }
        let present: Vec<_> = sample.pods.iter().filter_map(|pod| pod.entry.pod.metadata.uid.clone()).collect();
        inner.disks.retain(|uid, _| present.contains(uid));
        let now = counters(&sample);
        sample.rates = rates(&inner.base, &now, &starts(&sample));
        if now.at_ns - inner.base.at_ns >= WINDOW_NS {
            inner.base = now;
        }
        let sample = Arc::new(sample);
        inner.last = Some((Instant::now(), sample.clone()));
        sample
    }
}

impl Inner {
    async fn disk(&mut self, shared: &Shared, entry: &Entry, fresh: bool) -> Disk {
        let uid = entry.pod.metadata.uid.clone().unwrap_or_default();
        if let Some((at, disk)) = self.disks.get(&uid)
            && at.elapsed() < DISK_AGE
            && !fresh
        {
            return disk.clone();
        }
        let disk = of_pod(shared, entry).await;
        self.disks.insert(uid, (Instant::now(), disk.clone()));
        disk
    }
}

/// What a Pod has on disk, counted now.
pub(crate) async fn of_pod(shared: &Shared, entry: &Entry) -> Disk {
    let pod = entry.pod.clone();
    let root = shared.volumes.pod_directory(pod.metadata.uid.as_deref().unwrap_or_default()).join("volumes");
    let logs = container::log_directory(&shared.config.pod_logs, &pod);
    let counted = tokio::task::spawn_blocking(move || {
        let mut disk = Disk::default();
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            if let Some(path) = volume_directory(&root, &volume.name) {
                disk.volumes.insert(volume.name.clone(), (disk::used(&path), disk::room(&path).unwrap_or_default()));
            }
        }
        for entry in std::fs::read_dir(&logs).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            disk.logs.insert(name, disk::used(&entry.path()));
        }
        disk
    });
    counted.await.unwrap_or_default()
}

/// `volumes/PLUGIN/NAME`
fn volume_directory(root: &std::path::Path, name: &str) -> Option<PathBuf> {
    let plugins = std::fs::read_dir(root).into_iter().flatten().flatten();
    plugins.map(|plugin| plugin.path().join(name)).find(|path| path.is_dir())
}

async fn observe(shared: &Shared) -> Sample {
    let root = shared.config.kubelet_root.clone();
    let of_host = tokio::task::spawn_blocking(move || (host::observe(), disk::room(&root).unwrap_or_default()));
    let (host, node_fs) = of_host.await.unwrap_or_default();
    let image_fs = match shared.runtime.image_fs().await {
        Ok(image_fs) => disk::room(&image_fs.images.mountpoint).ok().map(|room| (image_fs, room)),
        Err(error) => {
            tracing::debug!(%error, "no figures of the image file system");
            None
        }
    };
    let mut pods = Vec::new();
    for entry in shared.pods.all() {
        if entry.sandbox_id.is_empty() {
            continue;
        }
        // One that has just gone has no figures.
        if let Ok(stats) = shared.runtime.sandbox_stats(&entry.sandbox_id).await {
            pods.push(PodSample { entry, stats, disk: Disk::default() });
        }
    }
    let at_ns = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    Sample { at_ns, host, node_fs, image_fs, pods, rates: BTreeMap::new() }
}

fn counters(sample: &Sample) -> Counters {
    let mut cpu_ns = BTreeMap::from([(String::new(), sample.host.cpu_ns)]);
    for pod in &sample.pods {
        let uid = pod.entry.pod.metadata.uid.clone().unwrap_or_default();
        cpu_ns.extend(pod.stats.usage.as_ref().map(|usage| (uid, usage.cpu.core_ns)));
        let containers = pod.stats.containers.iter();
        cpu_ns.extend(containers.filter_map(|one| Some((one.id.clone(), one.usage.as_ref()?.cpu.core_ns))));
    }
    Counters { at_ns: sample.at_ns, cpu_ns }
}

/// When what is measured began, where that is known.
fn starts(sample: &Sample) -> BTreeMap<String, i64> {
    let mut starts = BTreeMap::from([(String::new(), sample.host.boot_s.saturating_mul(1_000_000_000))]);
    let ns = |time: jiff::Timestamp| i64::try_from(time.as_nanosecond()).unwrap_or_default();
    for pod in &sample.pods {
        let status = pod.entry.status.as_deref();
        let began = status.and_then(|status| status.start_time.as_ref()).map(|time| ns(time.0));
        let uid = pod.entry.pod.metadata.uid.clone().unwrap_or_default();
        starts.extend(began.map(|began| (uid, began)));
        for (name, id) in &pod.entry.containers {
            let began = status.and_then(|status| summary::started(status, name)).map(|time| ns(time.0));
            starts.extend(began.map(|began| (id.clone(), began)));
        }
    }
    starts
}

/// Nanocores between two samples; of what is new, since it began.
fn rates(base: &Counters, now: &Counters, starts: &BTreeMap<String, i64>) -> BTreeMap<String, u64> {
    let rate = |used: u64, ns: i64| {
        let ns = u64::try_from(ns).ok().filter(|ns| *ns >= 1_000_000)?;
        u64::try_from(u128::from(used) * 1_000_000_000 / u128::from(ns)).ok()
    };
    let of = |(key, used): (&String, &u64)| {
        let before = base.cpu_ns.get(key).filter(|before| *before <= used && base.at_ns < now.at_ns);
        let rate = match before {
            Some(before) => rate(used - before, now.at_ns - base.at_ns),
            None => rate(*used, now.at_ns - starts.get(key)?),
        };
        Some((key.clone(), rate?))
    };
    now.cpu_ns.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(at_ns: i64, cpu_ns: &[(&str, u64)]) -> Counters {
        Counters { at_ns, cpu_ns: cpu_ns.iter().map(|(key, ns)| ((*key).to_owned(), *ns)).collect() }
    }

    #[test]
    fn rates_are_between_samples_or_since_the_start() {
        let second = 1_000_000_000;
        let base = counters(100 * second, &[("old", 5_000_000_000), ("again", 9_000_000_000)]);
        let now = counters(110 * second, &[("old", 10_000_000_000), ("new", 1_000_000_000), ("again", 1), ("odd", 1)]);
        let starts = BTreeMap::from([("new".to_owned(), 108 * second), ("again".to_owned(), 109 * second)]);
        let rates = rates(&base, &now, &starts);
        // Half a core; half a core over its two seconds; a counter that begins anew; nothing known of its start.
        let wanted = [("again", 1), ("new", 500_000_000), ("old", 500_000_000)];
        assert_eq!(rates, wanted.map(|(key, rate)| (key.to_owned(), rate)).into());
    }
}
