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
    remove_dir(&dir.join(REMOVED))?;
    groups::forget(dir)
}

/// Where a sandbox's directory goes at once; taking its files away takes long on a busy disk.
pub(super) const REMOVED: &str = "removed";

/// Takes a sandbox's directory out of the way; [`clear_removed`] does the rest, after a crash at the next start.
pub(super) fn put_away(state: &Path, sandbox_dir: &Path) -> Result<(), RuntimeError> {
    let away = state.join(REMOVED).join(sandbox_dir.file_name().unwrap_or_default());
    match std::fs::rename(sandbox_dir, away) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(sandbox_dir.display())(e)),
        _ => Ok(()),
    }
}

/// Removes what was put away. Blocks, for long.
pub(super) fn clear_removed(state: &Path) {
    for entry in std::fs::read_dir(state.join(REMOVED)).into_iter().flatten().flatten() {
        if let Err(error) = remove_dir(&entry.path()) {
            tracing::warn!(%error, "a removed sandbox's files are left");
        }
    }
}

/// The processes of `instance` that serve its Pods: their shims, and the one these are forked from.
///
/// # Errors
/// When the record of its cgroups in `dir` or what is mounted cannot be read.
pub fn shims(instance: &str, dir: &Path) -> Result<Vec<i32>, RuntimeError> {
    let hierarchies = Hierarchies::observe().map_err(failed("cgroups"))?;
    Ok(hierarchies.processes(&Groups::recorded(instance, dir)?.shims()))
}

pub(super) fn remove_dir(dir: &Path) -> Result<(), RuntimeError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(dir.display())(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_put_away_is_gone_at_once_and_cleared_later() {
        let state = tempfile::tempdir().unwrap();
        let sandbox = state.path().join("sandboxes/a");
        std::fs::create_dir_all(sandbox.join("containers/c/upper/etc")).unwrap();
        std::fs::create_dir(state.path().join(REMOVED)).unwrap();
        put_away(state.path(), &sandbox).unwrap();
        assert!(!sandbox.exists());
        put_away(state.path(), &sandbox).unwrap();
        assert!(state.path().join("removed/a/containers/c").exists(), "a crash may come here");
        clear_removed(state.path());
        assert_eq!(std::fs::read_dir(state.path().join(REMOVED)).unwrap().count(), 0);
    }
}
