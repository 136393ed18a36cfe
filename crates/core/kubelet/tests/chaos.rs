//! Random worlds: whatever happens and in whatever order it is told, nothing is started twice or out of turn, the machine never
//! spins, and a deleted Pod is gone in the end.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kubelet::machine::{Config, PodMachine};
use kubelet::pod::{Action, ContainerName, Exit, HookKind, Input, Now, ProbeKind, PullFailure};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

struct World {
    random: Random,
    machine: PodMachine,
    pod: serde_json::Value,
    ms: u64,
    wake_at: Option<Duration>,
    /// Answers under way, to be given in any order.
    answers: Vec<Input>,
    /// Living containers by id.
    live: BTreeMap<String, ContainerName>,
    starting: BTreeMap<String, String>,
    sandbox: Option<String>,
    made: u32,
    faults: bool,
    finished: bool,
    trace: Vec<String>,
}

const POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];

fn manifest(random: &mut Random) -> serde_json::Value {
    let hook = json!({"postStart": {"exec": {"command": ["x"]}}, "preStop": {"exec": {"command": ["x"]}}});
    let probe = json!({"exec": {"command": ["x"]}, "failureThreshold": 2});
    let container = |name: String, random: &mut Random| {
        let mut container = json!({"name": name, "image": "i"});
        if random.one_in(3) {
            container["lifecycle"] = hook.clone();
        }
        if random.one_in(3) {
            container["livenessProbe"] = probe.clone();
            container["startupProbe"] = probe.clone();
        }
        container
    };
    let init: Vec<_> = (0..random.below(4))
        .map(|i| {
            let mut container = container(format!("i{i}"), random);
            if random.one_in(2) {
                container["restartPolicy"] = json!("Always");
            } else {
                container = json!({"name": container["name"], "image": "i"});
            }
            container
        })
        .collect();
    let main: Vec<_> = (0..=random.below(3)).map(|i| container(format!("c{i}"), random)).collect();
    let mut spec = json!({"initContainers": init, "containers": main, "restartPolicy": POLICIES[random.below(3)]});
    if random.one_in(4) {
        spec["activeDeadlineSeconds"] = json!(1 + random.below(100));
    }
    json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1}, "spec": spec, "status": {"phase": "Pending"}})
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let pod = manifest(&mut random);
        Self {
            random,
            machine: PodMachine::new(Config { node_ips: Vec::new(), seed }),
            pod,
            ms: 0,
            wake_at: None,
            answers: Vec::new(),
            live: BTreeMap::new(),
            starting: BTreeMap::new(),
            sandbox: None,
            made: 0,
            faults: true,
            finished: false,
            trace: Vec::new(),
        }
    }

    fn feed(&mut self, input: Input) {
        self.trace.push(format!("{} {input:?}", self.ms).chars().take(200).collect());
        let wall = Timestamp::from_millisecond(1_800_000_000_000 + i64::try_from(self.ms).unwrap()).unwrap();
        let now = Now { mono: Duration::from_millis(self.ms), wall };
        let step = self.machine.step(input, now);
        if let Some(at) = step.wake_at {
            assert!(at > now.mono, "wakes at once");
        }
        self.wake_at = step.wake_at;
        for action in step.actions {
            if !matches!(action, Action::WriteStatus(_) | Action::Event(_)) {
                self.trace.push(format!("    {action:?}"));
            }
            self.act(action);
        }
    }

    fn spec(&mut self) {
        let pod: Pod = serde_json::from_value(self.pod.clone()).unwrap();
        self.feed(Input::Spec(Arc::new(pod)));
    }

    fn fault(&mut self, n: usize) -> bool {
        self.faults && self.random.one_in(n)
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::PrepareVolumes => {
                if self.fault(4) {
                    self.answers.push(Input::VolumesFailed { reason: "FailedMount", message: String::new() });
                }
                self.answers.push(Input::VolumesReady);
            }
            Action::CreateSandbox { attempt } => {
                assert!(self.sandbox.is_none(), "two sandboxes");
                assert!(self.pod["metadata"]["deletionTimestamp"].is_null(), "a sandbox for a deleted Pod");
                if self.fault(4) {
                    return self.answers.push(Input::SandboxFailed { message: String::new() });
                }
                let id = format!("s{attempt}-{}", self.made);
                self.sandbox = Some(id.clone());
                self.answers.push(Input::SandboxReady { id, ips: Vec::new() });
            }
            Action::EnsureImage { container, .. } => {
                let failed = self.fault(4);
                self.answers.push(if failed {
                    Input::ImageFailed { container, volume: None, failure: PullFailure::Pull(String::new()) }
                } else {
                    Input::ImageReady {
                        container,
                        image_id: String::new(),
                        image_ref: String::new(),
                        size_bytes: 0,
                        took: Duration::ZERO,
                        waited: Duration::ZERO,
                        present: true,
                    }
                });
            }
            Action::StartContainer { container, .. } => self.start(container),
            Action::StopContainer { container, id, .. } => {
                // It may have ended just now.
                assert!(self.live.get(&id).is_none_or(|name| *name == container), "stops another");
                self.exit(&id);
            }
            Action::RunHook { container, id, hook } => {
                let result = if self.fault(3) { Err(String::new()) } else { Ok(()) };
                if !self.fault(5) || hook == HookKind::PostStart {
                    self.answers.push(Input::HookDone { container, id, hook, result });
                }
            }
            Action::Resize(_) => {
                let failed = self.fault(3);
                self.answers.push(Input::Resized(if failed { Err("busy".to_owned()) } else { Ok(()) }));
            }
            Action::StopSandbox { id } => {
                // Ends every process.
                let all: Vec<_> = self.live.keys().cloned().collect();
                all.iter().for_each(|id| self.exit(id));
                assert!(self.sandbox.take().is_none_or(|own| own == id));
                self.answers.push(Input::SandboxStopped);
            }
            Action::RemoveSandbox { .. } => self.answers.push(Input::SandboxRemoved),
            Action::TearDownVolumes => {
                assert!(self.live.is_empty(), "volumes go while {:?} live", self.live);
                self.answers.push(Input::VolumesGone);
            }
            Action::WriteStatus(status) => {
                self.pod["status"] = serde_json::to_value(&*status).unwrap();
                self.answers.push(Input::StatusWritten);
            }
            Action::DeleteObject => self.answers.push(Input::Removed),
            Action::Finished => self.finished = true,
            Action::RemoveContainer { id, .. } => assert!(!self.live.contains_key(&id), "removes what lives"),
            Action::StartProbes { .. } | Action::StopProbes { .. } | Action::Event(_) => {}
        }
    }

    fn start(&mut self, container: ContainerName) {
        assert!(self.sandbox.is_some(), "starts {} without a sandbox", container.0);
        assert!(self.pod["metadata"]["deletionTimestamp"].is_null(), "starts {} of a deleted Pod", container.0);
        let lives = self.live.values().any(|name| *name == container) || self.starting.contains_key(&container.0);
        assert!(!lives, "starts {} twice", container.0);
        if !container.0.starts_with('c') && !self.is_sidecar(&container.0) {
            assert!(!self.live.values().any(|name| name.0.starts_with('c')), "init container beside main ones");
        }
        self.made += 1;
        let id = format!("{}-{}", container.0, self.made);
        if self.fault(6) {
            return self.answers.push(Input::ConfigFailed { container, message: String::new() });
        }
        self.starting.insert(container.0.clone(), id.clone());
        self.answers.push(Input::Created { container, id, user: None });
    }

    fn is_sidecar(&self, name: &str) -> bool {
        let list = self.pod["spec"]["initContainers"].as_array();
        list.into_iter().flatten().any(|c| c["name"] == name && c["restartPolicy"] == "Always")
    }

    fn exit(&mut self, id: &str) {
        let Some(container) = self.live.remove(id) else { return };
        let code = i32::try_from(self.random.below(2)).unwrap();
        let finished_at = Timestamp::from_second(1_800_000_000).unwrap();
        let unknown = self.fault(8);
        let exit =
            Exit { code, signal: 0, oom_killed: false, started_at: None, finished_at, message: String::new(), unknown };
        self.answers.push(Input::Exited { container, id: id.to_owned(), exit });
    }

    fn deliver(&mut self) {
        let i = self.random.below(self.answers.len());
        let input = self.answers.remove(i);
        if let Input::Created { container, id, .. } = &input {
            let (container, id) = (container.clone(), id.clone());
            self.starting.remove(&container.0);
            if self.sandbox.is_none() || self.fault(6) {
                let message = String::new();
                self.answers.push(Input::StartFailed { container, id: Some(id), reason: "RunContainerError", message });
            } else {
                self.live.insert(id.clone(), container.clone());
                self.feed(input);
                let at = Timestamp::from_second(1_800_000_000).unwrap();
                // The runtime tells of a start before it tells of anything later.
                return self.feed(Input::Started { container, id, at });
            }
        }
        self.feed(input);
    }

    fn disturb(&mut self) {
        let ids: Vec<_> = self.live.keys().cloned().collect();
        let any = (!ids.is_empty()).then(|| ids[self.random.below(ids.len())].clone());
        match (self.random.below(7), any) {
            (0 | 1, Some(id)) => self.exit(&id),
            (2, Some(id)) => {
                let container = self.live.remove(&id).unwrap();
                self.answers.push(Input::ContainerGone { container, id });
            }
            (3, Some(id)) => {
                let probe = [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness][self.random.below(3)];
                let success = self.random.one_in(2);
                let container = self.live[&id].clone();
                self.feed(Input::Probed { container, id, probe, success, output: String::new() });
            }
            (4, _) if self.random.one_in(5) => {
                if let Some(id) = self.sandbox.clone() {
                    self.answers.push(Input::SandboxDied { id });
                }
            }
            (5, _) if self.random.one_in(4) => {
                let containers = self.pod["spec"]["containers"].as_array_mut().unwrap();
                containers[0]["image"] = json!(format!("i{}", self.made));
                self.spec();
            }
            (6, _) if self.random.one_in(2) => {
                let cpu = format!("{}m", 100 * (1 + self.random.below(3)));
                let containers = self.pod["spec"]["containers"].as_array_mut().unwrap();
                containers[0]["resources"] =
                    json!({"requests": {"cpu": cpu}, "limits": {"memory": format!("{}Mi", self.made + 1)}});
                containers[0]["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
                let pod: Pod = serde_json::from_value(self.pod.clone()).unwrap();
                self.feed(Input::Granted(Arc::new(pod)));
            }
            _ => self.pass(self.ms + 5000),
        }
    }

    fn pass(&mut self, until: u64) {
        match self.wake_at.map(|at| u64::try_from(at.as_millis()).unwrap() + 1).filter(|at| *at <= until) {
            Some(at) => {
                self.ms = at;
                self.feed(Input::Woken);
            }
            None => self.ms = until,
        }
    }

    fn play(&mut self) {
        self.spec();
        for _ in 0..self.random.below(120) {
            if !self.answers.is_empty() && !self.random.one_in(3) {
                self.deliver();
            } else {
                self.disturb();
            }
        }
        self.faults = false;
        self.pod["metadata"]["deletionTimestamp"] = json!("2027-01-15T09:00:00Z");
        self.pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        self.spec();
        if self.random.one_in(3) {
            self.feed(Input::Removed);
        }
        for _ in 0..300 {
            if self.finished {
                return;
            }
            if self.answers.is_empty() {
                self.pass(self.ms + 60_000);
            } else {
                self.deliver();
            }
        }
        panic!("never gone: {:?}", self.machine.state());
    }
}

#[test]
fn whatever_happens() {
    for seed in 0..400 {
        let mut world = World::new(seed);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.play()));
        if result.is_err() {
            let from = world.trace.len().saturating_sub(60);
            panic!(
                "seed {seed}: {}\n{}\n{:?}",
                world.pod["spec"],
                world.trace[from..].join("\n"),
                world.machine.containers()
            );
        }
    }
}
