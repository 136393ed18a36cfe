//! Scripts of inputs, and what the machine wants done: the checklist of upstream's own node tests
//! (`test/e2e_node/container_lifecycle_test.go`) and what recordings cannot show.
#![allow(clippy::unwrap_used)]

use expect_test::{Expect, expect};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kubelet::machine::{Config, PodMachine};
use kubelet::pod::{Action, ContainerName, Exit, Found, HookKind, Input, Now, PendingResize, ProbeKind, PullFailure};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Plays a script. Each line is a command; its outcome is the list of actions, without events and statuses unless asked for.
struct Script {
    machine: PodMachine,
    pod: Value,
    ms: u64,
    wake_at: Option<Duration>,
    said: String,
    events: bool,
    status: PodStatus,
    attempts: std::collections::BTreeMap<String, u32>,
}

fn pod(spec: Value) -> Value {
    let mut spec = spec;
    for part in ["containers", "initContainers"] {
        for container in spec[part].as_array_mut().into_iter().flatten() {
            container["image"] = container.get("image").cloned().unwrap_or(json!("i"));
        }
    }
    json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 1}, "spec": spec, "status": {"phase": "Pending"}})
}

impl Script {
    fn new(spec: Value) -> Self {
        let config = Config { node_ips: Vec::new(), seed: 1 };
        Self {
            machine: PodMachine::new(config),
            pod: pod(spec),
            ms: 0,
            wake_at: None,
            said: String::new(),
            events: false,
            status: PodStatus::default(),
            attempts: std::collections::BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        let wall = Timestamp::from_millisecond(1_800_000_000_000 + i64::try_from(self.ms).unwrap()).unwrap();
        Now { mono: Duration::from_millis(self.ms), wall }
    }

    fn feed(&mut self, input: Input) -> Vec<Action> {
        let step = self.machine.step(input, self.now());
        if let Some(at) = step.wake_at {
            assert!(at > self.now().mono, "wakes at once: {:?}", self.machine.state());
        }
        self.wake_at = step.wake_at;
        for action in &step.actions {
            let text = describe(action);
            match action {
                Action::WriteStatus(status) => {
                    self.status = (**status).clone();
                    self.feed_quietly();
                }
                Action::Event(_) if !self.events => {}
                _ => {
                    self.said.push_str("    ");
                    self.said.push_str(&text);
                    self.said.push('\n');
                }
            }
        }
        step.actions
    }

    fn feed_quietly(&mut self) {
        let step = self.machine.step(Input::StatusWritten, self.now());
        self.wake_at = step.wake_at;
        for action in &step.actions {
            if !matches!(action, Action::WriteStatus(_)) {
                self.said.push_str(&format!("    {}\n", describe(action)));
            }
        }
    }

    fn note(&mut self, line: &str) {
        self.said.push_str(&format!("{line}\n"));
    }

    fn spec(&mut self) {
        self.pod["status"] = serde_json::to_value(&self.status).unwrap();
        let pod: Pod = serde_json::from_value(self.pod.clone()).unwrap();
        self.feed(Input::Spec(Arc::new(pod)));
    }

    /// Brings the Pod up to where containers start.
    fn up(&mut self) {
        self.note("up");
        self.spec();
        self.feed(Input::VolumesReady);
        self.feed(Input::SandboxReady { id: "s0".into(), ips: vec!["10.0.0.1".parse().unwrap()] });
    }

    fn image(&mut self, name: &str) {
        self.feed(Input::ImageReady {
            container: ContainerName(name.into()),
            image_id: "id".into(),
            image_ref: "ref".into(),
            size_bytes: 1,
            took: Duration::ZERO,
            waited: Duration::ZERO,
            present: true,
        });
    }

    /// The image is there, the container is created and started.
    fn start(&mut self, name: &str) {
        self.note(&format!("start {name}"));
        self.image(name);
        self.started(name);
    }

    fn id(&self, name: &str) -> String {
        format!("{name}{}", self.attempts.get(name).copied().unwrap_or_default())
    }

    fn started(&mut self, name: &str) {
        *self.attempts.entry(name.to_owned()).or_default() += 1;
        let (container, id) = (ContainerName(name.into()), self.id(name));
        self.feed(Input::Created { container: container.clone(), id: id.clone(), user: None });
        let at = self.now().wall;
        self.feed(Input::Started { container, id, at });
    }

    fn exit(&mut self, name: &str, code: i32) {
        self.note(&format!("exit {name} {code}"));
        let exit = exit(code, self.now().wall);
        self.feed(Input::Exited { container: ContainerName(name.into()), id: self.id(name), exit });
    }

    fn probe(&mut self, name: &str, probe: ProbeKind, success: bool) {
        self.note(&format!("probe {name} {probe:?} {success}"));
        let (container, id) = (ContainerName(name.into()), self.id(name));
        self.feed(Input::Probed { container, id, probe, success, output: "o".into() });
    }

    fn hook(&mut self, name: &str, hook: HookKind, good: bool) {
        self.note(&format!("hook {name} {hook:?} {good}"));
        let result = if good { Ok(()) } else { Err("broken".to_owned()) };
        self.feed(Input::HookDone { container: ContainerName(name.into()), id: self.id(name), hook, result });
    }

    fn delete(&mut self, grace: i64) {
        self.note(&format!("delete {grace}"));
        self.pod["metadata"]["deletionTimestamp"] = json!("2027-01-15T09:00:00Z");
        self.pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.pod["metadata"]["generation"] = json!(2);
        self.spec();
    }

    /// The node grants other amounts: `[(container, [request, limit] of processor, of memory)]`.
    fn grant(&mut self, amounts: &[(&str, [&str; 2], [&str; 2])]) {
        self.note(&format!("grant {amounts:?}"));
        self.size(amounts);
        let generation = self.pod["metadata"]["generation"].as_i64().unwrap() + 1;
        self.pod["metadata"]["generation"] = json!(generation);
        self.pod["status"] = serde_json::to_value(&self.status).unwrap();
        let pod: Pod = serde_json::from_value(self.pod.clone()).unwrap();
        self.feed(Input::Granted(Arc::new(pod)));
    }

    fn size(&mut self, amounts: &[(&str, [&str; 2], [&str; 2])]) {
        for (name, cpu, memory) in amounts {
            let all = self.pod["spec"].as_object_mut().unwrap();
            let all = all.iter_mut().filter(|(key, _)| key.ends_with("ontainers"));
            let all = all.flat_map(|(_, list)| list.as_array_mut().into_iter().flatten());
            for container in all.filter(|container| container["name"] == *name) {
                let of = |i: usize| json!({"cpu": cpu[i], "memory": memory[i]});
                container["resources"] = json!({"requests": of(0), "limits": of(1)});
            }
        }
    }

    fn resized(&mut self, result: Result<(), &str>) {
        self.note(&format!("resized {result:?}"));
        self.feed(Input::Resized(result.map_err(str::to_owned)));
    }

    /// What the status tells of a change.
    fn sizes(&mut self) {
        let conditions = self.status.conditions.iter().flatten().filter(|c| c.type_.starts_with("PodResize"));
        let mut said: Vec<_> = conditions
            .map(|c| format!("{} {:?} {:?} {:?}", c.type_, c.reason, c.message, c.observed_generation.unwrap()))
            .collect();
        for status in self.status.container_statuses.iter().flatten() {
            let has = serde_json::to_string(&status.resources).unwrap();
            let granted = serde_json::to_string(&status.allocated_resources).unwrap();
            said.push(format!("{} has {has} of {granted}", status.name));
        }
        said.push(format!("pod has {}", serde_json::to_string(&self.status.resources).unwrap()));
        self.said.push_str(&format!("  = {}\n", said.join("\n    ")));
    }

    /// Lets time pass, waking the machine when it asked for it.
    fn wait(&mut self, ms: u64) {
        self.note(&format!("wait {ms}"));
        let end = self.ms + ms;
        while let Some(at) = self.wake_at.map(|at| u64::try_from(at.as_millis()).unwrap() + 1).filter(|at| *at <= end) {
            self.ms = at;
            self.feed(Input::Woken);
        }
        self.ms = end;
    }

    /// What is left of an ended Pod goes.
    fn clear(&mut self) {
        self.note("clear");
        self.feed(Input::SandboxStopped);
        self.feed(Input::VolumesGone);
        self.feed(Input::SandboxRemoved);
        self.feed(Input::Removed);
    }

    fn show(&mut self) {
        let phase = self.status.phase.clone().unwrap_or_default();
        let lists = [&self.status.init_container_statuses, &self.status.container_statuses];
        let one = |status: &k8s_openapi::api::core::v1::ContainerStatus| {
            let state = serde_json::to_value(&status.state).unwrap();
            let (kind, said) = state.as_object().unwrap().iter().next().unwrap();
            let reason = said["reason"].as_str().map(|reason| format!(" {reason}")).unwrap_or_default();
            let code = said["exitCode"].as_i64().map(|code| format!(" {code}")).unwrap_or_default();
            let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
            let last =
                last.map(|last| format!(" (before: {} {})", last.reason.clone().unwrap_or_default(), last.exit_code));
            format!("{} {kind}{reason}{code}{} x{}", status.name, last.unwrap_or_default(), status.restart_count)
        };
        let all: Vec<_> = lists.into_iter().flatten().flatten().map(one).collect();
        self.said.push_str(&format!("  = {phase}: {}\n", all.join("; ")));
    }

    fn end(self, expected: Expect) {
        expected.assert_eq(&self.said);
    }
}

fn exit(code: i32, at: Timestamp) -> Exit {
    Exit {
        code,
        signal: 0,
        oom_killed: false,
        started_at: None,
        finished_at: at,
        message: String::new(),
        unknown: false,
    }
}

fn describe(action: &Action) -> String {
    match action {
        Action::EnsureImage { container, .. } => format!("image {}", container.0),
        Action::StartContainer { container, attempt, .. } => format!("start {} #{attempt}", container.0),
        Action::StopContainer { container, grace_period_ms, .. } => {
            format!("stop {} within {grace_period_ms}", container.0)
        }
        Action::RemoveContainer { id, .. } => format!("remove {id}"),
        Action::RunHook { container, hook, .. } => format!("hook {} {hook:?}", container.0),
        Action::StartProbes { container, .. } => format!("probe {}", container.0),
        Action::StopProbes { container, .. } => format!("do not probe {}", container.0),
        Action::Event(event) => format!("event {}: {}", event.reason, event.message),
        Action::Resize(resize) => {
            let of = |target: &Option<(ContainerName, String)>| match target {
                Some((name, _)) => name.0.clone(),
                None => "pod".to_owned(),
            };
            let bounds = resize.bounds.iter().map(|bound| format!("{} uses < {}", of(&bound.of), bound.limit_bytes));
            let steps = resize.steps.iter().map(|(target, limits)| {
                let mut step = of(target);
                let numbers = [limits.memory_limit_bytes, limits.cpu_quota_us, limits.cpu_shares.cast_signed()];
                for (name, number) in ["memory", "quota", "shares"].into_iter().zip(numbers) {
                    if number != 0 {
                        step.push_str(&format!(" {name} {number}"));
                    }
                }
                step
            });
            format!("resize {}", bounds.chain(steps).collect::<Vec<_>>().join(", "))
        }
        action => format!("{action:?}"),
    }
}

fn two_sidecars() -> Value {
    json!({"initContainers": [{"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"}],
        "containers": [{"name": "c"}]})
}

#[test]
fn sidecars_start_in_order_and_end_in_reverse() {
    let mut script = Script::new(two_sidecars());
    script.up();
    script.start("s1");
    script.start("s2");
    script.start("c");
    script.delete(10);
    script.wait(4000);
    script.exit("c", 0);
    script.exit("s2", 0);
    script.exit("s1", 0);
    script.clear();
    script.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image s1
        start s1
            start s1 #0
            image s2
        start s2
            start s2 #0
            image c
        start c
            start c #0
        delete 10
            stop c within 10000
        wait 4000
        exit c 0
            stop s2 within 6000
        exit s2 0
            stop s1 within 6000
        exit s1 0
            StopSandbox { id: "s0" }
        clear
            TearDownVolumes
            RemoveSandbox { id: "s0" }
            DeleteObject
            Finished
    "#]]);
}

#[test]
fn when_the_grace_period_is_used_up_each_sidecar_gets_two_seconds() {
    let mut script = Script::new(two_sidecars());
    script.up();
    script.start("s1");
    script.start("s2");
    script.start("c");
    script.delete(5);
    script.wait(6000);
    script.exit("c", 137);
    script.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image s1
        start s1
            start s1 #0
            image s2
        start s2
            start s2 #0
            image c
        start c
            start c #0
        delete 5
            stop c within 5000
        wait 6000
            stop s1 within 2000
            stop s2 within 2000
        exit c 137
    "#]]);
}

#[test]
fn a_sidecar_holds_up_the_next_until_it_has_started() {
    let probe = json!({"exec": {"command": ["x"]}, "failureThreshold": 2});
    let mut script =
        Script::new(json!({"initContainers": [{"name": "s", "restartPolicy": "Always", "startupProbe": probe}],
        "containers": [{"name": "c"}], "restartPolicy": "Never"}));
    script.up();
    script.start("s");
    script.probe("s", ProbeKind::Startup, false);
    script.show();
    script.probe("s", ProbeKind::Startup, false);
    script.exit("s", 0);
    script.start("s");
    script.probe("s", ProbeKind::Startup, true);
    script.start("c");
    // Beside main containers it restarts on its own.
    script.exit("s", 1);
    script.show();
    script.wait(20_000);
    script.show();
    script.exit("c", 0);
    script.show();
    script.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image s
        start s
            start s #0
            probe s
        probe s Startup false
          = Pending: s running x0; c waiting PodInitializing x0
        probe s Startup false
            stop s within 30000
        exit s 0
            do not probe s
            image s
        start s
            start s #1
            probe s
        probe s Startup true
            image c
        start c
            start c #0
        exit s 1
            do not probe s
          = Running: s terminated Error 1 (before: Completed 0) x1; c running x0
        wait 20000
            image s
          = Running: s waiting CrashLoopBackOff (before: Error 1) x1; c running x0
        exit c 0
            StopSandbox { id: "s0" }
          = Running: s waiting CrashLoopBackOff (before: Error 1) x1; c terminated Completed 0 x0
    "#]]);
}

#[test]
fn main_containers_wait_for_post_start() {
    let hook = json!({"postStart": {"exec": {"command": ["x"]}}});
    let mut script = Script::new(json!({"containers": [{"name": "a", "lifecycle": hook}, {"name": "b"}]}));
    script.up();
    script.image("b");
    script.start("a");
    script.hook("a", HookKind::PostStart, true);
    script.started("b");
    script.show();
    script.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image a
            image b
        start a
            start a #0
            hook a PostStart
        hook a PostStart true
            start b #0
          = Running: a running x0; b running x0
    "#]]);
}

#[test]
fn pre_stop_hooks_begin_together_and_count_within_the_grace_period() {
    let hook = json!({"preStop": {"exec": {"command": ["x"]}}});
    let mut script =
        Script::new(json!({"containers": [{"name": "a", "lifecycle": hook}, {"name": "b", "lifecycle": hook}]}));
    script.up();
    script.start("a");
    script.start("b");
    script.delete(10);
    script.wait(3000);
    script.hook("a", HookKind::PreStop, true);
    script.wait(8000);
    script.exit("a", 0);
    script.exit("b", 137);
    script.clear();
    script.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image a
            image b
        start a
            start a #0
        start b
            start b #0
        delete 10
            hook a PreStop
            hook b PreStop
        wait 3000
        hook a PreStop true
            stop a within 7000
        wait 8000
            stop b within 2000
        exit a 0
        exit b 137
            StopSandbox { id: "s0" }
        clear
            TearDownVolumes
            RemoveSandbox { id: "s0" }
            DeleteObject
            Finished
    "#]]);
}

#[test]
fn deleted_in_every_phase() {
    let next = |before: Script, note: &str| {
        let mut script = Script::new(json!({"containers": [{"name": "c"}]}));
        script.said = before.said;
        script.note(note);
        script
    };
    let mut script = next(Script::new(json!({"containers": []})), "before its volumes are there");
    script.spec();
    script.delete(30);
    script.clear();

    let mut script = next(script, "while its sandbox is made");
    script.spec();
    script.feed(Input::VolumesReady);
    script.delete(30);
    script.feed(Input::SandboxReady { id: "s".into(), ips: vec![] });
    script.clear();

    let mut script = next(script, "while its image is pulled");
    script.up();
    script.delete(30);
    script.image("c");
    script.clear();
    script.show();

    let mut script = next(script, "while its container is started");
    script.up();
    script.image("c");
    script.delete(30);
    script.started("c");
    script.exit("c", 0);
    script.clear();
    script.end(expect![[r#"
        before its volumes are there
            PrepareVolumes
        delete 30
            TearDownVolumes
        clear
            DeleteObject
            Finished
        while its sandbox is made
            PrepareVolumes
            CreateSandbox { attempt: 0 }
        delete 30
            StopSandbox { id: "s" }
        clear
            TearDownVolumes
            RemoveSandbox { id: "s" }
            DeleteObject
            Finished
        while its image is pulled
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image c
        delete 30
            StopSandbox { id: "s0" }
        clear
            TearDownVolumes
            RemoveSandbox { id: "s0" }
            DeleteObject
            Finished
          = Failed: c terminated ContainerStatusUnknown 137 x0
        while its container is started
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image c
            start c #0
        delete 30
            stop c within 30000
        exit c 0
            StopSandbox { id: "s0" }
        clear
            TearDownVolumes
            RemoveSandbox { id: "s0" }
            DeleteObject
            Finished
    "#]]);
}

#[test]
fn deleted_after_it_has_ended() {
    let mut script = Script::new(json!({"containers": [{"name": "c"}]}));
    script.pod["spec"]["restartPolicy"] = json!("Never");
    script.up();
    script.start("c");
    script.exit("c", 0);
    script.feed(Input::SandboxStopped);
    script.feed(Input::VolumesGone);
    script.show();
    script.delete(30);
    script.feed(Input::SandboxRemoved);
    script.feed(Input::Removed);
    script.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image c
        start c
            start c #0
        exit c 0
            StopSandbox { id: "s0" }
            TearDownVolumes
          = Succeeded: c terminated Completed 0 x0
        delete 30
            RemoveSandbox { id: "s0" }
            DeleteObject
            Finished
    "#]]);
}

#[test]
fn a_forced_deletion_still_ends_the_containers() {
    let mut script = Script::new(json!({"containers": [{"name": "c"}]}));
    script.up();
    script.start("c");
    script.delete(30);
    script.note("removed");
    script.feed(Input::Removed);
    script.exit("c", 137);
    script.feed(Input::SandboxStopped);
    script.feed(Input::VolumesGone);
    script.feed(Input::SandboxRemoved);
    script.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image c
        start c
            start c #0
        delete 30
            stop c within 30000
        removed
            stop c within 2000
        exit c 137
            StopSandbox { id: "s0" }
            TearDownVolumes
            RemoveSandbox { id: "s0" }
            Finished
    "#]]);
}

#[test]
fn a_lost_sandbox_runs_everything_again() {
    let spec = |policy: &str| json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}], "restartPolicy": policy});
    let mut script = Script::new(spec("Always"));
    script.up();
    script.start("i");
    script.exit("i", 0);
    script.start("c");
    script.note("the sandbox dies");
    script.feed(Input::SandboxDied { id: "s0".into() });
    script.exit("c", 137);
    script.feed(Input::SandboxStopped);
    script.show();
    script.feed(Input::SandboxReady { id: "s1".into(), ips: vec![] });
    script.start("i");
    script.show();
    script.exit("i", 0);
    script.start("c");
    script.show();

