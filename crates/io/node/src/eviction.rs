//! Watches what the node has left, and evicts by [`kubelet::eviction`]. The kernel tells of memory pressure (PSI) where it
//! can; file systems, processes and the last bytes of memory are looked at by upstream's period, since nothing tells of them.

use crate::counters::Counted;
use crate::disk::Used as OnDisk;
use crate::pods::Entry;
use crate::stats::{PodSample, Sample, host, summary};
use crate::worker::now;
use crate::{NodeError, Shared, disk, every};
use k8s_openapi::api::core::v1::{Container, Pod};
use kubelet::eviction::{
    self, Condition, ContainerUsage, IMMEDIATE_S, Local, Manager, Observation, Observations, Signal, Threshold, Usage,
    Used,
};
use kubelet::pod::Input;
use kubelet::static_pods;
use runtime::types::ContainerState;
use rustix::event::{PollFd, PollFlags};
use schema::quantity::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Upstream `evictionMonitoringPeriod`.
const PERIOD: Duration = Duration::from_secs(10);
/// How long an evicted Pod's end is waited for before another goes (upstream `podCleanupTimeout`).
const CLEANUP: Duration = Duration::from_secs(30);
/// The kernel tells when tasks waited for memory for 150 ms in a second.
const TRIGGER: &[u8] = b"some 150000 1000000\0";

/// The node's conditions, as its status and its admission see them.
#[derive(Default)]
pub(crate) struct Pressure {
    conditions: Mutex<BTreeSet<Condition>>,
    /// UIDs of Pods that were evicted and have not failed yet.
    evicted: Mutex<BTreeSet<String>>,
}

impl Pressure {
    pub(crate) fn now(&self) -> BTreeSet<Condition> {
        lock(&self.conditions).clone()
    }

    /// Says whether that is new.
    fn set(&self, conditions: BTreeSet<Condition>) -> bool {
        let mut now = lock(&self.conditions);
        std::mem::replace(&mut *now, conditions.clone()) != conditions
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches for ever.
pub(crate) async fn run(shared: Arc<Shared>) -> Result<(), NodeError> {
    let mut manager = Manager::default();
    let mut ticks = every(PERIOD);
    let stalls = stalls().inspect_err(|error| tracing::debug!(%error, "the kernel tells of no memory pressure")).ok();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stalled(stalls.as_ref()) => {}
        }
        // What was evicted may not have been enough.
        while let Some(evicted) = look(&shared, &mut manager).await {
            for entry in &evicted {
                if timeout(CLEANUP, ended(&shared, entry)).await.is_err() {
                    tracing::warn!(pod = entry.pod.metadata.name, "an evicted Pod has not ended yet");
                }
            }
        }
    }
}

/// A trigger of the kernel (PSI). A thread waits for it, which ends with the process: it wakes for nothing else.
fn stalls() -> std::io::Result<Arc<Notify>> {
    let mut file = File::options().read(true).write(true).open("/proc/pressure/memory")?;
    file.write_all(TRIGGER)?;
    let stalled = Arc::new(Notify::new());
    let tell = stalled.clone();
    let wait = move || {
        while rustix::event::poll(&mut [PollFd::new(&file, PollFlags::PRI)], None).is_ok() {
            tell.notify_one();
        }
    };
    std::thread::Builder::new().name("minke-pressure".to_owned()).spawn(wait)?;
    Ok(stalled)
}

async fn stalled(stalls: Option<&Arc<Notify>>) {
    match stalls {
        Some(stalls) => stalls.notified().await,
        None => std::future::pending().await,
    }
}

/// Returns when none of the Pod's containers runs any more.
async fn ended(shared: &Shared, entry: &Entry) {
    let mut exits = shared.pods.exits();
    for id in entry.containers.values() {
        loop {
            let status = shared.runtime.container_status(id).await;
            if !status.is_ok_and(|status| status.state == ContainerState::Running) {
                break;
            }
            exits.recv().await.ok();
        }
    }
}

/// Looks once; returns the Pods that it evicted, if any.
async fn look(shared: &Shared, manager: &mut Manager) -> Option<Vec<Entry>> {
    let settings = &shared.config.eviction;
    let (observations, one_disk) = observe(shared).await;
    let turn = manager.observe(settings, &observations, now().mono);
    if shared.pressure.set(turn.conditions.clone()) {
        tracing::info!(conditions = ?turn.conditions, "the node's conditions");
        shared.node_changed.notify_one();
    }
    let evicted = evict_over_limit(shared, one_disk).await;
    if !evicted.is_empty() {
        return Some(evicted);
    }
    let threshold = turn.reclaim.first()?;
    let resource = threshold.signal.resource();
    shared.events.node(true, "EvictionThresholdMet", format!("Attempting to reclaim {resource}"));
    if matches!(threshold.signal, Signal::NodeFsAvailable | Signal::NodeFsInodesFree if one_disk)
        || matches!(threshold.signal, Signal::ImageFsAvailable | Signal::ImageFsInodesFree)
    {
        match shared.images.free_all(shared).await {
            Ok(freed) => tracing::info!(freed, resource, "unused images removed"),
            Err(error) => tracing::warn!(error, "images not collected"),
        }
        if eviction::is_relieved(settings, &observe(shared).await.0) {
            return None;
        }
    }
    evict_one(shared, threshold, &turn.reclaim, &observations, one_disk).await.map(|entry| vec![entry])
}

