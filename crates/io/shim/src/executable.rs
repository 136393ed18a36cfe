//! The program a shim is executed from: nobody who gets hold of a running shim's `/proc/PID/exe` can change the file
//! behind it (CVE-2019-5736 class).

use crate::sys::{self, Errno};
use std::ffi::CString;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Opens `program` so that it can be executed and never written: through a read-only overlay that no name leads to,
/// or, where there is no overlay, as a sealed copy in memory.
pub fn seal(program: &Path) -> Result<OwnedFd> {
    overlay(program).or_else(|_| copy(program))
}

fn overlay(program: &Path) -> Result<OwnedFd> {
    let (Some(dir), Some(name)) = (program.parent(), program.file_name()) else {
        return Err(Error::from_raw_os_error(libc::EINVAL));
    };
    let c = |bytes: &[u8]| CString::new(bytes).map_err(|_| Error::from_raw_os_error(libc::EINVAL));
    let dir = sys::open(&c(dir.as_os_str().as_bytes())?, libc::O_PATH | libc::O_DIRECTORY)?;
    let result = read_only_overlay(dir, &c(name.as_bytes())?);
    sys::close(dir);
    Ok(result?)
}

/// An overlay that cannot be written needs a second layer, and kernels before 6.15 want each to be mounted somewhere:
/// one that surely is. The program's name is found in the first.
fn read_only_overlay(dir: RawFd, name: &CString) -> sys::Result<OwnedFd> {
    let layers = CString::new(format!("/proc/self/fd/{dir}:/sys"));
    let fs = sys::fsopen(c"overlay")?;
    let result = layers
        .map_err(|_| Errno(libc::EINVAL))
        .and_then(|layers| sys::fsconfig(fs, c"lowerdir", Some(&layers)))
        .and_then(|()| sys::fsmount(fs, sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV));
    sys::close(fs);
    let mount = result?;
    let file = sys::openat(mount, name, libc::O_RDONLY);
    sys::close(mount);
    // SAFETY: the descriptor was just opened and is owned by nobody else.
    file.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn copy(program: &Path) -> Result<OwnedFd> {
    // SAFETY: the name is static; 3 is MFD_CLOEXEC | MFD_ALLOW_SEALING.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_create, c"minke-shim".as_ptr(), 3) } as RawFd;
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: as above.
    let mut file = unsafe { std::fs::File::from_raw_fd(fd) };
    std::io::copy(&mut std::fs::File::open(program)?, &mut file)?;
    // SAFETY: numbers only: 1033 is F_ADD_SEALS, 15 all seals.
    if unsafe { libc::fcntl(file.as_raw_fd(), 1033, 15) } < 0 {
        return Err(Error::last_os_error());
    }
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The way of CVE-2019-5736: the program's own link opened for writing, while nothing executes it.
    fn writable_by_link(sealed: &OwnedFd) -> bool {
        let path = CString::new(format!("/proc/self/fd/{}", sealed.as_raw_fd())).unwrap();
        [libc::O_WRONLY, libc::O_RDWR, libc::O_WRONLY | libc::O_TRUNC, libc::O_WRONLY | libc::O_APPEND].into_iter().any(
            |flags| match sys::open(&path, flags) {
                Ok(fd) => {
                    let written = sys::write(fd, b"x").is_ok();
                    sys::close(fd);
                    written
                }
                Err(_) => false,
            },
        )
    }

    #[test]
    fn a_sealed_program_runs_and_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("true");
        std::fs::copy("/bin/true", &program).unwrap();
        for sealed in [overlay(&program).unwrap(), copy(&program).unwrap()] {
            assert!(!writable_by_link(&sealed));
            let status = std::process::Command::new(format!("/proc/self/fd/{}", sealed.as_raw_fd())).status().unwrap();
            assert!(status.success());
        }
        let unsealed: OwnedFd = std::fs::File::open(&program).unwrap().into();
        assert!(writable_by_link(&unsealed), "the test would see it");
    }
}
