//! System calls, each as a function that allocates nothing and returns the error's number, so that a child between
//! `clone3` and `execve` may call them. Descriptors are plain numbers: whoever opens one says who closes it.

use std::ffi::{CStr, c_int, c_long, c_void};
use std::os::fd::RawFd;

/// The number of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

pub type Result<T> = std::result::Result<T, Errno>;

impl std::fmt::Display for Errno {
    /// In the C library's words, lower-cased at the start as Go prints them: `no such file or directory`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // SAFETY: strerror returns a valid string for every number.
        let text = unsafe { CStr::from_ptr(libc::strerror(self.0)) }.to_string_lossy();
        let mut chars = text.chars();
        let first = chars.next().map(|c| c.to_ascii_lowercase());
        // `Is a directory` becomes `is a directory`; `RPC …` stays as it is.
        match (first, chars.as_str().chars().next()) {
            (Some(c), Some(next)) if next.is_ascii_lowercase() => write!(f, "{c}{}", chars.as_str()),
            _ => f.write_str(&text),
        }
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for std::io::Error {
    fn from(e: Errno) -> Self {
        std::io::Error::from_raw_os_error(e.0)
    }
}

pub fn errno() -> Errno {
    // SAFETY: the location is valid for the calling thread.
    Errno(unsafe { *libc::__errno_location() })
}

fn check(result: c_long) -> Result<c_long> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

fn check_fd(result: c_long) -> Result<RawFd> {
    check(result).map(|fd| fd as RawFd)
}

pub const RESOLVE_NO_XDEV: u64 = 0x01;
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
pub const RESOLVE_IN_ROOT: u64 = 0x10;

/// The kind of the `/proc` file system, as [`fs_type`] tells it.
pub const PROC: i64 = 0x9fa0;

pub const MOUNT_ATTR_RDONLY: u64 = 0x01;
pub const MOUNT_ATTR_NOSUID: u64 = 0x02;
pub const MOUNT_ATTR_NODEV: u64 = 0x04;
pub const MOUNT_ATTR_NOEXEC: u64 = 0x08;
pub const MOUNT_ATTR_NOATIME: u64 = 0x10;
pub const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
/// The bits of the access-time setting: it must be cleared before another is set.
pub const MOUNT_ATTR_ATIME: u64 = 0x70;

/// The kernel's version: its first two numbers.
pub fn kernel_version() -> (u32, u32) {
    // SAFETY: an all-zero structure is valid, and the kernel fills it with strings that end.
    let release = unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        libc::uname(&raw mut name);
        CStr::from_ptr(name.release.as_ptr()).to_string_lossy().into_owned()
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens `path` with `root` as the root directory: no link leads out of it.
pub fn open_in_root(root: RawFd, path: &CStr, flags: c_int, more: u64) -> Result<RawFd> {
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | more,
    };
    loop {
        // SAFETY: path and how are valid for the call.
        let fd = unsafe { libc::syscall(libc::SYS_openat2, root, path.as_ptr(), &raw const how, size_of::<OpenHow>()) };
        match check_fd(fd) {
            // Somebody renamed something on the way; the kernel wants to be asked again.
            Err(Errno(libc::EAGAIN)) => {}
            result => return result,
        }
    }
}

/// Writes a file of `/proc`, named from there, and of nothing else: not what somebody mounted over it or below it, not
/// what a link leads to (CVE-2025-52881).
pub fn write_proc(path: &CStr, bytes: &[u8]) -> Result<()> {
    let proc = open(c"/proc", libc::O_PATH | libc::O_DIRECTORY)?;
    let file = match (fs_type(proc), fstat(proc)) {
        // The root of a procfs has this number, and nothing else of it.
        (Ok(PROC), Ok(stat)) if stat.st_ino == 1 => {
            open_in_root(proc, path, libc::O_WRONLY, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)
        }
        _ => Err(Errno(libc::EXDEV)),
    };
    close(proc);
    let file = file?;
    let result = write(file, bytes).map(drop);
    close(file);
    result
}

pub fn open(path: &CStr, flags: c_int) -> Result<RawFd> {
    openat(libc::AT_FDCWD, path, flags)
}

pub fn openat(dir: RawFd, path: &CStr, flags: c_int) -> Result<RawFd> {
    // SAFETY: path is valid for the call.
    check_fd(unsafe { libc::openat(dir, path.as_ptr(), flags | libc::O_CLOEXEC, 0o644) }.into())
}

pub fn close(fd: RawFd) {
    // SAFETY: closing a number is sound; callers own the descriptors they pass.
    unsafe { libc::close(fd) };
}

pub fn write(fd: RawFd, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the slice is valid for its length.
    check(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } as c_long).map(|n| n as usize)
}

