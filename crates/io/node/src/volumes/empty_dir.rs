//! emptyDir: a directory that lives as long as its Pod, on disk or in memory.

use super::{mounted, ownership};
use k8s_openapi::api::core::v1::{Pod, Volume};
use std::path::PathBuf;

/// One emptyDir as it should be.
pub(super) struct Request {
    path: PathBuf,
    /// A file `ready` stands here once the volume is made; what containers did to it since is theirs.
    ready: PathBuf,
    /// Unset: everybody's, on a tmpfs with the sticky bit.
    mode: Option<u32>,
    /// `Some`: a tmpfs of so many bytes at most.
    memory_bytes: Option<u64>,
    fs_group: Option<u32>,
}

const DEFAULT_MODE: u32 = 0o777;

impl Request {
    pub(super) fn new(
        pod: &Pod,
        volume: &Volume,
        path: PathBuf,
        ready: PathBuf,
        fs_group: Option<u32>,
    ) -> Result<Request, String> {
        let source = volume.empty_dir.clone().unwrap_or_default();
        let limit = source.size_limit.as_ref().and_then(kubelet::resources::value).unwrap_or_default();
        let memory_bytes = match source.medium.as_deref().unwrap_or_default() {
            "" => None,
            "Memory" => Some(memory_bytes(pod, u64::try_from(limit).unwrap_or_default())),
            medium if medium.starts_with("HugePages") => {
                return Err(format!("storage medium \"{medium}\" is not supported by minke yet"));
            }
            medium => return Err(format!("unknown storage medium \"{medium}\"")),
        };
        let mode = source.mode.and_then(|mode| u32::try_from(mode).ok());
        Ok(Request { path, ready, mode, memory_bytes, fs_group })
    }
}

/// The least of the node's memory, the Pod's limit and the volume's own (upstream `calculateEmptyDirMemorySize`).
fn memory_bytes(pod: &Pod, limit: u64) -> u64 {
    let pod_limit = u64::try_from(kubelet::resources::pod(pod).memory_limit_bytes).unwrap_or_default();
    let info = rustix::system::sysinfo();
    // A word's width differs between architectures.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    let node = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
    [limit, pod_limit].into_iter().filter(|bytes| *bytes > 0).fold(node, u64::min)
}

pub(super) fn prepare(request: &Request) -> Result<(), String> {
    let Request { path, ready, mode, memory_bytes, fs_group } = request;
    let marker = ready.join("ready");
    let is_there = match memory_bytes {
        None => path.is_dir(),
        Some(_) => mounted::is_mount_point(path)?,
    };
    if is_there && marker.exists() {
        return Ok(());
    }
    mounted::make_directory(path, mode.unwrap_or(DEFAULT_MODE))?;
    if let Some(bytes) = memory_bytes {
        mounted::tmpfs(path, *bytes)?;
        if let Some(mode) = mode {
            mounted::make_directory(path, *mode)?;
        }
    }
    if let Some(group) = fs_group {
        ownership::give(path, *group, false)?;
    }
    mounted::make_directory(ready, 0o750)?;
    std::fs::write(&marker, "").map_err(|e| format!("cannot write {}: {e}", marker.display()))
}
