//! What the child does between `clone3` and `execve`: system calls only; no allocation, no lock, no panic.

use super::error::{Failed, Stage, at};
use super::{Prepared, Root, Source, UserNamespace, mounts};
use crate::plan::{ContainerPlan, ProcessPlan};
use crate::sys::{self, Errno};
use std::ffi::CStr;
use std::os::fd::RawFd;

type Result<T> = std::result::Result<T, Failed>;

/// What a container's first process needs beyond its process plan.
pub(super) struct Container<'a> {
    pub(super) plan: &'a ContainerPlan,
    pub(super) root: Root,
    pub(super) sources: &'a [Source],
}

/// Becomes a container's first process; returns only when it cannot.
pub(super) fn container(prepared: &Prepared<'_>, container: &Container<'_>) -> Failed {
    match container_to_gate(prepared, container) {
        Ok(master) => gate_and_execute(prepared, master),
        Err(failed) => failed,
    }
}

/// Becomes one more process of a container.
pub(super) fn exec(prepared: &Prepared<'_>, pidfd: RawFd, namespaces: u64) -> Failed {
    match exec_to_gate(prepared, pidfd, namespaces) {
        Ok(master) => gate_and_execute(prepared, master),
        Err(failed) => failed,
    }
}

fn container_to_gate(prepared: &Prepared<'_>, container: &Container<'_>) -> Result<Option<RawFd>> {
    let plan = container.plan;
    join_cgroups(prepared)?;
    if plan.namespaces & libc::CLONE_NEWCGROUP as u64 != 0 {
        sys::unshare(libc::CLONE_NEWCGROUP as u64).map_err(at(Stage::Unshare, 0))?;
    }
    let root = mounts::enter_root(&container.root, &plan.root)?;
    if let Some(UserNamespace { range, .. }) = prepared.users {
        sys::make_files_as(range.host_uid, range.host_gid).map_err(at(Stage::UserNamespace, 0))?;
    }
    mounts::mount_all(root, plan, container.sources, prepared.users)?;
    let console = if prepared.process.tty { Some(open_terminal(root, prepared.process)?) } else { None };
    if let Some((_, terminal)) = console {
        mounts::bind_console(root, terminal)?;
    }
    if !plan.hostname.is_empty() {
        sys::sethostname(&plan.hostname).map_err(at(Stage::Hostname, 0))?;
    }
    let null = mounts::pivot(root)?;
    make_working_directory(&prepared.process.cwd)?;
    mounts::protect(plan, null)?;
    set_session(prepared, console.map(|(_, terminal)| terminal))?;
    set_rlimits(prepared.process)?;
    set_apparmor(&prepared.process.apparmor)?;
    if let Some(users) = prepared.users {
        enter(users)?;
        // What is mounted so far is locked together in a namespace of the Pod's: masks cannot be taken off.
        sys::unshare(libc::CLONE_NEWNS as u64).map_err(at(Stage::UserNamespace, 2))?;
    }
    become_user(prepared)?;
    Ok(console.map(|(master, _)| master))
}

fn exec_to_gate(prepared: &Prepared<'_>, pidfd: RawFd, namespaces: u64) -> Result<Option<RawFd>> {
    join_cgroups(prepared)?;
    sys::setns(pidfd, namespaces).map_err(at(Stage::Join, 2))?;
    let console = if prepared.process.tty {
        let root = sys::open(c"/", libc::O_PATH | libc::O_DIRECTORY).map_err(at(Stage::Terminal, 0))?;
        Some(open_terminal(root, prepared.process)?)
    } else {
        None
    };
    set_session(prepared, console.map(|(_, terminal)| terminal))?;
    set_rlimits(prepared.process)?;
    set_apparmor(&prepared.process.apparmor)?;
    if let Some(users) = prepared.users {
        enter(users)?;
    }
    become_user(prepared)?;
    Ok(console.map(|(master, _)| master))
}

