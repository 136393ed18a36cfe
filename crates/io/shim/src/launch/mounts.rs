//! The child's file system: its root, its mounts, its devices, and what is hidden or read-only in it. Every path in
//! the container is resolved with the container's root as the root, and only descriptors are mounted on.

use super::error::{Failed, Stage, at};
use super::{Root, Source, UserNamespace};
use crate::plan::{ContainerPlan, DevicePlan, MOUNT_CGROUP_V1, MOUNT_FS, MountPlan, RootPlan};
use crate::sys::{self, Errno};
use std::ffi::CStr;
use std::os::fd::RawFd;

type Result<T> = std::result::Result<T, Failed>;

/// A path being put together on the stack.
pub(super) struct Path {
    bytes: [u8; libc::PATH_MAX as usize],
    len: usize,
}

impl Path {
    pub(super) fn new() -> Path {
        Path { bytes: [0; libc::PATH_MAX as usize], len: 0 }
    }

    pub(super) fn push(&mut self, part: &[u8]) -> sys::Result<()> {
        if self.len + part.len() + 1 >= self.bytes.len() {
            return Err(Errno(libc::ENAMETOOLONG));
        }
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
        self.bytes[self.len] = 0;
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        self.len = len;
        self.bytes[len] = 0;
    }

    /// A positive number.
    pub(super) fn push_number(&mut self, number: u32) -> sys::Result<()> {
        let mut divisor = 1_000_000_000;
        while divisor > 1 && number < divisor {
            divisor /= 10;
        }
        while divisor > 0 {
            self.push(&[b'0' + (number / divisor % 10) as u8])?;
            divisor /= 10;
        }
        Ok(())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        // SAFETY: `push` and `truncate` keep a zero at `len`, and parts hold none.
        unsafe { CStr::from_bytes_with_nul_unchecked(&self.bytes[..=self.len]) }
    }
}

/// Without the slashes in front: `openat2` in a root takes both, the loops here only this.
fn relative(path: &CStr) -> &CStr {
    let slashes = path.to_bytes().iter().take_while(|b| **b == b'/').count();
    // SAFETY: the rest of a C string, its final zero included, is a C string.
    unsafe { CStr::from_bytes_with_nul_unchecked(&path.to_bytes_with_nul()[slashes..]) }
}

/// What stands at the end of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Directory,
    File,
}

const MAX_LINKS: usize = 40;

/// Opens `path` in the container's root, making what is missing of it. A dangling link is followed: its target is
/// made, in the root (`/etc/resolv.conf` in many images).
fn ensure(root: RawFd, path: &CStr, want: Want) -> sys::Result<RawFd> {
    let open = |path: &CStr| sys::open_in_root(root, path, libc::O_PATH, 0);
    let path = relative(path);
    match open(if path.is_empty() { c"." } else { path }) {
        Err(Errno(libc::ENOENT)) => {}
        result => return result,
    }
    // `rest` is still to be walked, `done` exists (a prefix of the path, links and all).
    let mut rest = Path::new();
    rest.push(path.to_bytes())?;
    let mut done = Path::new();
    let mut current = open(c".")?;
    let mut links = 0;
    loop {
        let from = rest.as_bytes().iter().take_while(|b| **b == b'/').count();
        let len = rest.as_bytes()[from..].iter().take_while(|b| **b != b'/').count();
        if len == 0 {
            return Ok(current);
        }
        let last = rest.as_bytes()[from + len..].iter().all(|b| *b == b'/');
        let mut name = Path::new();
        name.push(&rest.as_bytes()[from..from + len])?;
        let before = done.len;
        done.push(b"/")?;
        done.push(name.as_bytes())?;
        let mut next = open(done.as_c_str());
        if next == Err(Errno(libc::ENOENT)) {
            let made = if last && want == Want::File {
                sys::mknodat(current, name.as_c_str(), libc::S_IFREG | 0o644, 0)
            } else {
                sys::mkdirat(current, name.as_c_str(), 0o755)
            };
            if made == Err(Errno(libc::EEXIST)) {
                // A dangling link: what it names takes its place in the path.
                let mut target = [0u8; libc::PATH_MAX as usize];
                let n = sys::readlinkat(current, name.as_c_str(), &mut target)?;
                links += 1;
                if links > MAX_LINKS || n == target.len() {
                    return Err(Errno(libc::ELOOP));
                }
                let mut path = Path::new();
                path.push(&target[..n])?;
                path.push(&rest.as_bytes()[from + len..])?;
                done.truncate(if target[0] == b'/' { 0 } else { before });
                if done.len == 0 {
                    sys::close(current);
                    current = open(c".")?;
                }
                rest = path;
                continue;
            }
            made?;
            next = open(done.as_c_str());
        }
        sys::close(current);
        current = next?;
        let mut path = Path::new();
        path.push(&rest.as_bytes()[from + len..])?;
        rest = path;
    }
}

