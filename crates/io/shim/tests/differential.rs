//! The launcher against runc: the same container under both, compared from inside and by their errors. Needs root, and
//! Debian's packages `runc` and `busybox-static`.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "differential/case.rs"]
mod case;

use case::{Case, Rootfs, difference, ours, runcs};

/// A product of what a container may be, each part varied against the plain one, and some of them together.
fn cases() -> Vec<Case> {
    let mut cases = vec![Case::plain("plain")];
    let mut case = |name: &str, change: &dyn Fn(&mut Case)| {
        let mut case = Case::plain(name);
        change(&mut case);
        cases.push(case);
    };
    case("own network", &|c| c.namespaces |= libc::CLONE_NEWNET as u64);
    case("host ipc", &|c| c.namespaces &= !(libc::CLONE_NEWIPC as u64));
    case("host pid", &|c| c.namespaces &= !(libc::CLONE_NEWPID as u64));
    case("host uts", &|c| c.namespaces &= !(libc::CLONE_NEWUTS as u64));
    case("user", &|c| (c.uid, c.gid) = (1000, 100));
    case("user with groups", &|c| (c.uid, c.gid, c.groups) = (65534, 7, vec![7, 10, 999]));
    case("umask", &|c| c.umask = Some(0o077));
    case("no capabilities", &|c| c.capabilities = 0);
    case("one capability", &|c| c.capabilities = 1 << 10);
    case("ambient capability", &|c| (c.uid, c.ambient, c.capabilities) = (1000, 1 << 10, 1 << 10 | 1 << 5));
    case("no new privileges", &|c| c.no_new_privs = true);
    case("seccomp", &|c| c.deny = vec!["mkdir", "mkdirat", "chmod", "fchmodat"]);
    case("seccomp without new privileges", &|c| (c.deny, c.no_new_privs) = (vec!["mkdir", "mkdirat"], true));
    case("read-only root", &|c| c.readonly = true);
    case("nothing masked", &|c| (c.masked, c.readonly_paths) = (vec![], vec![]));
    case("masked files and directories", &|c| c.masked = vec!["/etc", "/bin/extra", "/proc/kcore", "/not/there"]);
    case("read-only paths", &|c| c.readonly_paths = vec!["/etc", "/proc/sys", "/not/there"]);
    case("limits", &|c| {
        c.rlimits = vec![("RLIMIT_NOFILE", libc::RLIMIT_NOFILE, 512, 1024), ("RLIMIT_CORE", libc::RLIMIT_CORE, 0, 0)]
    });
    case("device", &|c| c.devices = vec![("/dev/fuse", 10, 229, 0o600), ("/dev/net/tun", 10, 200, 0o666)]);
    case("working directory", &|c| c.cwd = "/etc");
    case("working directory to make", &|c| c.cwd = "/made/by/launcher");
    case("bind", &|c| c.binds = vec![("etc", "/mnt/a", false), ("etc/passwd", "/mnt/file", true)]);
    case("bind through a link", &|c| {
        c.binds = vec![("etc", "/link/inside", false), ("etc/passwd", "/dangling", false)]
    });
    case("bind over proc", &|c| c.binds = vec![("etc", "/proc", false)]);
    case("bind in proc", &|c| c.binds = vec![("etc/passwd", "/proc/version", false)]);
    case("bind in proc through a link", &|c| c.binds = vec![("etc", "/toproc/self/attr", false)]);
    case("bind over proc through a link", &|c| c.binds = vec![("etc", "/toproc", false)]);
    case("bind over what may be covered", &|c| c.binds = vec![("etc/passwd", "/proc/meminfo", true)]);
    case("memory and pids", &|c| (c.memory, c.pids) = (64 << 20, 77));
    case("cpu", &|c| (c.shares, c.quota) = (512, 50_000));
    case("terminal", &|c| c.tty = true);
    case("terminal of a user", &|c| (c.tty, c.uid) = (true, 1000));
    case("much together", &|c| {
        (c.uid, c.gid, c.readonly, c.no_new_privs, c.capabilities) = (1000, 100, true, true, 0);
        (c.deny, c.umask, c.cwd) = (vec!["mkdir"], Some(0o027), "/tmp");
        c.namespaces |= libc::CLONE_NEWNET as u64;
    });
    // The kernel shows sysfs only to who owns the network it is of.
    let mapped = |c: &mut Case| (c.mapped, c.namespaces) = (true, c.namespaces | libc::CLONE_NEWNET as u64);
    case("user namespace", &|c| mapped(c));
    case("user of a user namespace", &|c| {
        mapped(c);
        (c.uid, c.gid, c.groups) = (1000, 100, vec![100, 10]);
    });
    case("protected in a user namespace", &|c| {
        mapped(c);
        (c.readonly, c.no_new_privs, c.deny) = (true, true, vec!["mkdir", "mkdirat"]);
        (c.cwd, c.memory, c.pids) = ("/made/by/launcher", 64 << 20, 77);
    });
    case("terminal in a user namespace", &|c| {
        mapped(c);
        (c.tty, c.uid) = (true, 1000);
    });
    case("power in a user namespace", &|c| {
        mapped(c);
        c.capabilities = u64::MAX;
    });
    case("missing in path", &|c| c.command = Some(vec!["nope"]));
    case("missing path", &|c| c.command = Some(vec!["/no/such"]));
    case("not executable", &|c| c.command = Some(vec!["/etc/passwd"]));
    case("not executable by the user", &|c| (c.command, c.uid) = (Some(vec!["/bin/rootonly"]), 1000));
    case("no program", &|c| c.command = Some(vec!["/bin/garbage"]));
    case("no interpreter", &|c| c.command = Some(vec!["/bin/badscript"]));
    case("working directory is a file", &|c| c.cwd = "/etc/passwd");
    case("working directory not the user's", &|c| (c.cwd, c.uid, c.capabilities) = ("/private", 1000, 0));
    cases
}