/// Has the program started under a profile. Written by number: `self` is a link, and `write_proc` follows none.
fn set_apparmor(profile: &CStr) -> Result<()> {
    let failed = at(Stage::AppArmor, 0);
    if profile.is_empty() {
        return Ok(());
    }
    let mut words = mounts::Path::new();
    words.push(b"exec ").and_then(|()| words.push(profile.to_bytes())).map_err(failed)?;
    let write = |file: &[u8]| {
        let mut path = mounts::Path::new();
        path.push_number(sys::pid())?;
        path.push(file)?;
        sys::write_proc(path.as_c_str(), words.as_bytes())
    };
    // Kernels that have but one such module know only the older name.
    match write(b"/attr/apparmor/exec") {
        Err(Errno(libc::ENOENT)) => write(b"/attr/exec").map_err(failed),
        result => result.map_err(failed),
    }
}

/// Goes over into the Pod's user namespace; there it has every capability, and nothing outside.
fn enter(users: UserNamespace) -> Result<()> {
    sys::setns(users.fd, libc::CLONE_NEWUSER as u64).map_err(at(Stage::UserNamespace, 1))
}

fn join_cgroups(prepared: &Prepared<'_>) -> Result<()> {
    for (index, fd) in prepared.v1_procs.iter().enumerate() {
        sys::write(*fd, b"0").map_err(at(Stage::Cgroup, index))?;
    }
    Ok(())
}

const DEVPTS: i64 = 0x1cd1;

/// A new terminal of the container's own devpts: (master, terminal). In an exec the path is the container's to
/// change, so it is believed only if it is the real multiplexer in a real devpts (CVE-2025-52565 class).
fn open_terminal(root: RawFd, process: &ProcessPlan) -> Result<(RawFd, RawFd)> {
    let failed = at(Stage::Terminal, 0);
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = sys::open_in_root(root, c"dev/pts/ptmx", flags, sys::RESOLVE_NO_SYMLINKS).map_err(failed)?;
    let stat = sys::fstat(master).map_err(failed)?;
    let real = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == sys::device(5, 2);
    if !real || sys::fs_type(master).map_err(failed)? != DEVPTS {
        return Err(failed(Errno(libc::EXDEV)));
    }
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int; TIOCGPTPEER takes flags and returns a descriptor.
    let terminal = unsafe {
        if libc::ioctl(master, libc::TIOCSPTLCK, &raw const unlock) < 0 {
            return Err(failed(sys::errno()));
        }
        libc::ioctl(master, libc::TIOCGPTPEER, flags | libc::O_CLOEXEC)
    };
    if terminal < 0 {
        return Err(failed(sys::errno()));
    }
    if process.columns != 0 && process.rows != 0 {
        set_window(master, process.columns, process.rows).map_err(failed)?;
    }
    Ok((master, terminal))
}