pub fn read(fd: RawFd, bytes: &mut [u8]) -> Result<usize> {
    loop {
        // SAFETY: the slice is valid for its length.
        match check(unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) } as c_long) {
            Err(Errno(libc::EINTR)) => {}
            result => return result.map(|n| n as usize),
        }
    }
}

/// Opens, writes once, closes: the files of `/proc` and cgroups.
pub fn write_file(path: &CStr, bytes: &[u8]) -> Result<()> {
    let fd = open(path, libc::O_WRONLY)?;
    let result = write(fd, bytes).map(drop);
    close(fd);
    result
}

pub fn mkdirat(dir: RawFd, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: name is valid for the call.
    check(unsafe { libc::mkdirat(dir, name.as_ptr(), mode) }.into()).map(drop)
}

pub fn mknodat(dir: RawFd, name: &CStr, mode: u32, device: u64) -> Result<()> {
    // SAFETY: name is valid for the call.
    check(unsafe { libc::mknodat(dir, name.as_ptr(), mode, device) }.into()).map(drop)
}

pub fn symlinkat(target: &CStr, dir: RawFd, name: &CStr) -> Result<()> {
    // SAFETY: both strings are valid for the call.
    check(unsafe { libc::symlinkat(target.as_ptr(), dir, name.as_ptr()) }.into()).map(drop)
}

pub fn readlinkat(dir: RawFd, name: &CStr, out: &mut [u8]) -> Result<usize> {
    // SAFETY: the strings and the buffer are valid for the call.
    check(unsafe { libc::readlinkat(dir, name.as_ptr(), out.as_mut_ptr().cast(), out.len()) } as c_long)
        .map(|n| n as usize)
}

pub fn fchownat(dir: RawFd, name: &CStr, uid: u32, gid: u32, flags: c_int) -> Result<()> {
    // SAFETY: name is valid for the call.
    check(unsafe { libc::fchownat(dir, name.as_ptr(), uid, gid, flags) }.into()).map(drop)
}

pub fn fstat(fd: RawFd) -> Result<libc::stat> {
    // SAFETY: an all-zero stat is valid, and the kernel fills it.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::fstat(fd, &raw mut stat).into()).map(|_| stat)
    }
}

pub fn stat(path: &CStr) -> Result<libc::stat> {
    // SAFETY: as in fstat; path is valid for the call.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::stat(path.as_ptr(), &raw mut stat).into()).map(|_| stat)
    }
}

/// The type of the file system an open file lies in.
pub fn fs_type(fd: RawFd) -> Result<i64> {
    // SAFETY: an all-zero statfs is valid, and the kernel fills it.
    unsafe {
        let mut fs: libc::statfs = std::mem::zeroed();
        check(libc::fstatfs(fd, &raw mut fs).into()).map(|_| fs.f_type as i64)
    }
}

pub fn can_execute(path: &CStr) -> Result<()> {
    // SAFETY: path is valid for the call.
    check(unsafe { libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) })
        .map(drop)
}

