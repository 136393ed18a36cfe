//! Control groups, v2, v1 and both (hybrid): where they are mounted, making, limiting, killing and removing them.
//! A group is named by one path, the same below every hierarchy.

mod limits;

pub use limits::{Limits, weight_of_shares};

use crate::plan::CgroupPlan;
use crate::sys;
use std::ffi::CString;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1 {
    pub mount: PathBuf,
    /// `cpu`, `cpuacct`; of a named one `name=systemd`.
    pub controllers: Vec<String>,
}

/// What is mounted on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// The v2 tree. Beside v1 hierarchies it only holds processes, and is what kills and tells of emptiness.
    pub unified: Option<PathBuf>,
    pub v1: Vec<V1>,
    /// The v2 group that was handed over to us; what lies above it is another's to arrange. Empty: everything is ours.
    owned: String,
}

const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];

/// How long a group may take to be empty once its processes were killed.
const PATIENCE_NS: i64 = 5_000_000_000;

impl Hierarchies {
    pub fn observe() -> Result<Hierarchies> {
        Ok(Self::parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
    }

    /// Reads `mountinfo`. The first mount of a hierarchy counts, and only one that shows its root.
    fn parse(mountinfo: &str) -> Hierarchies {
        let mut found = Hierarchies::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let before: Vec<&str> = before.split(' ').collect();
            let after: Vec<&str> = after.split(' ').collect();
            let (Some(mount), [kind, _, options, ..]) = (before.get(4), after.as_slice()) else { continue };
            let mount = PathBuf::from(mount.replace("\\040", " "));
            match *kind {
                "cgroup2" if found.unified.is_none() => found.unified = Some(mount),
                "cgroup" => {
                    let skip = ["rw", "ro", "xattr", "clone_children", "noprefix"];
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|o| !skip.contains(o) && !o.starts_with("release_agent="))
                        .map(str::to_owned)
                        .collect();
                    if found.v1.iter().all(|v1| v1.controllers != controllers) {
                        found.v1.push(V1 { mount, controllers });
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Whether v2 does the limiting.
    pub fn is_v2(&self) -> bool {
        self.v1.is_empty()
    }

    /// The directory of a v1 controller's hierarchy.
    pub fn v1_of(&self, controller: &str) -> Option<&Path> {
        self.v1.iter().find(|v1| v1.controllers.iter().any(|c| c == controller)).map(|v1| v1.mount.as_path())
    }

    /// Whether the group is there.
    pub fn exists(&self, path: &str) -> bool {
        self.mounts().any(|mount| below(mount, path).is_dir())
    }

    /// From now on nothing is arranged above the v2 group at `path`.
    pub fn own(&mut self, path: &str) {
        path.clone_into(&mut self.owned);
    }

    fn mounts(&self) -> impl Iterator<Item = &Path> {
        self.unified.iter().map(PathBuf::as_path).chain(self.v1.iter().map(|v1| v1.mount.as_path()))
    }

    /// Makes the group in every hierarchy, with the groups above it.
    pub fn create(&self, path: &str) -> Result<()> {
        for v1 in &self.v1 {
            make_v1(v1, &below(&v1.mount, path))?;
        }
        let Some(unified) = &self.unified else { return Ok(()) };
        if !self.is_v2() {
            return make_with(&below(unified, path), &mut |dir| make(dir).map(drop));
        }
        let mut dir = unified.clone();
        let owned = below(unified, &self.owned);
        for part in path.split('/').filter(|p| !p.is_empty()) {
            if dir.starts_with(&owned) {
                delegate(&dir)?;
            }
            dir.push(part);
            make(&dir)?;
        }
        Ok(())
    }

    /// Sets limits of an existing group; what is unset is left as it is.
    pub fn limit(&self, path: &str, limits: &Limits) -> Result<()> {
        if self.is_v2() {
            let Some(unified) = &self.unified else { return Ok(()) };
            limits.apply_v2(&below(unified, path))
        } else {
            limits.apply_v1(self, path)
        }
    }

    /// What a process needs to join the group.
    pub fn plan(&self, path: &str) -> CgroupPlan {
        let c = |path: PathBuf| CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        let oom_file = if self.is_v2() {
            self.unified.as_ref().map(|u| below(u, path).join("memory.events"))
        } else {
            self.v1_of("memory").map(|m| below(m, path).join("memory.oom_control"))
        };
        CgroupPlan {
            unified: self.unified.as_ref().map(|u| c(below(u, path))).unwrap_or_default(),
            v1: self.v1.iter().map(|v1| c(below(&v1.mount, path))).collect(),
            oom_file: oom_file.map(c).unwrap_or_default(),
        }
    }

    /// Moves the calling process into the group.
    pub fn join(&self, path: &str) -> Result<()> {
        for mount in self.mounts() {
            std::fs::write(below(mount, path).join("cgroup.procs"), "0")?;
        }
        Ok(())
    }

    /// Every process in the group and below it.
    pub fn processes(&self, path: &str) -> Vec<i32> {
        let mut found = std::collections::BTreeSet::new();
        for mount in self.mounts() {
            walk(&below(mount, path), &mut |dir| {
                let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                found.extend(procs.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|pid| *pid > 0));
            });
        }
        found.into_iter().collect()
    }

    /// Kills every process in the group and below it.
    pub fn kill(&self, path: &str) -> Result<()> {
        if let Some(unified) = &self.unified {
            match std::fs::write(below(unified, path).join("cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == ErrorKind::NotFound && !below(unified, path).exists() => {}
                Err(e) if e.kind() == ErrorKind::NotFound || e.kind() == ErrorKind::PermissionDenied => {}
                Err(e) => return Err(e),
            }
        }
        // Before 5.14, or without v2: one by one; who forks faster than this is caught in the next round.
        for _ in 0..64 {
            let processes = self.processes(path);
            if processes.is_empty() {
                break;
            }
            for pid in processes {
                // SAFETY: no memory is involved.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        Ok(())
    }

    /// Removes the group and what is below it once no process is left, which is waited for.
    pub fn remove(&self, path: &str) -> Result<()> {
        if path.split('/').all(|p| p.is_empty() || p == "." || p == "..") {
            return Err(Error::new(ErrorKind::InvalidInput, "not a group that could be removed"));
        }
        let mut waited = false;
        let deadline_ns = sys::monotonic_ns() + PATIENCE_NS;
        for mount in self.mounts() {
            let dir = below(mount, path);
            while let Err(e) = remove_tree(&dir) {
                if e.raw_os_error() != Some(libc::EBUSY) || sys::monotonic_ns() > deadline_ns {
                    return Err(Error::new(e.kind(), format!("{}: {e}", dir.display())));
                }
                if !waited {
                    self.wait_empty(path)?;
                    waited = true;
                } else {
                    // A dying process is still counted after it was reaped until its processor has turned to
                    // another: moments, but not on a host that is overloaded. Nothing tells that end.
                    std::thread::yield_now();
                }
            }
        }
        Ok(())
    }

    /// Waits until nothing runs in the group, told by the kernel where there is a v2 tree.
    fn wait_empty(&self, path: &str) -> Result<()> {
        let Some(unified) = &self.unified else { return Ok(()) };
        let mut dirs = Vec::new();
        walk(&below(unified, path), &mut |dir| dirs.push(dir.to_owned()));
        for dir in dirs {
            let Ok(file) = std::fs::File::open(dir.join("cgroup.events")) else { continue };
            let deadline_ns = sys::monotonic_ns() + PATIENCE_NS;
            while populated(&file)? {
                let left_ms = (deadline_ns - sys::monotonic_ns()) / 1_000_000;
                if left_ms <= 0 {
                    return Err(Error::new(ErrorKind::TimedOut, format!("{}: processes do not end", dir.display())));
                }
                wait_change(file.as_raw_fd(), left_ms as i32);
            }
        }
        Ok(())
    }
}

fn populated(file: &std::fs::File) -> Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut text = [0; 128];
    match file.read_at(&mut text, 0) {
        Ok(n) => Ok(String::from_utf8_lossy(&text[..n]).contains("populated 1")),
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        Err(e) => Err(e),
    }
}

fn wait_change(fd: RawFd, timeout_ms: i32) {
    let mut poll = libc::pollfd { fd, events: libc::POLLPRI, revents: 0 };
    // SAFETY: one descriptor is passed.
    unsafe { libc::poll(&raw mut poll, 1, timeout_ms) };
}

fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

fn make_v1(v1: &V1, dir: &Path) -> Result<()> {
    make_with(dir, &mut |dir| make(dir).map(drop))?;
    if v1.controllers.iter().any(|c| c == "cpuset") {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            inherit(&v1.mount, dir, file)?;
        }
    }
    Ok(())
}

/// A group without processors and memory takes no process: it begins with its parent's, which may be in the making by
/// another thread, or was left half made. What the group has then.
fn inherit(mount: &Path, dir: &Path, file: &str) -> Result<Vec<u8>> {
    let own = std::fs::read(dir.join(file))?;
    let Some(parent) = dir.parent().filter(|_| dir != mount && own.trim_ascii().is_empty()) else { return Ok(own) };
    let inherited = inherit(mount, parent, file)?;
    std::fs::write(dir.join(file), &inherited)?;
    Ok(inherited)
}

/// Makes the groups above only if `dir` cannot be made without them: mostly they are there.
fn make_with(dir: &Path, make: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    match make(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let parent = dir.parent().ok_or(e)?;
            make_with(parent, make)?;
            make(dir)
        }
        result => result,
    }
}

/// Whether it was made now.
fn make(dir: &Path) -> Result<bool> {
    match std::fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(Error::new(e.kind(), format!("{}: {e}", dir.display()))),
    }
}

/// Hands the controllers there are down to the groups below `dir`. A group that holds processes cannot: inside a
/// container that is our own, so its processes move into a leaf first.
fn delegate(dir: &Path) -> Result<()> {
    let available = std::fs::read_to_string(dir.join("cgroup.controllers"))?;
    let enabled = std::fs::read_to_string(dir.join("cgroup.subtree_control"))?;
    let missing: Vec<String> = available
        .split_whitespace()
        .filter(|c| CONTROLLERS.contains(c) && !enabled.split_whitespace().any(|e| e == *c))
        .map(|c| format!("+{c}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let file = dir.join("cgroup.subtree_control");
    match std::fs::write(&file, missing.join(" ")) {
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
            let leaf = dir.join("init");
            make(&leaf)?;
            for pid in std::fs::read_to_string(dir.join("cgroup.procs"))?.lines() {
                // One may have ended meanwhile.
                let _ = std::fs::write(leaf.join("cgroup.procs"), pid);
            }
            std::fs::write(&file, missing.join(" "))
        }
        other => other,
    }
    .map_err(|e| Error::new(e.kind(), format!("{}: {e}", file.display())))
}

/// Calls `visit` with each group, the deepest first.
fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
    visit(dir);
}

fn remove_tree(dir: &Path) -> Result<()> {
    let mut result = Ok(());
    walk(dir, &mut |dir| {
        if let Err(e) = std::fs::remove_dir(dir)
            && e.kind() != ErrorKind::NotFound
        {
            result = Err(e);
        }
    });
    result
}

/// The `oom_kill` count in `memory.events` or `memory.oom_control`.
pub fn oom_kills(text: &str) -> u64 {
    text.lines().find_map(|l| l.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let hybrid = "25 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            27 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            28 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Hierarchies::parse(hybrid);
        assert!(!found.is_v2());
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(found.v1_of("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(found.v1_of("name=systemd"), Some(Path::new("/sys/fs/cgroup/systemd")));
        let pure = Hierarchies::parse("30 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n");
        assert!(pure.is_v2());
        assert_eq!(pure.unified.as_deref(), Some(Path::new("/sys/fs/cgroup")));
    }

    /// Needs root; on a host with cgroup v2 alone there is nothing to inherit.
    #[test]
    fn a_group_can_be_joined_however_far_the_groups_above_it_were_made() {
        let hierarchies = Hierarchies::observe().unwrap();
        let base = format!("minke-half-made-{}", std::process::id());
        if let Some(cpuset) = hierarchies.v1_of("cpuset") {
            std::fs::create_dir_all(cpuset.join(&base).join("above")).unwrap();
        }
        hierarchies.create(&format!("{base}/above/leaf")).unwrap();
        for (cpuset, group) in
            hierarchies.v1_of("cpuset").into_iter().flat_map(|c| ["", "above", "above/leaf"].map(|g| (c, g)))
        {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = std::fs::read_to_string(cpuset.join(&base).join(group).join(file)).unwrap();
                assert_eq!(value, std::fs::read_to_string(cpuset.join(file)).unwrap(), "{group:?} {file}");
            }
        }
        hierarchies.remove(&base).unwrap();
    }

    #[test]
    fn kills_are_counted_in_both_formats() {
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(oom_kills(""), 0);
    }

    #[test]
    fn the_root_is_never_removed() {
        for path in ["", "/", "..", "/../"] {
            assert!(Hierarchies::default().remove(path).is_err(), "{path}");
        }
    }
}
