//! A Pod's volumes on the node: `pods/UID/volumes/kubernetes.io~TYPE/NAME`, as below a kubelet's root.
//!
//! ```text
//! pods/UID/volumes/kubernetes.io~empty-dir/NAME     a directory, or a tmpfs
//! pods/UID/volumes/kubernetes.io~configmap/NAME     ..data -> ..2026_…/, KEY -> ..data/KEY
//! pods/UID/volumes/kubernetes.io~secret/NAME        the same on a tmpfs; so projected, downward-api
//! pods/UID/volume-subpaths/NAME/CONTAINER/INDEX     what a subPath means, bound
//! pods/UID/plugins/kubernetes.io~empty-dir/NAME/ready
//! ```

mod atomic;
mod empty_dir;
mod host_path;
mod mounted;
mod objects;
mod ownership;
mod payload;
mod subpath;
mod token;

pub use objects::{ObjectError, Objects, Token};

use client::typed::Client;
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use payload::Payload;
use runtime::types::{Mount, Propagation};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use token::Tokens;

/// Why a volume is not there: an event's reason and message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct VolumeError {
    /// `FailedMount`, …
    pub reason: &'static str,
    pub message: String,
}

/// Prepares and removes volumes of Pods of this node.
pub struct Volumes {
    pods: PathBuf,
    objects: Arc<dyn Objects>,
    /// What `resourceFieldRef` gives where the container sets no limit.
    allocatable: BTreeMap<String, String>,
    tokens: Tokens,
}

/// What is written into a volume of files, and how.
struct Written {
    payload: Payload,
    /// On a tmpfs, so that it never reaches the disk.
    in_memory: bool,
}

impl Volumes {
    pub fn new(data_dir: &Path, client: Client) -> Self {
        Self::with_objects(data_dir, Arc::new(client))
    }

    /// With another giver of ConfigMaps, Secrets and tokens than the API server.
    pub fn with_objects(data_dir: &Path, objects: Arc<dyn Objects>) -> Self {
        Self { pods: data_dir.join("pods"), objects, allocatable: BTreeMap::new(), tokens: Tokens::default() }
    }

    /// Tells what the node has for Pods: the value of a limit that is not set.
    #[must_use]
    pub fn allocatable(mut self, allocatable: BTreeMap<String, String>) -> Self {
        self.allocatable = allocatable;
        self
    }

    /// `pods/UID`
    pub fn pod_directory(&self, uid: &str) -> PathBuf {
        self.pods.join(uid)
    }

    /// Makes every volume of the Pod; idempotent. The first that fails is the error.
    pub async fn prepare(&self, pod: &Pod) -> Result<(), VolumeError> {
        for volume in volumes(pod) {
            let made = self.prepare_one(pod, volume).await;
            made.map_err(|words| VolumeError {
                reason: "FailedMount",
                message: format!("MountVolume.SetUp failed for volume \"{}\" : {words}", volume.name),
            })?;
        }
        Ok(())
    }

    /// Writes what ConfigMaps, Secrets, the Pod's metadata and tokens hold now into the prepared volumes; to be called when
    /// one of them changed. What fails leaves its volume as it was. Returns when a token will want renewal.
    pub async fn update(&self, pod: &Pod) -> (Option<Duration>, Vec<VolumeError>) {
        let mut problems = Vec::new();
        for volume in volumes(pod).filter(|volume| of_type(volume).is_ok_and(Type::is_written)) {
            if let Err(words) = self.prepare_one(pod, volume).await {
                let message = format!("MountVolume.SetUp failed for volume \"{}\" : {words}", volume.name);
                problems.push(VolumeError { reason: "FailedMount", message });
            }
        }
        (self.tokens.next_renewal(uid(pod)), problems)
    }

    /// How long until a token of the Pod wants renewal.
    pub fn next_renewal(&self, uid: &str) -> Option<Duration> {
        self.tokens.next_renewal(uid)
    }

