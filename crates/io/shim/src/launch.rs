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
    UserRange,
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

/// A Pod's user namespace.
#[derive(Debug, Clone, Copy)]
pub struct UserNamespace {
    /// The caller's.
    pub fd: RawFd,
    pub range: UserRange,
}

impl UserNamespace {
    /// Makes a user namespace with `namespaces` that belong to it, and goes into these alone.
    ///
    /// # Errors
    /// ENOSPC: `user.max_user_namespaces` allows no more.
    pub fn make(range: UserRange, namespaces: u64) -> sys::Result<UserNamespace> {
        let (wait, go) = sys::pipe(0)?;
        // Only who is born in them has namespaces of another user namespace: a child that ends once they are held here.
        // SAFETY: the child makes system calls only.
        let Some(child) = (unsafe { sys::clone3(libc::CLONE_NEWUSER as u64 | namespaces, None) })? else {
            sys::close(go);
            let _ = sys::read(wait, &mut [0]);
            sys::exit_now(0);
        };
        let text = |text: String| CString::new(text).map_err(|_| Errno(libc::EINVAL));
        let hold = || {
            for (file, host) in [("uid_map", range.host_uid), ("gid_map", range.host_gid)] {
                let map = format!("0 {host} {}", range.length);
                sys::write_proc(&text(format!("{}/{file}", child.pid))?, map.as_bytes())?;
            }
            let fd = sys::open(&text(format!("/proc/{}/ns/user", child.pid))?, libc::O_RDONLY)?;
            if namespaces != 0 {
                sys::setns(child.pidfd, namespaces)?;
            }
            Ok(UserNamespace { fd, range })
        };
        let held = hold();
        for fd in [wait, go] {
            sys::close(fd);
        }
        let _ = sys::wait(child.pid, 0);
        sys::close(child.pidfd);
        held
    }