/// Names what does not end, which would be all that is heard of it.
fn watched<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let (ended, end) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if end.recv_timeout(std::time::Duration::from_secs(180)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                eprintln!("{name} does not end");
                std::process::abort();
            }
        });
        let result = work();
        drop(ended);
        result
    })
}

#[test]
fn containers_look_the_same_from_inside() {
    let rootfs = Rootfs::make();
    let mut differences = Vec::new();
    for case in cases() {
        let theirs = watched(&format!("{} under runc", case.name), || runcs(&rootfs, &case));
        let ours = watched(&case.name, || ours(&rootfs, &case, &case.plan(&rootfs)));
        if let Some(text) = difference(&theirs, &ours) {
            differences.push(format!("== {}\n{text}", case.name));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The comparison sees what a wrong launcher would do: each of these breaks one thing, and is found.
#[test]
fn every_broken_launcher_is_caught() {
    let rootfs = Rootfs::make();
    let mut whole = Case::plain("mutations");
    (whole.uid, whole.gid, whole.groups) = (1000, 100, vec![100, 10]);
    (whole.readonly, whole.no_new_privs, whole.umask) = (true, true, Some(0o027));
    (whole.deny, whole.cwd, whole.tty) = (vec!["mkdir", "mkdirat"], "/etc", false);
    (whole.memory, whole.pids) = (64 << 20, 77);
    whole.rlimits = vec![("RLIMIT_NOFILE", libc::RLIMIT_NOFILE, 512, 1024)];
    whole.binds = vec![("etc", "/mnt/a", true)];
    whole.devices = vec![("/dev/fuse", 10, 229, 0o600)];
    let right = ours(&rootfs, &whole, &whole.plan(&rootfs));
    assert_eq!(difference(&runcs(&rootfs, &whole), &right), None);
    type Break = fn(&mut shim::plan::ContainerPlan);
    let broken: [(&str, Break); 24] = [
        ("user", |p| p.process.uid = 0),
        ("group", |p| p.process.gid = 0),
        ("groups", |p| p.process.groups = vec![]),
        ("umask", |p| p.process.umask = None),
        ("bounding set", |p| p.process.capabilities.bounding |= 1 << 21),
        ("inheritable set", |p| p.process.capabilities.inheritable |= 1),
        ("no new privileges", |p| p.process.no_new_privs = false),
        ("seccomp", |p| p.process.seccomp.0.clear()),
        ("limits", |p| p.process.rlimits.clear()),
        ("working directory", |p| p.process.cwd = c"/".into()),
        ("environment", |p| p.process.env.truncate(1)),
        ("read-only root", |p| p.root.readonly = false),
        ("masked paths", |p| p.masked_paths.clear()),
        ("one masked path", |p| drop(p.masked_paths.pop())),
        ("read-only paths", |p| p.readonly_paths.clear()),
        ("a mount", |p| p.mounts.retain(|m| m.target.as_c_str() != c"/dev/mqueue")),
        ("a bind's attribute", |p| p.mounts.last_mut().unwrap().attributes = 0),
        ("mount attributes", |p| p.mounts[0].attributes = 0),
        ("mount options", |p| p.mounts[2].options.clear()),
        ("devices", |p| drop(p.devices.pop())),
        ("a device's mode", |p| p.devices[0].mode = libc::S_IFCHR | 0o600),
        ("process namespace", |p| p.namespaces &= !(libc::CLONE_NEWPID as u64)),
        ("ipc namespace", |p| p.namespaces &= !(libc::CLONE_NEWIPC as u64)),
        ("host name", |p| p.hostname = c"".into()),
    ];
    for (name, change) in broken {
        let mut plan = whole.plan(&rootfs);
        change(&mut plan);
        assert!(difference(&right, &ours(&rootfs, &whole, &plan)).is_some(), "{name} was not noticed");
    }
    let mut mapped = Case::plain("a mapped one");
    mapped.mapped = true;
    let right = ours(&rootfs, &mapped, &mapped.plan(&rootfs));
    mapped.mapped = false;
    let broken = ours(&rootfs, &mapped, &mapped.plan(&rootfs));
    assert!(difference(&right, &broken).is_some(), "a missing user namespace was not noticed");
}