    /// What `container` mounts of the prepared volumes. `environment` is for `subPathExpr`; the error is that of a
    /// `CreateContainerConfigError`.
    pub async fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        environment: &[(String, String)],
    ) -> Result<Vec<Mount>, String> {
        if container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()) {
            return Err("volumeDevices are not supported by minke yet".to_owned());
        }
        let mut mounts = Vec::new();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            mounts.push(self.mount(pod, container, index, mount, environment).await?);
        }
        Ok(mounts)
    }

    /// A file of a volume for a container's environment: where it lies on the node, and what it holds if it can be read. Symbolic
    /// links lead nowhere beyond the volume. `None`: there is no such volume.
    pub async fn file(&self, pod: &Pod, volume: &str, path: &str) -> Option<(String, Option<String>)> {
        let volume = volumes(pod).find(|one| one.name == volume)?;
        let root = self.path(pod, of_type(volume).ok()?, volume);
        let shown = root.join(path).display().to_string();
        let path = path.to_owned();
        let read = blocking(move || subpath::read(&root, &path)).await;
        Some((shown, read.ok()))
    }

    /// Unmounts and removes everything of the Pod; idempotent.
    pub async fn tear_down(&self, uid: &str) -> Result<(), String> {
        self.tokens.forget(uid);
        let directory = self.pod_directory(uid);
        blocking(move || {
            mounted::unmount_below(&directory)?;
            match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(format!("cannot remove {}: {error}", directory.display()))
                }
                _ => Ok(()),
            }
        })
        .await
    }

    async fn prepare_one(&self, pod: &Pod, volume: &Volume) -> Result<(), String> {
        let kind = of_type(volume)?;
        let path = self.path(pod, kind, volume);
        let fs_group = fs_group(pod);
        let written = match kind {
            // The runtime mounts it: it was pulled for the containers that want it.
            Type::Image => return Ok(()),
            Type::HostPath => {
                let source = volume.host_path.clone().unwrap_or_default();
                return blocking(move || host_path::check(&source)).await;
            }
            Type::EmptyDir => {
                let ready = self.plugin_directory(pod, volume);
                let request = empty_dir::Request::new(pod, volume, path, ready, fs_group)?;
                return blocking(move || empty_dir::prepare(&request)).await;
            }
            Type::ConfigMap => Written { payload: payload::config_map(self, pod, volume).await?, in_memory: false },
            Type::Secret => Written { payload: payload::secret(self, pod, volume).await?, in_memory: true },
            Type::DownwardApi => Written { payload: payload::downward_api(self, pod, volume)?, in_memory: true },
            Type::Projected => Written { payload: payload::projected(self, pod, volume).await?, in_memory: true },
        };
        let nested = nested_mountpoints(pod, &volume.name);
        let now = SystemTime::now();
        blocking(move || write(&path, &written, &nested, fs_group, now)).await
    }

    async fn mount(
        &self,
        pod: &Pod,
        container: &Container,
        index: usize,
        mount: &VolumeMount,
        environment: &[(String, String)],
    ) -> Result<Mount, String> {
        let volume = volumes(pod).find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| {
            format!("cannot find volume \"{}\" to mount into container \"{}\"", mount.name, container.name)
        })?;
        if mount.bind_mount_options.as_ref().is_some_and(|options| !options.is_empty()) {
            return Err(format!("bindMountOptions of volume mount \"{}\" are not supported by minke yet", mount.name));
        }
        let kind = of_type(volume)?;
        let mut host_path = match &volume.host_path {
            Some(source) => PathBuf::from(&source.path),
            None => self.path(pod, kind, volume),
        };
        let sub_path = subpath::of(mount, environment)?;
        if let Some(source) = &volume.image {
            return Ok(Mount {
                container_path: Path::new("/").join(&mount.mount_path),
                host_path: PathBuf::new(),
                readonly: true,
                recursive_readonly: recursive_read_only(mount)?,
                propagation: propagation(mount)?,
                image: source.reference.clone(),
                image_sub_path: sub_path,
            });
        }
        if !sub_path.is_empty() {
            let target = self.pod_directory(uid(pod)).join("volume-subpaths").join(&volume.name);
            let target = target.join(&container.name).join(index.to_string());
            let (name, container) = (mount.name.clone(), container.name.clone());
            let prepared = blocking(move || subpath::prepare(&host_path, &sub_path, &target).map(|()| target));
            // The reason would tell about the node's files: it is for the log.
            host_path = prepared.await.map_err(|words| {
                tracing::warn!(volume = name, container, words, "subPath not prepared");
                format!("failed to prepare subPath for volumeMount \"{name}\" of container \"{container}\"")
            })?;
        }
        let read_only = mount.read_only == Some(true);
        let mount_path = Path::new("/").join(&mount.mount_path);
        Ok(Mount {
            container_path: mount_path,
            host_path,
            readonly: read_only || kind.is_written(),
            recursive_readonly: recursive_read_only(mount)?,
            propagation: propagation(mount)?,
            image: None,
            image_sub_path: String::new(),
        })
    }

    fn path(&self, pod: &Pod, kind: Type, volume: &Volume) -> PathBuf {
        let of = format!("kubernetes.io~{}", kind.directory());
        self.pod_directory(uid(pod)).join("volumes").join(of).join(&volume.name)
    }

    fn plugin_directory(&self, pod: &Pod, volume: &Volume) -> PathBuf {
        self.pod_directory(uid(pod)).join("plugins/kubernetes.io~empty-dir").join(&volume.name)
    }
}