/// Sets a terminal's size.
pub(crate) fn set_window(master: RawFd, columns: u32, rows: u32) -> sys::Result<()> {
    let size = libc::winsize {
        ws_row: rows.min(u32::from(u16::MAX)) as u16,
        ws_col: columns.min(u32::from(u16::MAX)) as u16,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads the size.
    if unsafe { libc::ioctl(master, libc::TIOCSWINSZ, &raw const size) } < 0 { Err(sys::errno()) } else { Ok(()) }
}

/// Makes the working directory, as runc does: an existing one of another kind is the error.
fn make_working_directory(cwd: &CStr) -> Result<()> {
    let bytes = cwd.to_bytes();
    let mut prefix = [0u8; libc::PATH_MAX as usize];
    if bytes.len() >= prefix.len() {
        return Err(at(Stage::WorkingDirectoryMake, bytes.len())(Errno(libc::ENAMETOOLONG)));
    }
    for end in 1..=bytes.len() {
        if end != bytes.len() && bytes[end] != b'/' {
            continue;
        }
        prefix[..end].copy_from_slice(&bytes[..end]);
        prefix[end] = 0;
        // SAFETY: the byte after `end` is zero, and a path holds no other.
        let path = unsafe { CStr::from_bytes_with_nul_unchecked(&prefix[..=end]) };
        let failed = at(Stage::WorkingDirectoryMake, end);
        match sys::stat(path) {
            Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFDIR => {}
            Ok(_) => return Err(failed(Errno(libc::ENOTDIR))),
            Err(_) => sys::mkdirat(libc::AT_FDCWD, path, 0o755).map_err(failed)?,
        }
    }
    Ok(())
}

fn set_session(prepared: &Prepared<'_>, terminal: Option<RawFd>) -> Result<()> {
    sys::setsid().map_err(at(Stage::Session, 0))?;
    for (index, fd) in prepared.stdio.iter().enumerate() {
        let from = terminal.unwrap_or(*fd);
        // Owned by the container's user, so that `/dev/stdout` can be opened again.
        // SAFETY: no memory is involved. Best effort: /dev/null of the host stays as it is.
        let null = sys::fstat(from).is_ok_and(|s| s.st_rdev == sys::device(1, 3));
        if !null {
            // SAFETY: no memory is involved.
            unsafe { libc::fchown(from, UserNamespace::on_host(prepared.users, prepared.process.uid, 0).0, u32::MAX) };
        }
        sys::dup2(from, index as RawFd).map_err(at(Stage::Stdio, index))?;
    }
    if terminal.is_some() {
        // SAFETY: TIOCSCTTY takes a number.
        if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
            return Err(at(Stage::Terminal, 1)(sys::errno()));
        }
    }
    Ok(())
}

fn become_user(prepared: &Prepared<'_>) -> Result<()> {
    let process = prepared.process;
    sys::umask(process.umask.unwrap_or(0o022));
    // A directory only the user may enter is entered as the user, one only root may enter as root.
    let entered = sys::chdir(&process.cwd).is_ok();
    if !process.no_new_privs {
        load_seccomp(process)?;
    }
    let capabilities = &process.capabilities;
    for capability in 0..=prepared.last_capability {
        if capabilities.bounding >> capability & 1 == 0 {
            sys::prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0).map_err(at(Stage::Capabilities, 0))?;
        }
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0).map_err(at(Stage::Capabilities, 1))?;
    // SAFETY: the pointer and length are the list's.
    if unsafe { libc::syscall(libc::SYS_setgroups, process.groups.len(), process.groups.as_ptr()) } < 0 {
        return Err(at(Stage::Groups, 0)(sys::errno()));
    }
    // The raw calls: the C library's would signal threads the child does not have.
    // SAFETY: numbers only.
    unsafe {
        if libc::syscall(libc::SYS_setresgid, process.gid, process.gid, process.gid) < 0 {
            return Err(at(Stage::Group, 0)(sys::errno()));
        }
        if libc::syscall(libc::SYS_setresuid, process.uid, process.uid, process.uid) < 0 {
            return Err(at(Stage::User, 0)(sys::errno()));
        }
    }
    if !entered {
        sys::chdir(&process.cwd).map_err(at(Stage::WorkingDirectory, 0))?;
    }
    set_capabilities(prepared)?;
    if process.no_new_privs {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map_err(at(Stage::NoNewPrivileges, 0))?;
    }
    // The last word on where it stands (CVE-2024-21626): a leaked directory would be named "(unreachable)".
    match sys::cwd_is_reachable() {
        Ok(true) => Ok(()),
        Ok(false) | Err(Errno(libc::ENOENT)) => Err(at(Stage::WorkingDirectoryOutside, 0)(Errno(libc::EXDEV))),
        Err(e) => Err(at(Stage::WorkingDirectory, 1)(e)),
    }
}

