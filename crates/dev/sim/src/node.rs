//! A node: the real kubelet core over the fake runtime.

use crate::cluster::Sim;
use crate::effects::{self, Effects};
use crate::runtime::{Event, Sandbox};
use api::write::{Target, Verb, Write};
use client::informer::{Change, Informer};
use client::transport::{CallError, ListQuery, Transport};
use client::typed::{Client, target};
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use kubelet::allocation::Allocation;
use kubelet::machine::{Config, PodMachine};
use kubelet::node::{Facts, object};
use kubelet::pod::{Action, ContainerName, Input, PendingResize};
use kubelet::recorder::Recorder;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

const RETRY: Duration = Duration::from_secs(1);

pub(crate) fn name(number: usize) -> String {
    format!("node-{number}")
}

/// What the Pods of one node share.
pub(crate) struct Shared {
    pub(crate) sim: Arc<Sim>,
    pub(crate) number: usize,
    client: Client,
    events: mpsc::UnboundedSender<Write>,
    recorder: Mutex<Recorder>,
}

type Inbox = mpsc::UnboundedSender<Input>;

/// Runs until the process ends.
pub(crate) async fn run(sim: Arc<Sim>, number: usize, transport: Arc<dyn Transport>) {
    register(&sim, number, &*transport).await;
    let mut runtime_events = sim.nodes[number].subscribe();
    let mut found: BTreeMap<String, Vec<Sandbox>> = BTreeMap::new();
    for sandbox in sim.nodes[number].sandboxes() {
        found.entry(sandbox.uid.clone()).or_default().push(sandbox);
    }
    let (events, event_writes) = mpsc::unbounded_channel();
    let recorder = Mutex::new(Recorder::new("kubelet", &name(number)));
    let shared = Arc::new(Shared { sim, number, client: Client::new(transport.clone()), events, recorder });
    let query = ListQuery {
        target: target::<Pod>("", ""),
        field_selector: format!("spec.nodeName={}", name(number)),
        ..ListQuery::default()
    };
    let (informer, _, mut changes) = Informer::<Pod>::new(transport.clone(), query);
    let mut tasks: JoinSet<()> = JoinSet::new();
    tasks.spawn(informer.run());
    tasks.spawn(write_events(transport, event_writes));
    let mut workers: JoinSet<String> = JoinSet::new();
    let mut inboxes: BTreeMap<String, Inbox> = BTreeMap::new();
    let mut allocations: BTreeMap<String, Allocation> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = workers.join_next(), if !workers.is_empty() => match ended {
                Ok(uid) => {
                    inboxes.remove(&uid);
                    allocations.remove(&uid);
                }
                Err(panic) => shared.sim.wrong(format!("a Pod's worker panicked: {panic}")),
            },
            Some(event) = runtime_events.recv() => route(&inboxes, event),
            Some(change) = changes.recv() => match change {
                Change::Set { new, .. } => {
                    let uid = new.metadata.uid.clone().unwrap_or_default();
                    let inbox = inboxes.entry(uid.clone()).or_insert_with(|| {
                        let (inbox, receiver) = mpsc::unbounded_channel();
                        let sandboxes = found.remove(&uid).unwrap_or_default();
                        let (shared, uid, outbox) = (shared.clone(), uid.clone(), inbox.clone());
                        let worker = Worker { shared, uid, pod: new.clone(), outbox };
                        workers.spawn(worker.run(receiver, sandboxes));
                        inbox
                    });
                    let allocation = allocations.entry(uid).or_insert_with(|| Allocation::at_first(&new));
                    inbox.send(Input::Spec(allocation.granted(&new))).ok();
                    if allocation.differs(&new) {
                        if shared.sim.dice.percent(30) {
                            inbox.send(pending(&new)).ok();
                        }
                        *allocation = Allocation::of(&new);
                        inbox.send(Input::Granted(new)).ok();
                    }
                }
                Change::Gone(pod) => {
                    if let Some(inbox) = pod.metadata.uid.as_deref().and_then(|uid| inboxes.get(uid)) {
                        inbox.send(Input::Removed).ok();
                    }
                }
                Change::Synced => {
                    // Of Pods that the API no longer knows.
                    for sandbox in std::mem::take(&mut found).into_values().flatten() {
                        shared.sim.nodes[number].remove_sandbox(&shared.sim, &sandbox.id);
                    }
                }
            },
            else => return,
        }
    }
}

/// The node has no room for a change at first.
fn pending(pod: &Arc<Pod>) -> Input {
    let (reason, message) = ("OutOfcpu".to_owned(), "not now".to_owned());
    Input::Pending(Some(PendingResize { wanted: pod.clone(), reason, message }))
}

fn route(inboxes: &BTreeMap<String, Inbox>, event: Event) {
    let (uid, input) = match event {
        Event::Exited(container) => {
            let input = effects::exit(&container).map(|exit| Input::Exited {
                container: ContainerName(container.name.clone()),
                id: container.id.clone(),
                exit,
            });
            (container.uid, input)
        }
        Event::Removed(container) => {
            let input = Input::ContainerGone { container: ContainerName(container.name), id: container.id };
            (container.uid, Some(input))
        }
        Event::SandboxDied(sandbox) => (sandbox.uid, Some(Input::SandboxDied { id: sandbox.id })),
    };
    if let (Some(inbox), Some(input)) = (inboxes.get(&uid), input) {
        inbox.send(input).ok();
    }
}

