//! From what CRI asks to what the shim is told: the plan of a container, with containerd's rules and defaults.

mod devices;
mod labels;
mod mounts;
mod process;
mod seccomp;
mod users;

pub(super) use devices::rules as device_rules;
pub(super) use users::Users;

use super::Inner;
use super::container::Container;
use super::sandbox::Sandbox;
use crate::types::{ContainerConfig, NamespaceMode, ProcessUser, RuntimeError};
use shim::plan::{ContainerPlan, RootPlan};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A string for system calls. One with a zero byte inside, which no file or argument can have, ends there.
pub(super) fn c_string(text: impl AsRef<std::ffi::OsStr>) -> CString {
    let bytes = text.as_ref().as_bytes();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

/// What can be refused before anything is made.
pub(super) fn check(config: &ContainerConfig, image: &images::ImageConfig) -> Result<(), RuntimeError> {
    process::arguments(config, image)?;
    process::capabilities(&config.security)?;
    seccomp::program(&config.security)?;
    labels::apparmor(&config.security)?;
    Ok(())
}

/// The signal that asks it to end: the Pod's, the image's, SIGTERM.
pub(super) fn stop_signal(config: &str, image: &str) -> i32 {
    [config, image].into_iter().find_map(process::signal).unwrap_or(libc::SIGTERM)
}

/// Whom the container's process will run as.
pub(super) fn user(
    inner: &Inner,
    config: &ContainerConfig,
    image: &images::Image,
) -> Result<ProcessUser, RuntimeError> {
    let users = users::of_image(inner, image)?;
    let user = users.resolve(&config.security, &image.config.user).map_err(RuntimeError::Failed)?;
    Ok(ProcessUser { uid: user.uid, gid: user.gid, supplemental_groups: user.groups })
}

pub(super) fn plan(
    inner: &Inner,
    sandbox: &Sandbox,
    container: &Container,
    image: &images::Image,
) -> Result<ContainerPlan, RuntimeError> {
    let config = &container.config;
    let users = users::of_image(inner, image)?;
    let mut namespaces = libc::CLONE_NEWNS as u64 | libc::CLONE_NEWCGROUP as u64;
    if sandbox.config.pid == NamespaceMode::Container {
        namespaces |= libc::CLONE_NEWPID as u64;
    }
    let path = |path: &Path| c_string(path);
    let paths = |paths: &[String]| -> Vec<CString> {
        if config.security.privileged { Vec::new() } else { paths.iter().map(c_string).collect() }
    };
    Ok(ContainerPlan {
        id: container.id.clone(),
        process: process::plan(sandbox, config, &image.config, &users)?,
        namespaces,
        root: RootPlan {
            lower: image.layers.iter().rev().map(|layer| path(layer)).collect(),
            upper: path(&container.dir.join("upper")),
            work: path(&container.dir.join("work")),
            directory: CString::default(),
            readonly: config.security.readonly_rootfs,
            propagation: 0,
        },
        mounts: mounts::plan(inner, sandbox, container)?,
        devices: devices::plan(config)?,
        masked_paths: paths(&config.security.masked_paths),
        readonly_paths: paths(&config.security.readonly_paths),
        cgroup: inner.hierarchies.plan(&container.cgroup(sandbox)),
        directory: path(&container.dir),
        log: path(&sandbox.config.log_directory.join(&config.log_path)),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        kill_leftover: sandbox.config.pid != NamespaceMode::Container,
        hostname: CString::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A container of which nothing is asked.
    pub(super) fn config() -> ContainerConfig {
        ContainerConfig { name: "c".into(), log_path: "c/0.log".into(), ..ContainerConfig::default() }
    }

    #[test]
    fn the_pod_stops_before_the_image_does() {
        assert_eq!(stop_signal("SIGUSR1", "SIGQUIT"), libc::SIGUSR1);
        assert_eq!(stop_signal("", "SIGQUIT"), libc::SIGQUIT);
        assert_eq!(stop_signal("", ""), libc::SIGTERM);
    }
}
