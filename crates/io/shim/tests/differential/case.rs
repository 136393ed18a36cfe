//! One container, described once: as an OCI bundle for runc and as a plan for the launcher; and what it sees.

use serde_json::json;
use shim::cgroup::{Hierarchies, Limits};
use shim::launch::UserNamespace;
use shim::plan::{
    Capabilities, ContainerPlan, DevicePlan, MOUNT_BIND, MOUNT_CGROUP_V1, MOUNT_FS, MountPlan, ProcessPlan, Rlimit,
    RootPlan, UserRange,
};
use shim::seccomp::{Action, Profile, Rule};
use shim::wire::Bytes;
use shim::{capabilities, launch, seccomp, sys};
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the users of a namespace of its own lie.
const RANGE: UserRange = UserRange { host_uid: 1 << 20, host_gid: 1 << 20, length: 1 << 16 };
const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;
const MASKED: [&str; 4] = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"];
const READONLY: [&str; 3] = ["/proc/bus", "/proc/sys", "/proc/sysrq-trigger"];

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) namespaces: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) umask: Option<u32>,
    pub(crate) capabilities: u64,
    pub(crate) ambient: u64,
    pub(crate) no_new_privs: bool,
    /// Calls that answer EPERM.
    pub(crate) deny: Vec<&'static str>,
    pub(crate) readonly: bool,
    pub(crate) masked: Vec<&'static str>,
    pub(crate) readonly_paths: Vec<&'static str>,
    pub(crate) rlimits: Vec<(&'static str, u32, u64, u64)>,
    pub(crate) devices: Vec<(&'static str, u32, u32, u32)>,
    pub(crate) cwd: &'static str,
    /// Path in the root file system, target, read-only.
    pub(crate) binds: Vec<(&'static str, &'static str, bool)>,
    pub(crate) memory: i64,
    pub(crate) pids: i64,
    pub(crate) shares: u64,
    pub(crate) quota: i64,
    pub(crate) tty: bool,
    /// In a user namespace of its own.
    pub(crate) mapped: bool,
    /// Instead of the script that looks around.
    pub(crate) command: Option<Vec<&'static str>>,
}

/// What it looks at from inside. Not cgroup v2's `cpu.weight`: this runc computes it by the formula given up in 1.3.2.
const SCRIPT: &str = r##"
echo "# status"; grep -E '^(Uid|Gid|Groups|Umask|Cap|NoNewPrivs|Seccomp:|NSpid|SigIgn|SigBlk)' /proc/self/status
cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups
echo "# mounts"; cat /proc/self/mountinfo
echo "# limits"; cat /proc/self/limits
echo "# cgroup"; cat /proc/self/cgroup
echo "# limits of the group"
for f in memory/memory.limit_in_bytes pids/pids.max cpu/cpu.shares cpu/cpu.cfs_quota_us memory.max pids.max cpu.max
do cat /sys/fs/cgroup/$f; done 2>&1
echo "# place"; pwd; id; hostname; env | sort; umask; readlink /proc/self/cwd
ls -ld . | sed -E 's/[A-Z][a-z]{2} [ 0-9]{2} [0-9:]{5}//'
echo "# devices"; ls -ln /dev /dev/pts /dev/net 2>&1 | sed -E 's/[A-Z][a-z]{2} [ 0-9]{2} [0-9:]{5}//'
echo "# rights"
for f in /etc/new /tmp/new /proc/sys/kernel/domainname /sys/new /mnt/a/new /dev/new; do echo $f; touch $f 2>&1; done
mkdir /tmp/d 2>&1; chmod 700 /tmp 2>&1
for f in /etc /bin/extra /proc/kcore /proc/keys /sys/firmware; do ls -A $f 2>&1 | wc -l; head -c1 $f 2>&1 | wc -c; done
mknod /tmp/node b 8 0 2>&1; head -c1 /dev/full 2>&1 | wc -c; mount -t tmpfs x /mnt 2>&1; kill -0 1 2>&1
echo "# open"; ls /proc/self/fd | wc -l; tty
for n in ipc mnt net pid uts; do echo $n $(readlink /proc/self/ns/$n); done
ls /mnt /mnt/a /link/inside /nowhere /dangling 2>&1
"##;

impl Case {
    pub(crate) fn plain(name: &str) -> Case {
        let namespaces =
            libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
        Case {
            name: name.into(),
            namespaces: namespaces as u64,
            uid: 0,
            gid: 0,
            groups: vec![],
            umask: None,
            capabilities: DEFAULT_CAPABILITIES,
            ambient: 0,
            no_new_privs: false,
            deny: vec![],
            readonly: false,
            masked: MASKED.to_vec(),
            readonly_paths: READONLY.to_vec(),
            rlimits: vec![],
            devices: vec![],
            cwd: "/",
            binds: vec![],
            memory: 0,
            pids: 0,
            shares: 0,
            quota: 0,
            tty: false,
            mapped: false,
            command: None,
        }
    }

    fn argv(&self) -> Vec<&str> {
        self.command.clone().unwrap_or_else(|| vec!["sh", "-c", SCRIPT])
    }

    fn hostname(&self) -> &str {
        if self.namespaces & libc::CLONE_NEWUTS as u64 != 0 { "inside" } else { "" }
    }

    /// For the launcher.
    pub(crate) fn plan(&self, rootfs: &Rootfs) -> ContainerPlan {
        let c = |text: &str| CString::new(text).unwrap();
        let caps = self.capabilities & capabilities::available();
        let seccomp = Profile {
            default: Action::Allow,
            rules: vec![Rule {
                names: self.deny.iter().map(|n| (*n).to_owned()).collect(),
                action: Action::Errno(libc::EPERM as u16),
                conditions: vec![],
            }],
            x86: false,
        };
        let process = ProcessPlan {
            argv: self.argv().iter().map(|a| c(a)).collect(),
            // runc adds the user's HOME itself; here the planner does.
            env: vec![c("PATH=/bin"), c("A=b"), c("HOME=/")],
            cwd: c(self.cwd),
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.clone(),
            umask: self.umask,
            capabilities: Capabilities {
                effective: caps,
                permitted: caps,
                inheritable: self.ambient,
                bounding: caps,
                ambient: self.ambient,
            },
            no_new_privs: self.no_new_privs,
            seccomp: Bytes(if self.deny.is_empty() { vec![] } else { seccomp::compile(&seccomp).unwrap() }),
            rlimits: self
                .rlimits
                .iter()
                .map(|(_, r, soft, hard)| Rlimit { resource: *r, soft: *soft, hard: *hard })
                .collect(),
            oom_score_adj: None,
            tty: self.tty,
            columns: 0,
            rows: 0,
            apparmor: CString::default(),
        };
        let default_devices = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];
        let mut devices: Vec<DevicePlan> = default_devices
            .iter()
            .map(|(name, minor)| device(&format!("/dev/{name}"), 1, *minor, 0o666))
            .chain([device("/dev/tty", 5, 0, 0o666)])
            .collect();
        devices.extend(self.devices.iter().map(|(path, major, minor, mode)| device(path, *major, *minor, *mode)));
        ContainerPlan {
            id: "x".into(),
            process,
            namespaces: self.namespaces,
            root: RootPlan {
                directory: c(rootfs.path.to_str().unwrap()),
                readonly: self.readonly,
                ..RootPlan::default()
            },
            mounts: self.mounts(rootfs),
            devices,
            masked_paths: self.masked.iter().map(|p| c(p)).collect(),
            readonly_paths: self.readonly_paths.iter().map(|p| c(p)).collect(),
            hostname: c(self.hostname()),
            ..ContainerPlan::default()
        }
    }

    fn mounts(&self, rootfs: &Rootfs) -> Vec<MountPlan> {
        use sys::{
            MOUNT_ATTR_NODEV as NODEV, MOUNT_ATTR_NOEXEC as NOEXEC, MOUNT_ATTR_NOSUID as NOSUID,
            MOUNT_ATTR_RDONLY as RO,
        };
        let c = |text: &str| CString::new(text).unwrap();
        let fs = |target: &str, kind: &str, attributes, options: &[(&str, &str)]| MountPlan {
            target: c(target),
            kind: MOUNT_FS,
            fs: c(kind),
            source: c(kind),
            attributes,
            options: options.iter().map(|(k, v)| (c(k), (!v.is_empty()).then(|| c(v)))).collect(),
            ..MountPlan::default()
        };
        let plain = NOSUID | NODEV | NOEXEC;
        let tty = if self.mapped { (RANGE.host_gid + 5).to_string() } else { "5".to_owned() };
        let mut mounts = vec![
            fs("/proc", "proc", plain, &[]),
            fs("/dev", "tmpfs", NOSUID | sys::MOUNT_ATTR_STRICTATIME, &[("mode", "755"), ("size", "65536k")]),
            fs(
                "/dev/pts",
                "devpts",
                NOSUID | NOEXEC,
                &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", &tty)],
            ),
            fs("/dev/mqueue", "mqueue", plain, &[]),
            fs("/sys", "sysfs", plain | RO, &[]),
            if Hierarchies::observe().unwrap().is_v2() {
                fs("/sys/fs/cgroup", "cgroup2", plain | RO, &[])
            } else {
                MountPlan {
                    target: c("/sys/fs/cgroup"),
                    kind: MOUNT_CGROUP_V1,
                    source: c("cgroup"),
                    attributes: plain | RO,
                    ..MountPlan::default()
                }
            },
        ];
        mounts.extend(self.binds.iter().map(|(from, to, readonly)| MountPlan {
            target: c(to),
            kind: MOUNT_BIND,
            source: c(rootfs.path.join(from).to_str().unwrap()),
            attributes: if *readonly { RO } else { 0 },
            recursive: true,
            ..MountPlan::default()
        }));
        mounts
    }

    fn limits(&self) -> Limits {
        Limits {
            memory_bytes: self.memory,
            pids: self.pids,
            cpu_shares: self.shares,
            cpu_quota_us: self.quota,
            ..Limits::default()
        }
    }

    /// For runc.
    fn bundle(&self, rootfs: &Rootfs) -> serde_json::Value {
        let names = |bits: u64| -> Vec<String> {
            let set = bits & capabilities::available();
            capabilities::NAMES
                .iter()
                .enumerate()
                .filter(|(i, _)| set >> i & 1 == 1)
                .map(|(_, n)| format!("CAP_{n}"))
                .collect()
        };
        let caps = names(self.capabilities);
        let kinds = [
            (libc::CLONE_NEWPID, "pid"),
            (libc::CLONE_NEWNET, "network"),
            (libc::CLONE_NEWIPC, "ipc"),
            (libc::CLONE_NEWUTS, "uts"),
            (libc::CLONE_NEWNS, "mount"),
            (libc::CLONE_NEWCGROUP, "cgroup"),
            (libc::CLONE_NEWUSER, "user"),
        ];
        let wanted = self.namespaces | if self.mapped { libc::CLONE_NEWUSER as u64 } else { 0 };
        let namespaces: Vec<_> =
            kinds.iter().filter(|(f, _)| wanted & *f as u64 != 0).map(|(_, n)| json!({"type": n})).collect();
        let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
        let mut mounts = vec![
            mount("/proc", "proc", &["nosuid", "nodev", "noexec"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]),
            mount("/sys", "sysfs", &["nosuid", "nodev", "noexec", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "nodev", "noexec", "ro"]),
        ];
        for (from, to, readonly) in &self.binds {
            let source = rootfs.path.join(from);
            mounts.push(json!({"destination": to, "type": "bind", "source": source,
                "options": ["rbind", "rprivate", if *readonly { "ro" } else { "rw" }]}));
        }
        let mut resources = json!({"devices": [{"allow": true, "access": "rwm"}]});
        if self.memory != 0 {
            resources["memory"] = json!({"limit": self.memory, "swap": self.memory});
        }
        if self.pids != 0 {
            resources["pids"] = json!({"limit": self.pids});
        }
        if self.shares != 0 {
            resources["cpu"] = json!({"shares": self.shares, "quota": self.quota});
        }
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": self.tty,
                "user": {"uid": self.uid, "gid": self.gid, "additionalGids": self.groups},
                "args": self.argv(), "env": ["PATH=/bin", "A=b"], "cwd": self.cwd,
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps,
                    "inheritable": names(self.ambient), "ambient": names(self.ambient)},
                "rlimits": self.rlimits.iter().map(|(n, _, soft, hard)| json!({"type": n, "soft": soft, "hard": hard})).collect::<Vec<_>>(),
                "noNewPrivileges": self.no_new_privs
            },
            "root": {"path": rootfs.path, "readonly": self.readonly},
            "hostname": self.hostname(),
            "mounts": mounts,
            "linux": {
                "namespaces": namespaces, "resources": resources,
                "maskedPaths": self.masked, "readonlyPaths": self.readonly_paths,
                "devices": self.devices.iter().map(|(path, major, minor, mode)| json!({"path": path, "type": "c",
                    "major": major, "minor": minor, "fileMode": mode, "uid": 0, "gid": 0})).collect::<Vec<_>>()
            }
        });
        if let Some(umask) = self.umask {
            config["process"]["user"]["umask"] = json!(umask);
        }
        if self.mapped {
            let map = json!([{"containerID": 0, "hostID": RANGE.host_uid, "size": RANGE.length}]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
        }
        if !self.deny.is_empty() {
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": self.deny, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]});
        }
        config
    }
}

