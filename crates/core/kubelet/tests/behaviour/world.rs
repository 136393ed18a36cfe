//! One Pod's API object, a fake runtime and a prober, on a virtual clock.

use crate::shell::{Disk, Files, Next, Process};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerUser, LinuxContainerUser, Pod, Probe};
use kubelet::machine::{Config, PodMachine, field_path};
use kubelet::pod::{Action, ContainerName, Exit, HookKind, Input, Now, PodEvent, ProbeKind, PullFailure};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const START_S: i64 = 1_800_000_000;
pub(crate) const POD_IP: &str = "10.1.0.5";
pub(crate) const NODE_IP: &str = "192.0.2.7";
pub(crate) const UID: &str = "<uid:p>";

#[derive(Debug)]
enum Due {
    Input(Input),
    /// The process goes on.
    Process {
        id: String,
        turn: u32,
    },
    Kill {
        id: String,
    },
    Probe {
        container: ContainerName,
        id: String,
        kind: ProbeKind,
    },
    Volumes {
        wait_ms: u64,
    },
}

struct Live {
    name: ContainerName,
    process: Process,
    files: Files,
    mounts: Vec<String>,
    started: Timestamp,
    /// Only the newest turn counts.
    turn: u32,
    kill_at: u64,
}

pub(crate) struct World {
    pub(crate) now_ms: u64,
    machine: PodMachine,
    pub(crate) pod: Value,
    pub(crate) objects: BTreeSet<String>,
    due: BTreeMap<(u64, u64), Due>,
    sequence: u64,
    live: BTreeMap<String, Live>,
    volumes: Files,
    wake_at: Option<Duration>,
    /// What the API showed, and since when.
    pub(crate) log: Vec<(u64, Value)>,
    pub(crate) events: Vec<(u64, PodEvent)>,
    pub(crate) gone: bool,
    /// Starts and ends of containers: `(ms, container, started)`.
    pub(crate) runs: Vec<(u64, String, bool)>,
    made: u32,
    steps: u32,
}

fn wall(ms: u64) -> Timestamp {
    Timestamp::from_millisecond(START_S * 1000 + i64::try_from(ms).unwrap()).unwrap()
}

impl World {
    pub(crate) fn new(pod: Value) -> Self {
        let config = Config { node_ips: vec![NODE_IP.parse().unwrap()], seed: 3 };
        let mut world = Self {
            now_ms: 0,
            machine: PodMachine::new(config),
            pod,
            objects: BTreeSet::new(),
            due: BTreeMap::new(),
            sequence: 0,
            live: BTreeMap::new(),
            volumes: Files::new(),
            wake_at: None,
            log: Vec::new(),
            events: Vec::new(),
            gone: false,
            runs: Vec::new(),
            made: 0,
            steps: 0,
        };
        world.show();
        world
    }

    fn typed(&self) -> Arc<Pod> {
        Arc::new(serde_json::from_value(self.pod.clone()).unwrap())
    }

    fn now(&self) -> Now {
        Now { mono: Duration::from_millis(self.now_ms), wall: wall(self.now_ms) }
    }

    fn later(&mut self, ms: u64, due: Due) {
        self.sequence += 1;
        self.due.insert((self.now_ms + ms, self.sequence), due);
    }

    fn answer(&mut self, ms: u64, input: Input) {
        self.later(ms, Due::Input(input));
    }

    fn show(&mut self) {
        self.log.push((self.now_ms, self.pod.clone()));
    }

    /// The object has changed: everybody sees it.
    pub(crate) fn changed(&mut self) {
        self.show();
        let pod = self.typed();
        self.feed(Input::Spec(pod));
    }

    /// The node grants the amounts of the object as it is now.
    pub(crate) fn granted(&mut self) {
        self.show();
        let pod = self.typed();
        self.feed(Input::Granted(pod));
    }

