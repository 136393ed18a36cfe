//! The process that shims are forked from. It has joined the cgroups, read the program and made itself unreadable once
//! for all of them: joining a group stops every fork of the machine for milliseconds, and executing costs as much again.
//! It ends with the daemon; shims do not.

use crate::sys::{self, Errno};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The daemon's end: asks for shims.
pub struct Spawner(OwnedFd);

impl Spawner {
    /// Itself, and what has to be the standard input of a process of [`super::main`].
    pub fn pair() -> sys::Result<(Spawner, OwnedFd)> {
        let (ours, theirs) = sys::message_pair()?;
        // SAFETY: both descriptors are new and ours.
        Ok(unsafe { (Spawner(OwnedFd::from_raw_fd(ours)), OwnedFd::from_raw_fd(theirs)) })
    }

    /// Starts the shim of a sandbox, which takes connections on `listener` and complains to `log`. Blocks for moments.
    pub fn spawn(&self, sandbox_id: &str, listener: &OwnedFd, log: &OwnedFd) -> std::io::Result<()> {
        let socket = self.0.as_raw_fd();
        sys::send_fds(socket, sandbox_id.as_bytes(), &[listener.as_raw_fd(), log.as_raw_fd()])?;
        let mut answer = [0; 4];
        match sys::read(socket, &mut answer)? {
            4 if answer == [0; 4] => Ok(()),
            4 => Err(Errno(i32::from_le_bytes(answer)).into()),
            _ => Err(Errno(libc::EPIPE).into()),
        }
    }
}

/// Serves until the daemon is gone. Returns in each shim with its sandbox's id and its listening socket, else `None`.
pub(super) fn run(cgroups: impl Iterator<Item = String>) -> sys::Result<Option<(String, RawFd)>> {
    isolate(cgroups)?;
    // SAFETY: numbers only.
    let socket = unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) };
    if socket < 0 {
        return Err(sys::errno());
    }
    let null = sys::open(c"/dev/null", libc::O_RDWR)?;
    sys::dup2(null, 0)?;
    sys::close(null);
    loop {
        let (mut bytes, mut fds) = ([0; 256], Vec::new());
        let n = sys::receive_fds(socket, &mut bytes, |fd| fds.push(fd))?;
        let [listener, log] = fds[..] else {
            fds.iter().for_each(|fd| sys::close(*fd));
            if n == 0 {
                return Ok(None);
            }
            continue;
        };
        // SAFETY: this process has one thread, so that the child may do what it may.
        match unsafe { libc::fork() } {
            0 => {
                sys::close(socket);
                sys::dup2(log, 2)?;
                sys::close(log);
                let sandbox_id = String::from_utf8_lossy(&bytes[..n]).into_owned();
                become_shim(&sandbox_id)?;
                return Ok(Some((sandbox_id, listener)));
            }
            pid => {
                let error = if pid < 0 { sys::errno().0 } else { 0 };
                sys::close(listener);
                sys::close(log);
                sys::write(socket, &error.to_le_bytes())?;
            }
        }
    }
}

/// Before anything else: out of the daemon's session and cgroups, and unreadable to who shares a namespace with us.
fn isolate(cgroups: impl Iterator<Item = String>) -> sys::Result<()> {
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
    // Fails where we lead a process group already (a shell's job); a session of our own is all the same then.
    let _ = sys::setsid();
    // SAFETY: the name is static; signals get their default or are ignored.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"minke-shim".as_ptr(), 0, 0, 0);
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
        // Of SIGCHLD: shims that end are nobody's news here, and are not waited for.
        for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGCHLD] {
            libc::signal(signal, libc::SIG_IGN);
        }
        // One small heap: what is freed goes back.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
    }
    sys::chdir(c"/")?;
    let _ = sys::write_file(c"/proc/self/oom_score_adj", b"-998");
    for dir in cgroups {
        let dir = std::ffi::CString::new(dir).map_err(|_| Errno(libc::EINVAL))?;
        sys::write_file(&crate::launch::join(&dir, "cgroup.procs"), b"0")?;
    }
    Ok(())
}

/// What a fork does not bring along: a session, the children of our containers, and a name that tells which it is.
fn become_shim(sandbox_id: &str) -> sys::Result<()> {
    let _ = sys::setsid();
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)?;
    // SAFETY: the default action of a signal that is waited for.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    show_name(sandbox_id);
    Ok(())
}

/// Writes `minke-shim ID` over the arguments, which `ps` shows. Whoever cannot find them leaves them.
fn show_name(sandbox_id: &str) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    // The fields after the program's name, which may hold anything, begin with the third.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(48 - 3);
    let mut address = || fields.next().and_then(|field| field.parse::<usize>().ok());
    let (Some(begin), Some(end)) = (address(), address()) else { return };
    let mut name = format!("{}\0{sandbox_id}", super::NAME).into_bytes();
    if begin == 0 || end <= begin + name.len() {
        return;
    }
    name.resize(end - begin, 0);
    // SAFETY: the kernel put the arguments there, writable and of that length; nobody reads them after the start.
    unsafe { std::ptr::copy_nonoverlapping(name.as_ptr(), begin as *mut u8, name.len()) };
}