/// Puts the root file system in place, and returns it.
pub(super) fn enter_root(root: &Root, plan: &RootPlan) -> Result<RawFd> {
    // Changes on the host still come in for what asks for them; nothing goes out.
    sys::set_root_propagation(libc::MS_SLAVE).map_err(at(Stage::RootPropagation, 0))?;
    let failed = at(Stage::Root, 1);
    let mount = match root {
        Root::Mount(mount) => {
            let here = sys::open(c"/", libc::O_PATH | libc::O_DIRECTORY).map_err(failed)?;
            sys::move_mount(*mount, here).map_err(failed)?;
            sys::close(here);
            *mount
        }
        Root::Legacy { options, at: place } => {
            sys::mount_overlay(options, place).map_err(failed)?;
            sys::open(place, libc::O_PATH | libc::O_DIRECTORY).map_err(failed)?
        }
    };
    let propagation = if plan.propagation == 0 { libc::MS_SLAVE } else { plan.propagation };
    sys::mount_setattr(mount, 0, 0, propagation, true).map_err(failed)?;
    Ok(mount)
}

/// Makes the mounts, then the devices.
pub(super) fn mount_all(
    root: RawFd,
    plan: &ContainerPlan,
    sources: &[Source],
    users: Option<UserNamespace>,
) -> Result<()> {
    let mask = sys::umask(0);
    for (index, (mount, source)) in plan.mounts.iter().zip(sources).enumerate() {
        mount_one(root, mount, source, users, index)?;
    }
    for (index, device) in plan.devices.iter().enumerate() {
        make_device(root, device, users).map_err(at(Stage::Device, index))?;
    }
    make_links(root)?;
    sys::umask(mask);
    Ok(())
}

/// What of `/proc` may be covered, as runc lets lxcfs do.
const COVERABLE: [&CStr; 11] = [
    c"/proc/cpuinfo",
    c"/proc/diskstats",
    c"/proc/meminfo",
    c"/proc/stat",
    c"/proc/swaps",
    c"/proc/uptime",
    c"/proc/loadavg",
    c"/proc/slabinfo",
    c"/proc/net/dev",
    c"/proc/sys/kernel/ns_last_pid",
    c"/proc/sys/crypto/fips_enabled",
];

/// Nothing is mounted over `/proc` or in it, by whatever link the path leads there: who writes to `/proc` later would
/// write to what stands in its place (CVE-2019-16884, CVE-2025-52881). A procfs over a procfs is fine.
fn check_proc(mount: &MountPlan, tree: RawFd, on: RawFd, index: usize) -> Result<()> {
    let failed = at(Stage::MountAttach, index);
    let named = mount.target.as_c_str() == c"/proc";
    if !named && (sys::fs_type(on).map_err(failed)? != sys::PROC || COVERABLE.contains(&mount.target.as_c_str())) {
        return Ok(());
    }
    let root = named || sys::fstat(on).map_err(failed)?.st_ino == 1;
    if root && sys::fs_type(tree).map_err(failed)? == sys::PROC {
        return Ok(());
    }
    Err(at(if root { Stage::MountOverProc } else { Stage::MountInProc }, index)(Errno(libc::EPERM)))
}