    let mut never = Script::new(spec("Never"));
    std::mem::swap(&mut never.said, &mut script.said);
    never.note("but not under Never");
    never.up();
    never.start("i");
    never.exit("i", 0);
    never.start("c");
    never.feed(Input::SandboxDied { id: "s0".into() });
    never.exit("c", 137);
    never.feed(Input::SandboxStopped);
    never.show();
    never.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image i
        start i
            start i #0
        exit i 0
            image c
        start c
            start c #0
        the sandbox dies
            StopSandbox { id: "s0" }
        exit c 137
            CreateSandbox { attempt: 1 }
          = Running: i terminated Completed 0 x0; c terminated Error 137 x0
            image i
        start i
            start i #1
          = Pending: i running (before: Completed 0) x1; c terminated Error 137 x0
        exit i 0
            image c
        start c
            start c #1
          = Running: i terminated Completed 0 (before: Completed 0) x1; c running (before: Error 137) x1
        but not under Never
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image i
        start i
            start i #0
        exit i 0
            image c
        start c
            start c #0
            StopSandbox { id: "s0" }
        exit c 137
            TearDownVolumes
          = Failed: i terminated Completed 0 x0; c terminated Error 137 x0
    "#]]);
}

#[test]
fn a_container_removed_at_the_runtime_is_made_again_at_once() {
    let mut script = Script::new(json!({"containers": [{"name": "c"}, {"name": "d"}]}));
    script.up();
    script.start("c");
    script.start("d");
    script.note("gone");
    let id = script.id("c");
    script.feed(Input::ContainerGone { container: ContainerName("c".into()), id });
    script.show();
    script.start("c");
    script.show();
    script.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image c
            image d
        start c
            start c #0
        start d
            start d #0
        gone
            image c
          = Running: c waiting ContainerCreating (before: ContainerStatusUnknown 137) x1; d running x0
        start c
            start c #1
          = Running: c running (before: ContainerStatusUnknown 137) x1; d running x0
    "#]]);
}

