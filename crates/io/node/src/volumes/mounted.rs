//! Mounts of volumes on the node.

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Makes a directory with exactly this mode; those above it are the node's own.
pub(super) fn make_directory(path: &Path, mode: u32) -> Result<(), String> {
    let made = std::fs::create_dir_all(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)));
    made.map_err(|error| format!("cannot make {}: {error}", path.display()))
}

/// A tmpfs of at most `bytes` (0: half of the memory), never swapped out where the kernel can; idempotent.
pub(super) fn tmpfs(path: &Path, bytes: u64) -> Result<(), String> {
    if is_mount_point(path)? {
        return Ok(());
    }
    let size = if bytes > 0 { format!("size={bytes}") } else { String::new() };
    let flags = MountFlags::RELATIME;
    // `noswap` is known since 6.3; without it, an option is malformed.
    let with_noswap = [size.as_str(), "noswap"].iter().filter(|o| !o.is_empty()).copied().collect::<Vec<_>>().join(",");
    for options in [&with_noswap, &size] {
        let data = CString::new(options.as_str()).unwrap_or_default();
        match rustix::mount::mount("tmpfs", path, "tmpfs", flags, Some(data.as_c_str())) {
            Err(Errno::INVAL) if *options == with_noswap => {}
            result => return result.map_err(|e| format!("mount failed: tmpfs at {}: {e}", path.display())),
        }
    }
    Ok(())
}

/// Whether something is mounted exactly there.
pub(super) fn is_mount_point(path: &Path) -> Result<bool, String> {
    let Ok(path) = path.canonicalize() else { return Ok(false) };
    Ok(mount_points()?.contains(&path))
}

/// Takes away every mount below `directory`, the last made first. An error: one stays, and nothing may be deleted.
pub(super) fn unmount_below(directory: &Path) -> Result<(), String> {
    let Ok(directory) = directory.canonicalize() else { return Ok(()) };
    // Each pass takes away one layer of mounts that lie on one another.
    for _ in 0..16 {
        let mine: Vec<PathBuf> = mount_points()?.into_iter().filter(|path| path.starts_with(&directory)).collect();
        if mine.is_empty() {
            return Ok(());
        }
        for path in mine.iter().rev() {
            unmount(path)?;
        }
    }
    Err(format!("mounts below {} do not end", directory.display()))
}

/// Takes the mount away, at once or, while somebody still uses it, as soon as nobody does.
pub(super) fn unmount(path: &Path) -> Result<(), String> {
    let result = match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Err(Errno::BUSY) => rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
        result => result,
    };
    match result {
        // Gone meanwhile, together with the one above.
        Err(Errno::INVAL | Errno::NOENT) | Ok(()) => Ok(()),
        Err(error) => Err(format!("cannot unmount {}: {error}", path.display())),
    }
}

/// In the order they were made.
fn mount_points() -> Result<Vec<PathBuf>, String> {
    let path = "/proc/thread-self/mountinfo";
    let bytes = std::fs::read(path).map_err(|e| format!("cannot read {path}: {e}"))?;
    let point = |line: &[u8]| line.split(|c| *c == b' ').nth(4).map(unescape);
    Ok(bytes.split(|c| *c == b'\n').filter_map(point).collect())
}

/// `\040` is a space.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|d| first == b'\\' && d.iter().all(|c| (b'0'..=b'7').contains(c)));
        match octal {
            Some(digits) => {
                bytes.push(digits.iter().fold(0u8, |value, c| value.wrapping_mul(8).wrapping_add(c - b'0')));
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}
