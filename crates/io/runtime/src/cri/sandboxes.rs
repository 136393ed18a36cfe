//! Pod sandboxes, and what the runtime says of itself.

use super::find::{optional, selects};
use super::grpc::Refusal;
use super::v1::{
    CgroupDriver, LinuxRuntimeConfiguration, ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox,
    PodSandboxFilter, PodSandboxState, PodSandboxStatusRequest, PodSandboxStatusResponse, RemovePodSandboxRequest,
    RemovePodSandboxResponse, RunPodSandboxRequest, RunPodSandboxResponse, RuntimeCondition, RuntimeConfigRequest,
    RuntimeConfigResponse, RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures, RuntimeStatus, StatusRequest,
    StatusResponse, StopPodSandboxRequest, StopPodSandboxResponse, StreamPodSandboxesRequest,
    UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse, UpdateRuntimeConfigRequest,
    UpdateRuntimeConfigResponse, VersionRequest, VersionResponse,
};
use super::{Server, convert, tell};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The version of the API between kubelet and runtime (upstream `kubeAPIVersion`).
const KUBELET_API: &str = "0.1.0";

impl Server {
    pub(super) async fn version(&self, _: VersionRequest) -> Result<VersionResponse, Refusal> {
        Ok(VersionResponse {
            version: KUBELET_API.to_owned(),
            runtime_name: "minke".to_owned(),
            runtime_version: self.version.to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    pub(super) async fn status(&self, request: StatusRequest) -> Result<StatusResponse, Refusal> {
        // It serves, so it is ready; its network is made before it is.
        let ready = |kind: &str| RuntimeCondition { r#type: kind.to_owned(), status: true, ..Default::default() };
        let user_namespaces = shim::sys::kernel_version() >= crate::embedded::user_ranges::KERNEL;
        let features = RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces };
        let mut info = BTreeMap::new();
        if request.verbose {
            info.insert("config".to_owned(), json!({"version": self.version, "cgroupDriver": "cgroupfs"}).to_string());
        }
        Ok(StatusResponse {
            status: Some(RuntimeStatus { conditions: vec![ready("RuntimeReady"), ready("NetworkReady")] }),
            info,
            runtime_handlers: vec![RuntimeHandler { name: String::new(), features: Some(features) }],
            features: Some(RuntimeFeatures { supplemental_groups_policy: true, ..RuntimeFeatures::default() }),
        })
    }

    pub(super) async fn runtime_config(&self, _: RuntimeConfigRequest) -> Result<RuntimeConfigResponse, Refusal> {
        let cgroup_driver = CgroupDriver::Cgroupfs.into();
        Ok(RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver }) })
    }

    /// The ranges of Pods are the node's own to choose; containerd without a template for CNI does nothing, too.
    pub(super) async fn update_runtime_config(
        &self,
        _: UpdateRuntimeConfigRequest,
    ) -> Result<UpdateRuntimeConfigResponse, Refusal> {
        Ok(UpdateRuntimeConfigResponse {})
    }

    pub(super) async fn run_sandbox(&self, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse, Refusal> {
        let config = request.config.unwrap_or_default();
        let files = convert::files(&config);
        let sandbox = self.runtime.run_sandbox(convert::sandbox(config, request.runtime_handler)?).await?;
        let directory = self.directory.join(&sandbox.id);
        if let Err(error) = write(&directory, &files) {
            self.runtime.remove_sandbox(&sandbox.id).await?;
            return Err(Refusal::from(crate::types::RuntimeError::Failed(error.to_string())));
        }
        Ok(RunPodSandboxResponse { pod_sandbox_id: sandbox.id })
    }

    pub(super) async fn stop_sandbox(&self, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse, Refusal> {
        if let Some(sandbox) = optional(self.find_sandbox(&request.pod_sandbox_id).await)? {
            self.runtime.stop_sandbox(&sandbox.id).await?;
        }
        Ok(StopPodSandboxResponse {})
    }

    pub(super) async fn remove_sandbox(
        &self,
        request: RemovePodSandboxRequest,
    ) -> Result<RemovePodSandboxResponse, Refusal> {
        if let Some(sandbox) = optional(self.find_sandbox(&request.pod_sandbox_id).await)? {
            self.runtime.remove_sandbox(&sandbox.id).await?;
            let directory = self.directory.join(&sandbox.id);
            if directory.exists() {
                std::fs::remove_dir_all(&directory)
                    .map_err(|error| crate::types::RuntimeError::Failed(format!("{}: {error}", directory.display())))?;
            }
        }
        Ok(RemovePodSandboxResponse {})
    }

    pub(super) async fn sandbox_status(
        &self,
        request: PodSandboxStatusRequest,
    ) -> Result<PodSandboxStatusResponse, Refusal> {
        let sandbox = self.find_sandbox(&request.pod_sandbox_id).await?;
        let mut info = BTreeMap::new();
        if request.verbose {
            info.insert("info".to_owned(), json!({"config": sandbox.config}).to_string());
        }
        Ok(PodSandboxStatusResponse {
            status: Some(tell::sandbox_status(&sandbox)),
            info,
            containers_statuses: sandbox.containers.iter().map(|c| tell::container_status(c, None)).collect(),
            timestamp: shim::sys::now_ns(),
        })
    }

    pub(super) async fn list_sandboxes(
        &self,
        request: ListPodSandboxRequest,
    ) -> Result<ListPodSandboxResponse, Refusal> {
        Ok(ListPodSandboxResponse { items: self.chosen_sandboxes(request.filter.unwrap_or_default()).await? })
    }

    pub(super) async fn stream_sandboxes(
        &self,
        request: StreamPodSandboxesRequest,
    ) -> Result<Vec<PodSandbox>, Refusal> {
        self.chosen_sandboxes(request.filter.unwrap_or_default()).await
    }

    async fn chosen_sandboxes(&self, filter: PodSandboxFilter) -> Result<Vec<PodSandbox>, Refusal> {
        let PodSandboxFilter { id, state, label_selector } = filter;
        let id = match self.find_sandbox(&id).await {
            _ if id.is_empty() => None,
            Ok(sandbox) => Some(sandbox.id),
            Err(_) => return Ok(Vec::new()),
        };
        let all = self.sandboxes().await?.into_iter();
        let chosen = all.filter(|sandbox| {
            id.as_ref().is_none_or(|id| *id == sandbox.id)
                && state.is_none_or(|state| (state.state() == PodSandboxState::SandboxReady) == sandbox.ready)
                && selects(&label_selector, &sandbox.config.labels)
        });
        Ok(chosen.map(|sandbox| tell::sandbox(&sandbox)).collect())
    }

    pub(super) async fn update_sandbox(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse, Refusal> {
        let sandbox = self.find_sandbox(&request.pod_sandbox_id).await?;
        if let Some(resources) = request.resources {
            self.runtime.update_sandbox_resources(&sandbox.id, &convert::resources(resources)?).await?;
        }
        Ok(UpdatePodSandboxResourcesResponse {})
    }
}

fn write(directory: &Path, files: &[(&'static str, String)]) -> std::io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(directory)?;
    files.iter().try_for_each(|(name, text)| std::fs::write(directory.join(name), text))
}

/// The files of a sandbox that was made through CRI, and where containers see them.
pub(super) fn files_of(directory: &Path) -> Vec<(PathBuf, PathBuf)> {
    let files = convert::FILES.iter().map(|name| (directory.join(name), Path::new("/etc").join(name)));
    files.filter(|(file, _)| file.exists()).collect()
}