/// Raising a limit needs CAP_SYS_RESOURCE, which a host may keep from us: then as high as it may.
fn set_rlimits(process: &ProcessPlan) -> Result<()> {
    for limit in &process.rlimits {
        let failed = at(Stage::Rlimit, limit.resource as usize);
        let mut wanted = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
        // SAFETY: both limits are locals.
        let result = unsafe {
            let first = libc::prlimit64(0, limit.resource as _, &raw const wanted, std::ptr::null_mut());
            if first < 0 && sys::errno() == Errno(libc::EPERM) {
                let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
                libc::prlimit64(0, limit.resource as _, std::ptr::null(), &raw mut old);
                wanted.rlim_max = wanted.rlim_max.min(old.rlim_max);
                wanted.rlim_cur = wanted.rlim_cur.min(wanted.rlim_max);
                libc::prlimit64(0, limit.resource as _, &raw const wanted, std::ptr::null_mut())
            } else {
                first
            }
        };
        if result < 0 {
            return Err(failed(sys::errno()));
        }
    }
    Ok(())
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

fn set_capabilities(prepared: &Prepared<'_>) -> Result<()> {
    let sets = &prepared.process.capabilities;
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let (e, p, i) = (sets.effective, sets.permitted, sets.inheritable);
    let data = [e as u32, p as u32, i as u32, (e >> 32) as u32, (p >> 32) as u32, (i >> 32) as u32];
    // SAFETY: header and data have the layout of version 3.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } < 0 {
        return Err(at(Stage::Capabilities, 2)(sys::errno()));
    }
    let _ = sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0);
    for capability in 0..=prepared.last_capability {
        if sets.ambient >> capability & 1 == 1 {
            sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(capability))
                .map_err(at(Stage::Capabilities, 3))?;
        }
    }
    Ok(())
}

#[repr(C)]
struct BpfProgram {
    len: u16,
    filter: *const u8,
}

fn load_seccomp(process: &ProcessPlan) -> Result<()> {
    let bytes = &process.seccomp.0;
    if bytes.is_empty() {
        return Ok(());
    }
    let program = BpfProgram { len: (bytes.len() / 8) as u16, filter: bytes.as_ptr() };
    // SAFETY: the program is valid for the call; 1 is SECCOMP_SET_MODE_FILTER.
    if unsafe { libc::syscall(libc::SYS_seccomp, 1, 0, &raw const program) } < 0 {
        return Err(at(Stage::Seccomp, 0)(sys::errno()));
    }
    Ok(())
}

/// Tells the parent that all is made, waits to be let go, and executes.
fn gate_and_execute(prepared: &Prepared<'_>, master: Option<RawFd>) -> Failed {
    match wait_at_gate(prepared, master) {
        Ok(()) => execute(prepared),
        Err(failed) => failed,
    }
}

fn wait_at_gate(prepared: &Prepared<'_>, master: Option<RawFd>) -> Result<()> {
    // Looked up before it is said to be ready, so that a missing program is an error of creation, as with runc.
    look_up(prepared)?;
    let failed = at(Stage::Channel, 1);
    let waiting = Failed { stage: Stage::Created, errno: 0, index: 0 }.encode();
    match master {
        Some(master) => sys::send_fds(prepared.channel, &waiting, &[master]),
        None => sys::write(prepared.channel, &waiting),
    }
    .map_err(failed)?;
    let mut go = [0u8; 1];
    if sys::read(prepared.channel, &mut go).map_err(failed)? != 1 {
        sys::exit_now(1);
    }
    // Nothing of the shim stays open in the program, whatever it was.
    // SAFETY: the channel is made the only descriptor above 2; signals get their default action and an empty mask.
    unsafe {
        if libc::dup3(prepared.channel, 3, libc::O_CLOEXEC) >= 0 || prepared.channel == 3 {
            libc::syscall(libc::SYS_close_range, 4, u32::MAX, 0);
        }
        // What the shim ignores, its children would ignore, too: a shell could not even trap it.
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let none: u64 = 0;
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0usize, 8usize);
    }
    if prepared.process.no_new_privs {
        load_seccomp(prepared.process).map_err(|f| Failed { index: 3, ..f })?;
    }
    Ok(())
}