fn found(name: &str, id: &str, attempt: u32, exited: Option<Exit>) -> Found {
    Found {
        name: ContainerName(name.into()),
        id: id.into(),
        attempt,
        image_id: "id".into(),
        image_ref: "ref".into(),
        started_at: Some("2027-01-15T08:00:00Z".parse().unwrap()),
        exit: exited,
    }
}

#[test]
fn a_restart_of_minke_changes_nothing() {
    let probe = json!({"exec": {"command": ["x"]}});
    let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c", "readinessProbe": probe}]});
    let mut before = Script::new(spec.clone());
    before.up();
    before.start("i");
    before.exit("i", 0);
    before.start("c");
    before.exit("c", 1);
    before.start("c");
    before.probe("c", ProbeKind::Readiness, true);
    let status = before.status.clone();

    let mut script = Script::new(spec);
    script.status = status.clone();
    script.ms = 5000;
    script.note("minke is back");
    script.spec();
    let recovered = |containers| Input::Recovered {
        sandbox_id: "s0".into(),
        sandbox_ready: true,
        attempt: 0,
        ips: vec!["10.0.0.1".parse().unwrap()],
        containers,
    };
    // The init container's record is gone.
    let died = exit(1, "2027-01-15T08:00:00Z".parse().unwrap());
    script.feed(recovered(vec![found("c", "c1", 0, Some(died)), found("c", "c2", 1, None)]));
    script.feed(Input::VolumesReady);
    assert_eq!(script.status, status, "the status flips");
    script.show();
    script.note("c died meanwhile");
    let died = exit(3, "2027-01-15T08:00:03Z".parse().unwrap());
    let mut other = Script::new(script.pod["spec"].clone());
    other.status = status;
    std::mem::swap(&mut other.said, &mut script.said);
    other.ms = 5000;
    other.spec();
    other.feed(recovered(vec![
        found("i", "i1", 0, Some(exit(0, "2027-01-15T08:00:00Z".parse().unwrap()))),
        found("c", "c2", 1, Some(died)),
    ]));
    other.show();
    other.feed(Input::VolumesReady);
    other.attempts.insert("c".into(), 2);
    other.start("c");
    other.show();
    other.end(expect![[r#"
        minke is back
            PrepareVolumes
            probe c
          = Running: i terminated Completed 0 x0; c running (before: Error 1) x1
        c died meanwhile
            PrepareVolumes
          = Running: i terminated Completed 0 x0; c terminated Error 3 (before: Error 1) x1
            image c
        start c
            start c #2
            probe c
          = Running: i terminated Completed 0 x0; c running (before: Error 3) x2
    "#]]);
}

/// The API has the end of a start that failed, the runtime only what was created for it.
#[test]
fn a_sandbox_found_after_the_deletion_of_an_ended_pod_goes_first() {
    for alive in [false, true] {
        let mut script = Script::new(json!({"restartPolicy": "Never", "containers": [{"name": "c"}]}));
        script.status.phase = Some("Failed".into());
        script.delete(0);
        script.feed(Input::Recovered {
            sandbox_id: "s0".into(),
            sandbox_ready: alive,
            attempt: 0,
            ips: vec![],
            containers: vec![],
        });
        script.feed(Input::VolumesGone);
        assert!(script.said.contains("RemoveSandbox") && !script.said.contains("DeleteObject"), "{}", script.said);
        script.feed(Input::SandboxRemoved);
        assert!(script.said.contains("DeleteObject"), "{}", script.said);
    }
}

#[test]
fn a_failed_start_is_tried_again_after_restarts_of_minke() {
    let spec = json!({"restartPolicy": "OnFailure", "containers": [{"name": "c"}]});
    let mut before = Script::new(spec.clone());
    before.up();
    before.image("c");
    before.feed(Input::Created { container: ContainerName("c".into()), id: "c1".into(), user: None });
    before.feed(Input::StartFailed {
        container: ContainerName("c".into()),
        id: Some("c1".into()),
        reason: "RunContainerError",
        message: "not now".into(),
    });
    let back = |before: &mut Script| {
        let mut script = Script::new(spec.clone());
        std::mem::swap(&mut script.said, &mut before.said);
        script.status = before.status.clone();
        script.ms = before.ms + 5000;
        script.note("minke is back");
        script.spec();
        script.feed(Input::Recovered {
            sandbox_id: "s0".into(),
            sandbox_ready: true,
            attempt: 0,
            ips: vec![],
            containers: vec![Found { started_at: None, ..found("c", "c1", 0, None) }],
        });
        script.feed(Input::VolumesReady);
        script.show();
        script
    };
    // The first time the API has the reason, the second time only how it ended.
    let mut script = back(&mut before);
    let mut script = back(&mut script);
    script.attempts.insert("c".into(), 1);
    script.start("c");
    script.show();
    script.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image c
            start c #0
            image c
        minke is back
            PrepareVolumes
            remove c1
            image c
          = Running: c terminated StartError 128 x0
        minke is back
            PrepareVolumes
            remove c1
            image c
          = Running: c terminated StartError 128 x0
        start c
            start c #1
          = Running: c running (before: StartError 128) x1
    "#]]);
}

#[test]
fn after_a_reboot_everything_runs_again() {
    let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]});
    let mut before = Script::new(spec.clone());
    before.up();
    before.start("i");
    before.exit("i", 0);
    before.start("c");
    let mut script = Script::new(spec);
    script.status = before.status.clone();
    script.ms = 5000;
    script.spec();
    script.feed(Input::VolumesReady);
    script.show();
    script.feed(Input::SandboxReady { id: "s1".into(), ips: vec![] });
    script.start("i");
    script.exit("i", 0);
    script.start("c");
    script.show();
    script.end(expect![[r#"
            PrepareVolumes
            CreateSandbox { attempt: 1 }
          = Running: i terminated Completed 0 x0; c waiting PodInitializing (before: ContainerStatusUnknown 137) x1
            image i
        start i
            start i #1
        exit i 0
            image c
        start c
            start c #1
          = Running: i terminated Completed 0 (before: Completed 0) x1; c running (before: ContainerStatusUnknown 137) x1
    "#]]);
}

#[test]
fn pulls_back_off() {
    let mut script = Script::new(json!({"containers": [{"name": "c"}]}));
    script.events = true;
    script.up();
    for _ in 0..3 {
        script.feed(Input::ImageFailed {
            container: ContainerName("c".into()),
            volume: None,
            failure: PullFailure::Pull("no such image".into()),
        });
        script.show();
        script.wait(if script.ms == 0 { 16_000 } else { 60_000 });
        script.show();
    }
    script.note("another image");
    script.pod["spec"]["containers"][0]["image"] = json!("j");
    script.spec();
    script.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image c
            event Failed: Failed to pull image "i": no such image
            event Failed: Error: ErrImagePull
          = Pending: c waiting ErrImagePull x0
        wait 16000
            image c
          = Pending: c waiting ErrImagePull x0
            event Failed: Failed to pull image "i": no such image
            event Failed: Error: ErrImagePull
          = Pending: c waiting ErrImagePull x0
        wait 60000
            event BackOff: Back-off pulling image "i"
            event Failed: Error: ImagePullBackOff
            image c
          = Pending: c waiting ImagePullBackOff x0
            event Failed: Failed to pull image "i": no such image
            event Failed: Error: ErrImagePull
          = Pending: c waiting ErrImagePull x0
        wait 60000
            event BackOff: Back-off pulling image "i"
            event Failed: Error: ImagePullBackOff
            event BackOff: Back-off pulling image "i"
            event Failed: Error: ImagePullBackOff
            event BackOff: Back-off pulling image "i"
            event Failed: Error: ImagePullBackOff
            image c
          = Pending: c waiting ImagePullBackOff x0
        another image
    "#]]);
}

#[test]
fn a_deadline_is_kept_while_waiting() {
    let mut script = Script::new(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "c"}]}));
    script.events = true;
    script.spec();
    script.feed(Input::VolumesFailed { reason: "FailedMount", message: "no volume".into() });
    script.wait(61_000);
    script.feed(Input::VolumesGone);
    script.show();
    script.end(expect![[r#"
            PrepareVolumes
            event FailedMount: no volume
        wait 61000
            event DeadlineExceeded: Pod was active on the node longer than the specified deadline
            event DeadlineExceeded: Pod was active on the node longer than the specified deadline
            TearDownVolumes
          = Failed: c terminated ContainerStatusUnknown 137 x0
    "#]]);
}

#[test]
fn a_rejected_pod_fails_at_once() {
    let mut script = Script::new(json!({"containers": [{"name": "c"}]}));
    script.events = true;
    script.spec();
    script.feed(Input::Rejected { reason: "OutOfcpu".into(), message: "Node didn't have enough resource: cpu".into() });
    script.feed(Input::VolumesGone);
    let status = serde_json::to_string(&script.status).unwrap();
    script.note(&status);
    script.delete(30);
    script.feed(Input::Removed);
    script.end(expect![[r#"
            PrepareVolumes
            event OutOfcpu: Node didn't have enough resource: cpu
            TearDownVolumes
        {"message":"Pod was rejected: Node didn't have enough resource: cpu","observedGeneration":1,"phase":"Failed","reason":"OutOfcpu","startTime":"2027-01-15T08:00:00Z"}
        delete 30
            DeleteObject
            Finished
    "#]]);
}

#[test]
fn an_evicted_pod_ends_within_its_grace_and_says_why() {
    let mut script = Script::new(json!({"terminationGracePeriodSeconds": 600, "containers": [{"name": "c"}]}));
    script.up();
    script.start("c");
    script.events = true;
    let message = "The node was low on resource: memory. ";
    let condition = kubelet::eviction::condition(&Pod::default(), message, script.now().wall);
    script.feed(Input::Evicted { message: message.into(), grace_s: 1, condition: Some(condition) });
    script.feed(Input::Evicted { message: "again".into(), grace_s: 1, condition: None });
    script.exit("c", 137);
    script.feed(Input::SandboxStopped);
    let said = &script.said;
    assert!(said.contains("event Evicted: The node was low on resource: memory. \n"), "{said}");
    assert!(!said.contains("again"), "{said}");
    let within = said.lines().find_map(|line| line.trim().strip_prefix("stop c within ")?.parse::<u64>().ok());
    assert!(within.is_some_and(|ms| ms <= 2000), "{said}");
    let status = serde_json::to_value(&script.status).unwrap();
    assert_eq!(
        (&status["phase"], &status["reason"], &status["message"]),
        (&json!("Failed"), &json!("Evicted"), &json!(message))
    );
    let target = status["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "DisruptionTarget").unwrap();
    assert_eq!(target["reason"], "TerminationByKubelet");
}

fn sized(spec: Value, amounts: &[(&str, [&str; 2], [&str; 2])]) -> Script {
    let mut script = Script::new(spec);
    script.size(amounts);
    script.up();
    script.events = true;
    script
}

#[test]
fn a_growing_pod_grows_before_its_containers_and_a_shrinking_one_after_them() {
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let mut script = sized(two, &[("a", ["1", "1"], ["64Mi", "64Mi"]), ("b", ["1", "1"], ["64Mi", "64Mi"])]);
    script.start("a");
    script.start("b");
    script.feed(Input::StatusWritten);
    script.grant(&[("a", ["2", "3"], ["96Mi", "96Mi"]), ("b", ["500m", "500m"], ["32Mi", "48Mi"])]);
    script.sizes();
    script.resized(Ok(()));
    script.sizes();
    script.grant(&[("a", ["1", "1"], ["64Mi", "64Mi"])]);
    script.resized(Err("cannot decrease memory limits: it uses more"));
    script.sizes();
    script.wait(16_000);
    script.resized(Ok(()));
    script.sizes();
    script.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image a
            image b
        start a
            event Pulled: Container image "i" already present on machine and can be accessed by the pod
            start a #0
            event Created: Container created
            event Started: Container started
        start b
            event Pulled: Container image "i" already present on machine and can be accessed by the pod
            start b #0
            event Created: Container created
            event Started: Container started
        grant [("a", ["2", "3"], ["96Mi", "96Mi"]), ("b", ["500m", "500m"], ["32Mi", "48Mi"])]
            event ResizeStarted: Pod resize started: {"containers":[{"name":"a","resources":{"limits":{"cpu":"3","memory":"96Mi"},"requests":{"cpu":"2","memory":"96Mi"}}},{"name":"b","resources":{"limits":{"cpu":"500m","memory":"48Mi"},"requests":{"cpu":"500m","memory":"32Mi"}}}],"generation":2}
            resize b uses < 50331648, pod memory 150994944, b memory 50331648, a memory 100663296, pod quota 350000, pod shares 2560, b quota 50000 shares 512, a quota 300000 shares 2048
          = PodResizeInProgress None None 2
            a has {"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}} of {"cpu":"2","memory":"96Mi"}
            b has {"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}} of {"cpu":"500m","memory":"32Mi"}
            pod has {"limits":{"cpu":"2","memory":"128Mi"},"requests":{"cpu":"2","memory":"128Mi"}}
        resized Ok(())
            event ResizeCompleted: Pod resize completed: {"containers":[{"name":"a","resources":{"limits":{"cpu":"3","memory":"96Mi"},"requests":{"cpu":"2","memory":"96Mi"}}},{"name":"b","resources":{"limits":{"cpu":"500m","memory":"48Mi"},"requests":{"cpu":"500m","memory":"32Mi"}}}],"generation":2}
          = a has {"limits":{"cpu":"3","memory":"96Mi"},"requests":{"cpu":"2","memory":"96Mi"}} of {"cpu":"2","memory":"96Mi"}
            b has {"limits":{"cpu":"500m","memory":"48Mi"},"requests":{"cpu":"500m","memory":"32Mi"}} of {"cpu":"500m","memory":"32Mi"}
            pod has {"limits":{"cpu":"3500m","memory":"144Mi"},"requests":{"cpu":"2500m","memory":"128Mi"}}
        grant [("a", ["1", "1"], ["64Mi", "64Mi"])]
            event ResizeStarted: Pod resize started: {"containers":[{"name":"a","resources":{"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}}},{"name":"b","resources":{"limits":{"cpu":"500m","memory":"48Mi"},"requests":{"cpu":"500m","memory":"32Mi"}}}],"generation":3}
            resize pod uses < 117440512, a uses < 67108864, a memory 67108864, pod memory 117440512, a quota 100000 shares 1024, pod shares 1536, pod quota 150000
        resized Err("cannot decrease memory limits: it uses more")
            event ResizeError: Pod resize error: {"containers":[{"name":"a","resources":{"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}}},{"name":"b","resources":{"limits":{"cpu":"500m","memory":"48Mi"},"requests":{"cpu":"500m","memory":"32Mi"}}}],"generation":3,"error":"cannot decrease memory limits: it uses more"}
          = PodResizeInProgress Some("Error") Some("cannot decrease memory limits: it uses more") 3
            a has {"limits":{"cpu":"3","memory":"96Mi"},"requests":{"cpu":"2","memory":"96Mi"}} of {"cpu":"1","memory":"64Mi"}
            b has {"limits":{"cpu":"500m","memory":"48Mi"},"requests":{"cpu":"500m","memory":"32Mi"}} of {"cpu":"500m","memory":"32Mi"}
            pod has {"limits":{"cpu":"3500m","memory":"144Mi"},"requests":{"cpu":"2500m","memory":"128Mi"}}
        wait 16000
            resize pod uses < 117440512, a uses < 67108864, a memory 67108864, pod memory 117440512, a quota 100000 shares 1024, pod shares 1536, pod quota 150000
        resized Ok(())
            event ResizeCompleted: Pod resize completed: {"containers":[{"name":"a","resources":{"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}}},{"name":"b","resources":{"limits":{"cpu":"500m","memory":"48Mi"},"requests":{"cpu":"500m","memory":"32Mi"}}}],"generation":3}
          = a has {"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}} of {"cpu":"1","memory":"64Mi"}
            b has {"limits":{"cpu":"500m","memory":"48Mi"},"requests":{"cpu":"500m","memory":"32Mi"}} of {"cpu":"500m","memory":"32Mi"}
            pod has {"limits":{"cpu":"1500m","memory":"112Mi"},"requests":{"cpu":"1500m","memory":"96Mi"}}
    "#]]);
}

#[test]
fn a_container_whose_policy_says_so_is_restarted_with_its_new_size() {
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let one = json!({"containers": [{"name": "c", "resizePolicy": policy}], "restartPolicy": "OnFailure"});
    let mut script = sized(one, &[("c", ["1", "1"], ["64Mi", "64Mi"])]);
    script.start("c");
    script.grant(&[("c", ["2", "2"], ["64Mi", "64Mi"])]);
    script.resized(Ok(()));
    script.grant(&[("c", ["2", "2"], ["64Mi", "96Mi"])]);
    script.exit("c", 0);
    script.resized(Ok(()));
    script.start("c");
    script.sizes();
    script.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image c
        start c
            event Pulled: Container image "i" already present on machine and can be accessed by the pod
            start c #0
            event Created: Container created
            event Started: Container started
        grant [("c", ["2", "2"], ["64Mi", "64Mi"])]
            event ResizeStarted: Pod resize started: {"containers":[{"name":"c","resources":{"limits":{"cpu":"2","memory":"64Mi"},"requests":{"cpu":"2","memory":"64Mi"}}}],"generation":2}
            resize pod quota 200000, pod shares 2048, c quota 200000 shares 2048
        resized Ok(())
            event ResizeCompleted: Pod resize completed: {"containers":[{"name":"c","resources":{"limits":{"cpu":"2","memory":"64Mi"},"requests":{"cpu":"2","memory":"64Mi"}}}],"generation":2}
        grant [("c", ["2", "2"], ["64Mi", "96Mi"])]
            event ResizeStarted: Pod resize started: {"containers":[{"name":"c","resources":{"limits":{"cpu":"2","memory":"96Mi"},"requests":{"cpu":"2","memory":"64Mi"}}}],"generation":3}
            event Killing: Container c resize requires restart
            stop c within 30000
        exit c 0
            resize pod memory 100663296
            image c
        resized Ok(())
            event ResizeCompleted: Pod resize completed: {"containers":[{"name":"c","resources":{"limits":{"cpu":"2","memory":"96Mi"},"requests":{"cpu":"2","memory":"64Mi"}}}],"generation":3}
        start c
            event Pulled: Container image "i" already present on machine and can be accessed by the pod
            start c #1
            event Created: Container created
            event Started: Container started
          = c has {"limits":{"cpu":"2","memory":"96Mi"},"requests":{"cpu":"2","memory":"64Mi"}} of {"cpu":"2","memory":"64Mi"}
            pod has {"limits":{"cpu":"2","memory":"96Mi"},"requests":{"cpu":"2","memory":"64Mi"}}
    "#]]);
}

#[test]
fn what_cannot_be_granted_is_told_once() {
    let mut script = sized(json!({"containers": [{"name": "c"}]}), &[("c", ["1", "1"], ["64Mi", "64Mi"])]);
    script.start("c");
    let mut wanted = script.pod.clone();
    wanted["metadata"]["generation"] = json!(2);
    let wanted: Arc<Pod> = Arc::new(serde_json::from_value(wanted).unwrap());
    let pending = |used: u32| {
        let message = format!("Node didn't have enough resource: cpu, used: {used}");
        Input::Pending(Some(PendingResize { wanted: wanted.clone(), reason: "OutOfcpu".to_owned(), message }))
    };
    script.feed(pending(3));
    script.sizes();
    script.note("the same, and with another number");
    script.feed(pending(3));
    script.feed(pending(2));
    script.sizes();
    script.note("reverted");
    script.feed(Input::Pending(None));
    script.sizes();
    script.end(expect![[r#"
        up
            PrepareVolumes
            CreateSandbox { attempt: 0 }
            image c
        start c
            event Pulled: Container image "i" already present on machine and can be accessed by the pod
            start c #0
            event Created: Container created
            event Started: Container started
            event ResizeDeferred: Pod resize OutOfcpu: {"containers":[{"name":"c","resources":{"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}}}],"generation":2,"error":"Node didn't have enough resource: cpu, used: 3"}
          = PodResizePending Some("Deferred") Some("Node didn't have enough resource: cpu, used: 3") 2
            c has {"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}} of {"cpu":"1","memory":"64Mi"}
            pod has {"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}}
        the same, and with another number
          = PodResizePending Some("Deferred") Some("Node didn't have enough resource: cpu, used: 2") 2
            c has {"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}} of {"cpu":"1","memory":"64Mi"}
            pod has {"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}}
        reverted
          = c has {"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}} of {"cpu":"1","memory":"64Mi"}
            pod has {"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}}
    "#]]);
}

/// After a restart of minke a change goes on where it was.
#[test]
fn a_change_survives_a_restart() {
    let mut script = sized(json!({"containers": [{"name": "c"}]}), &[("c", ["1", "1"], ["64Mi", "64Mi"])]);
    script.start("c");
    script.grant(&[("c", ["1", "1"], ["96Mi", "96Mi"])]);
    let mut after = Script::new(json!({"containers": []}));
    (after.pod, after.status, after.attempts) = (script.pod.clone(), script.status.clone(), script.attempts.clone());
    after.events = true;
    after.spec();
    let found = Found {
        name: ContainerName("c".into()),
        id: "c1".into(),
        attempt: 0,
        image_id: "id".into(),
        image_ref: "ref".into(),
        started_at: Some(script.now().wall),
        exit: None,
    };
    after.feed(Input::Recovered {
        sandbox_id: "s0".into(),
        sandbox_ready: true,
        attempt: 0,
        ips: vec!["10.0.0.1".parse().unwrap()],
        containers: vec![found],
    });
    after.feed(Input::VolumesReady);
    after.sizes();
    after.resized(Ok(()));
    after.sizes();
    after.end(expect![[r#"
            PrepareVolumes
            resize pod memory 100663296, c memory 100663296
          = PodResizeInProgress None None 2
            c has {"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}} of {"cpu":"1","memory":"96Mi"}
            pod has {"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"1","memory":"64Mi"}}
        resized Ok(())
            event ResizeCompleted: Pod resize completed: {"containers":[{"name":"c","resources":{"limits":{"cpu":"1","memory":"96Mi"},"requests":{"cpu":"1","memory":"96Mi"}}}],"generation":2}
          = c has {"limits":{"cpu":"1","memory":"96Mi"},"requests":{"cpu":"1","memory":"96Mi"}} of {"cpu":"1","memory":"96Mi"}
            pod has {"limits":{"cpu":"1","memory":"96Mi"},"requests":{"cpu":"1","memory":"96Mi"}}
    "#]]);
}