fn mount_one(
    root: RawFd,
    mount: &MountPlan,
    source: &Source,
    users: Option<UserNamespace>,
    index: usize,
) -> Result<()> {
    let target = |want| ensure(root, &mount.target, want).map_err(at(Stage::MountTarget, index));
    let attach = |tree: RawFd, on: RawFd| sys::move_mount(tree, on).map_err(at(Stage::MountAttach, index));
    match source {
        Source::Absent => Ok(()),
        Source::Tree { fd, is_dir } => {
            let on = target(if *is_dir { Want::Directory } else { Want::File })?;
            check_proc(mount, *fd, on, index)?;
            attach(*fd, on)?;
            sys::close(on);
            Ok(())
        }
        Source::Trees(trees) => {
            debug_assert!(mount.kind == MOUNT_CGROUP_V1);
            let dir = new_tmpfs(c"755", 0).map_err(at(Stage::Mount, index))?;
            let on = target(Want::Directory)?;
            check_proc(mount, dir, on, index)?;
            attach(dir, on)?;
            for (name, tree) in trees {
                sys::mkdirat(dir, name, 0o755).map_err(at(Stage::Mount, index))?;
                let place = sys::openat(dir, name, libc::O_PATH).map_err(at(Stage::Mount, index))?;
                attach(*tree, place)?;
                sys::close(place);
            }
            sys::mount_setattr(dir, mount.attributes, 0, 0, false).map_err(at(Stage::Mount, index))?;
            sys::close(on);
            Ok(())
        }
        Source::None => {
            debug_assert!(mount.kind == MOUNT_FS);
            let tree = new_fs(&mount.fs, &mount.source, &mount.options, mount.attributes, index)?;
            // These two are always made as the node's root's.
            if users.is_some() && [c"devpts", c"mqueue"].contains(&mount.fs.as_c_str()) {
                let (uid, gid) = UserNamespace::on_host(users, 0, 0);
                sys::fchownat(tree, c"", uid, gid, libc::AT_EMPTY_PATH).map_err(at(Stage::Mount, index))?;
            }
            let on = if mount.fs.as_c_str() == c"proc" || mount.fs.as_c_str() == c"sysfs" {
                plain_directory(root, &mount.target).map_err(at(Stage::MountTarget, index))?
            } else {
                target(Want::Directory)?
            };
            check_proc(mount, tree, on, index)?;
            attach(tree, on)?;
            sys::close(tree);
            sys::close(on);
            Ok(())
        }
    }
}

/// A directory that is none by way of a link: what guards `/proc` and `/sys` counts on their place.
fn plain_directory(root: RawFd, path: &CStr) -> sys::Result<RawFd> {
    sys::close(ensure(root, path, Want::Directory)?);
    sys::open_in_root(root, relative(path), libc::O_PATH | libc::O_DIRECTORY, sys::RESOLVE_NO_SYMLINKS)
}

type Options = [(std::ffi::CString, Option<std::ffi::CString>)];

fn new_fs(kind: &CStr, source: &CStr, options: &Options, attributes: u64, index: usize) -> Result<RawFd> {
    let failed = at(Stage::Mount, index);
    let fs = sys::fsopen(kind).map_err(failed)?;
    let source = if source.is_empty() { kind } else { source };
    sys::fsconfig(fs, c"source", Some(source)).map_err(failed)?;
    for (key, value) in options {
        sys::fsconfig(fs, key, value.as_deref()).map_err(failed)?;
    }
    let mount = sys::fsmount(fs, attributes).map_err(failed)?;
    sys::close(fs);
    Ok(mount)
}