fn look_up(prepared: &Prepared<'_>) -> Result<usize> {
    let slash = prepared.argv_has_slash();
    for (index, path) in prepared.candidates.iter().enumerate() {
        match executable(path) {
            Ok(()) => return Ok(index),
            Err(failed) if slash => return Err(failed),
            Err(_) => {}
        }
    }
    Err(at(Stage::LookPath, 0)(Errno(libc::ENOENT)))
}

/// What Go's `exec.LookPath` asks of a file.
fn executable(path: &CStr) -> Result<()> {
    let stat = sys::stat(path).map_err(at(Stage::Stat, 0))?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(at(Stage::IsDirectory, 0)(Errno(libc::EISDIR)));
    }
    match sys::can_execute(path) {
        Ok(()) => Ok(()),
        // A profile may forbid the question; the permission bits answer then.
        Err(Errno(libc::ENOSYS | libc::EPERM)) if stat.st_mode & 0o111 != 0 => Ok(()),
        Err(_) => Err(at(Stage::Access, 0)(Errno(libc::EACCES))),
    }
}

/// The last step. Its failure is no longer the creator's: as with runc, it is said on the program's own standard error
/// (an image for another machine shows `exec format error` in its log), and the program ended with 255.
fn execute(prepared: &Prepared<'_>) -> Failed {
    let (path, errno) = match look_up(prepared) {
        Ok(index) => {
            let path = &prepared.candidates[index];
            // SAFETY: both arrays end with a null pointer and their strings live on.
            unsafe { libc::execve(path.as_ptr(), prepared.argv.as_ptr(), prepared.envp.as_ptr()) };
            (path.as_bytes(), sys::errno())
        }
        Err(failed) => (prepared.process.argv.first().map_or(b"".as_slice(), |c| c.as_bytes()), Errno(failed.errno)),
    };
    for part in [b"exec ".as_slice(), path, b": ", errno_text(errno), b"\n"] {
        let _ = sys::write(2, part);
    }
    sys::exit_now(255)
}

/// What `execve` may answer, in words that need no allocation.
fn errno_text(errno: Errno) -> &'static [u8] {
    match errno.0 {
        libc::ENOENT => b"no such file or directory",
        libc::ENOEXEC => b"exec format error",
        libc::EACCES => b"permission denied",
        libc::EPERM => b"operation not permitted",
        libc::E2BIG => b"argument list too long",
        libc::ENOMEM => b"cannot allocate memory",
        libc::ETXTBSY => b"text file busy",
        libc::ELOOP => b"too many levels of symbolic links",
        libc::ENOTDIR => b"not a directory",
        libc::EAGAIN => b"resource temporarily unavailable",
        libc::EIO => b"input/output error",
        libc::EINVAL => b"invalid argument",
        _ => b"cannot be executed",
    }
}

impl Prepared<'_> {
    fn argv_has_slash(&self) -> bool {
        self.process.argv.first().is_some_and(|c| c.to_bytes().contains(&b'/'))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::fd::AsRawFd;

    /// CVE-2025-52565: something else in the place of the terminals' multiplexer.
    #[test]
    fn only_a_real_multiplexer_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("dev/pts")).unwrap();
        let ptmx = dir.path().join("dev/pts/ptmx");
        let root = std::fs::File::open(dir.path()).unwrap();
        let process = ProcessPlan::default();
        let open = || open_terminal(root.as_raw_fd(), &process).map_err(|failed| failed.errno);
        std::fs::write(&ptmx, "").unwrap();
        assert_eq!(open(), Err(libc::EXDEV), "a file");
        std::fs::remove_file(&ptmx).unwrap();
        let name = std::ffi::CString::new(ptmx.to_str().unwrap()).unwrap();
        sys::mknodat(libc::AT_FDCWD, &name, libc::S_IFCHR | 0o666, sys::device(1, 3)).unwrap();
        assert_eq!(open(), Err(libc::EXDEV), "another device");
        std::fs::remove_file(&ptmx).unwrap();
        std::os::unix::fs::symlink("/dev/pts/ptmx", &ptmx).unwrap();
        assert_eq!(open(), Err(libc::ELOOP), "a link");
    }
}
