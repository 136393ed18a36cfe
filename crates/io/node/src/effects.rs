//! Carries out one action of a Pod's machine and answers with the input that the action's comment names.

use crate::config::Config;
use crate::container::{self, Attempt, LABEL_CONTAINER};
use crate::{Shared, hooks, log_links, pull, register, resize, sources};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerUser, LinuxContainerUser, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kubelet::pod::{Action, ContainerName, Exit, Found, Input};
use runtime::types::{ContainerStatus, Mount, ProcessUser, Propagation, RuntimeError, SandboxConfig, SandboxStatus};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What a termination message may be at most, and how much of the log stands in for it (upstream
/// `kuberuntime_container.go`, `types.MaxContainerTerminationMessage*`).
const MESSAGE_BYTES: usize = 4096;
const MESSAGE_LOG_BYTES: usize = 2048;
const MESSAGE_LOG_LINES: usize = 80;

pub(crate) struct Effects {
    shared: Arc<Shared>,
    uid: String,
    outbox: mpsc::UnboundedSender<Input>,
}

impl Effects {
    pub(crate) fn new(shared: Arc<Shared>, uid: String, outbox: mpsc::UnboundedSender<Input>) -> Self {
        Self { shared, uid, outbox }
    }

    fn answer(&self, input: Input) {
        self.outbox.send(input).ok();
    }

    pub(crate) async fn carry_out(&self, action: Action, pod: &Arc<Pod>) {
        match action {
            Action::CreateSandbox { attempt } => self.create_sandbox(pod, attempt).await,
            Action::EnsureImage { container, image } => {
                self.answer(pull::ensure(&self.shared, pod, container, &image).await);
            }
            Action::StartContainer { container, attempt, image_id } => {
                self.start_container(pod, container, attempt, &image_id).await;
            }
            Action::StopContainer { container, id, grace_period_ms } => {
                if let Err(error) = self.shared.runtime.stop_container(&id, grace_period_ms).await {
                    match error {
                        RuntimeError::NotFound { .. } => self.answer(Input::ContainerGone { container, id }),
                        error => tracing::warn!(uid = self.uid, container = container.0, %error, "not stopped"),
                    }
                }
            }
            Action::RemoveContainer { container, id } => {
                self.shared.pods.forget_container(&id);
                if let Err(error) = self.shared.runtime.remove_container(&id).await {
                    tracing::warn!(uid = self.uid, container = container.0, %error, "dead container not removed");
                }
            }
            Action::Resize(resize) => {
                self.answer(Input::Resized(resize::carry_out(&self.shared, &self.uid, &resize).await));
            }
            Action::StopSandbox { id } => {
                if let Err(error) = self.shared.runtime.stop_sandbox(&id).await {
                    tracing::warn!(uid = self.uid, %error, "sandbox not stopped");
                }
                self.answer(Input::SandboxStopped);
            }
            Action::RemoveSandbox { id } => {
                if let Err(error) = self.shared.runtime.remove_sandbox(&id).await {
                    tracing::warn!(uid = self.uid, %error, "sandbox not removed");
                }
                self.answer(Input::SandboxRemoved);
            }
            Action::TearDownVolumes => {
                if let Err(error) = self.shared.volumes.tear_down(&self.uid).await {
                    tracing::warn!(uid = self.uid, error, "volumes not removed");
                }
                self.answer(Input::VolumesGone);
            }
            Action::RunHook { container, id, hook } => {
                let result = hooks::run_by_name(&self.shared, pod, &container.0, &id, hook).await;
                self.answer(Input::HookDone { container, id, hook, result });
            }
            // The worker does these itself: the prober and the volumes' task live as long as it.
            Action::PrepareVolumes
            | Action::StartProbes { .. }
            | Action::StopProbes { .. }
            | Action::DeleteObject
            | Action::WriteStatus(_)
            | Action::Event(_)
            | Action::Finished => {}
        }
    }

    /// Makes the Pod's directory and its volumes; idempotent.
    pub(crate) async fn prepare(&self, pod: &Pod) -> Result<(), crate::volumes::VolumeError> {
        let directory = self.shared.volumes.pod_directory(&self.uid);
        let made = tokio::fs::create_dir_all(&directory).await;
        made.map_err(|error| crate::volumes::VolumeError {
            reason: "FailedMount",
            message: format!("cannot make {}: {error}", directory.display()),
        })?;
        self.shared.volumes.prepare(pod).await
    }

    async fn create_sandbox(&self, pod: &Pod, attempt: u32) {
        let (logs, domain) = (&self.shared.config.pod_logs, &self.shared.config.cluster_domain);
        let config = match (container::sandbox(logs, domain, pod, attempt), self.runtime_handler(pod).await) {
            (Ok(config), Ok(runtime_handler)) => SandboxConfig { runtime_handler, ..config },
            (Err(message), _) | (_, Err(message)) => return self.answer(Input::SandboxFailed { message }),
        };
        match self.shared.runtime.run_sandbox(config).await {
            Ok(status) => {
                let ips = self.pod_ips(pod, status.ips);
                self.shared.pods.set_sandbox(&self.uid, &status.id, &ips);
                self.answer(Input::SandboxReady { id: status.id, ips });
            }
            Err(error) => self.answer(Input::SandboxFailed { message: error.to_string() }),
        }
    }

    /// Of the Pod's RuntimeClass (upstream `LookupRuntimeHandler`).
    async fn runtime_handler(&self, pod: &Pod) -> Result<String, String> {
        let class = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref());
        let Some(class) = class.filter(|class| !class.is_empty()) else { return Ok(String::new()) };
        let class = self.shared.client.get::<RuntimeClass>("", class).await;
        class.map(|class| class.handler.clone()).map_err(|error| error.to_string())
    }

    /// A Pod in the node's network has the node's addresses.
    fn pod_ips(&self, pod: &Pod, own: Vec<IpAddr>) -> Vec<IpAddr> {
        let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        if host_network { self.shared.config.addresses.clone() } else { own }
    }

    async fn start_container(&self, pod: &Pod, name: ContainerName, attempt: u32, image_id: &str) {
        let Some(container) = container::find(pod, &name.0) else {
            let message = format!("container {} is not in the Pod", name.0);
            return self.answer(Input::ConfigFailed { container: name, message });
        };
        let config = match self.configure(pod, &container, attempt, image_id).await {
            Ok(config) => config,
            Err(message) => return self.answer(Input::ConfigFailed { container: name, message }),
        };
        let sandbox_id = self.shared.pods.get(&self.uid).map(|entry| entry.sandbox_id).unwrap_or_default();
        let id = match self.shared.runtime.create_container(&sandbox_id, config).await {
            Ok(id) => id,
            Err(error) => {
                let message = error.to_string();
                let reason = "CreateContainerError";
                return self.answer(Input::StartFailed { container: name, id: None, reason, message });
            }
        };
        self.shared.pods.set_container(&self.uid, &name.0, &id);
        let status = self.shared.runtime.container_status(&id).await.ok();
        let user = status.and_then(|status| status.user).map(container_user);
        self.answer(Input::Created { container: name.clone(), id: id.clone(), user });
        match self.shared.runtime.start_container(&id).await {
            Ok(status) => {
                log_links::add(&self.shared.config, pod, &name.0, &id, attempt);
                self.answer(Input::Started { container: name, id, at: time(status.started_at_ns) });
            }
            Err(error) => {
                let message = error.to_string();
                let reason = "RunContainerError";
                self.answer(Input::StartFailed { container: name, id: Some(id), reason, message });
            }
        }
    }

    async fn configure(
        &self,
        pod: &Pod,
        container: &Container,
        attempt: u32,
        image_id: &str,
    ) -> Result<runtime::types::ContainerConfig, String> {
        let image = self.shared.runtime.image_status(image_id).await.map_err(|error| error.to_string())?;
        let image = image.ok_or_else(|| format!("image {image_id} is gone"))?;
        let ips = self.shared.pods.get(&self.uid).map(|entry| entry.ips).unwrap_or_default();
        let sources =
            sources::collect(&self.shared, pod, container, ips.clone()).await.map_err(|error| error.to_string())?;
        let environment = kubelet::env::environment(pod, container, &sources)?;
        let mut mounts = self.shared.volumes.mounts(pod, container, &environment).await?;
        let files = crate::podfiles::write(&self.shared, pod, container, attempt, &ips);
        add_files(&mut mounts, files.map_err(|error| error.to_string())?);
        let node_memory_bytes = register::memory_bytes();
        container::config(Attempt {
            pod,
            container,
            attempt,
            image: &image,
            sources: &sources,
            mounts,
            node_memory_bytes,
        })
    }

    /// What the runtime already has of this Pod, as an input; older sandboxes are removed.
    pub(crate) async fn recover(&self, mut sandboxes: Vec<SandboxStatus>, pod: &Pod) -> Option<Input> {
        sandboxes.sort_by_key(|sandbox| (sandbox.config.attempt, sandbox.created_at_ns));
        let newest = sandboxes.pop()?;
        for old in sandboxes {
            if let Err(error) = crate::pods::end_sandbox(&*self.shared.runtime, &old.id).await {
                tracing::warn!(uid = self.uid, sandbox = old.id, %error, "older sandbox not removed");
            }
        }
        let ips = self.pod_ips(pod, newest.ips);
        self.shared.pods.set_sandbox(&self.uid, &newest.id, &ips);
        let mut containers = Vec::new();
        for status in &newest.containers {
            self.shared.pods.set_container(&self.uid, &status.name, &status.id);
            containers.push(self.found(pod, status).await);
        }
        containers.sort_by_key(|found| found.attempt);
        Some(Input::Recovered {
            sandbox_id: newest.id,
            sandbox_ready: newest.ready,
            attempt: newest.config.attempt,
            ips,
            containers,
        })
    }

    async fn found(&self, pod: &Pod, status: &ContainerStatus) -> Found {
        let name = status.labels.get(LABEL_CONTAINER).unwrap_or(&status.name).clone();
        let started_at = (status.started_at_ns > 0).then(|| time(status.started_at_ns));
        let exit = match &status.exit {
            Some(found) => Some(exit(&self.shared, pod, &name, &status.id, found).await),
            None => None,
        };
        let image = self.shared.runtime.image_status(&status.image_id).await.ok().flatten();
        let image_ref = image.and_then(|image| image.repo_digests.first().cloned());
        Found {
            name: ContainerName(name),
            id: status.id.clone(),
            attempt: status.attempt,
            image_ref: image_ref.unwrap_or_else(|| status.image_id.clone()),
            image_id: status.image_id.clone(),
            started_at,
            exit,
        }
    }
}

