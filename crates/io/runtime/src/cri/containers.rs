//! Containers.

use super::find::{optional, selects};
use super::grpc::{Code, Refusal};
use super::sandboxes::files_of;
use super::v1::{
    Container, ContainerFilter, ContainerStatusRequest, ContainerStatusResponse, CreateContainerRequest,
    CreateContainerResponse, ExecSyncRequest, ExecSyncResponse, ListContainersRequest, ListContainersResponse,
    RemoveContainerRequest, RemoveContainerResponse, ReopenContainerLogRequest, ReopenContainerLogResponse,
    StartContainerRequest, StartContainerResponse, StopContainerRequest, StopContainerResponse,
    StreamContainersRequest, UpdateContainerResourcesRequest, UpdateContainerResourcesResponse,
};
use super::{Server, convert, tell};
use crate::types::{ContainerState, Mount, Propagation, RuntimeEvent};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// What ExecSync keeps of each stream at most (CVE-2022-1708).
const KEPT_BYTES: usize = 16 << 20;

impl Server {
    pub(super) async fn create_container(
        &self,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse, Refusal> {
        let sandbox = self.find_sandbox(&request.pod_sandbox_id).await?;
        let config = request.config.unwrap_or_default();
        let name = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let image = self.runtime.image_status(&name).await?;
        let image = image
            .ok_or_else(|| Refusal::new(Code::NotFound, format!("failed to resolve image {name:?}: not found")))?;
        convert::check_privileged(&config, request.sandbox_config.as_ref())?;
        let mut config = convert::container(config, &sandbox.config)?;
        config.image_id = image.id;
        for (host_path, container_path) in files_of(&self.directory.join(&sandbox.id)) {
            if !config.mounts.iter().any(|mount| mount.container_path == container_path) {
                config.mounts.push(Mount {
                    container_path,
                    host_path,
                    readonly: config.security.readonly_rootfs,
                    recursive_readonly: false,
                    propagation: Propagation::Private,
                    image: None,
                    image_sub_path: String::new(),
                });
            }
        }
        Ok(CreateContainerResponse { container_id: self.runtime.create_container(&sandbox.id, config).await? })
    }

    pub(super) async fn start_container(
        &self,
        request: StartContainerRequest,
    ) -> Result<StartContainerResponse, Refusal> {
        let container = self.find_container(&request.container_id).await?;
        self.runtime.start_container(&container.id).await?;
        Ok(StartContainerResponse {})
    }

    /// Returns when it has ended.
    pub(super) async fn stop_container(&self, request: StopContainerRequest) -> Result<StopContainerResponse, Refusal> {
        let Some(container) = optional(self.find_container(&request.container_id).await)? else {
            return Ok(StopContainerResponse {});
        };
        let mut events = self.runtime.events();
        let grace_period_s = u64::try_from(request.timeout).unwrap_or_default();
        self.runtime.stop_container(&container.id, grace_period_s.saturating_mul(1000)).await?;
        loop {
            match optional(self.runtime.container_status(&container.id).await.map_err(Refusal::from))? {
                Some(status) if status.state == ContainerState::Running => {}
                _ => return Ok(StopContainerResponse {}),
            }
            ended(&mut events, &container.id).await?;
        }
    }

    pub(super) async fn remove_container(
        &self,
        request: RemoveContainerRequest,
    ) -> Result<RemoveContainerResponse, Refusal> {
        if let Some(container) = optional(self.find_container(&request.container_id).await)? {
            self.runtime.remove_container(&container.id).await?;
        }
        Ok(RemoveContainerResponse {})
    }

    pub(super) async fn container_status(
        &self,
        request: ContainerStatusRequest,
    ) -> Result<ContainerStatusResponse, Refusal> {
        let container = self.find_container(&request.container_id).await?;
        let mut info = BTreeMap::new();
        if request.verbose {
            let text = json!({
                "sandboxID": container.sandbox_id,
                "pid": container.pid.unwrap_or_default(),
                "config": *container.config,
            });
            info.insert("info".to_owned(), text.to_string());
        }
        let image = self.runtime.image_status(&container.image_id).await?;
        Ok(ContainerStatusResponse { status: Some(tell::container_status(&container, image.as_ref())), info })
    }

    pub(super) async fn list_containers(
        &self,
        request: ListContainersRequest,
    ) -> Result<ListContainersResponse, Refusal> {
        Ok(ListContainersResponse { containers: self.chosen_containers(request.filter.unwrap_or_default()).await? })
    }

    pub(super) async fn stream_containers(&self, request: StreamContainersRequest) -> Result<Vec<Container>, Refusal> {
        self.chosen_containers(request.filter.unwrap_or_default()).await
    }

    async fn chosen_containers(&self, filter: ContainerFilter) -> Result<Vec<Container>, Refusal> {
        let ContainerFilter { id, state, pod_sandbox_id, label_selector } = filter;
        let id = match self.find_container(&id).await {
            _ if id.is_empty() => None,
            Ok(container) => Some(container.id),
            Err(_) => return Ok(Vec::new()),
        };
        let sandboxes = self.sandboxes().await?;
        let sandboxes = sandboxes.into_iter().filter(|sandbox| sandbox.id.starts_with(&pod_sandbox_id));
        let chosen = sandboxes.flat_map(|sandbox| sandbox.containers).filter(|container| {
            id.as_ref().is_none_or(|id| *id == container.id)
                && state.is_none_or(|state| state.state() == tell::state(container.state))
                && selects(&label_selector, &container.labels)
        });
        Ok(chosen.map(|container| tell::container(&container)).collect())
    }

    pub(super) async fn update_container(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse, Refusal> {
        if request.windows.is_some() {
            return Err(Refusal::unimplemented("windows"));
        }
        let container = self.find_container(&request.container_id).await?;
        if let Some(resources) = request.linux {
            self.runtime.update_container_resources(&container.id, &convert::resources(resources)?).await?;
        }
        Ok(UpdateContainerResourcesResponse {})
    }

    pub(super) async fn reopen_log(
        &self,
        request: ReopenContainerLogRequest,
    ) -> Result<ReopenContainerLogResponse, Refusal> {
        let container = self.find_container(&request.container_id).await?;
        if container.state != ContainerState::Running {
            return Err(Refusal::new(Code::Unknown, "container is not running"));
        }
        self.runtime.reopen_log(&container.id).await?;
        Ok(ReopenContainerLogResponse {})
    }

    /// One that takes too long is killed.
    pub(super) async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse, Refusal> {
        let container = self.find_container(&request.container_id).await?;
        let failed = |error| {
            let refusal = Refusal::from(error);
            Refusal { message: format!("failed to exec in container: {}", refusal.message), ..refusal }
        };
        let run = crate::exec::run(&*self.runtime, &container.id, &request.cmd, KEPT_BYTES);
        let output = match u64::try_from(request.timeout) {
            Ok(seconds @ 1..) => tokio::time::timeout(Duration::from_secs(seconds), run).await.map_err(|_| {
                let message =
                    format!("failed to exec in container: timeout {seconds}s exceeded: context deadline exceeded");
                Refusal::new(Code::DeadlineExceeded, message)
            })?,
            _ => run.await,
        };
        let crate::exec::Output { code, stdout, stderr } = output.map_err(failed)?;
        Ok(ExecSyncResponse { stdout: stdout.into(), stderr: stderr.into(), exit_code: code })
    }
}

/// Waits until the container has ended or is not there any more.
async fn ended(events: &mut tokio::sync::mpsc::UnboundedReceiver<RuntimeEvent>, id: &str) -> Result<(), Refusal> {
    loop {
        match events.recv().await {
            Some(
                RuntimeEvent::ContainerExited { container_id, .. }
                | RuntimeEvent::ContainerRemoved { container_id, .. },
            ) if container_id == id => return Ok(()),
            Some(_) => {}
            None => return Err(Refusal::new(Code::Internal, "the runtime ended")),
        }
    }
}
