//! Copies of mounts that are mounted nowhere. The kernel makes them since 6.15; before, only of what is mounted in the
//! caller's namespace: so the mount is put, alone, into a mount namespace of its own, and copied there. The caller has
//! one thread.

use crate::sys::{self, Errno};
use std::os::fd::RawFd;

/// A mount to be copied again and again.
pub(crate) enum Held {
    Loose(RawFd),
    /// The mount namespace whose root it is.
    Namespace(RawFd),
}

impl Held {
    /// Takes the mount; found out is what this kernel can do.
    pub(crate) fn new(mount: RawFd) -> sys::Result<Held> {
        match sys::open_tree(mount, c"", false) {
            Ok(copy) => {
                sys::close(copy);
                Ok(Held::Loose(mount))
            }
            Err(Errno(libc::EINVAL)) => {
                let namespace = away(|| settle(mount));
                sys::close(mount);
                namespace.map(Held::Namespace)
            }
            Err(e) => {
                sys::close(mount);
                Err(e)
            }
        }
    }

    /// A detached copy, the caller's.
    pub(crate) fn copy(&self) -> sys::Result<RawFd> {
        match self {
            Held::Loose(mount) => sys::open_tree(*mount, c"", false),
            Held::Namespace(namespace) => away(|| {
                sys::setns(*namespace, libc::CLONE_NEWNS as u64)?;
                sys::open_tree(libc::AT_FDCWD, c"/", false)
            }),
        }
    }
}

/// A detached copy of `part`, something in the detached `mount`.
pub(super) fn copy_part(mount: RawFd, part: RawFd) -> sys::Result<RawFd> {
    match sys::open_tree(part, c"", false) {
        Err(Errno(libc::EINVAL)) => away(|| {
            // The namespace goes with the way back; the copy stays.
            sys::close(settle(mount)?);
            sys::open_tree(part, c"", false)
        }),
        copy => copy,
    }
}

/// Goes into a new namespace in which there is nothing but `mount`; returns the namespace.
fn settle(mount: RawFd) -> sys::Result<RawFd> {
    sys::unshare(libc::CLONE_NEWNS as u64)?;
    sys::set_root_propagation(libc::MS_PRIVATE)?;
    let namespace = sys::open(c"/proc/thread-self/ns/mnt", libc::O_RDONLY)?;
    let here = sys::open(c"/", libc::O_PATH | libc::O_DIRECTORY);
    let settled = here.and_then(|here| {
        let moved = sys::move_mount(mount, here);
        sys::close(here);
        moved?;
        sys::fchdir(mount)?;
        sys::pivot_root_here()
    });
    if settled.is_err() {
        sys::close(namespace);
    }
    settled.map(|()| namespace)
}

/// Does `work` in a copy of this mount namespace, of which the other hears nothing.
pub(super) fn in_copy<T>(work: impl FnOnce() -> sys::Result<T>) -> sys::Result<T> {
    away(|| {
        sys::unshare(libc::CLONE_NEWNS as u64)?;
        sys::set_root_propagation(libc::MS_PRIVATE)?;
        work()
    })
}

/// Does `work` and comes back to this mount namespace.
fn away<T>(work: impl FnOnce() -> sys::Result<T>) -> sys::Result<T> {
    let home = sys::open(c"/proc/thread-self/ns/mnt", libc::O_RDONLY)?;
    let result = work();
    let back = sys::setns(home, libc::CLONE_NEWNS as u64);
    sys::close(home);
    back?;
    result
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A tmpfs that is mounted nowhere, with a file and a directory.
    fn loose() -> RawFd {
        let fs = sys::fsopen(c"tmpfs").unwrap();
        let mount = sys::fsmount(fs, 0).unwrap();
        sys::close(fs);
        sys::mkdirat(mount, c"part", 0o755).unwrap();
        sys::mknodat(mount, c"part/file", libc::S_IFREG | 0o600, 0).unwrap();
        mount
    }

    fn has(dir: RawFd, path: &std::ffi::CStr) -> bool {
        sys::openat(dir, path, libc::O_PATH).map(sys::close).is_ok()
    }

    /// On any kernel the old way works, and the one that is chosen.
    #[test]
    fn what_is_mounted_nowhere_is_copied() {
        let test = || {
            // A thread shares its root directory with the others until it does not.
            sys::unshare(libc::CLONE_FS as u64).unwrap();
            let before = std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
            for held in [Held::new(loose()).unwrap(), Held::Namespace(away(|| settle(loose())).unwrap())] {
                for _ in 0..2 {
                    let copy = held.copy().unwrap();
                    assert!(has(copy, c"part/file"));
                    sys::close(copy);
                }
            }
            let mount = loose();
            let part = sys::openat(mount, c"part", libc::O_PATH).unwrap();
            assert!(has(copy_part(mount, part).unwrap(), c"file"));
            assert_eq!(std::fs::read_link("/proc/thread-self/ns/mnt").unwrap(), before);
        };
        std::thread::scope(|scope| scope.spawn(test).join().unwrap());
    }
}