/// Files replace what a volume mounts at the same place never: the user's mount wins.
fn add_files(mounts: &mut Vec<Mount>, files: Vec<(PathBuf, PathBuf)>) {
    for (host_path, container_path) in files {
        if !mounts.iter().any(|mount| mount.container_path == container_path) {
            mounts.push(Mount {
                container_path,
                host_path,
                readonly: false,
                recursive_readonly: false,
                propagation: Propagation::Private,
                image: None,
                image_sub_path: String::new(),
            });
        }
    }
}

fn time(ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn container_user(user: ProcessUser) -> ContainerUser {
    let supplemental_groups = user.supplemental_groups.into_iter().map(i64::from).collect();
    let linux = LinuxContainerUser {
        uid: user.uid.into(),
        gid: user.gid.into(),
        supplemental_groups: Some(supplemental_groups),
    };
    ContainerUser { linux: Some(linux) }
}

/// The runtime's exit as the machine wants it, with the termination message.
pub(crate) async fn exit(shared: &Shared, pod: &Pod, name: &str, id: &str, exit: &runtime::types::Exit) -> Exit {
    let status = shared.runtime.container_status(id).await.ok();
    let started_at = status.as_ref().map(|status| status.started_at_ns).filter(|ns| *ns > 0).map(time);
    let attempt = status.as_ref().map_or(0, |status| status.attempt);
    let message = match container::find(pod, name) {
        Some(container) => termination_message(shared, pod, &container, attempt, exit.code != 0),
        None => String::new(),
    };
    Exit {
        code: exit.code,
        // Upstream's runtimes tell a signal by the code alone.
        signal: 0,
        oom_killed: exit.oom_killed,
        started_at,
        finished_at: time(exit.finished_at_ns),
        message,
        unknown: exit.unknown,
    }
}

fn termination_message(shared: &Shared, pod: &Pod, container: &Container, attempt: u32, failed: bool) -> String {
    let path = crate::podfiles::termination_log(shared, pod, container, attempt);
    let mut bytes = std::fs::read(path).unwrap_or_default();
    // The end says more than the beginning; upstream keeps it too.
    bytes.drain(..bytes.len().saturating_sub(MESSAGE_BYTES));
    let fall_back = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if bytes.is_empty() && failed && fall_back {
        let log =
            container::log_directory(&shared.config.pod_logs, pod).join(&container.name).join(format!("{attempt}.log"));
        return crate::server::logs::tail(&log, MESSAGE_LOG_LINES, MESSAGE_LOG_BYTES);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The Pod is gone from the API: nobody can ask for its logs any more.
pub(crate) fn remove_logs(config: &Config, pod: &Pod) {
    remove_log_directory(config, &container::log_directory(&config.pod_logs, pod));
}

pub(crate) fn remove_log_directory(config: &Config, directory: &std::path::Path) {
    log_links::remove(config, directory);
    if let Err(error) = std::fs::remove_dir_all(directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %directory.display(), %error, "logs not removed");
    }
}
