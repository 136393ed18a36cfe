//! What a Pod's machine asks for, done at the fake runtime, with failures now and then.

use crate::node::Shared;
use crate::runtime::{Container, Sandbox};
use k8s_openapi::api::core::v1::Pod;
use kubelet::pod::{Action, ContainerName, Exit, Found, Input, PullFailure};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// Of anything that may fail.
const FAILS_PERCENT: u64 = 4;

pub(crate) struct Effects {
    shared: Arc<Shared>,
    uid: String,
    outbox: UnboundedSender<Input>,
    sandbox: Mutex<String>,
}

impl Effects {
    pub(crate) fn new(shared: Arc<Shared>, uid: String, outbox: UnboundedSender<Input>) -> Self {
        Self { shared, uid, outbox, sandbox: Mutex::default() }
    }

    fn answer(&self, input: Input) {
        self.outbox.send(input).ok();
    }

    fn sandbox(&self) -> std::sync::MutexGuard<'_, String> {
        self.sandbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn carry_out(&self, action: Action, pod: &Pod) {
        let sim = &self.shared.sim;
        let runtime = &sim.nodes[self.shared.number];
        tokio::time::sleep(sim.dice.millis(20)).await;
        let fails = sim.dice.percent(FAILS_PERCENT);
        match action {
            Action::PrepareVolumes => {
                if fails {
                    self.answer(Input::VolumesFailed { reason: "FailedMount", message: "not now".to_owned() });
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                self.answer(Input::VolumesReady);
            }
            Action::CreateSandbox { .. } if fails => {
                self.answer(Input::SandboxFailed { message: "not now".to_owned() });
            }
            Action::CreateSandbox { attempt } => {
                let sandbox = runtime.run_sandbox(sim, &self.uid, attempt);
                self.sandbox().clone_from(&sandbox.id);
                self.answer(Input::SandboxReady { id: sandbox.id, ips: vec![sandbox.ip] });
            }
            Action::EnsureImage { container, .. } if fails => {
                self.answer(Input::ImageFailed {
                    container,
                    volume: None,
                    failure: PullFailure::Pull("not now".to_owned()),
                });
            }
            Action::EnsureImage { container, image } => {
                let took = sim.dice.millis(1000);
                tokio::time::sleep(took).await;
                self.answer(Input::ImageReady {
                    container,
                    image_id: format!("id-of-{image}"),
                    image_ref: image,
                    size_bytes: 1,
                    took,
                    waited: took,
                    present: sim.dice.percent(50),
                });
            }
            Action::StartContainer { container, attempt, .. } => self.start(pod, container, attempt, fails).await,
            Action::StopContainer { container, id, grace_period_ms } => {
                if runtime.stop(sim, &id, Duration::from_millis(grace_period_ms)).is_err() {
                    self.answer(Input::ContainerGone { container, id });
                }
            }
            Action::RemoveContainer { id, .. } => runtime.remove(&id),
            Action::RunHook { container, id, hook } => {
                self.answer(Input::HookDone { container, id, hook, result: Ok(()) });
            }
            Action::Resize(_) if fails => self.answer(Input::Resized(Err("not now".to_owned()))),
            Action::Resize(_) => self.answer(Input::Resized(Ok(()))),
            Action::StopSandbox { id } => {
                runtime.stop_sandbox(sim, &id);
                self.answer(Input::SandboxStopped);
            }
            Action::RemoveSandbox { id } => {
                runtime.remove_sandbox(sim, &id);
                self.answer(Input::SandboxRemoved);
            }
            Action::TearDownVolumes => self.answer(Input::VolumesGone),
            Action::StartProbes { .. }
            | Action::StopProbes { .. }
            | Action::WriteStatus(_)
            | Action::DeleteObject
            | Action::Event(_)
            | Action::Finished => {}
        }
    }

    async fn start(&self, pod: &Pod, container: ContainerName, attempt: u32, fails: bool) {
        let sim = &self.shared.sim;
        let runtime = &sim.nodes[self.shared.number];
        let failed = |container, id, reason, message: &str| {
            self.answer(Input::StartFailed { container, id, reason, message: message.to_owned() });
        };
        let spec = pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        let image = spec.filter(|spec| spec.name == container.0).find_map(|spec| spec.image.clone());
        let ephemeral = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
        let image =
            image.or_else(|| ephemeral.filter(|spec| spec.name == container.0).find_map(|spec| spec.image.clone()));
        let (Some(image), sandbox) = (image, self.sandbox().clone()) else {
            return self.answer(Input::ConfigFailed { container, message: "no such container".to_owned() });
        };
        let Ok(id) = runtime.create(&sandbox, &container.0, attempt, &image) else {
            return failed(container, None, "CreateContainerError", "the sandbox is gone");
        };
        self.answer(Input::Created { container: container.clone(), id: id.clone(), user: None });
        tokio::time::sleep(sim.dice.millis(20)).await;
        if fails {
            return failed(container, Some(id), "RunContainerError", "not now");
        }
        match runtime.start(sim, &id) {
            Ok(at) => self.answer(Input::Started { container, id, at }),
            Err(_) => failed(container, Some(id), "RunContainerError", "the sandbox is gone"),
        }
    }

    /// What the runtime already has of this Pod; older sandboxes go.
    pub(crate) fn recover(&self, mut sandboxes: Vec<Sandbox>) -> Option<Input> {
        let sim = &self.shared.sim;
        let runtime = &sim.nodes[self.shared.number];
        sandboxes.sort_by_key(|sandbox| sandbox.attempt);
        let newest = sandboxes.pop()?;
        for old in sandboxes {
            runtime.remove_sandbox(sim, &old.id);
        }
        self.sandbox().clone_from(&newest.id);
        let mut containers: Vec<Found> = runtime
            .containers()
            .iter()
            .filter(|container| container.sandbox == newest.id)
            .map(|container| Found {
                name: ContainerName(container.name.clone()),
                id: container.id.clone(),
                attempt: container.attempt,
                image_id: format!("id-of-{}", container.image),
                image_ref: container.image.clone(),
                started_at: container.started_at,
                exit: exit(container),
            })
            .collect();
        containers.sort_by_key(|found| found.attempt);
        Some(Input::Recovered {
            sandbox_id: newest.id,
            sandbox_ready: newest.ready,
            attempt: newest.attempt,
            ips: vec![newest.ip],
            containers,
        })
    }
}

/// How a container ended, if it has.
pub(crate) fn exit(container: &Container) -> Option<Exit> {
    let exited = container.exit?;
    Some(Exit {
        code: exited.code,
        signal: 0,
        oom_killed: false,
        started_at: container.started_at,
        finished_at: exited.at,
        message: String::new(),
        unknown: false,
    })
}
