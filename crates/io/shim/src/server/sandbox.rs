//! The Pod's namespaces: made once, held by being in them.

use super::Shim;
use super::connection::failed;
use crate::launch::{self, Held, UserNamespace};
use crate::plan::{SandboxPlan, UserRange};
use crate::proto::Reply;
use crate::sys::{self, Errno};
use std::ffi::CString;

impl Shim {
    pub(super) fn set_up(&mut self, plan: &SandboxPlan) -> Result<(), Reply> {
        if self.set_up {
            return Err(failed("the sandbox is set up already"));
        }
        let rest = match plan.users {
            Some(range) => {
                let own = plan.namespaces & !(libc::CLONE_NEWPID as u64);
                let users =
                    UserNamespace::make(range, own).map_err(|e| failed(format!("making a user namespace: {e}")))?;
                self.users = Some(users);
                plan.namespaces & libc::CLONE_NEWPID as u64
            }
            None => plan.namespaces,
        };
        sys::unshare(rest).map_err(|e| failed(format!("making namespaces: {e}")))?;
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
            self.shm = Some(
                shared_memory(plan.shm_bytes, plan.users.unwrap_or_default())
                    .and_then(Held::new)
                    .map_err(|e| failed(format!("making /dev/shm: {e}")))?,
            );
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
            v1.push(sys::open(&launch::join(dir, launch::V1_JOIN), libc::O_WRONLY)?);
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

fn shared_memory(bytes: u64, users: UserRange) -> sys::Result<std::os::fd::RawFd> {
    let number = |number: String| CString::new(number).map_err(|_| Errno(libc::EINVAL));
    let (size, uid, gid) =
        (number(bytes.to_string())?, number(users.host_uid.to_string())?, number(users.host_gid.to_string())?);
    let fs = sys::fsopen(c"tmpfs")?;
    let attributes = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC;
    let mount = sys::fsconfig(fs, c"source", Some(c"shm"))
        .and_then(|()| sys::fsconfig(fs, c"mode", Some(c"1777")))
        .and_then(|()| sys::fsconfig(fs, c"size", Some(&size)))
        .and_then(|()| sys::fsconfig(fs, c"uid", Some(&uid)))
        .and_then(|()| sys::fsconfig(fs, c"gid", Some(&gid)))
        .and_then(|()| sys::fsmount(fs, attributes));
    sys::close(fs);
    mount
}

fn set_sysctl(name: &str, value: &str) -> sys::Result<()> {
    let name = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    if name.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(Errno(libc::EINVAL));
    }
    let path = CString::new(format!("sys/{name}")).map_err(|_| Errno(libc::EINVAL))?;
    sys::write_proc(&path, value.as_bytes())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::Path;

    /// Runs `act` where mounts are nobody else's: `prepare` says what is mounted on what.
    fn with_mounts<T: Send>(mounts: &[(&str, &Path)], act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // Of this thread alone, and gone with it.
                sys::unshare(libc::CLONE_NEWNS as u64).unwrap();
                sys::set_root_propagation(libc::MS_PRIVATE).unwrap();
                for (target, source) in mounts {
                    let c = |path: &Path| CString::new(path.to_str().unwrap()).unwrap();
                    let tree = sys::open_tree(libc::AT_FDCWD, &c(source), true).unwrap();
                    let on = sys::open(&c(Path::new(target)), libc::O_PATH).unwrap();
                    sys::move_mount(tree, on).unwrap();
                    sys::close(tree);
                    sys::close(on);
                }
                act()
            });
            thread.join().unwrap()
        })
    }

    /// CVE-2025-52881: what is written to `/proc` lands in files somebody put in its place.
    #[test]
    fn writes_to_proc_are_not_redirected() {
        let dir = tempfile::tempdir().unwrap();
        let fake = dir.path().join("proc");
        for file in ["sys/kernel/domainname", "self/attr/exec"] {
            std::fs::create_dir_all(fake.join(file).parent().unwrap()).unwrap();
            std::fs::write(fake.join(file), "untouched").unwrap();
        }
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "untouched").unwrap();
        let name = "/proc/sys/kernel/domainname";
        let before = std::fs::read_to_string(name).unwrap();
        let cases: [(&str, &str, &Path); 5] = [
            ("all of /proc", "/proc", &fake),
            ("a directory of it", "/proc/sys/kernel", &fake.join("sys/kernel")),
            ("one file", name, &victim),
            // Of procfs itself, so that asking for the kind of the file system is not enough.
            ("another file of /proc", name, Path::new("/proc/sys/kernel/hostname")),
            ("a part of /proc", "/proc/sys", Path::new("/proc/sys")),
        ];
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        for (what, target, source) in cases {
            let result = with_mounts(&[(target, source)], || set_sysctl("kernel.domainname", "evil"));
            assert_eq!(result, Err(Errno(libc::EXDEV)), "{what}");
        }
        let result = with_mounts(&[("/proc", &fake)], || sys::write_proc(c"self/attr/exec", b"evil"));
        assert_eq!(result, Err(Errno(libc::EXDEV)));
        for file in [&fake.join("sys/kernel/domainname"), &fake.join("self/attr/exec"), &victim] {
            assert_eq!(std::fs::read_to_string(file).unwrap(), "untouched");
        }
        assert_eq!(std::fs::read_to_string(name).unwrap(), before);
        assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), host);
        assert_eq!(set_sysctl("net/../../../etc/x", "1"), Err(Errno(libc::EINVAL)));
        // And undisturbed it is written.
        let written = with_mounts(&[], || {
            sys::unshare(libc::CLONE_NEWUTS as u64)?;
            set_sysctl("kernel.domainname", "inside")?;
            Ok::<_, Errno>(std::fs::read_to_string(name).unwrap())
        });
        assert_eq!(written, Ok("inside\n".to_owned()));
    }
}