    pub(crate) fn feed(&mut self, input: Input) {
        let step = self.machine.step(input, self.now());
        self.wake_at = step.wake_at;
        for action in step.actions {
            self.act(action);
        }
    }

    /// Lets time pass until the next thing happens, or until `until_ms`. Returns whether anything happened.
    pub(crate) fn advance(&mut self, until_ms: u64) -> bool {
        let wake = self.wake_at.map(|at| u64::try_from(at.as_micros().div_ceil(1000)).unwrap());
        let next = self.due.keys().next().map(|(ms, _)| *ms);
        let at = next.into_iter().chain(wake).min().unwrap_or(u64::MAX);
        if at > until_ms {
            self.now_ms = until_ms;
            return false;
        }
        self.steps += 1;
        assert!(self.steps < 100_000, "no end: {:?} {:?}", self.machine.state(), self.machine.containers());
        self.now_ms = self.now_ms.max(at);
        if wake == Some(at) && next != Some(at) {
            self.wake_at = None;
            self.feed(Input::Woken);
        } else if let Some((_, due)) = self.due.pop_first() {
            self.happen(due);
        }
        true
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Input(input) => {
                match &input {
                    Input::Started { container, .. } => self.runs.push((self.now_ms, container.0.clone(), true)),
                    Input::Exited { container, .. } => self.runs.push((self.now_ms, container.0.clone(), false)),
                    _ => {}
                }
                let status = matches!(input, Input::StatusWritten);
                self.feed(input);
                if status && !self.gone {
                    let pod = self.typed();
                    self.feed(Input::Spec(pod));
                }
            }
            Due::Process { id, turn } => {
                if self.live.get(&id).is_some_and(|live| live.turn == turn) {
                    self.go_on(&id);
                }
            }
            Due::Kill { id } => {
                if self.live.get(&id).is_some_and(|live| live.kill_at <= self.now_ms) {
                    self.end(&id, 137, false);
                }
            }
            Due::Probe { container, id, kind } => self.probe(container, id, kind),
            Due::Volumes { wait_ms } => self.prepare(wait_ms),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::PrepareVolumes => self.later(3, Due::Volumes { wait_ms: 500 }),
            Action::CreateSandbox { attempt } => {
                let ips = vec![POD_IP.parse().unwrap()];
                self.answer(15, Input::SandboxReady { id: format!("sandbox-{attempt}"), ips });
            }
            Action::EnsureImage { container, image } => self.pull(container, &image),
            Action::StartContainer { container, .. } => self.start(container),
            Action::StopContainer { id, grace_period_ms, .. } => self.stop(&id, grace_period_ms),
            Action::RemoveContainer { .. } => {}
            Action::RunHook { container, id, hook } => self.hook(container, id, hook),
            Action::StartProbes { container, id } => self.probes(&container, &id),
            Action::StopProbes { .. } => {}
            Action::Resize(_) => self.answer(3, Input::Resized(Ok(()))),
            Action::StopSandbox { .. } => self.answer(5, Input::SandboxStopped),
            Action::RemoveSandbox { .. } => self.answer(2, Input::SandboxRemoved),
            Action::TearDownVolumes => self.answer(2, Input::VolumesGone),
            Action::WriteStatus(status) => {
                if !self.gone {
                    self.pod["status"] = serde_json::to_value(&*status).unwrap();
                    self.show();
                    self.answer(1, Input::StatusWritten);
                }
            }
            Action::DeleteObject => {
                let kept = self.pod["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
                if kept {
                    self.pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
                    self.changed();
                } else {
                    self.gone = true;
                    self.answer(1, Input::Removed);
                }
            }
            Action::Event(event) => self.events.push((self.now_ms, event)),
            Action::Finished => {}
        }
    }

