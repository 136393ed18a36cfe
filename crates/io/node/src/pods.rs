//! Which Pods this node runs: from the API's watch and the runtime's events to one worker per Pod.

use crate::static_pods::{self, FullName, full_name};
use crate::worker::Worker;
use crate::{NodeError, Shared, resize, status};
use client::informer::{Cache, Change, Informer};
use client::transport::ListQuery;
use client::typed::target;
use control::scheduler::NodeInfo;
use control::scheduler::admission::{self, Refusal};
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use kubelet::allocation::Allocation;
use kubelet::eviction;
use kubelet::pod::Input;
use kubelet::resources::Qos;
use kubelet::static_pods as rules;
use runtime::types::{Runtime, RuntimeError, RuntimeEvent, SandboxStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

/// One Pod of this node as the rest of the node sees it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) pod: Arc<Pod>,
    /// As the machine last told it; `None` until it has.
    pub(crate) status: Option<Arc<PodStatus>>,
    /// The node did not take it.
    refused: bool,
    /// What the node has granted it.
    pub(crate) allocation: Allocation,
    pub(crate) inbox: mpsc::UnboundedSender<Input>,
    pub(crate) sandbox_id: String,
    /// The Pod's addresses, the primary first; empty until it has a sandbox.
    pub(crate) ips: Vec<IpAddr>,
    /// Container name to the id of its newest attempt.
    pub(crate) containers: BTreeMap<String, String>,
}

/// Why the node does not take a Pod, and what it was judged against.
pub(crate) struct Refused {
    pub(crate) why: Refusal,
    pub(crate) info: NodeInfo,
}

/// Pods by UID, and who owns which sandbox and container at the runtime.
pub(crate) struct Index {
    inner: Mutex<Inner>,
    exits: broadcast::Sender<String>,
}

impl Default for Index {
    fn default() -> Self {
        Self { inner: Mutex::default(), exits: broadcast::Sender::new(256) }
    }
}

#[derive(Default)]
struct Inner {
    pods: BTreeMap<String, Entry>,
    sandboxes: BTreeMap<String, String>,
    containers: BTreeMap<String, (String, String)>,
    /// Pods that ask for something else than they were granted.
    waiting: BTreeSet<String>,
}

impl Index {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ids of containers as they exit.
    pub(crate) fn exits(&self) -> broadcast::Receiver<String> {
        self.exits.subscribe()
    }

    pub(crate) fn get(&self, uid: &str) -> Option<Entry> {
        self.lock().pods.get(uid).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Entry> {
        self.lock().pods.values().cloned().collect()
    }

    /// The live Pod of that name; of several (one still ending) the youngest.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Entry> {
        let named = |pod: &Pod| {
            pod.metadata.name.as_deref() == Some(name) && pod.metadata.namespace.as_deref() == Some(namespace)
        };
        let inner = self.lock();
        let entries = inner.pods.values().filter(|entry| named(&entry.pod));
        entries.max_by_key(|entry| entry.pod.metadata.creation_timestamp.clone().map(|time| time.0)).cloned()
    }

    fn insert(&self, uid: &str, entry: Entry) {
        self.lock().pods.insert(uid.to_owned(), entry);
    }

    /// Returns the Pod as it was granted, and whether it asks for something else, now and before.
    pub(crate) fn set_pod(&self, uid: &str, pod: Arc<Pod>) -> Option<(Arc<Pod>, [bool; 2])> {
        let mut inner = self.lock();
        let entry = inner.pods.get_mut(uid)?;
        let granted = entry.allocation.granted(&pod);
        let stays = !entry.refused && pod.metadata.deletion_timestamp.is_none() && !is_over(pod.status.as_ref());
        let waits = stays && !Arc::ptr_eq(&granted, &pod);
        entry.pod = pod;
        let waited = if waits { !inner.waiting.insert(uid.to_owned()) } else { inner.waiting.remove(uid) };
        Some((granted, [waits, waited]))
    }

    /// Those that ask for something else than they were granted.
    pub(crate) fn waiting(&self) -> Vec<Entry> {
        let inner = self.lock();
        inner.waiting.iter().filter_map(|uid| inner.pods.get(uid).cloned()).collect()
    }