pub fn pipe(flags: c_int) -> Result<(RawFd, RawFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array takes the two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), flags | libc::O_CLOEXEC) }.into())?;
    Ok((fds[0], fds[1]))
}

/// A connected pair that keeps the borders of messages.
pub fn message_pair() -> Result<(RawFd, RawFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the array takes the two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) }.into())?;
    Ok((fds[0], fds[1]))
}

pub fn dup2(from: RawFd, to: RawFd) -> Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::dup2(from, to) }.into()).map(drop)
}

pub fn set_nonblocking(fd: RawFd) -> Result<()> {
    // SAFETY: no memory is involved.
    unsafe {
        let flags = check(libc::fcntl(fd, libc::F_GETFL).into())? as c_int;
        check(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK).into()).map(drop)
    }
}

pub fn fsopen(kind: &CStr) -> Result<RawFd> {
    // SAFETY: the string is valid for the call; 1 is FSOPEN_CLOEXEC.
    check_fd(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1) })
}

/// Sets an option of a file system being made: a string, or a flag.
pub fn fsconfig(fs: RawFd, key: &CStr, value: Option<&CStr>) -> Result<()> {
    // SAFETY: strings are valid for the call; commands 1 (string) and 0 (flag).
    check(unsafe {
        match value {
            Some(value) => libc::syscall(libc::SYS_fsconfig, fs, 1, key.as_ptr(), value.as_ptr(), 0),
            None => libc::syscall(libc::SYS_fsconfig, fs, 0, key.as_ptr(), 0usize, 0),
        }
    })
    .map(drop)
}

/// Makes the configured file system and a detached mount of it.
pub fn fsmount(fs: RawFd, attributes: u64) -> Result<RawFd> {
    // SAFETY: command 6 (create) takes no memory; 1 is FSMOUNT_CLOEXEC.
    unsafe {
        check(libc::syscall(libc::SYS_fsconfig, fs, 6, 0usize, 0usize, 0))?;
        check_fd(libc::syscall(libc::SYS_fsmount, fs, 1, attributes))
    }
}

/// A detached copy of the mount at `path` (or of the descriptor, with an empty path).
pub fn open_tree(dir: RawFd, path: &CStr, recursive: bool) -> Result<RawFd> {
    let mut flags = 1 | libc::O_CLOEXEC as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as u32;
    }
    // SAFETY: path is valid for the call; 1 is OPEN_TREE_CLONE.
    check_fd(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Shows the files of a detached mount under the identities of a user namespace. EINVAL: the file system cannot.
pub fn map_mount(mount: RawFd, user_namespace: RawFd, recursive: bool) -> Result<()> {
    setattr(mount, &MountAttr { set: 0x10_0000, clear: 0, propagation: 0, userns: user_namespace as u64 }, recursive)
}

pub fn mount_setattr(mount: RawFd, set: u64, clear: u64, propagation: u64, recursive: bool) -> Result<()> {
    setattr(mount, &MountAttr { set, clear, propagation, userns: 0 }, recursive)
}

fn setattr(mount: RawFd, attr: &MountAttr, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: attr is valid for the call and its size is told.
    check(unsafe { libc::syscall(libc::SYS_mount_setattr, mount, c"".as_ptr(), flags, attr, size_of::<MountAttr>()) })
        .map(drop)
}

/// Attaches a detached mount on the file or directory behind `target`.
pub fn move_mount(mount: RawFd, target: RawFd) -> Result<()> {
    // SAFETY: the strings are static; flags say that both paths are empty.
    check(unsafe { libc::syscall(libc::SYS_move_mount, mount, c"".as_ptr(), target, c"".as_ptr(), 0x4 | 0x40) })
        .map(drop)
}

/// Changes the propagation of everything mounted below the root.
pub fn set_root_propagation(flags: u64) -> Result<()> {
    // SAFETY: only the path is read.
    check(
        unsafe {
            libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), libc::MS_REC | flags, std::ptr::null())
        }
        .into(),
    )
    .map(drop)
}

