//! Completes an unpacked layer with what it takes from the layers below it: the attributes of directories that it uses
//! and does not describe, and the targets of hard links that lie below.

use crate::root::{self, Root};
use crate::unpack::{UnpackError, Unpacked};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Completes `layer` from `lowers`, the topmost first. Blocks.
pub(crate) fn complete(layer: &Path, unpacked: &Unpacked, lowers: &[PathBuf]) -> Result<(), UnpackError> {
    if unpacked.implied.is_empty() && unpacked.links.is_empty() {
        return Ok(());
    }
    let at = |path: &Path, source: std::io::Error| UnpackError::Entry { name: path.display().to_string(), source };
    let open = |path: &PathBuf| Root::open(path).map_err(|e| at(path, e.into()));
    let lowers = lowers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let mut root = open(&layer.to_owned())?;
    for path in &unpacked.implied {
        directory(&root, path, &lowers).map_err(|e| at(path, e))?;
    }
    for (link, target) in &unpacked.links {
        hard_link(&mut root, link, target, &lowers).map_err(|e| at(link, e))?;
    }
    Ok(())
}

fn directory(root: &Root, path: &Path, lowers: &[Root]) -> std::io::Result<()> {
    let Ok(to) = root.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) else { return Ok(()) };
    let Some(from) = find(lowers, path)? else { return Ok(()) };
    let stat = rustix::fs::fstat(&from)?;
    if !root::is_directory(&stat) {
        return Ok(());
    }
    let from = reopen(&from, OFlags::RDONLY | OFlags::DIRECTORY)?;
    copy_attributes(&from, &to, &stat)
}

fn hard_link(root: &mut Root, link: &Path, target: &Path, lowers: &[Root]) -> std::io::Result<()> {
    let missing =
        || std::io::Error::new(std::io::ErrorKind::NotFound, format!("link target {} not found", target.display()));
    let name = target.file_name().ok_or_else(missing)?;
    let mut made = Vec::new();
    let present = root::stat(root.parent(target, &mut made)?, name)?;
    if present.is_none() {
        let from = find(lowers, target)?.ok_or_else(missing)?;
        let stat = rustix::fs::fstat(&from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(std::io::Error::other("a hard link to something other than a file of a lower layer"));
        }
        let mut from = std::fs::File::from(reopen(&from, OFlags::RDONLY)?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = root.parent(target, &mut made)?;
        let mut to = std::fs::File::from(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?);
        std::io::copy(&mut from, &mut to)?;
        copy_attributes(&from, &to, &stat)?;
    } else if present.is_some_and(|stat| root::is_whiteout(&stat)) {
        return Err(missing());
    }
    for path in &made {
        directory(root, path, lowers)?;
    }
    let parent = target.parent().unwrap_or(Path::new(""));
    let from = root.open_at(parent, OFlags::PATH | OFlags::DIRECTORY)?;
    let link_name = link.file_name().ok_or_else(missing)?;
    let dir = root.parent(link, &mut Vec::new())?;
    Ok(rustix::fs::linkat(&from, name, dir, link_name, AtFlags::empty())?)
}

/// What `path` is in the layers below together: the topmost that has it, unless one above hides it.
fn find(lowers: &[Root], path: &Path) -> std::io::Result<Option<OwnedFd>> {
    for lower in lowers {
        match lower.open_at(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(fd) => return Ok(Some(fd).filter(|fd| rustix::fs::fstat(fd).is_ok_and(|s| !root::is_whiteout(&s)))),
            // A file or a whiteout stands in the way.
            Err(Errno::NOTDIR) => return Ok(None),
            Err(Errno::NOENT) if hides(lower, path)? => return Ok(None),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Whether a directory on the way to `path` is opaque in this layer.
fn hides(lower: &Root, path: &Path) -> std::io::Result<bool> {
    for ancestor in path.ancestors().skip(1) {
        if let Ok(fd) = lower.open_at(ancestor, OFlags::RDONLY | OFlags::DIRECTORY) {
            let mut value = [0; 1];
            if rustix::fs::fgetxattr(&fd, "trusted.overlay.opaque", &mut value).is_ok_and(|n| n == 1 && value == *b"y")
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn reopen(fd: &OwnedFd, flags: OFlags) -> std::io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

fn copy_attributes(from: &impl AsFd, to: &impl AsFd, stat: &rustix::fs::Stat) -> std::io::Result<()> {
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    for name in names[..length].split(|c| *c == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos as _ };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(rustix::fs::futimens(to, &times)?)
}
