//! The files that every container finds without asking: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf` and the
//! termination log.

use crate::Shared;
use k8s_openapi::api::core::v1::{Container, Pod};
use kubelet::files;
use kubelet::pod::PodEvent;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub(crate) struct PodFileError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Writes them for a start of `container`; returns host path and container path of each file. `/etc/hosts` is written at
/// every start, as upstream does: a Pod's new sandbox has other addresses.
pub(crate) fn write(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    ips: &[IpAddr],
) -> Result<Vec<(PathBuf, PathBuf)>, PodFileError> {
    let directory = shared.volumes.pod_directory(pod.metadata.uid.as_deref().unwrap_or_default());
    let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let node_hosts = if host_network { Some(read(Path::new("/etc/hosts"))?) } else { None };
    let domain = &shared.config.cluster_domain;
    let hosts = files::hosts(pod, &files::hostname(pod), domain, ips, node_hosts.as_deref());
    // The node's UTS namespace is the Pod's, too.
    let hostname = if host_network {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        files::kernel_hostname(pod, domain).unwrap_or_else(|_| files::hostname(pod))
    };
    let (hosts_file, hostname_file, resolv_file) =
        (directory.join("etc-hosts"), directory.join("hostname"), directory.join("resolv.conf"));
    overwrite(&hosts_file, &hosts, 0o644)?;
    put(&hostname_file, &format!("{hostname}\n"), 0o644)?;
    if !resolv_file.exists() {
        let (resolv, problems) = files::resolv_conf(pod, &node_resolv_conf()?, &shared.config.cluster_dns, domain);
        overwrite(&resolv_file, &resolv, 0o644)?;
        for message in problems {
            let event =
                PodEvent { warning: true, reason: "DNSConfigForming".into(), message, field_path: String::new() };
            shared.events.pod(&Arc::new(pod.clone()), &event);
        }
    }
    let mut mounts: Vec<_> =
        [(hosts_file, "/etc/hosts"), (hostname_file, "/etc/hostname"), (resolv_file, "/etc/resolv.conf")]
            .map(|(file, path)| (file, PathBuf::from(path)))
            .into();
    let log = termination_log(shared, pod, container, attempt);
    put(&log, "", 0o666)?;
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    mounts.push((log, PathBuf::from(path)));
    Ok(mounts)
}

/// The node's; where that names only systemd-resolved's stub, which no Pod reaches, the servers behind it.
fn node_resolv_conf() -> Result<String, PodFileError> {
    let own = read(Path::new("/etc/resolv.conf"))?;
    let is_stub = own.lines().any(|line| line.split_whitespace().eq(["nameserver", "127.0.0.53"]));
    let real = is_stub.then(|| std::fs::read_to_string("/run/systemd/resolve/resolv.conf").ok()).flatten();
    Ok(real.unwrap_or(own))
}

/// A node without the file is as one where it is empty.
fn read(path: &Path) -> Result<String, PodFileError> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        result => result.map_err(|source| PodFileError { what: "read", path: path.to_owned(), source }),
    }
}

/// Unless it is there.
fn put(path: &Path, content: &str, mode: u32) -> Result<(), PodFileError> {
    if path.exists() { Ok(()) } else { overwrite(path, content, mode) }
}

/// In place: containers that run have the file mounted.
fn overwrite(path: &Path, content: &str, mode: u32) -> Result<(), PodFileError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let written = std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(path, content))
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)));
    written.map_err(|source| PodFileError { what: "write", path: path.to_owned(), source })
}

/// `pods/UID/containers/NAME/ATTEMPT`
pub(crate) fn termination_log(shared: &Shared, pod: &Pod, container: &Container, attempt: u32) -> PathBuf {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    shared.volumes.pod_directory(uid).join("containers").join(&container.name).join(attempt.to_string())
}
