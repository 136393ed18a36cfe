//! The files that every container finds without asking: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf` and the
//! termination log.

use crate::Shared;
use crate::container::hostname;
use k8s_openapi::api::core::v1::{Container, Pod};
use kubelet::files;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub(crate) struct PodFileError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Writes what is not there yet; returns host path and container path of each file.
pub(crate) fn write(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    ips: &[IpAddr],
) -> Result<Vec<(PathBuf, PathBuf)>, PodFileError> {
    let directory = shared.volumes.pod_directory(pod.metadata.uid.as_deref().unwrap_or_default());
    let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let node_hosts = if host_network { std::fs::read_to_string("/etc/hosts").ok() } else { None };
    let node_resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let domain = &shared.config.cluster_domain;
    let hosts = files::hosts(pod, &hostname(pod), domain, ips, node_hosts.as_deref());
    let resolv = files::resolv_conf(pod, &node_resolv, &shared.config.cluster_dns, domain);
    let mut mounts = Vec::new();
    for (name, path, content) in [
        ("etc-hosts", "/etc/hosts", hosts),
        ("hostname", "/etc/hostname", format!("{}\n", hostname(pod))),
        ("resolv.conf", "/etc/resolv.conf", resolv),
    ] {
        let file = directory.join(name);
        put(&file, &content, 0o644)?;
        mounts.push((file, PathBuf::from(path)));
    }
    let log = termination_log(shared, pod, container, attempt);
    put(&log, "", 0o666)?;
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    mounts.push((log, PathBuf::from(path)));
    Ok(mounts)
}

fn put(path: &Path, content: &str, mode: u32) -> Result<(), PodFileError> {
    if path.exists() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let written = std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(path, content))
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)));
    written.map_err(|source| PodFileError { path: path.to_owned(), source })
}

/// `pods/UID/containers/NAME/ATTEMPT`
pub(crate) fn termination_log(shared: &Shared, pod: &Pod, container: &Container, attempt: u32) -> PathBuf {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    shared.volumes.pod_directory(uid).join("containers").join(&container.name).join(attempt.to_string())
}
