//! The launcher: makes a container's first process, or one more in it. Everything is planned and opened here, in the
//! shim; the child (`child`) makes system calls only and allocates nothing.

mod child;
mod error;
mod hold;
mod mounts;

pub(crate) use child::set_window;
pub use error::{LaunchError, Stage};
pub(crate) use hold::Held;

use crate::plan::{
    CgroupPlan, ContainerPlan, MOUNT_BIND, MOUNT_CGROUP_V1, MOUNT_OVERLAY, MOUNT_SHM, MountPlan, ProcessPlan, RootPlan,
};
use crate::sys::{self, Child, Errno};
use error::{Failed, at};
use std::ffi::{CStr, CString, c_char};
use std::os::fd::RawFd;

/// Descriptors closed when dropped, in the process that opened them.
#[derive(Default)]
struct Fds(Vec<RawFd>);

impl Fds {
    fn keep(&mut self, fd: RawFd) -> RawFd {
        self.0.push(fd);
        fd
    }
}

impl Drop for Fds {
    fn drop(&mut self) {
        for fd in &self.0 {
            sys::close(*fd);
        }
    }
}

/// The file of a v1 group that a process of one thread writes itself into. Not `cgroup.procs`: for that the kernel
/// stops every fork of the machine, which takes milliseconds.
pub(crate) const V1_JOIN: &str = "tasks";

/// Where the root file system comes from.
enum Root {
    /// A detached mount.
    Mount(RawFd),
    /// An overlay whose options are too long for `fsconfig` on kernels before 6.5: mounted by the child on `at`.
    Legacy { options: CString, at: CString },
}

/// What the parent opened for one mount.
enum Source {
    None,
    Tree {
        fd: RawFd,
        is_dir: bool,
    },
    Trees(Vec<(CString, RawFd)>),
    /// An optional source that is not there.
    Absent,
}

/// A planned process with everything it needs opened.
struct Prepared<'a> {
    process: &'a ProcessPlan,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// Programs to try, in the order of `$PATH`; one if the command has a slash.
    candidates: Vec<CString>,
    /// Files of cgroups the child writes itself into.
    v1_procs: Vec<RawFd>,
    stdio: [RawFd; 3],
    /// The child's end of the channel.
    channel: RawFd,
    last_capability: u32,
}

/// A process waiting before its program.
pub struct Launched {
    pub child: Child,
    /// The terminal's master, where one was planned; the caller's.
    pub master: Option<RawFd>,
    channel: RawFd,
}

impl Launched {
    /// Lets it execute its program; returns when it has, or could not (it is reaped then).
    pub fn start(self, process: &ProcessPlan) -> Result<Child, LaunchError> {
        let sent = sys::write(self.channel, b"s");
        let result = match sent {
            Ok(_) => receive(self.channel),
            Err(e) => Err(Failed { stage: Stage::Channel, errno: e.0, index: 0 }),
        };
        sys::close(self.channel);
        match result {
            Ok(Heard::Closed) => Ok(self.child),
            Ok(Heard::Created(_)) => Err(self.lost(Stage::Channel)),
            Err(failed) => {
                let _ = sys::wait(self.child.pid, 0);
                sys::close(self.child.pidfd);
                Err(LaunchError::of(&failed, process, None))
            }
        }
    }

    fn lost(&self, stage: Stage) -> LaunchError {
        let _ = sys::pidfd_send_signal(self.child.pidfd, libc::SIGKILL);
        let _ = sys::wait(self.child.pid, 0);
        sys::close(self.child.pidfd);
        LaunchError { stage, errno: Errno(libc::EPROTO), text: "the container's process spoke out of turn".into() }
    }

    /// Gives it up: the process ends and is reaped.
    pub fn abandon(self) {
        sys::close(self.channel);
        let _ = sys::pidfd_send_signal(self.child.pidfd, libc::SIGKILL);
        let _ = sys::wait(self.child.pid, 0);
        sys::close(self.child.pidfd);
    }
}

