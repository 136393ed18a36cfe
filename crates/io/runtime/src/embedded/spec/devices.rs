//! Device nodes, and the rules of the group that say which may be used.

use super::c_string;
use crate::types::{ContainerConfig, RuntimeError};
use shim::plan::DevicePlan;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What every container has.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

pub(super) fn plan(config: &ContainerConfig) -> Result<Vec<DevicePlan>, RuntimeError> {
    let mut devices: Vec<DevicePlan> = DEFAULT
        .iter()
        .map(|(path, major, minor)| DevicePlan {
            path: c_string(path),
            mode: libc::S_IFCHR | 0o666,
            major: *major,
            minor: *minor,
            uid: 0,
            gid: 0,
        })
        .collect();
    if config.security.privileged {
        host_devices(Path::new("/dev"), &mut devices);
    }
    for (host, container, _) in &config.devices {
        for (found, device) in below(host, container)? {
            devices.retain(|d| d.path != device.path);
            tracing::debug!(host = %found.display(), "device");
            devices.push(device);
        }
    }
    Ok(devices)
}

/// A device, or each device in a directory.
fn below(host: &Path, container: &Path) -> Result<Vec<(std::path::PathBuf, DevicePlan)>, RuntimeError> {
    let error = |e: std::io::Error| RuntimeError::Failed(format!("device {}: {e}", host.display()));
    let metadata = std::fs::metadata(host).map_err(error)?;
    if metadata.is_dir() {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(host).map_err(error)?.flatten() {
            if let Some(device) = node(&entry.path(), &container.join(entry.file_name())) {
                found.push((entry.path(), device));
            }
        }
        return Ok(found);
    }
    let device = node(host, container);
    device
        .map(|device| vec![(host.to_owned(), device)])
        .ok_or_else(|| RuntimeError::Failed(format!("{}: not a device node", host.display())))
}

fn node(host: &Path, container: &Path) -> Option<DevicePlan> {
    let metadata = std::fs::metadata(host).ok()?;
    let kind = metadata.file_type();
    if !kind.is_char_device() && !kind.is_block_device() {
        return None;
    }
    Some(DevicePlan {
        path: c_string(container),
        mode: metadata.mode(),
        major: libc::major(metadata.rdev()),
        minor: libc::minor(metadata.rdev()),
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// All of the host's, but for terminals and what a container has of its own.
fn host_devices(dir: &Path, devices: &mut Vec<DevicePlan>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if kind.is_dir() {
            let skip = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
            if !skip.iter().any(|name| entry.file_name() == *name) {
                host_devices(&path, devices);
            }
        } else if (kind.is_char_device() || kind.is_block_device())
            && entry.file_name() != "console"
            && let Some(device) = node(&path, &path)
            && devices.iter().all(|d| d.path != device.path)
        {
            devices.push(device);
        }
    }
}

/// The lines for `devices.allow`; `None`: everything is allowed.
pub(in crate::embedded) fn rules(config: &ContainerConfig) -> Option<Vec<String>> {
    if config.security.privileged {
        return None;
    }
    // Nodes may be made; opened are the harmless ones, terminals, and what is asked for.
    let mut rules: Vec<String> = ["c *:* m", "b *:* m", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm"].map(Into::into).into();
    rules.extend(DEFAULT.iter().map(|(_, major, minor)| format!("c {major}:{minor} rwm")));
    for (host, container, access) in &config.devices {
        for (_, device) in below(host, container).unwrap_or_default() {
            let kind = if device.mode & libc::S_IFMT == libc::S_IFBLK { 'b' } else { 'c' };
            let access = if access.is_empty() { "rwm" } else { access };
            rules.push(format!("{kind} {}:{} {access}", device.major, device.minor));
        }
    }
    Some(rules)
}