fn new_tmpfs(mode: &CStr, attributes: u64) -> sys::Result<RawFd> {
    let fs = sys::fsopen(c"tmpfs")?;
    sys::fsconfig(fs, c"source", Some(c"tmpfs"))?;
    sys::fsconfig(fs, c"mode", Some(mode))?;
    if attributes & sys::MOUNT_ATTR_RDONLY != 0 {
        sys::fsconfig(fs, c"ro", None)?;
    }
    let mount = sys::fsmount(fs, attributes)?;
    sys::close(fs);
    Ok(mount)
}

fn make_device(root: RawFd, device: &DevicePlan, users: Option<UserNamespace>) -> sys::Result<()> {
    let path = relative(&device.path).to_bytes();
    let cut = path.iter().rposition(|b| *b == b'/');
    let mut parent = Path::new();
    parent.push(&path[..cut.unwrap_or(0)])?;
    let mut name = Path::new();
    name.push(&path[cut.map_or(0, |c| c + 1)..])?;
    let dir = ensure(root, parent.as_c_str(), Want::Directory)?;
    match sys::mknodat(dir, name.as_c_str(), device.mode, sys::device(device.major, device.minor)) {
        // An image may bring its own; runc leaves it, too.
        Err(Errno(libc::EEXIST)) => {}
        made => {
            made?;
            let (uid, gid) = UserNamespace::on_host(users, device.uid, device.gid);
            sys::fchownat(dir, name.as_c_str(), uid, gid, libc::AT_SYMLINK_NOFOLLOW)?;
        }
    }
    sys::close(dir);
    Ok(())
}

