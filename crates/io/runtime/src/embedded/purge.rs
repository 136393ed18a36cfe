//! Removing everything an instance made, without a daemon.

use super::failed;
use super::groups::{self, Groups};
use crate::types::RuntimeError;
use shim::cgroup::Hierarchies;
use std::path::Path;

/// Kills every container and shim of `instance`, and removes its cgroups and the runtime's state in `dir`. Needs no
/// daemon; network links are `node`'s. Blocks. Idempotent.
pub fn purge(instance: &str, dir: &Path) -> Result<(), RuntimeError> {
    let hierarchies = Hierarchies::observe().map_err(failed("cgroups"))?;
    let groups = Groups::recorded(instance, dir)?;
    // Shims first, so that nobody reports or restarts anything.
    for group in [groups.shims(), groups.pods(), groups.base.clone()] {
        if group == groups.base {
            groups.give_back();
        }
        hierarchies.kill(&group).map_err(failed(&group))?;
        hierarchies.remove(&group).map_err(failed(&group))?;
    }
    remove_dir(&dir.join("sandboxes"))?;
    groups::forget(dir)
}

pub(super) fn remove_dir(dir: &Path) -> Result<(), RuntimeError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(dir.display())(e)),
        _ => Ok(()),
    }
}
