//! What a daemon and a shim said to each other when the protocol was new, said again to today's shim: the plans of an
//! older minke still mean the same, and an older shim's answers can still be read.
//!
//! `MINKE_RECORD=FILE cargo test -p runtime --test transcript` records anew what `requests` asks; a recording in the tree
//! is never changed, a newer one gets a file of its own.
#![allow(clippy::unwrap_used)]

use shim::plan::{
    Capabilities, ContainerPlan, DevicePlan, MOUNT_BIND, MOUNT_FS, MOUNT_SHM, MountPlan, ProcessPlan, Rlimit, RootPlan,
    SandboxPlan,
};
use shim::proto::{Empty, Hello, Reply, Request, Resize, Signal, Stop, Target, frame, take_frame};
use shim::wire::Bytes;
use shim::{Spawner, sys};
use std::ffi::CString;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The recordings name paths below here, which is empty but for what this test puts there.
const ROOM: &str = "/mnt";

#[test]
fn what_was_said_in_version_1_still_holds() {
    replay(include_str!("transcript/v1.txt"));
}

/// One line of a recording.
enum Line {
    Request(Vec<u8>),
    Reply(Vec<u8>),
    /// A container's log, with `\n` for its lines' ends, without times, what was said on standard error last.
    Log(String),
}

fn parse(text: &str) -> Vec<Line> {
    let bytes =
        |hex: &str| (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
    let line = |line: &str| match line.split_once(' ') {
        Some((">", hex)) => Some(Line::Request(bytes(hex))),
        Some(("<", hex)) => Some(Line::Reply(bytes(hex))),
        Some(("log", text)) => Some(Line::Log(text.to_owned())),
        _ => None,
    };
    text.lines().filter_map(line).collect()
}

fn replay(text: &str) {
    in_a_room(|| {
        let mut shim = Shim::start();
        for line in parse(text) {
            match line {
                Line::Request(bytes) => {
                    let request: Request = take_frame(&mut bytes.clone()).unwrap().unwrap();
                    assert_eq!(frame(&request), bytes, "what is said today is what was said then: {request:?}");
                    shim.socket.write_all(&bytes).unwrap();
                }
                Line::Reply(mut bytes) => {
                    let recorded: Reply = take_frame(&mut bytes).unwrap().unwrap();
                    assert_eq!(timeless(shim.reply()), timeless(recorded));
                }
                Line::Log(expected) => assert_eq!(log(), expected),
            }
        }
        // Nothing more is said.
        assert_eq!(shim.socket.read(&mut [0]).unwrap(), 0);
    });
}

/// Numbers of processes and times are never the same again.
fn timeless(mut reply: Reply) -> Reply {
    match &mut reply {
        Reply::Hello(hello) => hello.pid = 0,
        Reply::Started(started) => (started.pid, started.at_ns) = (0, started.at_ns.signum()),
        Reply::Exited(exit) => (exit.started_at_ns, exit.finished_at_ns) = (0, 0),
        Reply::State(state) => {
            for container in &mut state.containers {
                (container.pid, container.started_at_ns) = (0, container.started_at_ns.signum());
                if let Some(exit) = &mut container.exit {
                    (exit.started_at_ns, exit.finished_at_ns) = (0, 0);
                }
            }
        }
        Reply::Ok(_) | Reply::Failed(_) | Reply::Data(_) => {}
    }
    reply
}

fn log() -> String {
    let text = std::fs::read_to_string(format!("{ROOM}/log")).unwrap();
    let mut lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    // Two pipes have no order between them.
    lines.sort_by_key(|line| line.starts_with("stderr"));
    lines.iter().map(|line| format!("{line}\\n")).collect()
}

/// Runs `act` in a mount namespace of its own, with a fresh file system at `ROOM` and in it what the plans name.
fn in_a_room(act: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::unshare(libc::CLONE_NEWNS as u64).unwrap();
            sys::set_root_propagation(libc::MS_PRIVATE).unwrap();
            let fs = sys::fsopen(c"tmpfs").unwrap();
            let tree = sys::fsmount(fs, 0).unwrap();
            let room = CString::new(ROOM).unwrap();
            sys::move_mount(tree, sys::open(&room, libc::O_PATH).unwrap()).unwrap();
            for dir in ["root/bin", "root/proc", "root/dev", "root/etc", "container", "second", "volume"] {
                std::fs::create_dir_all(Path::new(ROOM).join(dir)).unwrap();
            }
            std::fs::copy("/bin/busybox", format!("{ROOM}/root/bin/busybox")).expect("Debian package busybox-static");
            for applet in ["sh", "cat", "echo", "grep", "hostname", "ls", "mkdir", "pwd", "sleep", "touch"] {
                std::os::unix::fs::symlink("busybox", format!("{ROOM}/root/bin/{applet}")).unwrap();
            }
            std::fs::write(format!("{ROOM}/root/etc/masked"), "hidden").unwrap();
            std::fs::write(format!("{ROOM}/volume/file"), "from a volume\n").unwrap();
            act();
        });
        thread.join().unwrap();
    });
}