/// The types there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    EmptyDir,
    HostPath,
    ConfigMap,
    Secret,
    DownwardApi,
    Projected,
    Image,
}

impl Type {
    /// Whether it holds files written from the API's objects: always mounted read-only.
    fn is_written(self) -> bool {
        !matches!(self, Type::EmptyDir | Type::HostPath | Type::Image)
    }

    fn directory(self) -> &'static str {
        match self {
            Type::EmptyDir => "empty-dir",
            Type::HostPath => "host-path",
            Type::ConfigMap => "configmap",
            Type::Secret => "secret",
            Type::DownwardApi => "downward-api",
            Type::Projected => "projected",
            Type::Image => "image",
        }
    }
}

/// In-tree types that upstream removed, and what stands in for them.
const REMOVED: &[(&str, &str)] = &[
    ("gitRepo", "an init container that clones into an emptyDir"),
    ("glusterfs", "a CSI driver"),
    ("quobyte", "a CSI driver"),
    ("flocker", "a CSI driver"),
    ("storageos", "a CSI driver"),
    ("scaleIO", "a CSI driver"),
    ("photonPersistentDisk", "a CSI driver"),
    ("cephfs", "the CSI driver cephfs.csi.ceph.com"),
    ("rbd", "the CSI driver rbd.csi.ceph.com"),
    ("awsElasticBlockStore", "the CSI driver ebs.csi.aws.com"),
    ("azureDisk", "the CSI driver disk.csi.azure.com"),
    ("azureFile", "the CSI driver file.csi.azure.com"),
    ("cinder", "the CSI driver cinder.csi.openstack.org"),
    ("gcePersistentDisk", "the CSI driver pd.csi.storage.gke.io"),
    ("portworxVolume", "the CSI driver pxd.portworx.com"),
    ("vsphereVolume", "the CSI driver csi.vsphere.vmware.com"),
];

