//! A container's mounts: what every container has, then its own, in containerd's order.

use super::super::container::Container;
use super::super::sandbox::Sandbox;
use super::super::{Inner, failed};
use super::c_string;
use crate::types::{Mount, NamespaceMode, Propagation, RuntimeError};
use shim::plan::{MOUNT_BIND, MOUNT_CGROUP_V1, MOUNT_FS, MOUNT_OVERLAY, MOUNT_SHM, MountPlan};
use shim::sys::{
    MOUNT_ATTR_NODEV as NODEV, MOUNT_ATTR_NOEXEC as NOEXEC, MOUNT_ATTR_NOSUID as NOSUID, MOUNT_ATTR_RDONLY as RDONLY,
    MOUNT_ATTR_STRICTATIME as STRICTATIME,
};
use std::ffi::CString;
use std::path::{Component, Path, PathBuf};

pub(super) fn plan(inner: &Inner, sandbox: &Sandbox, container: &Container) -> Result<Vec<MountPlan>, RuntimeError> {
    let mut own: Vec<(PathBuf, &Mount)> =
        container.config.mounts.iter().map(|mount| (clean(&mount.container_path), mount)).collect();
    // What is mounted below another comes after it.
    own.sort_by_key(|(path, _)| path.components().count());
    let mut mounts = defaults(inner, sandbox, container);
    // A mount of the container's own takes the default one's place.
    mounts.retain(|mount| own.iter().all(|(path, _)| c_string(path) != mount.target));
    for (path, mount) in own {
        mounts.push(match &mount.image {
            Some(image) => image_volume(inner, image, mount, &path)?,
            None => bind(mount, &path)?,
        });
    }
    Ok(mounts)
}

/// The path without `.`, `..` and doubled slashes.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

fn fs(target: &str, kind: &str, source: &str, attributes: u64, options: &[(&str, &str)]) -> MountPlan {
    let option = |(key, value): &(&str, &str)| (c_string(key), (!value.is_empty()).then(|| c_string(value)));
    MountPlan {
        target: c_string(target),
        kind: MOUNT_FS,
        fs: c_string(kind),
        source: c_string(source),
        attributes,
        options: options.iter().map(option).collect(),
        ..MountPlan::default()
    }
}

fn defaults(inner: &Inner, sandbox: &Sandbox, container: &Container) -> Vec<MountPlan> {
    let plain = NOSUID | NODEV | NOEXEC;
    let system = if container.config.security.privileged { plain } else { plain | RDONLY };
    // The group `tty`.
    let tty = (sandbox.users().map_or(0, |users| users.host_gid) + 5).to_string();
    let pts = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", tty.as_str())];
    let mut mounts = vec![
        fs("/proc", "proc", "proc", plain, &[]),
        fs("/dev", "tmpfs", "tmpfs", NOSUID | STRICTATIME, &[("mode", "755"), ("size", "65536k")]),
        fs("/dev/pts", "devpts", "devpts", NOSUID | NOEXEC, &pts),
        fs("/dev/mqueue", "mqueue", "mqueue", plain, &[]),
        fs("/sys", "sysfs", "sysfs", system, &[]),
    ];
    if inner.hierarchies.is_v2() {
        mounts.push(fs("/sys/fs/cgroup", "cgroup2", "cgroup", system, &[]));
    } else {
        let cgroup = container.cgroup(sandbox);
        let groups = inner.hierarchies.v1.iter().map(|v1| {
            let name = v1.mount.file_name().map(c_string).unwrap_or_default();
            (name, Some(c_string(v1.mount.join(&cgroup))))
        });
        mounts.push(MountPlan {
            target: c"/sys/fs/cgroup".into(),
            kind: MOUNT_CGROUP_V1,
            source: c"cgroup".into(),
            options: groups.collect(),
            attributes: system,
            ..MountPlan::default()
        });
    }
    mounts.push(if sandbox.config.ipc == NamespaceMode::Node {
        MountPlan {
            target: c"/dev/shm".into(),
            kind: MOUNT_BIND,
            source: c"/dev/shm".into(),
            attributes: plain,
            recursive: true,
            ..MountPlan::default()
        }
    } else {
        MountPlan { target: c"/dev/shm".into(), kind: MOUNT_SHM, source: c"shm".into(), ..MountPlan::default() }
    });
    mounts
}

fn bind(mount: &Mount, path: &Path) -> Result<MountPlan, RuntimeError> {
    let propagation = match mount.propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::HostToContainer => libc::MS_SLAVE,
        Propagation::Bidirectional => libc::MS_SHARED,
    };
    if mount.propagation != Propagation::Private {
        check_propagation(mount)?;
    }
    Ok(MountPlan {
        target: c_string(path),
        kind: MOUNT_BIND,
        source: c_string(&mount.host_path),
        attributes: if mount.readonly { RDONLY } else { 0 },
        recursive: true,
        recursive_attributes: mount.recursive_readonly,
        propagation,
        ..MountPlan::default()
    })
}

/// containerd's check and words: what is not shared on the host cannot propagate.
fn check_propagation(mount: &Mount) -> Result<(), RuntimeError> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").map_err(failed("mountinfo"))?;
    let source = std::fs::canonicalize(&mount.host_path).map_err(failed(mount.host_path.display()))?;
    let mut best: Option<(PathBuf, bool, bool)> = None;
    for line in mountinfo.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let Some(point) = fields.get(4) else { continue };
        let point = PathBuf::from(point.replace("\\040", " "));
        let optional = || fields.iter().skip(6).take_while(|field| **field != "-");
        let longer = best.as_ref().is_none_or(|(best, ..)| point.components().count() >= best.components().count());
        if source.starts_with(&point) && longer {
            let shared = optional().any(|field| field.starts_with("shared:"));
            let slave = optional().any(|field| field.starts_with("master:"));
            best = Some((point, shared, slave));
        }
    }
    let Some((point, shared, slave)) = best else { return Ok(()) };
    let wanted = match mount.propagation {
        Propagation::Bidirectional if !shared => "shared mount",
        Propagation::HostToContainer if !shared && !slave => "shared or slave mount",
        _ => return Ok(()),
    };
    Err(RuntimeError::Failed(format!(
        "path {:?} is mounted on {:?} but it is not a {wanted}",
        mount.host_path.display().to_string(),
        point.display().to_string()
    )))
}

fn image_volume(inner: &Inner, image: &str, mount: &Mount, path: &Path) -> Result<MountPlan, RuntimeError> {
    let found = inner.images.resolve(image);
    let found = found.ok_or_else(|| RuntimeError::NotFound { what: "image", id: image.to_owned() })?;
    let layers = found.layers.iter().rev().map(|layer| (c_string(layer), None::<CString>));
    Ok(MountPlan {
        target: c_string(path),
        kind: MOUNT_OVERLAY,
        source: c_string(image),
        options: layers.collect(),
        attributes: RDONLY,
        sub_path: c_string(&mount.image_sub_path),
        ..MountPlan::default()
    })
}