    pub(crate) fn set_allocation(&self, uid: &str, allocation: Allocation) {
        let mut inner = self.lock();
        inner.waiting.remove(uid);
        if let Some(entry) = inner.pods.get_mut(uid) {
            entry.allocation = allocation;
        }
    }

    pub(crate) fn set_status(&self, uid: &str, status: Arc<PodStatus>) {
        if let Some(entry) = self.lock().pods.get_mut(uid) {
            entry.status = Some(status);
        }
    }

    pub(crate) fn set_sandbox(&self, uid: &str, sandbox_id: &str, ips: &[IpAddr]) {
        let mut inner = self.lock();
        inner.sandboxes.insert(sandbox_id.to_owned(), uid.to_owned());
        if let Some(entry) = inner.pods.get_mut(uid) {
            sandbox_id.clone_into(&mut entry.sandbox_id);
            ips.clone_into(&mut entry.ips);
        }
    }

    pub(crate) fn set_container(&self, uid: &str, name: &str, id: &str) {
        let mut inner = self.lock();
        inner.containers.insert(id.to_owned(), (uid.to_owned(), name.to_owned()));
        if let Some(entry) = inner.pods.get_mut(uid) {
            entry.containers.insert(name.to_owned(), id.to_owned());
        }
    }

    pub(crate) fn forget_container(&self, id: &str) {
        self.lock().containers.remove(id);
    }

    pub(crate) fn remove(&self, uid: &str) {
        let mut inner = self.lock();
        inner.pods.remove(uid);
        inner.waiting.remove(uid);
        inner.sandboxes.retain(|_, of| of != uid);
        inner.containers.retain(|_, (of, _)| of != uid);
    }

    fn owner_of_container(&self, id: &str) -> Option<(Entry, String)> {
        let inner = self.lock();
        let (uid, name) = inner.containers.get(id)?;
        Some((inner.pods.get(uid)?.clone(), name.clone()))
    }

    fn owner_of_sandbox(&self, id: &str) -> Option<Entry> {
        let inner = self.lock();
        inner.pods.get(inner.sandboxes.get(id)?).cloned()
    }
}

/// Runs the node's Pods for ever.
pub(crate) async fn run(shared: Arc<Shared>) -> Result<(), NodeError> {
    let mut runtime_events = shared.runtime.events();
    let mut found: BTreeMap<String, Vec<SandboxStatus>> = BTreeMap::new();
    for sandbox in shared.runtime.list_sandboxes().await.map_err(NodeError::Runtime)? {
        found.entry(sandbox.config.uid.clone()).or_default().push(sandbox);
    }
    let query = ListQuery {
        target: target::<Pod>("", ""),
        field_selector: format!("spec.nodeName={}", shared.config.name),
        ..ListQuery::default()
    };
    let (informer, pods, mut changes) = Informer::<Pod>::new(shared.client.transport().clone(), query);
    let query = ListQuery {
        target: target::<Node>("", ""),
        field_selector: format!("metadata.name={}", shared.config.name),
        ..ListQuery::default()
    };
    let (node_informer, nodes, mut node_changes) = Informer::<Node>::new(shared.client.transport().clone(), query);
    let informers = async { tokio::join!(informer.run(), node_informer.run()) };
    let mut informers = std::pin::pin!(informers);
    let mut workers: JoinSet<String> = JoinSet::new();
    let (sender, mut static_sets) = mpsc::unbounded_channel();
    let mut sources = std::pin::pin!(static_pods::run(shared.clone(), sender));
    let mut statics: Option<Statics> = None;
    let mut synced = false;
    loop {
        let known = |pod: &Pod| rules::is_static(pod) || is_known(&pods, pod);
        // Before all Pods are known nobody can tell how much room there is.
        if synced {
            let others = |uid: &str| counted(&shared, |pod| pod.metadata.uid.as_deref() != Some(uid) && known(pod));
            resize::grant(&shared, nodes.get("", &shared.config.name), others);
        }
        let mut start = |workers: &mut JoinSet<String>, pod: Arc<Pod>| {
            set(&shared, workers, &mut found, nodes.get("", &shared.config.name), known, pod);
        };
        tokio::select! {
            biased;
            _ = &mut informers => return Ok(()),
            _ = &mut sources => return Ok(()),
            Some(wanted) = static_sets.recv() => {
                let statics = statics.get_or_insert_default();
                for pod in statics.want(&shared, wanted) {
                    start(&mut workers, pod);
                }
            }
            Some(_) = node_changes.recv() => shared.node_changed.notify_one(),
            // What the API says of mirrors and of orphans can be judged once it is known which static Pods there are.
            change = changes.recv(), if statics.is_some() => match (change, &statics) {
                (Some(Change::Set { new, .. }), Some(statics)) if rules::is_mirror(&new) => {
                    shared.mirrors.set(full_name(&new), Some(new.clone()));
                    statics.bury(&shared, new);
                }
                (Some(Change::Set { new, .. }), _) => start(&mut workers, of_api(new)),
                (Some(Change::Gone(pod)), _) if rules::is_mirror(&pod) => {
                    let now = shared.mirrors.get(&full_name(&pod));
                    if now.is_some_and(|now| now.metadata.uid == pod.metadata.uid) {
                        shared.mirrors.set(full_name(&pod), None);
                    }
                }
                (Some(Change::Gone(pod)), _) => {
                    if let Some(entry) = pod.metadata.uid.as_deref().and_then(|uid| shared.pods.get(uid)) {
                        entry.inbox.send(Input::Removed).ok();
                    }
                }
                (Some(Change::Synced), _) => {
                    synced = true;
                    remove_orphans(&shared, std::mem::take(&mut found));
                    remove_orphaned_directories(&shared);
                }
                (None, _) => return Ok(()),
            },
            event = runtime_events.recv() => match event {
                Some(event) => route(&shared, event).await,
                None => return Ok(()),
            },
            Some(ended) = workers.join_next(), if !workers.is_empty() => {
                let uid = ended.map_err(|panic| NodeError::Panic(panic.to_string()))?;
                shared.pods.remove(&uid);
                if let Some(pod) = statics.as_mut().and_then(|statics| statics.ended(&shared, &uid)) {
                    start(&mut workers, pod);
                }
            }
        }
    }
}

