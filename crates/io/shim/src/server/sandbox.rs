//! The Pod's namespaces: made once, held by being in them.

use super::Shim;
use super::connection::failed;
use crate::launch;
use crate::plan::SandboxPlan;
use crate::proto::Reply;
use crate::sys::{self, Errno};
use std::ffi::CString;

const PROC: i64 = 0x9fa0;

impl Shim {
    pub(super) fn set_up(&mut self, plan: &SandboxPlan) -> Result<(), Reply> {
        if self.set_up {
            return Err(failed("the sandbox is set up already"));
        }
        sys::unshare(plan.namespaces).map_err(|e| failed(format!("making namespaces: {e}")))?;
        if plan.namespaces & libc::CLONE_NEWUTS as u64 != 0 && !plan.hostname.is_empty() {
            sys::sethostname(&plan.hostname).map_err(|e| failed(format!("setting the host name: {e}")))?;
        }
        if plan.namespaces & libc::CLONE_NEWNET as u64 != 0 {
            loopback_up().map_err(|e| failed(format!("setting up loopback: {e}")))?;
        }
        for (name, value) in &plan.sysctls {
            set_sysctl(name, value).map_err(|e| failed(format!("sysctl {name}={value}: {e}")))?;
        }
        if plan.shm_bytes != 0 {
            self.shm = Some(shared_memory(plan.shm_bytes).map_err(|e| failed(format!("making /dev/shm: {e}")))?);
        }
        if plan.namespaces & libc::CLONE_NEWPID as u64 != 0 {
            self.start_pause(plan).map_err(|e| failed(format!("starting the pause process: {e}")))?;
        }
        self.set_up = true;
        Ok(())
    }

    fn start_pause(&mut self, plan: &SandboxPlan) -> sys::Result<()> {
        let mut v1 = Vec::new();
        for dir in &plan.cgroup.v1 {
            v1.push(sys::open(&launch::join(dir, "cgroup.procs"), libc::O_WRONLY)?);
        }
        let unified = if plan.cgroup.unified.is_empty() {
            None
        } else {
            Some(sys::open(&plan.cgroup.unified, libc::O_PATH | libc::O_DIRECTORY)?)
        };
        let started = crate::pause::start(&v1, unified);
        for fd in v1.into_iter().chain(unified) {
            sys::close(fd);
        }
        self.pause = Some(started?);
        Ok(())
    }

    pub(super) fn shut_down(&mut self) -> Result<(), Reply> {
        if let Some(running) = self.containers.values().find(|c| c.is_running()) {
            return Err(failed(format!("container {:?} is running", running.info().id)));
        }
        self.shutdown = true;
        Ok(())
    }
}

fn shared_memory(bytes: u64) -> sys::Result<std::os::fd::RawFd> {
    let size = CString::new(bytes.to_string()).map_err(|_| Errno(libc::EINVAL))?;
    let fs = sys::fsopen(c"tmpfs")?;
    let attributes = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC;
    let mount = sys::fsconfig(fs, c"source", Some(c"shm"))
        .and_then(|()| sys::fsconfig(fs, c"mode", Some(c"1777")))
        .and_then(|()| sys::fsconfig(fs, c"size", Some(&size)))
        .and_then(|()| sys::fsmount(fs, attributes));
    sys::close(fs);
    mount
}

/// Writes below `/proc/sys`, and only if that is the kernel's (CVE-2025-52881 class).
fn set_sysctl(name: &str, value: &str) -> sys::Result<()> {
    let name = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    if name.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(Errno(libc::EINVAL));
    }
    let path = CString::new(format!("/proc/sys/{name}")).map_err(|_| Errno(libc::EINVAL))?;
    let file = sys::open(&path, libc::O_WRONLY)?;
    let result = match sys::fs_type(file) {
        Ok(PROC) => sys::write(file, value.as_bytes()).map(drop),
        Ok(_) => Err(Errno(libc::EXDEV)),
        Err(e) => Err(e),
    };
    sys::close(file);
    result
}

fn loopback_up() -> sys::Result<()> {
    // SAFETY: the request is a local, and the name fits.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(sys::errno());
        }
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as _;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
        let result = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request);
        let error = sys::errno();
        sys::close(socket);
        if result < 0 { Err(error) } else { Ok(()) }
    }
}