    fn prepare(&mut self, wait_ms: u64) {
        let pod = self.typed();
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let map = volume.config_map.as_ref().map(|map| ("configmap", map.name.clone(), map.optional));
            let secret =
                volume.secret.as_ref().map(|s| ("secret", s.secret_name.clone().unwrap_or_default(), s.optional));
            for (kind, name, optional) in map.into_iter().chain(secret) {
                if optional != Some(true) && !self.objects.contains(&format!("{kind}/{name}")) {
                    let message = format!(
                        "MountVolume.SetUp failed for volume \"{}\" : {kind} \"{name}\" not found",
                        volume.name
                    );
                    self.feed(Input::VolumesFailed { reason: "FailedMount", message });
                    return self.later(wait_ms, Due::Volumes { wait_ms: (wait_ms * 2).min(120_000) });
                }
            }
        }
        self.feed(Input::VolumesReady);
    }

    fn pull(&mut self, container: ContainerName, image: &str) {
        let pod = self.typed();
        let policy = self.container(&pod, &container).and_then(|container| container.image_pull_policy);
        let policy = policy.unwrap_or_else(|| "IfNotPresent".to_owned());
        if image.contains(' ') {
            let words = "couldn't parse image name \"Busy Box:1\": invalid reference format: repository name (library/Busy Box) must be lowercase";
            return self.answer(
                1,
                Input::ImageFailed { container, volume: None, failure: PullFailure::InvalidName(words.to_owned()) },
            );
        }
        let missing = image.starts_with("nosuch");
        let present = !missing && policy != "Always";
        if missing && policy == "Never" {
            return self.answer(1, Input::ImageFailed { container, volume: None, failure: PullFailure::Never });
        }
        if !present {
            let field_path = field_path(&pod, &container);
            let message = format!("Pulling image \"{image}\"");
            self.events.push((self.now_ms, PodEvent { warning: false, reason: "Pulling".into(), message, field_path }));
        }
        if missing {
            return self.answer(
                300,
                Input::ImageFailed { container, volume: None, failure: PullFailure::Pull("<pull error>".to_owned()) },
            );
        }
        let took = Duration::from_millis(if present { 0 } else { 700 });
        self.answer(
            1 + u64::try_from(took.as_millis()).unwrap(),
            Input::ImageReady {
                container,
                image_id: "sha256:1".to_owned(),
                image_ref: "busybox@sha256:2".to_owned(),
                size_bytes: 100,
                took,
                waited: took,
                present,
            },
        );
    }

    fn container(&self, pod: &Pod, name: &ContainerName) -> Option<Container> {
        let spec = pod.spec.as_ref()?;
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| Container {
            name: c.name.clone(),
            command: c.command.clone(),
            image_pull_policy: c.image_pull_policy.clone(),
            ..Container::default()
        });
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten()).cloned().chain(ephemeral);
        all.into_iter().find(|container| container.name == name.0)
    }

    fn start(&mut self, name: ContainerName) {
        let pod = self.typed();
        let container = self.container(&pod, &name).unwrap();
        if let Some(message) = self.misconfigured(&pod, &container) {
            return self.answer(2, Input::ConfigFailed { container: name, message });
        }
        self.made += 1;
        let id = format!("{}-{}", name.0, self.made);
        let linux = LinuxContainerUser { uid: 0, gid: 0, supplemental_groups: Some(vec![0]) };
        let user = Some(ContainerUser { linux: Some(linux) });
        self.answer(8, Input::Created { container: name.clone(), id: id.clone(), user });
        let command = container.command.clone().unwrap_or_default();
        let cannot = match command.first().map(String::as_str) {
            _ if container.working_dir.as_deref() == Some("/etc/passwd") => {
                Some("mkdir /etc/passwd: not a directory".to_owned())
            }
            Some(path) if path.starts_with("/no") => {
                Some(format!("exec: \"{path}\": stat {path}: no such file or directory"))
            }
            Some("nosuchcmd") => Some("exec: \"nosuchcmd\": executable file not found in $PATH".to_owned()),
            _ => None,
        };
        if let Some(message) = cannot {
            return self.answer(
                16,
                Input::StartFailed { container: name, id: Some(id), reason: "RunContainerError", message },
            );
        }
        let words: Vec<String> = command.into_iter().chain(container.args.clone().unwrap_or_default()).collect();
        let mounts = container.volume_mounts.iter().flatten().map(|mount| mount.mount_path.clone()).collect();
        let started = wall(self.now_ms + 16);
        let process = Process::new(&words);
        let live =
            Live { name: name.clone(), process, files: Files::new(), mounts, started, turn: 0, kill_at: u64::MAX };
        self.live.insert(id.clone(), live);
        self.answer(16, Input::Started { container: name, id: id.clone(), at: started });
        self.later(15, Due::Process { id, turn: 0 });
    }

    /// What the node says of a configuration that lacks something.
    fn misconfigured(&self, pod: &Pod, container: &Container) -> Option<String> {
        let root = container.security_context.as_ref().is_some_and(|context| context.run_as_non_root == Some(true));
        if root {
            let name = &pod.metadata.name.clone().unwrap();
            return Some(format!(
                "container has runAsNonRoot and image will run as root (pod: \"{name}_<ns>({UID})\", container: {})",
                container.name
            ));
        }
        for from in container.env_from.iter().flatten() {
            if let Some(secret) = &from.secret_ref
                && secret.optional != Some(true)
                && !self.objects.contains(&format!("secret/{}", secret.name))
            {
                return Some(format!("secret \"{}\" not found", secret.name));
            }
        }
        let keys = container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()?.secret_key_ref.as_ref());
        keys.filter(|key| key.optional != Some(true)).find_map(|key| {
            (!self.objects.contains(&format!("secret/{}/{}", key.name, key.key)))
                .then(|| format!("couldn't find key {} in Secret <ns>/{}", key.key, key.name))
        })
    }

    fn go_on(&mut self, id: &str) {
        let Some(live) = self.live.get_mut(id) else { return };
        let mut disk = Disk { own: &mut live.files, volumes: &mut self.volumes, mounts: live.mounts.clone() };
        let next = live.process.run(&mut disk);
        let turn = live.turn;
        match next {
            Next::Sleep(ms) => self.later(ms, Due::Process { id: id.to_owned(), turn }),
            Next::Forever => {}
            Next::Exit(code) => self.end(id, code, false),
            Next::OutOfMemory => self.end(id, 137, true),
        }
    }

    fn end(&mut self, id: &str, code: i32, oom_killed: bool) {
        let Some(live) = self.live.remove(id) else { return };
        let exit = Exit {
            code,
            signal: 0,
            oom_killed,
            started_at: Some(live.started),
            finished_at: wall(self.now_ms),
            message: String::new(),
            unknown: false,
        };
        self.answer(1, Input::Exited { container: live.name, id: id.to_owned(), exit });
    }

    fn stop(&mut self, id: &str, grace_period_ms: u64) {
        let at = self.now_ms + grace_period_ms;
        let Some(live) = self.live.get_mut(id) else { return };
        live.kill_at = live.kill_at.min(at);
        live.turn += 1;
        let server = live.process.interrupt();
        let turn = live.turn;
        self.later(grace_period_ms, Due::Kill { id: id.to_owned() });
        if server {
            self.later(1, Due::Process { id: id.to_owned(), turn });
        }
    }

    fn hook(&mut self, container: ContainerName, id: String, hook: HookKind) {
        let pod = self.typed();
        let lifecycle = self.container(&pod, &container).and_then(|container| container.lifecycle).unwrap();
        let handler = if hook == HookKind::PostStart { lifecycle.post_start } else { lifecycle.pre_stop }.unwrap();
        let result = match handler.exec {
            Some(exec) => {
                let words = exec.command.unwrap_or_default();
                let (code, output) = self.exec(&id, &words);
                let said = words.join(" ");
                let failed = format!(
                    "Exec lifecycle hook ([{said}]) for Container \"{}\" in Pod \"p_<ns>({UID})\" failed - error: command '{said}' \
                     exited with {code}: , message: {output:?}",
                    container.0
                );
                if code == 0 { Ok(()) } else { Err(failed) }
            }
            None => Err("refused".to_owned()),
        };
        self.answer(20, Input::HookDone { container, id, hook, result });
    }

    /// Runs a command inside a container, at once.
    fn exec(&mut self, id: &str, words: &[String]) -> (i32, String) {
        let Some(live) = self.live.get_mut(id) else { return (1, String::new()) };
        if words.first().is_some_and(|word| word.starts_with("/no")) {
            return (126, String::new());
        }
        let mut disk = Disk { own: &mut live.files, volumes: &mut self.volumes, mounts: live.mounts.clone() };
        let mut process = Process::new(words);
        match process.run(&mut disk) {
            Next::Exit(code) => (code, process.output),
            _ => (1, format!("command timed out: \"{}\" timed out after 1s", words.join(" "))),
        }
    }

    fn probes(&mut self, name: &ContainerName, id: &str) {
        let pod = self.typed();
        let Some(container) = self.container(&pod, name) else { return };
        let kinds = [
            (ProbeKind::Startup, &container.startup_probe),
            (ProbeKind::Readiness, &container.readiness_probe),
            (ProbeKind::Liveness, &container.liveness_probe),
        ];
        for (kind, probe) in kinds {
            if let Some(probe) = probe {
                let delay = u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap() * 1000;
                self.later(delay + 30, Due::Probe { container: name.clone(), id: id.to_owned(), kind });
            }
        }
    }

    fn probe(&mut self, name: ContainerName, id: String, kind: ProbeKind) {
        if !self.live.contains_key(&id) {
            return;
        }
        let pod = self.typed();
        let container = self.container(&pod, &name).unwrap();
        let probe = match kind {
            ProbeKind::Startup => container.startup_probe.clone(),
            ProbeKind::Readiness => container.readiness_probe.clone(),
            ProbeKind::Liveness => container.liveness_probe.clone(),
        };
        let probe = probe.unwrap();
        let period = u64::try_from(probe.period_seconds.unwrap_or(10)).unwrap() * 1000;
        let machine = self.machine.containers().iter().find(|container| container.name == name).cloned().unwrap();
        let started = machine.run().is_some_and(kubelet::container::Run::is_started);
        let wanted = if kind == ProbeKind::Startup { !started } else { started };
        if wanted {
            let (success, output) = self.result(&id, &probe);
            self.feed(Input::Probed { container: name.clone(), id: id.clone(), probe: kind, success, output });
        }
        self.later(period, Due::Probe { container: name, id, kind });
    }

    fn result(&mut self, id: &str, probe: &Probe) -> (bool, String) {
        let served = self
            .live
            .get(id)
            .is_some_and(|live| live.mounts.is_empty() || live.process.trap == crate::shell::Trap::Nothing);
        let port = |value: &Value| value.as_i64().unwrap_or_default();
        if let Some(exec) = &probe.exec {
            let (code, output) = self.exec(id, &exec.command.clone().unwrap_or_default());
            return (code == 0, output);
        }
        if let Some(get) = &probe.http_get {
            let port = port(&serde_json::to_value(&get.port).unwrap());
            let path = get.path.as_deref().unwrap_or("/");
            return match (port, path) {
                (80, "/") if served => (true, String::new()),
                (80, _) if served => (false, "HTTP probe failed with statuscode: 404".to_owned()),
                _ => {
                    let url = format!("http://{POD_IP}:{port}{path}");
                    (false, format!("Get \"{url}\": dial tcp {POD_IP}:{port}: connect: connection refused"))
                }
            };
        }
        if let Some(tcp) = &probe.tcp_socket {
            let port = port(&serde_json::to_value(&tcp.port).unwrap());
            return (false, format!("dial tcp {POD_IP}:{port}: connect: connection refused"));
        }
        (true, String::new())
    }
}