/// The static Pods: which are wanted and which run. One of a name runs at a time: another waits for its end.
#[derive(Default)]
struct Statics {
    wanted: BTreeMap<FullName, Arc<Pod>>,
    running: BTreeMap<FullName, Arc<Pod>>,
}

impl Statics {
    /// Ends those that are not wanted any more; returns those to start.
    fn want(&mut self, shared: &Shared, wanted: BTreeMap<FullName, Arc<Pod>>) -> Vec<Arc<Pod>> {
        self.wanted = wanted;
        for (name, pod) in &self.running {
            let stays = self.wanted.get(name).is_some_and(|wanted| is_same(wanted, pod));
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            let Some(entry) = shared.pods.get(uid).filter(|entry| !stays && !is_ending(&entry.pod)) else { continue };
            let ending = Arc::new(rules::ending(&entry.pod, jiff::Timestamp::now()));
            shared.pods.set_pod(uid, ending.clone());
            entry.inbox.send(Input::Spec(ending)).ok();
        }
        let new: Vec<_> = self.wanted.iter().filter(|(name, _)| !self.running.contains_key(*name)).collect();
        let new: Vec<_> = new.into_iter().map(|(name, pod)| (name.clone(), pod.clone())).collect();
        self.running.extend(new.iter().cloned());
        new.into_iter().map(|(_, pod)| pod).collect()
    }

    /// The Pod of that UID has ended; returns the one that waited for it.
    fn ended(&mut self, shared: &Shared, uid: &str) -> Option<Arc<Pod>> {
        let of = |pod: &Pod| pod.metadata.uid.as_deref() == Some(uid);
        let name = self.running.iter().find(|(_, pod)| of(pod)).map(|(name, _)| name.clone())?;
        self.running.remove(&name);
        if let Some(mirror) = shared.mirrors.get(&name) {
            delete_mirror(shared, mirror);
        }
        let next = self.wanted.get(&name).cloned()?;
        self.running.insert(name, next.clone());
        Some(next)
    }

    /// Deletes a mirror that shows no Pod of this node.
    fn bury(&self, shared: &Shared, mirror: Arc<Pod>) {
        if !self.running.contains_key(&full_name(&mirror)) {
            delete_mirror(shared, mirror);
        }
    }
}