fn make_links(root: RawFd) -> Result<()> {
    let failed = at(Stage::DevLink, 0);
    let dev = ensure(root, c"dev", Want::Directory).map_err(failed)?;
    let links = [
        (c"/proc/self/fd", c"fd"),
        (c"/proc/self/fd/0", c"stdin"),
        (c"/proc/self/fd/1", c"stdout"),
        (c"/proc/self/fd/2", c"stderr"),
        (c"pts/ptmx", c"ptmx"),
        // Only where the kernel has one; this still is the host's path.
        (c"/proc/kcore", c"core"),
    ];
    let core = sys::stat(c"/proc/kcore").is_ok();
    for (target, name) in &links[..links.len() - usize::from(!core)] {
        match sys::symlinkat(target, dev, name) {
            Ok(()) | Err(Errno(libc::EEXIST | libc::EROFS)) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    sys::close(dev);
    Ok(())
}

/// Mounts the terminal on `/dev/console`. Both ends are descriptors: nobody can put something else in between.
pub(super) fn bind_console(root: RawFd, terminal: RawFd) -> Result<()> {
    let failed = at(Stage::Terminal, 2);
    let dev = ensure(root, c"dev", Want::Directory).map_err(failed)?;
    match sys::mknodat(dev, c"console", libc::S_IFREG | 0o600, 0) {
        Ok(()) | Err(Errno(libc::EEXIST)) => {}
        Err(e) => return Err(failed(e)),
    }
    let on = sys::openat(dev, c"console", libc::O_PATH | libc::O_NOFOLLOW).map_err(failed)?;
    let tree = sys::open_tree(terminal, c"", false).map_err(failed)?;
    sys::move_mount(tree, on).map_err(failed)?;
    for fd in [dev, on, tree] {
        sys::close(fd);
    }
    Ok(())
}

/// Makes `root` the root directory and lets go of the host's. Returns the container's `/dev/null`, proved to be it.
pub(super) fn pivot(root: RawFd) -> Result<Option<RawFd>> {
    let null = match sys::open_in_root(root, c"dev/null", libc::O_PATH | libc::O_NOFOLLOW, sys::RESOLVE_NO_SYMLINKS) {
        Ok(fd) => {
            // CVE-2025-31133: what is mounted over a masked path must be the null device and nothing else.
            let stat = sys::fstat(fd).map_err(at(Stage::MaskedPath, usize::MAX))?;
            (stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == sys::device(1, 3)).then_some(fd)
        }
        Err(_) => None,
    };
    let failed = at(Stage::Pivot, 0);
    sys::fchdir(root).map_err(failed)?;
    sys::pivot_root_here().map_err(failed)?;
    Ok(null)
}

/// Makes read-only and hides what the plan says.
pub(super) fn protect(plan: &ContainerPlan, null: Option<RawFd>) -> Result<()> {
    let root = sys::open(c"/", libc::O_PATH | libc::O_DIRECTORY).map_err(at(Stage::RootReadonly, 0))?;
    for (index, path) in plan.readonly_paths.iter().enumerate() {
        make_readonly(root, path).map_err(at(Stage::ReadonlyPath, index))?;
    }
    let mut empty = None;
    for (index, path) in plan.masked_paths.iter().enumerate() {
        mask(root, path, null, &mut empty).map_err(at(Stage::MaskedPath, index))?;
    }
    if plan.root.readonly {
        sys::mount_setattr(root, sys::MOUNT_ATTR_RDONLY, 0, 0, false).map_err(at(Stage::RootReadonly, 1))?;
    }
    sys::close(root);
    Ok(())
}

/// What is not there cannot be seen or changed.
fn open_existing(root: RawFd, path: &CStr) -> sys::Result<Option<RawFd>> {
    match sys::open_in_root(root, relative(path), libc::O_PATH, 0) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(e),
    }
}

fn make_readonly(root: RawFd, path: &CStr) -> sys::Result<()> {
    let Some(on) = open_existing(root, path)? else { return Ok(()) };
    let tree = sys::open_tree(on, c"", true)?;
    sys::mount_setattr(tree, sys::MOUNT_ATTR_RDONLY, 0, 0, true)?;
    sys::move_mount(tree, on)?;
    sys::close(tree);
    sys::close(on);
    Ok(())
}

fn mask(root: RawFd, path: &CStr, null: Option<RawFd>, empty: &mut Option<RawFd>) -> sys::Result<()> {
    let Some(on) = open_existing(root, path)? else { return Ok(()) };
    let tree = if sys::fstat(on)?.st_mode & libc::S_IFMT == libc::S_IFDIR {
        let source = match *empty {
            Some(fd) => fd,
            None => {
                let mount = new_tmpfs(c"1777", sys::MOUNT_ATTR_RDONLY)?;
                *empty = Some(mount);
                // The first is mounted itself; the next ones are copies of it.
                sys::move_mount(mount, on)?;
                sys::close(on);
                return Ok(());
            }
        };
        sys::open_tree(source, c"", false)?
    } else {
        sys::open_tree(null.ok_or(Errno(libc::ENODEV))?, c"", false)?
    };
    sys::move_mount(tree, on)?;
    sys::close(tree);
    sys::close(on);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn numbers_are_written() {
        for number in [0, 7, 10, 4_194_304, 999_999_999, u32::MAX] {
            let mut path = Path::new();
            path.push_number(number).unwrap();
            assert_eq!(path.as_bytes(), number.to_string().as_bytes());
        }
    }

    /// CVE-2025-52565: `/dev/console` as a link to what must not be covered.
    #[test]
    fn the_console_is_mounted_over_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "safe").unwrap();
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("dev/console")).unwrap();
        std::fs::write(dir.path().join("terminal"), "terminal").unwrap();
        let test = || {
            sys::unshare(libc::CLONE_NEWNS as u64).unwrap();
            sys::set_root_propagation(libc::MS_PRIVATE).unwrap();
            let root = std::fs::File::open(dir.path()).unwrap();
            let terminal = std::fs::File::open(dir.path().join("terminal")).unwrap();
            let _ = bind_console(root.as_raw_fd(), terminal.as_raw_fd());
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), "safe");
        };
        std::thread::scope(|scope| scope.spawn(test).join().unwrap());
    }
}