async fn register(sim: &Sim, number: usize, transport: &dyn Transport) {
    let facts = Facts {
        name: name(number),
        hostname: name(number),
        cpus: 8,
        memory_bytes: 16 << 30,
        ephemeral_storage_bytes: 64 << 30,
        max_pods: 110,
        version: "v1.37.1+sim".to_owned(),
        ..Facts::default()
    };
    loop {
        let body = object(&facts, sim.wall()).to_string().into();
        match transport.write(Write { verb: Verb::Create, target: target::<Node>("", ""), body }).await {
            Ok(_) => return,
            Err(error) if error.is_conflict() => return,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// In order; one that is refused is lost, as upstream loses it.
async fn write_events(transport: Arc<dyn Transport>, mut writes: mpsc::UnboundedReceiver<Write>) {
    while let Some(write) = writes.recv().await {
        let _ = transport.write(write).await;
    }
}

/// What the API should know of a Pod.
#[derive(Default)]
struct Wanted {
    status: Option<Box<PodStatus>>,
    deleted: bool,
}

struct Worker {
    shared: Arc<Shared>,
    uid: String,
    pod: Arc<Pod>,
    outbox: Inbox,
}

impl Worker {
    /// Until the machine is finished; returns the Pod's UID.
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Input>, sandboxes: Vec<Sandbox>) -> String {
        let sim = self.shared.sim.clone();
        let seed = self.uid.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let mut machine = PodMachine::new(Config { node_ips: Vec::new(), seed });
        let (wanted, receiver) = watch::channel(Wanted::default());
        let mut tasks: JoinSet<()> = JoinSet::new();
        tasks.spawn(write_status(self.shared.clone(), self.pod.clone(), receiver, self.outbox.clone()));
        let effects = Arc::new(Effects::new(self.shared.clone(), self.uid.clone(), self.outbox.clone()));
        let mut recovered = effects.recover(sandboxes);
        let mut wake_at: Option<Duration> = None;
        loop {
            let left = wake_at.unwrap_or_default().saturating_sub(sim.monotonic());
            let input = tokio::select! {
                biased;
                Some(input) = inbox.recv() => input,
                () = tokio::time::sleep(left), if wake_at.is_some() => Input::Woken,
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Err(panic) = ended {
                        sim.wrong(format!("an effect panicked: {panic}"));
                    }
                    continue;
                }
            };
            if let Input::Spec(pod) | Input::Granted(pod) = &input {
                self.pod = pod.clone();
            }
            let first = matches!(input, Input::Spec(_)).then(|| recovered.take()).flatten();
            for input in std::iter::once(input).chain(first) {
                let step = machine.step(input, sim.pod_now());
                wake_at = step.wake_at;
                for action in step.actions {
                    match action {
                        Action::WriteStatus(status) => wanted.send_modify(|wanted| wanted.status = Some(status)),
                        Action::DeleteObject => wanted.send_modify(|wanted| wanted.deleted = true),
                        Action::Event(event) => self.event(&event),
                        Action::Finished => return self.uid,
                        action => {
                            let (effects, pod) = (effects.clone(), self.pod.clone());
                            tasks.spawn(async move { effects.carry_out(action, &pod).await });
                        }
                    }
                }
            }
        }
    }

    fn event(&self, event: &kubelet::pod::PodEvent) {
        let mut recorder = self.shared.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(write) = recorder.pod(&self.pod, event, self.shared.sim.wall()) {
            self.shared.events.send(write).ok();
        }
    }
}

/// The newest status wins; the object's deletion comes after it.
async fn write_status(shared: Arc<Shared>, pod: Arc<Pod>, mut wanted: watch::Receiver<Wanted>, outbox: Inbox) {
    let meta = &pod.metadata;
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let status_target = Target { subresource: "status", ..target::<Pod>(namespace, name) };
    while wanted.changed().await.is_ok() {
        let (mut status, mut deleted) = newest(&mut wanted);
        while let Some(new) = status.take() {
            let patch = json!({"metadata": {"uid": meta.uid}, "status": *new});
            let write = Write { verb: Verb::MergePatch, target: status_target.clone(), body: patch.to_string().into() };
            match shared.client.transport().write(write).await {
                Ok(_) => drop(outbox.send(Input::StatusWritten)),
                Err(error) if error.is_not_found() || error.is_conflict() => return,
                Err(_) => {
                    tokio::time::sleep(RETRY).await;
                    (status, deleted) = newest(&mut wanted);
                }
            }
        }
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": meta.uid}});
        while deleted {
            match shared.client.delete::<Pod>(namespace, name, &options).await {
                Ok(()) => deleted = false,
                Err(CallError::Status(status)) if matches!(status.code, Some(404 | 409)) => deleted = false,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }
}

fn newest(wanted: &mut watch::Receiver<Wanted>) -> (Option<Box<PodStatus>>, bool) {
    let wanted = wanted.borrow_and_update();
    (wanted.status.clone(), wanted.deleted)
}