fn delete_mirror(shared: &Shared, mirror: Arc<Pod>) {
    let client = shared.client.clone();
    shared.tasks.spawn(async move { status::delete_object(&client, &mirror).await });
}

fn is_same(one: &Pod, other: &Pod) -> bool {
    let (a, b) = (&one.metadata, &other.metadata);
    a.uid == b.uid && a.labels == b.labels && one.spec == other.spec
}

fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// A Pod of the API is none of this node's manifests, whatever it says of itself.
fn of_api(pod: Arc<Pod>) -> Arc<Pod> {
    if !rules::is_static(&pod) {
        return pod;
    }
    let mut pod = (*pod).clone();
    rules::set_source(&mut pod, "api");
    Arc::new(pod)
}

/// Whether the API still has this very Pod.
fn is_known(pods: &Cache<Pod>, pod: &Pod) -> bool {
    let meta = &pod.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    pods.get(&text(&meta.namespace), &text(&meta.name)).is_some_and(|now| now.metadata.uid == meta.uid)
}

fn set(
    shared: &Arc<Shared>,
    workers: &mut JoinSet<String>,
    found: &mut BTreeMap<String, Vec<SandboxStatus>>,
    node: Option<Arc<Node>>,
    known: impl Fn(&Pod) -> bool,
    pod: Arc<Pod>,
) {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if let Some(entry) = shared.pods.get(&uid) {
        let Some((granted, [waits, waited])) = shared.pods.set_pod(&uid, pod) else { return };
        entry.inbox.send(Input::Spec(granted)).ok();
        if waited && !waits {
            entry.inbox.send(Input::Pending(None)).ok();
        }
        return;
    }
    let allocation = Allocation::at_first(&pod);
    let wanted = pod;
    let pod = allocation.granted(&wanted);
    let (inbox, receiver) = mpsc::unbounded_channel();
    let sandboxes = found.remove(&uid).unwrap_or_default();
    let refused = node.filter(|_| sandboxes.is_empty()).and_then(|node| refused(shared, node, known, &pod));
    let entry = Entry {
        pod: pod.clone(),
        refused: refused.is_some(),
        allocation,
        status: None,
        inbox,
        sandbox_id: String::new(),
        ips: Vec::new(),
        containers: BTreeMap::new(),
    };
    shared.pods.insert(&uid, entry.clone());
    shared.pods.set_pod(&uid, wanted);
    entry.inbox.send(Input::Spec(pod.clone())).ok();
    workers.spawn(Worker::new(shared.clone(), pod, entry.inbox, receiver).run(sandboxes, refused));
}

/// Why this node does not take a new Pod, beside those that it has.
fn refused(shared: &Shared, node: Arc<Node>, known: impl Fn(&Pod) -> bool, pod: &Pod) -> Option<Refused> {
    if is_over(pod.status.as_ref()) || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let info = NodeInfo { node, pods: counted(shared, known) };
    let own = kubelet::admission::refusal(pod);
    let own = own.map(|(reason, message)| Refusal { reason: reason.to_owned(), message });
    let why = under_pressure(shared, pod).or(own).or_else(|| admission::refusal(pod, &info))?;
    Some(Refused { why, info })
}

/// The Pods that this node has taken and that have not ended, as they were granted.
fn counted(shared: &Shared, known: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
    let counts = |entry: &Entry| {
        let over = is_over(entry.status.as_deref()) || is_over(entry.pod.status.as_ref());
        !entry.refused && !over && known(&entry.pod)
    };
    shared.pods.all().into_iter().filter(counts).map(|entry| entry.allocation.granted(&entry.pod)).collect()
}

/// A node that is short of something takes no more Pods.
fn under_pressure(shared: &Shared, pod: &Pod) -> Option<Refusal> {
    let best_effort = Qos::of(pod) == Qos::BestEffort;
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    let tolerates = tolerations.into_iter().any(|toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let operator = toleration.operator.as_deref().unwrap_or("Equal");
        let fits = key == "node.kubernetes.io/memory-pressure" || (key.is_empty() && operator == "Exists");
        let valued = operator == "Equal" && toleration.value.as_deref().is_some_and(|value| !value.is_empty());
        fits && !valued && matches!(toleration.effect.as_deref(), None | Some("" | "NoSchedule"))
    });
    let message = eviction::refusal(&shared.pressure.now(), rules::is_critical(pod), best_effort, tolerates)?;
    Some(Refusal { reason: eviction::REASON.to_owned(), message })
}