fn device(path: &str, major: u32, minor: u32, mode: u32) -> DevicePlan {
    DevicePlan { path: CString::new(path).unwrap(), mode: libc::S_IFCHR | mode, major, minor, uid: 0, gid: 0 }
}

/// A directory both run in, put back in order before each run.
pub(crate) struct Rootfs {
    dir: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Rootfs {
    pub(crate) fn make() -> Rootfs {
        // Go's runtime raises this limit for itself, and this runc for its children.
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the limits are a local.
        unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
        let dir = tempfile::tempdir().unwrap();
        // Users of a namespace of their own come by here.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let rootfs = Rootfs { path: dir.path().join("rootfs"), dir };
        rootfs.reset();
        rootfs
    }

    fn reset(&self) {
        use std::os::unix::fs::PermissionsExt;
        let _ = std::fs::remove_dir_all(&self.path);
        for dir in ["bin", "etc", "tmp", "proc", "sys", "dev", "mnt", "private", "real"] {
            std::fs::create_dir_all(self.path.join(dir)).unwrap();
        }
        let file = |name: &str, mode: u32, content: &[u8]| {
            std::fs::write(self.path.join(name), content).unwrap();
            std::fs::set_permissions(self.path.join(name), PermissionsExt::from_mode(mode)).unwrap();
        };
        file("bin/busybox", 0o755, &std::fs::read("/bin/busybox").expect("Debian package busybox-static"));
        file("bin/extra", 0o644, b"secret");
        file("bin/rootonly", 0o700, b"#!/bin/sh\n");
        file("bin/badscript", 0o755, b"#!/no/interpreter\n");
        file("bin/garbage", 0o755, b"\x01\x02\x03\x04 not a program");
        file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n");
        file("etc/group", 0o644, b"root:x:0:\n");
        std::fs::set_permissions(self.path.join("private"), PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::set_permissions(self.path.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
        let applets =
            "sh grep cat pwd id hostname env sort umask readlink ls sed touch mkdir chmod head wc mknod mount kill tty";
        for applet in applets.split(' ') {
            std::os::unix::fs::symlink("busybox", self.path.join("bin").join(applet)).unwrap();
        }
        std::os::unix::fs::symlink("/proc", self.path.join("toproc")).unwrap();
        std::os::unix::fs::symlink("/real", self.path.join("link")).unwrap();
        std::os::unix::fs::symlink("/nowhere/file", self.path.join("dangling")).unwrap();
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ran { code: i32, output: Vec<String> },
    Refused(String),
}

impl Outcome {
    /// In a user namespace runc cannot make device nodes and shows the host's, and files of a mapping of their own;
    /// its message queues have no group.
    fn without_nodes(self) -> Outcome {
        let Outcome::Ran { code, output } = self else { return self };
        let node = |line: &String| {
            let device =
                line.starts_with("crw-rw-rw-") || line.contains(" devtmpfs ") || line.starts_with("/null /proc/");
            device || line.ends_with(" mqueue")
        };
        let own = |line: String| {
            line.replace(",idmapped", "").replace(&format!(", \"uid={0}\", \"gid={0}\"", RANGE.host_uid), "")
        };
        Outcome::Ran { code, output: output.into_iter().filter(|line| !node(line)).map(own).collect() }
    }
}

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("minke-difftest-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn runcs(rootfs: &Rootfs, case: &Case) -> Outcome {
    rootfs.reset();
    if case.mapped {
        // runc shows a root file system as it is, the launcher through the mapping.
        give(&rootfs.path);
    }
    let id = unique();
    let bundle = rootfs.dir.path().join("bundle");
    std::fs::create_dir_all(&bundle).unwrap();
    let mut config = case.bundle(rootfs);
    config["linux"]["cgroupsPath"] = json!(format!("/{id}"));
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let mut command = if case.tty {
        // A terminal for runc to pass on: `script` would add its own words, so runc gets one of ours.
        let mut command = std::process::Command::new("setsid");
        command.args(["-c", "-w", "runc"]);
        command
    } else {
        std::process::Command::new("runc")
    };
    command.arg("--root").arg(rootfs.dir.path().join("runc")).args(["run", "--bundle"]).arg(&bundle).arg(&id);
    let (code, output, error) = if case.tty { with_terminal(&mut command) } else { with_pipes(&mut command) };
    let failure = error.lines().chain(output.lines()).find_map(|l| {
        l.split_once("unable to start container process: ").or_else(|| l.split_once("runc run failed: "))
    });
    let outcome = match failure {
        Some((_, text)) => Outcome::Refused(text.trim_end_matches('"').replace("\\\"", "\"").trim().to_owned()),
        // Since 1.2 runc's code for a program that cannot be executed is 255, before it was 1.
        None if error.starts_with("exec /") => Outcome::Ran { code: 255, output: normalise(&error, &id, rootfs) },
        None => Outcome::Ran { code, output: normalise(&(output + &error), &id, rootfs) },
    };
    if case.mapped { outcome.without_nodes() } else { outcome }
}

/// Gives what is root's below `path` to the namespace's root.
fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(RANGE.host_uid), Some(RANGE.host_gid)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

fn with_pipes(command: &mut std::process::Command) -> (i32, String, String) {
    let output = command.stdin(std::process::Stdio::null()).output().expect("Debian package runc");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn with_terminal(command: &mut std::process::Command) -> (i32, String, String) {
    let (mut master, mut terminal) = (-1, -1);
    // SAFETY: both descriptors are written to locals; no name or settings are passed.
    let made = unsafe {
        libc::openpty(&raw mut master, &raw mut terminal, std::ptr::null_mut(), std::ptr::null(), std::ptr::null())
    };
    assert_eq!(made, 0);
    // SAFETY: the descriptors are new and ours.
    let (master, terminal) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(terminal)) };
    let stdio = || std::process::Stdio::from(terminal.try_clone().unwrap());
    let mut child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    drop(terminal);
    let output = drain(master);
    (child.wait().unwrap().code().unwrap_or(-1), output.replace('\r', ""), String::new())
}

fn drain(fd: OwnedFd) -> String {
    let mut bytes = Vec::new();
    // A terminal ends with an error once nobody has it open.
    let _ = std::fs::File::from(fd).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Under the launcher, in a group with the limits of `case`.
pub(crate) fn ours(rootfs: &Rootfs, case: &Case, plan: &ContainerPlan) -> Outcome {
    rootfs.reset();
    let id = unique();
    let hierarchies = Hierarchies::observe().unwrap();
    hierarchies.create(&id).unwrap();
    hierarchies.limit(&id, &case.limits()).unwrap();
    let mut plan = plan.clone();
    plan.cgroup = hierarchies.plan(&id);
    for mount in &mut plan.mounts {
        if mount.kind == MOUNT_CGROUP_V1 {
            let c = |path: &Path| CString::new(path.to_str().unwrap()).unwrap();
            let groups = hierarchies
                .v1
                .iter()
                .map(|v1| (c(Path::new(v1.mount.file_name().unwrap())), Some(c(&v1.mount.join(&id)))));
            mount.options = groups.collect();
        }
    }
    let users = case.mapped.then(|| UserNamespace::make(RANGE, 0).unwrap());
    let outcome = launch_and_read(rootfs, &plan, &id, users);
    if let Some(users) = users {
        sys::close(users.fd);
        hierarchies.remove(&id).unwrap();
        return outcome.without_nodes();
    }
    hierarchies.remove(&id).unwrap();
    outcome
}

fn launch_and_read(rootfs: &Rootfs, plan: &ContainerPlan, id: &str, users: Option<UserNamespace>) -> Outcome {
    let (read, write) = sys::pipe(0).unwrap();
    // SAFETY: the descriptors are new and ours.
    let (read, write) = unsafe { (OwnedFd::from_raw_fd(read), OwnedFd::from_raw_fd(write)) };
    let null = std::fs::File::open("/dev/null").unwrap();
    let stdio = [null.as_raw_fd(), write.as_raw_fd(), write.as_raw_fd()];
    let launched = match launch::create(plan, stdio, None, users) {
        Ok(launched) => launched,
        Err(e) => return Outcome::Refused(e.text),
    };
    let master = launched.master;
    let child = match launched.start(&plan.process) {
        Ok(child) => child,
        Err(e) => return Outcome::Refused(e.text),
    };
    drop(write);
    // SAFETY: the master was handed to us.
    let source = master.map_or(read, |fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let output = drain(source).replace('\r', "");
    let (code, _) = sys::wait(child.pid, 0).unwrap().unwrap();
    sys::close(child.pidfd);
    Outcome::Ran { code, output: normalise(&output, id, rootfs) }
}

/// Takes out what differs between two runs of the same: numbers of mounts and namespaces, names of groups.
fn normalise(output: &str, id: &str, rootfs: &Rootfs) -> Vec<String> {
    let host: Vec<String> = ["ipc", "mnt", "net", "pid", "uts"]
        .iter()
        .map(|n| std::fs::read_link(format!("/proc/self/ns/{n}")).unwrap().display().to_string())
        .collect();
    let mut section = String::new();
    let mut lines = Vec::new();
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            section = name.to_owned();
        }
        let mut line = line.replace(id, "ID").replace(rootfs.path.to_str().unwrap(), "ROOTFS");
        if section == "mounts" && line.contains(" - ") {
            line = mount_line(&line);
        }
        if let Some((name, link)) = line.split_once(' ')
            && link.ends_with(']')
            && link.starts_with(name)
        {
            line = format!("{name} is {}", if host.iter().any(|h| h == link) { "the host's" } else { "its own" });
        }
        // 32 and 33 are the C library's own: what its runtime does with them goes on in runc's children.
        if let Some(mask) = line.strip_prefix("SigIgn:\t").and_then(|mask| u64::from_str_radix(mask, 16).ok()) {
            line = format!("SigIgn:\t{:016x}", mask & !(0b11 << 31));
        }
        // The number of processes before it differs.
        if line.starts_with("NSpid:") {
            line = format!("NSpid of {} levels", line.split_whitespace().count() - 1);
        }
        lines.push(line);
    }
    lines
}

fn mount_line(line: &str) -> String {
    let (before, after) = line.split_once(" - ").unwrap();
    let before: Vec<&str> = before.split(' ').collect();
    let optional: Vec<&str> = before[6..].iter().map(|o| o.split(':').next().unwrap_or_default()).collect();
    let after: Vec<&str> = after.split(' ').collect();
    // Whether the file system as a whole is writable is not what the mount lets anyone do.
    let options: Vec<&str> = after[2].split(',').filter(|o| !["rw", "ro"].contains(o)).collect();
    format!("{} {} {} {optional:?} {} {options:?}", before[3], before[4], before[5], after[0])
}

/// `None`: the same. The order of mounts counts only where they cover each other, so lines are compared as sets.
pub(crate) fn difference(theirs: &Outcome, ours: &Outcome) -> Option<String> {
    match (theirs, ours) {
        (Outcome::Refused(theirs), Outcome::Refused(ours)) => {
            // What runc puts in front says in which of its processes it happened; a place below `/proc` it names by
            // the path it came to, on the host.
            let (theirs, ours) = (without_place(theirs), without_place(ours));
            (!theirs.ends_with(&ours)).then(|| format!("runc: {theirs}\nours: {ours}"))
        }
        (Outcome::Ran { code: a, output: x }, Outcome::Ran { code: b, output: y }) => {
            let (mut x, mut y) = (x.clone(), y.clone());
            x.sort();
            y.sort();
            let only = |a: &[String], b: &[String]| {
                a.iter().filter(|l| !b.contains(l)).cloned().collect::<Vec<_>>().join("\n  ")
            };
            (a != b || x != y).then(|| format!("runc ({a}):\n  {}\nours ({b}):\n  {}", only(&x, &y), only(&y, &x)))
        }
        (theirs, ours) => Some(format!("runc: {theirs:?}\nours: {ours:?}").chars().take(3000).collect()),
    }
}

fn without_place(error: &str) -> String {
    let Some((before, why)) = error.split_once("\" cannot be mounted") else { return error.to_owned() };
    let begin = before.rfind('"').unwrap_or_default();
    format!("{} cannot be mounted{why}", &before[..begin])
}