/// What is left, and whether images lie on the node's own file system.
async fn observe(shared: &Shared) -> (Observations, bool) {
    let root = shared.config.kubelet_root.clone();
    let images = shared.runtime.image_fs().await.ok().map(|usage| usage.images.mountpoint);
    let looked = tokio::task::spawn_blocking(move || {
        let image_fs = images.and_then(|path| disk::room(&path).ok());
        (host::memory_now(), host::processes_now(), disk::room(&root).ok(), image_fs)
    });
    let Ok((memory, (processes, most), node_fs, image_fs)) = looked.await else { return Default::default() };
    let mut observations = Observations::new();
    let mut put = |signal, available: u64, capacity: u64| {
        if capacity > 0 {
            observations.insert(signal, Observation { available, capacity });
        }
    };
    put(Signal::MemoryAvailable, memory.available_bytes(), memory.total_bytes);
    put(Signal::PidAvailable, most.saturating_sub(processes), most);
    if let Some(room) = node_fs {
        put(Signal::NodeFsAvailable, room.available_bytes, room.capacity_bytes);
        put(Signal::NodeFsInodesFree, room.inodes_free, room.inodes);
    }
    if let Some(room) = image_fs {
        put(Signal::ImageFsAvailable, room.available_bytes, room.capacity_bytes);
        put(Signal::ImageFsInodesFree, room.inodes_free, room.inodes);
    }
    let one_disk = match (node_fs, image_fs) {
        (Some(node_fs), Some(image_fs)) => node_fs.device == image_fs.device,
        _ => true,
    };
    (observations, one_disk)
}

/// Evicts the Pods that take more of the disk than they may. Only those that have a limit are counted.
async fn evict_over_limit(shared: &Shared, one_disk: bool) -> Vec<Entry> {
    let limited: Vec<_> = active(shared).into_iter().filter(|entry| has_limit(&entry.pod)).collect();
    if limited.is_empty() {
        return limited;
    }
    let sample = shared.stats.sample(shared, true).await;
    let mut evicted = Vec::new();
    for entry in limited {
        let of_pod = |pod: &&PodSample| pod.entry.pod.metadata.uid == entry.pod.metadata.uid;
        let Some(pod) = sample.pods.iter().find(of_pod) else { continue };
        let local = local(&sample, pod, one_disk);
        if let Some((signal, message)) = eviction::over_limit(&entry.pod, &local)
            && evict(shared, &entry, signal, message, IMMEDIATE_S, false)
        {
            evicted.push(entry);
        }
    }
    evicted
}

fn has_limit(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let by_volume = |volume: &k8s_openapi::api::core::v1::Volume| {
        volume.empty_dir.as_ref().is_some_and(|directory| directory.size_limit.is_some())
    };
    let by_container = |container: &Container| {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        limits.is_some_and(|limits| limits.contains_key("ephemeral-storage"))
    };
    spec.volumes.iter().flatten().any(by_volume)
        || spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(by_container)
}

fn local(sample: &Sample, pod: &PodSample, one_disk: bool) -> Local {
    let containers =
        pod.entry.containers.iter().map(|(name, id)| (name.clone(), storage(pod, name, id, one_disk).bytes));
    Local {
        pod: summary::ephemeral(sample, pod).bytes,
        volumes: pod.disk.volumes.iter().map(|(name, (used, _))| (name.clone(), used.bytes)).collect(),
        containers: containers.collect(),
    }
}

/// A container's logs and, where it lies on the same file system, its writable layer.
fn storage(pod: &PodSample, name: &str, id: &str, with_layer: bool) -> OnDisk {
    let mut used = pod.disk.logs.get(name).copied().unwrap_or_default();
    let stats = pod.stats.containers.iter().find(|stats| stats.id == id);
    if let Some(layer) = stats.and_then(|stats| stats.writable_layer.as_ref()).filter(|_| with_layer) {
        used += OnDisk { bytes: layer.used_bytes, inodes: layer.inodes_used };
    }
    used
}

/// Pods that run, or will; those that were just evicted will not.
fn active(shared: &Shared) -> Vec<Entry> {
    let is_over = |entry: &Entry| {
        let status = entry.status.as_deref().or(entry.pod.status.as_ref());
        matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
    };
    let active: Vec<_> = shared.pods.all().into_iter().filter(|entry| !is_over(entry)).collect();
    let mut evicted = lock(&shared.pressure.evicted);
    let uid = |entry: &Entry| entry.pod.metadata.uid.clone().unwrap_or_default();
    let uids: BTreeSet<_> = active.iter().map(uid).collect();
    evicted.retain(|uid| uids.contains(uid));
    active.into_iter().filter(|entry| !evicted.contains(&uid(entry))).collect()
}

