//! Removing everything an instance made, without a daemon.

use super::failed;
use crate::types::RuntimeError;
use shim::cgroup::Hierarchies;
use std::path::Path;

/// The instance's group, the same below every hierarchy.
pub(super) fn instance_cgroup(instance: &str) -> String {
    format!("minke-{instance}")
}

pub(super) fn shims_cgroup(instance: &str) -> String {
    format!("minke-{instance}/shims")
}

pub(super) fn pod_cgroup(instance: &str, parent: &str) -> String {
    format!("minke-{instance}/pods/{}", parent.trim_matches('/'))
}

/// Kills every container and shim of `instance`, and removes its cgroups and the runtime's state in `dir`. Needs no
/// daemon; network links are `node`'s. Blocks. Idempotent.
pub fn purge(instance: &str, dir: &Path) -> Result<(), RuntimeError> {
    let hierarchies = Hierarchies::observe().map_err(failed("cgroups"))?;
    // Shims first, so that nobody reports or restarts anything.
    for group in [shims_cgroup(instance), instance_cgroup(instance)] {
        hierarchies.kill(&group).map_err(failed(&group))?;
        hierarchies.remove(&group).map_err(failed(&group))?;
    }
    remove_dir(&dir.join("sandboxes"))
}

pub(super) fn remove_dir(dir: &Path) -> Result<(), RuntimeError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(dir.display())(e)),
        _ => Ok(()),
    }
}