/// Makes the container up to the point before its program is executed. With a terminal `stdio` is not used. `shm` is
/// a mount of the Pod's shared memory for this container; it stays the caller's descriptor.
pub fn create(plan: &ContainerPlan, stdio: [RawFd; 3], shm: Option<RawFd>) -> Result<Launched, LaunchError> {
    let mut fds = Fds::default();
    let described = |failed: Failed| LaunchError::of(&failed, &plan.process, Some(plan));
    let root = open_root(&plan.root, &plan.directory, &mut fds).map_err(described)?;
    let mut sources = Vec::with_capacity(plan.mounts.len());
    for (index, mount) in plan.mounts.iter().enumerate() {
        let source = open_source(mount, shm, &mut fds).map_err(|e| described(at(Stage::MountSource, index)(e)))?;
        sources.push(source);
    }
    let mut prepared = prepare(&plan.process, &plan.cgroup, stdio, &mut fds).map_err(described)?;
    let container = child::Container { plan, root, sources: &sources };
    let namespaces = plan.namespaces & !(libc::CLONE_NEWCGROUP as u64);
    spawn_in_group(&mut prepared, namespaces, &plan.cgroup, &mut fds, |p| child::container(p, &container))
        .map_err(described)
}

/// Where an additional process goes.
pub struct ExecTarget<'a> {
    /// The container's first process.
    pub pidfd: RawFd,
    pub cgroup: &'a CgroupPlan,
    /// `CLONE_NEW*` namespaces the container has of its own.
    pub namespaces: u64,
    /// The shim's way back: a descriptor of the process namespace its children are in otherwise.
    pub own_pid_namespace: RawFd,
}

/// Makes a process in a running container, up to the point before its program is executed.
pub fn exec(process: &ProcessPlan, target: &ExecTarget<'_>, stdio: [RawFd; 3]) -> Result<Launched, LaunchError> {
    let mut fds = Fds::default();
    let described = |failed: Failed| LaunchError::of(&failed, process, None);
    let mut prepared = prepare(process, target.cgroup, stdio, &mut fds).map_err(described)?;
    let new_pid = libc::CLONE_NEWPID as u64;
    let own_pid = target.namespaces & new_pid != 0;
    // Joining a process namespace changes where children are born, never the caller: so it is joined around the clone.
    if own_pid {
        sys::setns(target.pidfd, new_pid).map_err(|e| described(at(Stage::Join, 0)(e)))?;
    }
    let join = target.namespaces & !new_pid;
    let body = |p: &Prepared<'_>| child::exec(p, target.pidfd, join);
    let result = spawn_in_group(&mut prepared, 0, target.cgroup, &mut fds, body);
    if own_pid {
        sys::setns(target.own_pid_namespace, new_pid).map_err(|e| described(at(Stage::Join, 1)(e)))?;
    }
    result.map_err(described)
}

fn prepare<'a>(
    process: &'a ProcessPlan,
    cgroup: &CgroupPlan,
    stdio: [RawFd; 3],
    fds: &mut Fds,
) -> Result<Prepared<'a>, Failed> {
    let mut v1_procs = Vec::with_capacity(cgroup.v1.len());
    for (index, dir) in cgroup.v1.iter().enumerate() {
        let fd = sys::open(&join(dir, V1_JOIN), libc::O_WRONLY).map_err(at(Stage::Cgroup, index))?;
        v1_procs.push(fds.keep(fd));
    }
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    Ok(Prepared {
        process,
        argv: pointers(&process.argv),
        envp: pointers(&process.env),
        candidates: candidates(process),
        v1_procs,
        stdio,
        channel: -1,
        last_capability: last_capability(),
    })
}

