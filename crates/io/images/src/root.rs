//! File operations beneath a directory that hostile names and links cannot leave: every path is resolved by the kernel
//! with `openat2(RESOLVE_IN_ROOT)`, as if the directory were `/`.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A directory that is the root of all names given to it.
pub(crate) struct Root {
    fd: OwnedFd,
    /// The directory of the last name: entries come grouped.
    last: Option<(PathBuf, OwnedFd)>,
}

const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

impl Root {
    pub(crate) fn open(path: &Path) -> rustix::io::Result<Root> {
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Root { fd, last: None })
    }

    /// Opens what `path` (relative) names; a link as its last part is followed only without `NOFOLLOW`.
    pub(crate) fn open_at(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        loop {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), RESOLVE) {
                // Somebody renamed something on the way; the kernel wants to be asked again.
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
    }

    /// The directory that holds `path`'s last part, made (0755, root's) where it is missing; the made ones are added
    /// to `made`.
    pub(crate) fn parent(&mut self, path: &Path, made: &mut Vec<PathBuf>) -> rustix::io::Result<BorrowedFd<'_>> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.last.as_ref().is_none_or(|(last, _)| last != parent) {
            let fd = match self.open_at(parent, OFlags::PATH | OFlags::DIRECTORY) {
                Err(Errno::NOENT) => self.make_directories(parent, made)?,
                result => result?,
            };
            self.last = Some((parent.to_owned(), fd));
        }
        match &self.last {
            Some((_, fd)) => Ok(rustix::fd::AsFd::as_fd(fd)),
            None => Err(Errno::NOENT),
        }
    }

    /// To be called when a name that may lie on the way to others changed its meaning.
    pub(crate) fn forget_last(&mut self) {
        self.last = None;
    }

    fn make_directories(&self, path: &Path, made: &mut Vec<PathBuf>) -> rustix::io::Result<OwnedFd> {
        let mut at = PathBuf::new();
        let mut fd = self.open_at(&at, OFlags::PATH | OFlags::DIRECTORY)?;
        for name in path.iter() {
            at.push(name);
            fd = match self.open_at(&at, OFlags::PATH | OFlags::DIRECTORY) {
                Err(Errno::NOENT) => {
                    // Fails with EEXIST on a dangling link: nothing is ever made through one.
                    rustix::fs::mkdirat(&fd, name, Mode::from_raw_mode(0o755))?;
                    made.push(at.clone());
                    self.open_at(&at, OFlags::PATH | OFlags::DIRECTORY)?
                }
                result => result?,
            };
        }
        Ok(fd)
    }
}

/// What stands under a name, links not followed.
pub(crate) fn stat(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<rustix::fs::Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// overlayfs' mark of a name that the layer deletes: a character device 0:0.
pub(crate) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn is_directory(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Removes a name with all below it.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &OsStr) -> std::io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => std::fs::remove_dir_all(name_path(dir, name)),
        Err(Errno::NOENT) => Ok(()),
        result => Ok(result?),
    }
}

/// A path for calls that take no directory: `/proc/self/fd/N/NAME`.
pub(crate) fn name_path(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)
}

/// Makes a relative path of an archive's name: no `.`, no leading `/`, `a/..` folded. `None`: it leads above its root,
/// or cannot be a file's name.
pub(crate) fn normalise(name: &[u8]) -> Option<PathBuf> {
    if name.contains(&0) {
        return None;
    }
    let mut parts: Vec<OsString> = Vec::new();
    for part in name.split(|c| *c == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(OsStr::from_bytes(part).to_owned()),
        }
    }
    Some(parts.iter().collect())
}