/// Evicts the first Pod that can be.
async fn evict_one(
    shared: &Shared,
    threshold: &Threshold,
    met: &[Threshold],
    observations: &Observations,
    one_disk: bool,
) -> Option<Entry> {
    let sample = shared.stats.sample(shared, true).await;
    let entries: BTreeMap<_, _> =
        active(shared).into_iter().map(|entry| (entry.pod.metadata.uid.clone().unwrap_or_default(), entry)).collect();
    let mut pods: Vec<_> =
        entries.iter().map(|(uid, entry)| usage(uid, entry, &sample, threshold.signal, one_disk)).collect();
    eviction::rank(threshold.signal, &mut pods);
    for pod in pods {
        let Some(entry) = entries.get(&pod.uid) else { continue };
        let asked = entry.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        let grace_s = match threshold.grace_period {
            None => IMMEDIATE_S,
            Some(_) => shared.config.eviction.max_pod_grace_period_s.min(u32::try_from(asked).unwrap_or(1)),
        };
        let message = eviction::message(threshold.signal, &pod, met, observations);
        if evict(shared, entry, threshold.signal.name(), message, grace_s, true) {
            return Some(entry.clone());
        }
    }
    tracing::warn!(resource = threshold.signal.resource(), "no Pod can be evicted");
    None
}

/// Critical Pods stay.
fn evict(shared: &Shared, entry: &Entry, signal: &str, message: String, grace_s: u32, disrupted: bool) -> bool {
    if static_pods::is_critical(&entry.pod) {
        return false;
    }
    tracing::info!(pod = entry.pod.metadata.name, namespace = entry.pod.metadata.namespace, message, "evicted");
    shared.counters.add(Counted::Evictions, &[signal]);
    lock(&shared.pressure.evicted).insert(entry.pod.metadata.uid.clone().unwrap_or_default());
    let condition = disrupted.then(|| eviction::condition(&entry.pod, &message, now().wall));
    entry.inbox.send(Input::Evicted { message, grace_s, condition }).ok();
    true
}

fn usage(uid: &str, entry: &Entry, sample: &Sample, signal: Signal, one_disk: bool) -> Usage {
    let spec = entry.pod.spec.as_ref();
    let containers = spec.map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let containers: Vec<&Container> = containers.into_iter().flatten().collect();
    let total = |resource: &str| spec.map_or(0, |spec| spec.containers.iter().map(|one| request(one, resource)).sum());
    let found = sample.pods.iter().find(|pod| pod.entry.pod.metadata.uid.as_deref() == Some(uid));
    let used = found.and_then(|pod| used(pod, sample, signal, one_disk));
    let of_container = |pod: &PodSample, container: &Container| {
        let id = pod.entry.containers.get(&container.name)?;
        let stats = pod.stats.containers.iter().find(|stats| stats.id == *id)?;
        Some(ContainerUsage {
            name: container.name.clone(),
            memory: stats.usage.as_ref()?.memory.working_set_bytes,
            memory_request: request(container, "memory"),
            storage: storage(pod, &container.name, id, true).bytes,
            storage_request: request(container, "ephemeral-storage"),
        })
    };
    Usage {
        uid: uid.to_owned(),
        priority: spec.and_then(|spec| spec.priority).unwrap_or_default(),
        used,
        memory_request: total("memory"),
        storage_request: total("ephemeral-storage"),
        containers: found
            .map(|pod| containers.iter().filter_map(|one| of_container(pod, one)).collect())
            .unwrap_or_default(),
    }
}

/// What a Pod uses; of disks, of the one in question (upstream `buildSignalToRankFunc`).
fn used(pod: &PodSample, sample: &Sample, signal: Signal, one_disk: bool) -> Option<Used> {
    let usage = pod.stats.usage.as_ref()?;
    let images = matches!(signal, Signal::ImageFsAvailable | Signal::ImageFsInodesFree);
    let mut on_disk = OnDisk::default();
    for (name, id) in &pod.entry.containers {
        if one_disk || !images {
            on_disk += storage(pod, name, id, one_disk);
        } else {
            let logs = pod.disk.logs.get(name).copied().unwrap_or_default();
            let both = storage(pod, name, id, true);
            on_disk += OnDisk { bytes: both.bytes - logs.bytes, inodes: both.inodes - logs.inodes };
        }
    }
    if one_disk || !images {
        let own = pod.disk.volumes.values().filter(|(_, room)| room.device == sample.node_fs.device);
        own.for_each(|(used, _)| on_disk += *used);
    }
    Some(Used {
        memory: usage.memory.working_set_bytes,
        storage: on_disk.bytes,
        inodes: on_disk.inodes,
        pids: usage.pids,
    })
}

fn request(container: &Container, resource: &str) -> u64 {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let quantity = requests.and_then(|requests| Quantity::parse(&requests.get(resource)?.0).ok());
    quantity.and_then(|quantity| u64::try_from(quantity.value()).ok()).unwrap_or_default()
}