    /// What a user and a group of the Pod are on the host.
    fn on_host(users: Option<UserNamespace>, uid: u32, gid: u32) -> (u32, u32) {
        match users {
            Some(UserNamespace { range, .. }) => {
                (range.host_uid.saturating_add(uid), range.host_gid.saturating_add(gid))
            }
            None => (uid, gid),
        }
    }
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
    users: Option<UserNamespace>,
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
/// a mount of the Pod's shared memory for this container; it stays the caller's descriptor. With `users` its processes,
/// files and volumes are those of the Pod's user namespace.
///
/// # Errors
/// What could not be made, in runc's words.
pub fn create(
    plan: &ContainerPlan,
    stdio: [RawFd; 3],
    shm: Option<RawFd>,
    users: Option<UserNamespace>,
) -> Result<Launched, LaunchError> {
    let mut fds = Fds::default();
    let described = |failed: Failed| LaunchError::of(&failed, &plan.process, Some(plan));
    let root = open_root(&plan.root, &plan.directory, users, &mut fds).map_err(described)?;
    let mut sources = Vec::with_capacity(plan.mounts.len());
    for (index, mount) in plan.mounts.iter().enumerate() {
        let source = open_source(mount, shm, users, index, &mut fds).map_err(described)?;
        sources.push(source);
    }
    let mut prepared = prepare(&plan.process, &plan.cgroup, stdio, users, &mut fds).map_err(described)?;
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
    pub users: Option<UserNamespace>,
}

/// Makes a process in a running container, up to the point before its program is executed.
pub fn exec(process: &ProcessPlan, target: &ExecTarget<'_>, stdio: [RawFd; 3]) -> Result<Launched, LaunchError> {
    let mut fds = Fds::default();
    let described = |failed: Failed| LaunchError::of(&failed, process, None);
    let mut prepared = prepare(process, target.cgroup, stdio, target.users, &mut fds).map_err(described)?;
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
    users: Option<UserNamespace>,
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
        users,
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

fn open_root(plan: &RootPlan, directory: &CStr, users: Option<UserNamespace>, fds: &mut Fds) -> Result<Root, Failed> {
    let failed = at(Stage::Root, 0);
    if plan.lower.is_empty() {
        let fd = fds.keep(sys::open_tree(libc::AT_FDCWD, &plan.directory, true).map_err(failed)?);
        if let Some(users) = users {
            sys::map_mount(fd, users.fd, true).map_err(at(Stage::Root, 2))?;
        }
        return Ok(Root::Mount(fd));
    }
    let Some(users) = users else { return open_overlay(plan, directory, fds).map_err(failed) };
    let mapped = hold::in_copy(|| {
        map_layers(&plan.lower, users)?;
        // Named in the copy, so opened and closed there.
        let mut fds = Fds::default();
        match open_overlay(plan, directory, &mut fds)? {
            Root::Mount(_) => fds.0.pop().ok_or(Errno(libc::EINVAL)),
            Root::Legacy { options, at } => {
                sys::mount_overlay(&options, &at)?;
                sys::open_tree(libc::AT_FDCWD, &at, false)
            }
        }
    });
    Ok(Root::Mount(fds.keep(mapped.map_err(failed)?)))
}

/// Covers each layer with itself, seen through the Pod's identities: overlayfs takes that since 5.19, and before 6.15
/// only of what is mounted.
fn map_layers(layers: &[CString], users: UserNamespace) -> sys::Result<()> {
    let mut fds = Fds::default();
    for layer in layers {
        let tree = fds.keep(sys::open_tree(libc::AT_FDCWD, layer, false)?);
        sys::map_mount(tree, users.fd, false)?;
        sys::move_mount(tree, fds.keep(sys::open(layer, libc::O_PATH | libc::O_DIRECTORY)?))?;
    }
    Ok(())
}

fn open_overlay(plan: &RootPlan, directory: &CStr, fds: &mut Fds) -> sys::Result<Root> {
    // Layers are named by descriptor: short, and no colon or comma in a path is misread.
    let mut by_fd = |path: &CStr| -> sys::Result<CString> {
        let fd = sys::open(path, libc::O_PATH | libc::O_DIRECTORY)?;
        CString::new(format!("/proc/self/fd/{}", fds.keep(fd))).map_err(|_| Errno(libc::EINVAL))
    };
    let lower = plan.lower.iter().map(|l| by_fd(l)).collect::<Result<Vec<_>, _>>()?;
    let writable = if plan.upper.is_empty() { None } else { Some((by_fd(&plan.upper)?, by_fd(&plan.work)?)) };
    let joined = lower.iter().map(|l| l.to_bytes()).collect::<Vec<_>>().join(&b':');
    let joined = CString::new(joined).map_err(|_| Errno(libc::EINVAL))?;
    if let Some(fd) = overlay(&lower, &joined, writable.as_ref())? {
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
    let options = CString::new(options).map_err(|_| Errno(libc::EINVAL))?;
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

fn open_source(
    mount: &MountPlan,
    shm: Option<RawFd>,
    users: Option<UserNamespace>,
    index: usize,
    fds: &mut Fds,
) -> Result<Source, Failed> {
    let failed = at(Stage::MountSource, index);
    if mount.kind != MOUNT_BIND {
        return open_made(mount, shm, users, fds).map_err(failed);
    }
    let tree = match sys::open_tree(libc::AT_FDCWD, &mount.source, mount.recursive) {
        Err(Errno(libc::ENOENT)) if mount.optional => return Ok(Source::Absent),
        tree => fds.keep(tree.map_err(failed)?),
    };
    if let Some(users) = users {
        sys::map_mount(tree, users.fd, mount.recursive).map_err(at(Stage::MountMap, index))?;
    }
    let propagation = if mount.propagation == 0 { libc::MS_PRIVATE } else { mount.propagation };
    sys::mount_setattr(tree, 0, 0, propagation, mount.recursive)
        .and_then(|()| open_tree_attributes(mount, tree))
        .map_err(failed)
}

/// Of what is no part of the host's tree.
fn open_made(
    mount: &MountPlan,
    shm: Option<RawFd>,
    users: Option<UserNamespace>,
    fds: &mut Fds,
) -> sys::Result<Source> {
    match mount.kind {
        MOUNT_SHM => Ok(Source::Tree { fd: shm.ok_or(Errno(libc::ENODEV))?, is_dir: true }),
        MOUNT_OVERLAY => {
            let layers: Vec<CString> = mount.options.iter().map(|(layer, _)| layer.clone()).collect();
            let tree = open_image(&layers, mount, users, fds)?;
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
fn open_image(
    layers: &[CString],
    mount: &MountPlan,
    users: Option<UserNamespace>,
    fds: &mut Fds,
) -> sys::Result<RawFd> {
    let tree = fds.keep(match users {
        Some(users) => hold::in_copy(|| {
            map_layers(layers, users)?;
            open_layers(layers)
        })?,
        None => open_layers(layers)?,
    });
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