pub fn pivot_root_here() -> Result<()> {
    // SAFETY: the strings are static.
    unsafe {
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into())?;
        check(libc::chdir(c"/".as_ptr()).into()).map(drop)
    }
}

pub fn fchdir(fd: RawFd) -> Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fchdir(fd) }.into()).map(drop)
}

pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: path is valid for the call.
    check(unsafe { libc::chdir(path.as_ptr()) }.into()).map(drop)
}

/// Whether the working directory can be named from the root: outside of it the kernel says `(unreachable)`.
pub fn cwd_is_reachable() -> Result<bool> {
    let mut path = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer is valid for its length.
    check(unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) })?;
    Ok(path[0] == b'/')
}

/// Files made from now on belong to these, and the capabilities that go with root's files stay.
pub fn make_files_as(uid: u32, gid: u32) -> Result<()> {
    #[repr(C)]
    #[derive(Default)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let mut header = Header { version: 0x2008_0522, pid: 0 };
    // Effective, permitted and inheritable, twice.
    let mut sets = [0u32; 6];
    // SAFETY: numbers, and structures of version 3's layout.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        check(libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()))?;
        (sets[0], sets[3]) = (sets[1], sets[4]);
        check(libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr())).map(drop)
    }
}

/// Mounts an overlay with options longer than `fsconfig` takes.
pub fn mount_overlay(options: &CStr, on: &CStr) -> Result<()> {
    // SAFETY: all strings are valid for the call.
    check(
        unsafe { libc::mount(c"overlay".as_ptr(), on.as_ptr(), c"overlay".as_ptr(), 0, options.as_ptr().cast()) }
            .into(),
    )
    .map(drop)
}

pub fn unshare(flags: u64) -> Result<()> {
    // SAFETY: the calling process has one thread and shares no memory.
    check(unsafe { libc::unshare(flags as c_int) }.into()).map(drop)
}

pub fn setns(fd: RawFd, flags: u64) -> Result<()> {
    // SAFETY: as in unshare.
    check(unsafe { libc::setns(fd, flags as c_int) }.into()).map(drop)
}

pub fn sethostname(name: &CStr) -> Result<()> {
    // SAFETY: the length is the string's.
    check(unsafe { libc::sethostname(name.as_ptr(), name.to_bytes().len()) }.into()).map(drop)
}

/// The caller's number, in its own process namespace.
pub fn pid() -> u32 {
    // SAFETY: no memory is involved.
    unsafe { libc::getpid() }.unsigned_abs()
}

pub fn setsid() -> Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setsid() }.into()).map(drop)
}

pub fn umask(mask: u32) -> u32 {
    // SAFETY: no memory is involved.
    unsafe { libc::umask(mask) }
}

pub fn prctl(option: c_int, a: u64, b: u64) -> Result<()> {
    // SAFETY: callers pass options whose arguments are numbers.
    check(unsafe { libc::prctl(option, a, b, 0, 0) }.into()).map(drop)
}

/// The number of `/dev/…` for `mknodat`.
pub fn device(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

pub fn pidfd_send_signal(pidfd: RawFd, signal: i32) -> Result<()> {
    // SAFETY: no siginfo is passed.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, std::ptr::null::<c_void>(), 0) }).map(drop)
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A child: its process number and descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Child {
    pub pid: i32,
    pub pidfd: RawFd,
}

/// `clone3` with a copy of the memory, as fork does. `None` in the child.
///
/// # Safety
/// The child may only make system calls until it executes or exits: it must not allocate, lock or unwind.
pub unsafe fn clone3(flags: u64, cgroup: Option<RawFd>) -> Result<Option<Child>> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(fd) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = fd as u64;
    }
    // SAFETY: the arguments are valid for the call; the caller keeps the child's rules.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) })? as i32;
    Ok((pid != 0).then_some(Child { pid, pidfd }))
}