/// Clones the child into its v2 group. Kernels from 6.12 on kill such a child when `cgroup.kill` was ever written to
/// the caller's group or to the child's, but not as often to both; then the child joins by itself.
fn spawn_in_group(
    prepared: &mut Prepared<'_>,
    flags: u64,
    cgroup: &CgroupPlan,
    fds: &mut Fds,
    body: impl Fn(&Prepared<'_>) -> Failed,
) -> Result<Launched, Failed> {
    if cgroup.unified.is_empty() {
        return spawn(prepared, flags, None, &body);
    }
    let failed = at(Stage::Cgroup, usize::MAX);
    let group = sys::open(&cgroup.unified, libc::O_PATH | libc::O_DIRECTORY).map_err(failed)?;
    match spawn(prepared, flags, Some(fds.keep(group)), &body) {
        Err(Failed { stage: Stage::Died, .. }) => {
            let procs = sys::open(&join(&cgroup.unified, "cgroup.procs"), libc::O_WRONLY).map_err(failed)?;
            prepared.v1_procs.push(fds.keep(procs));
            spawn(prepared, flags, None, &body)
        }
        result => result,
    }
}

fn spawn(
    prepared: &mut Prepared<'_>,
    flags: u64,
    cgroup: Option<RawFd>,
    body: &impl Fn(&Prepared<'_>) -> Failed,
) -> Result<Launched, Failed> {
    let (ours, theirs) = sys::message_pair().map_err(at(Stage::Channel, 0))?;
    prepared.channel = theirs;
    // SAFETY: the child only calls `body`, which allocates nothing, and ends in exec or exit.
    let cloned = unsafe { sys::clone3(flags, cgroup) };
    let Ok(Some(child)) = cloned else {
        if matches!(cloned, Ok(None)) {
            let failed = body(prepared);
            let _ = sys::write(prepared.channel, &failed.encode());
            sys::exit_now(1);
        }
        sys::close(ours);
        sys::close(theirs);
        return Err(at(Stage::Clone, 0)(cloned.err().unwrap_or(Errno(libc::EINVAL))));
    };
    sys::close(theirs);
    match receive(ours) {
        Ok(Heard::Created(master)) => {
            if let Some(adj) = prepared.process.oom_score_adj {
                set_oom_score_adj(child.pid, adj);
            }
            Ok(Launched { child, master, channel: ours })
        }
        other => {
            sys::close(ours);
            let _ = sys::pidfd_send_signal(child.pidfd, libc::SIGKILL);
            let _ = sys::wait(child.pid, 0);
            sys::close(child.pidfd);
            Err(other.err().unwrap_or(Failed { stage: Stage::Died, errno: libc::ESRCH, index: 0 }))
        }
    }
}

/// Best effort: lowering it needs CAP_SYS_RESOURCE, which a host may keep from us.
fn set_oom_score_adj(pid: i32, adj: i32) {
    if let Ok(path) = CString::new(format!("{pid}/oom_score_adj")) {
        let _ = sys::write_proc(&path, adj.to_string().as_bytes());
    }
}

enum Heard {
    Created(Option<RawFd>),
    /// The program was executed.
    Closed,
}

fn receive(channel: RawFd) -> Result<Heard, Failed> {
    let mut bytes = [0u8; 12];
    let mut fd = None;
    let n = sys::receive_fds(channel, &mut bytes, |got| fd = Some(got)).map_err(at(Stage::Channel, 0))?;
    if n == 0 {
        return Ok(Heard::Closed);
    }
    match Failed::decode(&bytes) {
        None => Ok(Heard::Created(fd)),
        Some(failed) => {
            if let Some(fd) = fd {
                sys::close(fd);
            }
            Err(failed)
        }
    }
}

/// The programs a shell would try: the command itself if it has a slash, else it in each directory of `$PATH`.
fn candidates(process: &ProcessPlan) -> Vec<CString> {
    let Some(command) = process.argv.first().map(|c| c.to_bytes()) else { return Vec::new() };
    if command.contains(&b'/') {
        return process.argv[..1].to_vec();
    }
    let path = process.env.iter().rev().find_map(|e| e.to_bytes().strip_prefix(b"PATH=")).unwrap_or_default();
    path.split(|b| *b == b':')
        // An empty entry means the working directory, which Go refuses to search.
        .filter(|dir| dir.first() == Some(&b'/'))
        .filter_map(|dir| CString::new([dir, b"/", command].concat()).ok())
        .collect()
}

fn last_capability() -> u32 {
    std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok().and_then(|s| s.trim().parse().ok()).unwrap_or(40)
}

/// `dir/name`.
pub(crate) fn join(dir: &CStr, name: &str) -> CString {
    let mut bytes = dir.to_bytes().to_vec();
    bytes.push(b'/');
    bytes.extend_from_slice(name.as_bytes());
    CString::new(bytes).unwrap_or_default()
}

/// `fsconfig` takes no string longer than this.
const FSCONFIG_MAX: usize = 255;

fn open_root(plan: &RootPlan, directory: &CStr, fds: &mut Fds) -> Result<Root, Failed> {
    let failed = at(Stage::Root, 0);
    if plan.lower.is_empty() {
        let fd = sys::open_tree(libc::AT_FDCWD, &plan.directory, true).map_err(failed)?;
        return Ok(Root::Mount(fds.keep(fd)));
    }
    // Layers are named by descriptor: short, and no colon or comma in a path is misread.
    let mut by_fd = |path: &CStr| -> Result<CString, Failed> {
        let fd = sys::open(path, libc::O_PATH | libc::O_DIRECTORY).map_err(failed)?;
        CString::new(format!("/proc/self/fd/{}", fds.keep(fd))).map_err(|_| failed(Errno(libc::EINVAL)))
    };
    let lower = plan.lower.iter().map(|l| by_fd(l)).collect::<Result<Vec<_>, _>>()?;
    let writable = if plan.upper.is_empty() { None } else { Some((by_fd(&plan.upper)?, by_fd(&plan.work)?)) };
    let joined = lower.iter().map(|l| l.to_bytes()).collect::<Vec<_>>().join(&b':');
    let joined = CString::new(joined).map_err(|_| failed(Errno(libc::EINVAL)))?;
    if let Some(fd) = overlay(&lower, &joined, writable.as_ref()).map_err(failed)? {
        return Ok(Root::Mount(fds.keep(fd)));
    }
    let mut options = [b"lowerdir=".as_slice(), joined.to_bytes()].concat();
    if let Some((upper, work)) = &writable {
        for (key, value) in [(",upperdir=", upper), (",workdir=", work)] {
            options.extend_from_slice(key.as_bytes());
            options.extend_from_slice(value.to_bytes());
        }
        options.extend_from_slice(b",volatile");
    }
    let options = CString::new(options).map_err(|_| failed(Errno(libc::EINVAL)))?;
    Ok(Root::Legacy { options, at: directory.to_owned() })
}

/// A detached overlay; `None` where the kernel's `fsconfig` cannot take that many layers: before 6.5 it takes all in one
/// string. (Asked for `lowerdir+` it says no only when the file system is made, and complains in its log.)
fn overlay(lower: &[CString], joined: &CStr, writable: Option<&(CString, CString)>) -> sys::Result<Option<RawFd>> {
    if sys::kernel_version() >= (6, 5) {
        let each: Vec<(&CStr, &CStr)> = lower.iter().map(|layer| (c"lowerdir+", layer.as_c_str())).collect();
        return overlay_of(&each, writable).map(Some);
    }
    if joined.to_bytes().len() > FSCONFIG_MAX {
        return Ok(None);
    }
    overlay_of(&[(c"lowerdir", joined)], writable).map(Some)
}

/// `volatile`: a container's files do not outlive it, and unmounting must not flush the host's disk.
fn overlay_of(lower: &[(&CStr, &CStr)], writable: Option<&(CString, CString)>) -> sys::Result<RawFd> {
    let fs = sys::fsopen(c"overlay")?;
    let mut fds = Fds::default();
    fds.keep(fs);
    sys::fsconfig(fs, c"source", Some(c"overlay"))?;
    for (key, value) in lower {
        sys::fsconfig(fs, key, Some(value))?;
    }
    if let Some((upper, work)) = writable {
        sys::fsconfig(fs, c"upperdir", Some(upper))?;
        sys::fsconfig(fs, c"workdir", Some(work))?;
        sys::fsconfig(fs, c"volatile", None)?;
    }
    sys::fsmount(fs, 0)
}

fn open_source(mount: &MountPlan, shm: Option<RawFd>, fds: &mut Fds) -> sys::Result<Source> {
    match mount.kind {
        MOUNT_BIND => {
            let tree = match sys::open_tree(libc::AT_FDCWD, &mount.source, mount.recursive) {
                Err(Errno(libc::ENOENT)) if mount.optional => return Ok(Source::Absent),
                tree => fds.keep(tree?),
            };
            let propagation = if mount.propagation == 0 { libc::MS_PRIVATE } else { mount.propagation };
            sys::mount_setattr(tree, 0, 0, propagation, mount.recursive)?;
            open_tree_attributes(mount, tree)
        }
        MOUNT_SHM => Ok(Source::Tree { fd: shm.ok_or(Errno(libc::ENODEV))?, is_dir: true }),
        MOUNT_OVERLAY => {
            let layers: Vec<CString> = mount.options.iter().map(|(layer, _)| layer.clone()).collect();
            let tree = open_image(&layers, mount, fds)?;
            open_tree_attributes(mount, tree)
        }
        MOUNT_CGROUP_V1 => {
            let mut trees = Vec::new();
            for (name, path) in &mount.options {
                let Some(path) = path else { continue };
                let tree = fds.keep(sys::open_tree(libc::AT_FDCWD, path, false)?);
                sys::mount_setattr(tree, mount.attributes, 0, libc::MS_PRIVATE, false)?;
                trees.push((name.clone(), tree));
            }
            Ok(Source::Trees(trees))
        }
        _ => Ok(Source::None),
    }
}

fn open_tree_attributes(mount: &MountPlan, tree: RawFd) -> sys::Result<Source> {
    if mount.attributes != 0 {
        let clear = if mount.attributes & sys::MOUNT_ATTR_ATIME != 0 { sys::MOUNT_ATTR_ATIME } else { 0 };
        sys::mount_setattr(tree, mount.attributes, clear, 0, mount.recursive_attributes)?;
    }
    let is_dir = sys::fstat(tree)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    Ok(Source::Tree { fd: tree, is_dir })
}

/// An image as a volume: its layers read-only, and of them the part asked for.
fn open_image(layers: &[CString], mount: &MountPlan, fds: &mut Fds) -> sys::Result<RawFd> {
    let tree = fds.keep(open_layers(layers)?);
    sys::mount_setattr(tree, 0, 0, libc::MS_PRIVATE, false)?;
    if mount.sub_path.is_empty() {
        return Ok(tree);
    }
    let part = fds.keep(sys::open_in_root(tree, &mount.sub_path, libc::O_PATH, 0)?);
    Ok(fds.keep(hold::copy_part(tree, part)?))
}

/// A detached mount of layers, the topmost first, that cannot be written.
pub(crate) fn open_layers(layers: &[CString]) -> sys::Result<RawFd> {
    if let [only] = layers {
        // An overlay needs two layers unless it is writable.
        let tree = sys::open_tree(libc::AT_FDCWD, only, false)?;
        sys::mount_setattr(tree, sys::MOUNT_ATTR_RDONLY, 0, 0, false)?;
        return Ok(tree);
    }
    let mut fds = Fds::default();
    let mut lower = Vec::new();
    for layer in layers {
        let fd = fds.keep(sys::open(layer, libc::O_PATH | libc::O_DIRECTORY)?);
        lower.push(CString::new(format!("/proc/self/fd/{fd}")).map_err(|_| Errno(libc::EINVAL))?);
    }
    let joined = lower.iter().map(|l| l.to_bytes()).collect::<Vec<_>>().join(&b':');
    let joined = CString::new(joined).map_err(|_| Errno(libc::EINVAL))?;
    overlay(&lower, &joined, None)?.ok_or(Errno(libc::E2BIG))
}
