//! `fsGroup`: a volume's files belong to the group, and the group may do with them what the volume allows (upstream
//! `volume_linux.go`). `fsGroupChangePolicy` says nothing of volumes that are made for their Pod, as all are that come here.

use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

/// Gives `path` and all below it to `group`. To be called before any container has seen the volume.
pub(super) fn give(path: &Path, group: u32, read_only: bool) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot set the group of {}: {error}", path.display());
    let metadata = path.symlink_metadata().map_err(failed)?;
    lchown(path, None, Some(group)).map_err(failed)?;
    if metadata.is_symlink() {
        // Its mode is the target's.
        return Ok(());
    }
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).map_err(failed)? {
            give(&entry.map_err(failed)?.path(), group, read_only)?;
        }
    }
    let mut mask = if read_only { 0o440 } else { 0o660 };
    if metadata.is_dir() {
        mask |= 0o2110;
    }
    let mode = metadata.permissions().mode() & 0o7777 | mask;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)
}