fn is_over(status: Option<&PodStatus>) -> bool {
    matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Ends what the runtime still has of Pods that the API no longer knows.
fn remove_orphans(shared: &Arc<Shared>, orphans: BTreeMap<String, Vec<SandboxStatus>>) {
    let known: BTreeSet<_> = shared.pods.all().iter().filter_map(|entry| entry.pod.metadata.uid.clone()).collect();
    for (uid, sandboxes) in orphans {
        let alive = known.contains(&uid);
        let tasks = shared.tasks.clone();
        let shared = shared.clone();
        tasks.spawn(async move {
            for sandbox in sandboxes {
                if let Err(error) = end_sandbox(&*shared.runtime, &sandbox.id).await {
                    tracing::warn!(uid, sandbox = sandbox.id, %error, "orphan not removed");
                }
            }
            if !alive && let Err(error) = shared.volumes.tear_down(&uid).await {
                tracing::warn!(uid, error, "orphan's volumes not removed");
            }
        });
    }
}

/// Removes the directories and logs of Pods that ended while minke was not there to see it.
fn remove_orphaned_directories(shared: &Arc<Shared>) {
    let known: BTreeSet<_> = shared.pods.all().iter().filter_map(|entry| entry.pod.metadata.uid.clone()).collect();
    let names = |directory: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let orphans: Vec<_> =
        names(&shared.volumes.pod_directory("")).into_iter().filter(|uid| !known.contains(uid)).collect();
    let pod_logs = shared.config.pod_logs.clone();
    let of_orphan = |name: &String| name.rsplit_once('_').is_some_and(|(_, uid)| !known.contains(uid));
    let logs: Vec<_> = names(&pod_logs).into_iter().filter(of_orphan).map(|name| pod_logs.join(name)).collect();
    let tasks = shared.tasks.clone();
    let shared = shared.clone();
    tasks.spawn(async move {
        for uid in orphans {
            if let Err(error) = shared.volumes.tear_down(&uid).await {
                tracing::warn!(uid, error, "an orphan's directory is not removed");
            }
        }
        for directory in logs {
            crate::effects::remove_log_directory(&shared.config, &directory);
        }
    });
}

/// Ends a sandbox's processes and removes what is left of it, even if the first fails.
pub(crate) async fn end_sandbox(runtime: &dyn Runtime, id: &str) -> Result<(), RuntimeError> {
    let stopped = runtime.stop_sandbox(id).await;
    runtime.remove_sandbox(id).await.and(stopped)
}

async fn route(shared: &Arc<Shared>, event: RuntimeEvent) {
    match event {
        RuntimeEvent::ContainerExited { container_id, exit, .. } => {
            shared.pods.exits.send(container_id.clone()).ok();
            if let Some((entry, name)) = shared.pods.owner_of_container(&container_id) {
                let exit = crate::effects::exit(shared, &entry.pod, &name, &container_id, &exit).await;
                let container = kubelet::pod::ContainerName(name);
                entry.inbox.send(Input::Exited { container, id: container_id, exit }).ok();
            }
        }
        RuntimeEvent::SandboxStarted { .. }
        | RuntimeEvent::ContainerCreated { .. }
        | RuntimeEvent::ContainerStarted { .. }
        // That it is being stopped was told.
        | RuntimeEvent::SandboxStopped { .. }
        | RuntimeEvent::SandboxRemoved { .. } => {}
        RuntimeEvent::SandboxDied { sandbox_id } | RuntimeEvent::SandboxStopping { sandbox_id } => {
            if let Some(entry) = shared.pods.owner_of_sandbox(&sandbox_id) {
                entry.inbox.send(Input::SandboxDied { id: sandbox_id }).ok();
            }
        }
        RuntimeEvent::ContainerRemoved { container_id, .. } => {
            if let Some((entry, name)) = shared.pods.owner_of_container(&container_id) {
                shared.pods.forget_container(&container_id);
                let container = kubelet::pod::ContainerName(name);
                entry.inbox.send(Input::ContainerGone { container, id: container_id }).ok();
            }
        }
    }
}