fn of_type(volume: &Volume) -> Result<Type, String> {
    let known = [
        (volume.host_path.is_some(), Type::HostPath),
        (volume.config_map.is_some(), Type::ConfigMap),
        (volume.secret.is_some(), Type::Secret),
        (volume.downward_api.is_some(), Type::DownwardApi),
        (volume.projected.is_some(), Type::Projected),
        (volume.empty_dir.is_some(), Type::EmptyDir),
        (volume.image.is_some(), Type::Image),
    ];
    if let Some((_, kind)) = known.into_iter().find(|(is, _)| *is) {
        return Ok(kind);
    }
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let name = fields.as_object().and_then(|fields| fields.keys().find(|key| *key != "name").cloned());
    let Some(name) = name else { return Ok(Type::EmptyDir) };
    Err(match REMOVED.iter().find(|(removed, _)| *removed == name) {
        Some((_, instead)) => format!("volumes of type {name} were removed from Kubernetes; use {instead}"),
        None => format!("volumes of type {name} are not supported by minke yet"),
    })
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    context.fs_group.and_then(|group| u32::try_from(group).ok())
}

/// Makes a volume of files, or brings it up to date.
fn write(
    path: &Path,
    written: &Written,
    nested: &[PathBuf],
    fs_group: Option<u32>,
    now: SystemTime,
) -> Result<(), String> {
    // Once it holds files, its mode may be the group's, too.
    if path.join(atomic::DATA).symlink_metadata().is_err() {
        mounted::make_directory(path, 0o777)?;
    }
    if written.in_memory {
        mounted::tmpfs(path, 0)?;
    }
    for directory in nested {
        let made = std::fs::create_dir_all(path.join(directory));
        made.map_err(|e| format!("unable to create nested volume mountpoints: {e}"))?;
    }
    atomic::write(path, &written.payload, now, |directory| match fs_group {
        Some(group) => ownership::give(directory, group, true),
        None => Ok(()),
    })
}

/// Where other volumes are mounted within this one by some container: `MakeNestedMountpoints` upstream.
fn nested_mountpoints(pod: &Pod, name: &str) -> Vec<PathBuf> {
    let spec = pod.spec.as_ref();
    let containers = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let mut nested = Vec::new();
    for container in containers {
        let mounts = || container.volume_mounts.iter().flatten();
        let whole =
            |mount: &&VolumeMount| mount.name == name && mount.sub_path.as_deref().unwrap_or_default().is_empty();
        for outer in mounts().filter(whole) {
            let inner = mounts().filter_map(|mount| Path::new(&mount.mount_path).strip_prefix(&outer.mount_path).ok());
            let plain = |path: &&Path| path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
            nested.extend(inner.filter(|path| !path.as_os_str().is_empty()).filter(plain).map(Path::to_owned));
        }
    }
    nested.sort();
    nested.dedup();
    nested
}

fn propagation(mount: &VolumeMount) -> Result<Propagation, String> {
    match mount.mount_propagation.as_deref() {
        None | Some("None" | "") => Ok(Propagation::Private),
        Some("HostToContainer") => Ok(Propagation::HostToContainer),
        Some("Bidirectional") => Ok(Propagation::Bidirectional),
        Some(other) => Err(format!("invalid MountPropagation mode: \"{other}\"")),
    }
}

/// Upstream `resolveRecursiveReadOnly`; the kernel can since 5.12.
fn recursive_read_only(mount: &VolumeMount) -> Result<bool, String> {
    let failed = |words: String| Err(format!("failed to resolve recursive read-only mode: {words}"));
    let name = &mount.name;
    let mode = mount.recursive_read_only.as_deref().unwrap_or_default();
    if matches!(mode, "" | "Disabled") {
        return Ok(false);
    }
    if mount.read_only != Some(true) {
        return failed(format!("volume \"{name}\" requested recursive read-only mode, but it is not read-only"));
    }
    match mount.mount_propagation.as_deref() {
        None | Some("None") => {}
        Some(other) => {
            return failed(format!(
                "volume \"{name}\" requested recursive read-only mode, but it is not compatible with propagation \"{other}\""
            ));
        }
    }
    match mode {
        "IfPossible" | "Enabled" => Ok(true),
        other => failed(format!("unknown recursive read-only mode \"{other}\"")),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(format!("a volume's work panicked: {error}")))
}

#[cfg(test)]
mod tests;