/// Ends the process at once.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit runs no handlers.
    unsafe { libc::_exit(code) }
}

/// How a child ended: (exit code, 128 + signal; signal or 0).
pub fn wait(pid: i32, flags: c_int) -> Result<Option<(i32, i32)>> {
    let mut status = 0;
    loop {
        // SAFETY: the status is written to a local.
        match check(unsafe { libc::waitpid(pid, &raw mut status, flags) }.into()) {
            Err(Errno(libc::EINTR)) => {}
            Err(e) => return Err(e),
            Ok(0) => return Ok(None),
            Ok(_) if libc::WIFEXITED(status) => return Ok(Some((libc::WEXITSTATUS(status), 0))),
            Ok(_) => {
                let signal = libc::WTERMSIG(status);
                return Ok(Some((128 + signal, signal)));
            }
        }
    }
}

/// Unix time in nanoseconds.
pub fn now_ns() -> i64 {
    clock_ns(libc::CLOCK_REALTIME)
}

/// Time since boot without suspend, in nanoseconds.
pub fn monotonic_ns() -> i64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

fn clock_ns(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a local.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Sends `bytes` with descriptors.
pub fn send_fds(socket: RawFd, bytes: &[u8], fds: &[RawFd]) -> Result<usize> {
    let mut space = [0u64; 16];
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero msghdr is valid; every pointer put in outlives the call, the control buffer is aligned and
    // has room for 8 descriptors.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        if !fds.is_empty() {
            let len = size_of_val(fds) as u32;
            if fds.len() > 8 {
                return Err(Errno(libc::EINVAL));
            }
            message.msg_control = space.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(len) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len) as _;
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), len as usize);
        }
        check(libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) as c_long).map(|n| n as usize)
    }
}

/// Receives bytes, and descriptors, which are the caller's from then on.
pub fn receive_fds(socket: RawFd, bytes: &mut [u8], mut got: impl FnMut(RawFd)) -> Result<usize> {
    let mut space = [0u64; 16];
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: as in send_fds; descriptors are read unaligned from the kernel's control data within its bounds.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = space.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&space) as _;
        let n = loop {
            match check(libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) as c_long) {
                Err(Errno(libc::EINTR)) => {}
                result => break result?,
            }
        };
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                let len = ((*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                for at in 0..len {
                    got(data.add(at).read_unaligned());
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
        Ok(n as usize)
    }
}

/// Sends `bytes` with descriptors over a unix socket.
pub fn send(socket: std::os::fd::BorrowedFd<'_>, bytes: &[u8], fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<usize> {
    use std::os::fd::AsRawFd;
    let mut raw = [-1; 8];
    for (slot, fd) in raw.iter_mut().zip(fds) {
        *slot = fd.as_raw_fd();
    }
    send_fds(socket.as_raw_fd(), bytes, &raw[..fds.len().min(8)])
}

/// Receives bytes and descriptors from a unix socket.
pub fn receive(
    socket: std::os::fd::BorrowedFd<'_>,
    bytes: &mut [u8],
    fds: &mut Vec<std::os::fd::OwnedFd>,
) -> Result<usize> {
    use std::os::fd::{AsRawFd, FromRawFd};
    // SAFETY: the kernel made these descriptors for this message; nobody else owns them.
    receive_fds(socket.as_raw_fd(), bytes, |fd| fds.push(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }))
}

/// Sets the size of the terminal behind a master.
pub fn resize(master: std::os::fd::BorrowedFd<'_>, columns: u16, rows: u16) -> Result<()> {
    crate::launch::set_window(std::os::fd::AsRawFd::as_raw_fd(&master), columns.into(), rows.into())
}

/// A detached, read-only view of an image's layers, the topmost first: a directory to resolve paths in.
pub fn image_root(layers: &[std::ffi::CString]) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    let fd = crate::launch::open_layers(layers)?;
    // SAFETY: it was just opened for us.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}
