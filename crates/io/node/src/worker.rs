//! One Pod's task: inputs to its machine, the machine's actions to [`crate::effects`].

use crate::Shared;
use crate::counters::Counted;
use crate::effects::{Effects, remove_logs};
use crate::live::Live;
use crate::mirror;
use crate::pods::Refused;
use crate::prober::Probers;
use crate::status::{self, Wanted};
use control::scheduler::admission::{self, Refusal};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kubelet::machine::PodMachine;
use kubelet::pod::{Action, HookKind, Input, Now, ProbeKind};
use runtime::types::SandboxStatus;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub(crate) struct Worker {
    shared: Arc<Shared>,
    uid: String,
    pod: Arc<Pod>,
    outbox: mpsc::UnboundedSender<Input>,
    inbox: mpsc::UnboundedReceiver<Input>,
}

/// Both clocks, now.
pub(crate) fn now() -> Now {
    let mono = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let mono = Duration::new(mono.tv_sec.try_into().unwrap_or(0), mono.tv_nsec.try_into().unwrap_or(0));
    Now { mono, wall: Timestamp::now() }
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        pod: Arc<Pod>,
        outbox: mpsc::UnboundedSender<Input>,
        inbox: mpsc::UnboundedReceiver<Input>,
    ) -> Self {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        Self { shared, uid, pod, outbox, inbox }
    }

    /// Labels that the Pod waits for may have come to the Node just before the Pod: then it is asked for anew (upstream
    /// `generalFilter`).
    async fn still_refused(&self, refused: Option<Refused>) -> Option<Refusal> {
        let Refused { why, mut info } = refused?;
        if why.reason == admission::NODE_AFFINITY
            && let Ok(node) = self.shared.client.get::<Node>("", info.name()).await
        {
            info.node = node;
            return admission::refusal(&self.pod, &info);
        }
        Some(why)
    }

    fn count(&self, input: &Input) {
        let counters = &self.shared.counters;
        match input {
            Input::SandboxReady { .. } => counters.add(Counted::StartedPods, &[]),
            Input::Started { container, .. } => {
                let path = kubelet::machine::field_path(&self.pod, container);
                let kind = match path.split('.').nth(1) {
                    Some(list) if list.starts_with("initContainers") => "init_container",
                    Some(list) if list.starts_with("ephemeralContainers") => "ephemeral_container",
                    _ => "container",
                };
                counters.add(Counted::StartedContainers, &[kind]);
            }
            Input::Probed { container, probe, success, .. } => {
                let kind = match probe {
                    ProbeKind::Startup => "Startup",
                    ProbeKind::Readiness => "Readiness",
                    ProbeKind::Liveness => "Liveness",
                };
                let result = if *success { "successful" } else { "failed" };
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                let meta = &self.pod.metadata;
                let (name, namespace) = (text(&meta.name), text(&meta.namespace));
                counters.add(Counted::Probes, &[kind, result, &container.0, &name, &namespace, &self.uid]);
            }
            _ => {}
        }
    }

    /// Runs until the machine is finished; returns the Pod's UID. `sandboxes` is what the runtime had at the start.
    pub(crate) async fn run(mut self, sandboxes: Vec<SandboxStatus>, refused: Option<Refused>) -> String {
        let mut machine = PodMachine::new(kubelet::machine::Config {
            node_ips: self.shared.config.addresses.clone(),
            seed: seed(&self.uid),
        });
        let (wanted, receiver) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let tell = |input: Input| {
            let outbox = self.outbox.clone();
            move || {
                outbox.send(input.clone()).ok();
            }
        };
        let (shared, pod, written) = (self.shared.clone(), self.pod.clone(), tell(Input::StatusWritten));
        if kubelet::static_pods::is_static(&self.pod) {
            tasks.spawn(mirror::run(shared, pod, receiver, written, tell(Input::Removed)));
        } else {
            tasks.spawn(status::run(shared, pod, receiver, written));
        }
        let effects = Arc::new(Effects::new(self.shared.clone(), self.uid.clone(), self.outbox.clone()));
        if let Some(refusal) = self.still_refused(refused).await {
            let Refusal { reason, message } = refusal;
            self.outbox.send(Input::Rejected { reason, message }).ok();
        }
        let mut recovered = effects.recover(sandboxes, &self.pod).await;
        let mut wake_at: Option<Duration> = None;
        let mut probers = Probers::new(self.shared.clone(), self.outbox.clone());
        let mut live: Option<Live> = None;
        loop {
            let timer = sleep_until(wake_at);
            let input = tokio::select! {
                biased;
                Some(input) = self.inbox.recv() => input,
                () = timer, if wake_at.is_some() => Input::Woken,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            };
            if let Input::Spec(pod) | Input::Granted(pod) = &input {
                self.pod = pod.clone();
                if let Some(live) = &live {
                    live.set(pod.clone());
                }
            }
            let first = matches!(input, Input::Spec(_)).then(|| recovered.take()).flatten();
            for input in std::iter::once(input).chain(first) {
                probers.observe(&input);
                self.count(&input);
                let step = machine.step(input, now());
                wake_at = step.wake_at;
                let post_start = post_start(&step.actions);
                for action in step.actions {
                    match action {
                        Action::WriteStatus(status) => {
                            let status = Arc::from(status);
                            self.shared.pods.set_status(&self.uid, Arc::clone(&status));
                            wanted.send(Wanted::Status(status)).ok();
                        }
                        Action::DeleteObject => {
                            wanted.send(Wanted::Deleted).ok();
                        }
                        Action::Event(event) => self.shared.events.pod(&self.pod, &event),
                        Action::Finished => {
                            remove_logs(&self.shared.config, &self.pod);
                            self.shared.counters.forget_pod(&self.uid);
                            return self.uid;
                        }
                        Action::StartProbes { container, id } => {
                            let held = post_start.contains(&id);
                            probers.start(&self.pod, container, id, held);
                        }
                        Action::StopProbes { id, .. } => probers.stop(&id),
                        Action::PrepareVolumes => {
                            let (outbox, before) = (self.outbox.clone(), live.take());
                            let pod = self.pod.clone();
                            live = Some(Live::start(&self.shared, effects.clone(), pod, outbox, before));
                        }
                        Action::TearDownVolumes => {
                            let (effects, pod, live) = (effects.clone(), self.pod.clone(), live.take());
                            tasks.spawn(async move {
                                if let Some(live) = live {
                                    live.end().await;
                                }
                                effects.carry_out(Action::TearDownVolumes, &pod).await;
                            });
                        }
                        action => {
                            let effects = effects.clone();
                            let pod = self.pod.clone();
                            tasks.spawn(async move { effects.carry_out(action, &pod).await });
                        }
                    }
                }
            }
        }
    }
}

/// The containers whose postStart begins now.
fn post_start(actions: &[Action]) -> BTreeSet<String> {
    let begins = |action: &Action| match action {
        Action::RunHook { id, hook: HookKind::PostStart, .. } => Some(id.clone()),
        _ => None,
    };
    actions.iter().filter_map(begins).collect()
}

async fn sleep_until(at: Option<Duration>) {
    if let Some(at) = at {
        tokio::time::sleep(at.saturating_sub(now().mono)).await;
    }
}

/// Jitter differs between Pods and is the same for one Pod.
fn seed(uid: &str) -> u64 {
    uid.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