struct Shim {
    /// What the shim is forked from; it ends when nobody can ask it.
    spawner: Option<Spawner>,
    parent: Child,
    socket: UnixStream,
    input: Vec<u8>,
}

impl Shim {
    fn start() -> Shim {
        let path = format!("{ROOM}/shim.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_minke-shim-for-tests"));
        let (spawner, theirs) = Spawner::pair().unwrap();
        command.arg0(shim::NAME).env_clear().stdin(Stdio::from(theirs));
        let parent = command.spawn().unwrap();
        let log = std::fs::File::create(format!("{ROOM}/shim.log")).unwrap();
        spawner.spawn("sandbox", &listener.into(), &log.into()).unwrap();
        Shim { spawner: Some(spawner), parent, socket: UnixStream::connect(path).unwrap(), input: Vec::new() }
    }

    fn reply(&mut self) -> Reply {
        loop {
            if let Some(reply) = take_frame(&mut self.input).unwrap() {
                return reply;
            }
            let mut bytes = [0; 4096];
            let n = self.socket.read(&mut bytes).unwrap();
            assert_ne!(n, 0, "the shim is gone");
            self.input.extend_from_slice(&bytes[..n]);
        }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.spawner = None;
        let _ = self.parent.wait();
    }
}

/// Requests, and how many answers and events each brings.
fn requests() -> Vec<(Request, usize)> {
    let target = |id: &str| Target { id: id.into() };
    let looks = "echo $A $(hostname) $(pwd) $(umask); cat /volume/file /etc/masked; grep -E 'Uid|Gid|Groups|CapEff|NoNewPrivs|Seccomp:' /proc/self/status; \
        ulimit -n; ls /dev | grep -v core; mkdir /dev/shm/x || echo refused; touch /volume/new || echo read-only; echo err >&2; exit 3";
    let sandbox = SandboxPlan {
        id: "sandbox".into(),
        namespaces: (libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64,
        hostname: c"recorded".into(),
        sysctls: vec![("net.ipv4.ip_unprivileged_port_start".into(), "0".into())],
        shm_bytes: 1 << 20,
        ..SandboxPlan::default()
    };
    let plain = plan("first", looks);
    let mut second = plan("second", "sleep 1000");
    second.directory = c"/mnt/second".into();
    second.process.tty = true;
    (second.process.columns, second.process.rows) = (80, 25);
    (second.log, second.stdin) = (c"".into(), true);
    let mut missing = plan("missing", "");
    missing.process.argv = vec![c"/bin/nope".into()];
    vec![
        (Request::Hello(Hello { version: 1, ..Hello::default() }), 1),
        (Request::Subscribe(Empty {}), 1),
        (Request::Setup(sandbox), 1),
        (Request::Create(plain), 1),
        (Request::State(Empty {}), 1),
        (Request::Start(target("first")), 2),
        (Request::ReopenLog(target("first")), 1),
        (Request::Delete(target("first")), 1),
        (Request::Create(missing), 1),
        (Request::Create(second), 1),
        (Request::Start(target("second")), 1),
        (Request::Resize(Resize { id: "second".into(), columns: 100, rows: 40 }), 1),
        (Request::Signal(Signal { id: "second".into(), signal: libc::SIGWINCH }), 1),
        (Request::Shutdown(Empty {}), 1),
        (Request::Stop(Stop { id: "second".into(), signal: libc::SIGTERM, grace_period_ms: 0 }), 2),
        (Request::Kill(target("second")), 1),
        (Request::State(Empty {}), 1),
        (Request::Delete(target("second")), 1),
        (Request::Kill(target("second")), 1),
        (Request::Shutdown(Empty {}), 1),
    ]
}

fn plan(id: &str, script: &str) -> ContainerPlan {
    let fs = |target: &str, kind: &str, options: &[(&str, &str)]| MountPlan {
        target: CString::new(target).unwrap(),
        kind: MOUNT_FS,
        fs: CString::new(kind).unwrap(),
        options: options.iter().map(|(k, v)| (CString::new(*k).unwrap(), CString::new(*v).ok())).collect(),
        attributes: sys::MOUNT_ATTR_NOSUID,
        ..MountPlan::default()
    };
    // Denies mkdir (83 and 34 are its numbers on x86_64 and aarch64's mkdirat) with EPERM, allows the rest.
    let (number, error, allow) =
        (if cfg!(target_arch = "x86_64") { 83u32 } else { 34 }, 0x0005_0001u32, 0x7fff_0000u32);
    let mut seccomp = Vec::new();
    for (code, jumps, value) in [(0x20u16, 0u16, 0u32), (0x15, 0x0100, number), (0x06, 0, error), (0x06, 0, allow)] {
        seccomp.extend_from_slice(&code.to_le_bytes());
        seccomp.extend_from_slice(&jumps.to_le_bytes());
        seccomp.extend_from_slice(&value.to_le_bytes());
    }
    let capabilities = 1 << 10;
    ContainerPlan {
        id: id.into(),
        process: ProcessPlan {
            argv: [c"/bin/busybox", c"sh", c"-c"].map(Into::into).into_iter().chain(CString::new(script)).collect(),
            env: vec![c"PATH=/bin".into(), c"A=b".into()],
            cwd: c"/volume".into(),
            uid: 1000,
            gid: 100,
            groups: vec![100, 7],
            umask: Some(0o027),
            capabilities: Capabilities {
                effective: capabilities,
                permitted: capabilities,
                inheritable: capabilities,
                bounding: capabilities,
                ambient: capabilities,
            },
            no_new_privs: true,
            seccomp: Bytes(seccomp),
            rlimits: vec![Rlimit { resource: libc::RLIMIT_NOFILE, soft: 100, hard: 200 }],
            oom_score_adj: Some(1000),
            ..ProcessPlan::default()
        },
        namespaces: (libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWCGROUP) as u64,
        root: RootPlan { directory: c"/mnt/root".into(), readonly: true, ..RootPlan::default() },
        mounts: vec![
            fs("/proc", "proc", &[]),
            fs("/dev", "tmpfs", &[("mode", "755")]),
            fs("/dev/pts", "devpts", &[("ptmxmode", "0666"), ("gid", "5")]),
            MountPlan { target: c"/dev/shm".into(), kind: MOUNT_SHM, source: c"shm".into(), ..MountPlan::default() },
            MountPlan {
                target: c"/volume".into(),
                kind: MOUNT_BIND,
                source: c"/mnt/volume".into(),
                attributes: sys::MOUNT_ATTR_RDONLY,
                recursive: true,
                propagation: libc::MS_PRIVATE,
                ..MountPlan::default()
            },
        ],
        devices: vec![DevicePlan {
            path: c"/dev/null".into(),
            mode: libc::S_IFCHR | 0o666,
            major: 1,
            minor: 3,
            ..DevicePlan::default()
        }],
        masked_paths: vec![c"/etc/masked".into()],
        readonly_paths: vec![c"/proc/sys".into()],
        directory: c"/mnt/container".into(),
        log: c"/mnt/log".into(),
        ..ContainerPlan::default()
    }
}

/// Writes a recording where `MINKE_RECORD` says.
#[test]
fn record() {
    let Some(path) = std::env::var_os("MINKE_RECORD") else { return };
    let mut text = String::new();
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    in_a_room(|| {
        let mut shim = Shim::start();
        for (request, replies) in requests() {
            let ends_first = matches!(&request, Request::ReopenLog(_));
            let bytes = frame(&request);
            shim.socket.write_all(&bytes).unwrap();
            text += &format!("> {}\n", hex(&bytes));
            for _ in 0..replies {
                text += &format!("< {}\n", hex(&frame(&shim.reply())));
            }
            if ends_first {
                text += &format!("log {}\n", log());
            }
        }
    });
    std::fs::write(path, text).unwrap();
}
