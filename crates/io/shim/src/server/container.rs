//! A container's life in the shim: created, started, its output logged and fanned out, ended, forgotten.

use super::connection::{INPUT_MAX, failed, not_found};
use super::{Shim, Source};
use crate::launch::{self, Launched};
use crate::log::{Lines, LogFile, Stream};
use crate::plan::{CgroupPlan, ContainerPlan, MOUNT_SHM, ProcessPlan};
use crate::proto::{Attach, ContainerInfo, Data, Empty, ExitRecord, Failure, Reply, Resize, Started, Stop};
use crate::sys::{self, Child, Errno};
use crate::wire::{Bytes, Wire};
use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What waits at the gate, with what its program needs.
struct Waiting {
    launched: Launched,
    process: ProcessPlan,
}

/// A container's input that it has not taken yet.
struct Input {
    fd: RawFd,
    /// Watched for room while something is pending.
    token: Option<u64>,
    pending: Vec<u8>,
    /// Closed once everything pending is taken.
    closing: bool,
}

pub(crate) struct Container {
    id: String,
    waiting: Option<Waiting>,
    child: Child,
    started_at_ns: i64,
    exit: Option<ExitRecord>,
    directory: PathBuf,
    pub(super) cgroup: CgroupPlan,
    pub(super) namespaces: u64,
    kill_leftover: bool,
    log: Option<LogFile>,
    lines: [Lines; 2],
    /// Tokens of the watched outputs.
    outputs: Vec<(u64, u32)>,
    input: Option<Input>,
    stdin_once: bool,
    /// The terminal's master; also watched as output.
    master: Option<RawFd>,
    /// When to kill it, on the monotonic clock.
    pub(super) kill_at_ns: Option<i64>,
}

impl Container {
    pub(super) fn is_process(&self, pid: i32) -> bool {
        self.child.pid == pid && self.exit.is_none()
    }

    pub(super) fn is_running(&self) -> bool {
        self.exit.is_none() && self.waiting.is_none()
    }

    pub(super) fn pidfd(&self) -> RawFd {
        self.child.pidfd
    }

    pub(super) fn info(&self) -> ContainerInfo {
        ContainerInfo {
            id: self.id.clone(),
            pid: if self.exit.is_some() { 0 } else { self.child.pid },
            started_at_ns: self.started_at_ns,
            exit: self.exit.clone(),
        }
    }

    /// Kills every process of it.
    pub(super) fn kill(&self) {
        if self.exit.is_none() {
            let _ = sys::pidfd_send_signal(self.child.pidfd, libc::SIGKILL);
        }
        // The first process of an own process namespace takes the others along.
        if self.namespaces & libc::CLONE_NEWPID as u64 == 0 {
            kill_group(&self.cgroup);
        }
    }

    fn oom_killed(&self) -> bool {
        let path = Path::new(OsStr::from_bytes(self.cgroup.oom_file.as_bytes()));
        std::fs::read_to_string(path).is_ok_and(|text| crate::cgroup::oom_kills(&text) > 0)
    }
}

fn kill_group(cgroup: &CgroupPlan) {
    if !cgroup.unified.is_empty() && sys::write_file(&launch::join(&cgroup.unified, "cgroup.kill"), b"1").is_ok() {
        return;
    }
    let Some(dir) = cgroup.v1.first().or((!cgroup.unified.is_empty()).then_some(&cgroup.unified)) else { return };
    let file = Path::new(OsStr::from_bytes(dir.as_bytes())).join("cgroup.procs");
    // Who forks meanwhile is caught in the next round.
    for _ in 0..64 {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let mut pids = text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|pid| *pid > 0).peekable();
        if pids.peek().is_none() {
            return;
        }
        for pid in pids {
            // SAFETY: no memory is involved.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

/// The ends of a container's streams.
struct Stdio {
    /// The container's.
    theirs: [RawFd; 3],
    /// Ours: input, output, error.
    ours: [Option<RawFd>; 3],
}

impl Stdio {
    fn open(stdin: bool) -> sys::Result<Stdio> {
        let mut stdio = Stdio { theirs: [-1; 3], ours: [None; 3] };
        if stdin {
            let (read, write) = sys::pipe(0)?;
            stdio.theirs[0] = read;
            stdio.ours[0] = Some(write);
        } else {
            stdio.theirs[0] = sys::open(c"/dev/null", libc::O_RDONLY)?;
        }
        for stream in 1..3 {
            let (read, write) = sys::pipe(0)?;
            stdio.theirs[stream] = write;
            stdio.ours[stream] = Some(read);
        }
        for fd in stdio.ours.into_iter().flatten() {
            sys::set_nonblocking(fd)?;
        }
        Ok(stdio)
    }

    fn close_theirs(&self) {
        for fd in self.theirs {
            sys::close(fd);
        }
    }

    fn close_ours(&self) {
        for fd in self.ours.into_iter().flatten() {
            sys::close(fd);
        }
    }
}

fn launch_failed(error: &launch::LaunchError) -> Reply {
    Reply::Failed(Failure { text: error.text.clone(), not_found: false, start: true })
}

impl Shim {
    pub(super) fn create(&mut self, plan: ContainerPlan) -> Result<Reply, Reply> {
        if self.containers.contains_key(&plan.id) {
            return Err(failed(format!("container {:?} exists", plan.id)));
        }
        let log = if plan.log.is_empty() {
            None
        } else {
            let path = PathBuf::from(OsStr::from_bytes(plan.log.as_bytes()));
            Some(LogFile::open(path.clone()).map_err(|e| failed(format!("log {}: {e}", path.display())))?)
        };
        let stdio =
            if plan.process.tty { None } else { Some(Stdio::open(plan.stdin).map_err(|e| failed(e.to_string()))?) };
        let shm = self.shm.as_ref().filter(|_| plan.mounts.iter().any(|mount| mount.kind == MOUNT_SHM));
        // Without it the launcher says which mount has no source.
        let shm = shm.and_then(|shm| shm.copy().ok());
        let launched = launch::create(&plan, stdio.as_ref().map_or([-1; 3], |s| s.theirs), shm, self.users);
        if let Some(stdio) = &stdio {
            stdio.close_theirs();
        }
        if let Some(shm) = shm {
            sys::close(shm);
        }
        let launched = match launched {
            Ok(launched) => launched,
            Err(e) => {
                if let Some(stdio) = &stdio {
                    stdio.close_ours();
                }
                return Err(launch_failed(&e));
            }
        };
        let child = launched.child;
        let master = launched.master;
        let id = plan.id.clone();
        let mut container = Container {
            id: id.clone(),
            waiting: Some(Waiting { launched, process: plan.process }),
            child,
            started_at_ns: 0,
            exit: None,
            directory: PathBuf::from(OsStr::from_bytes(plan.directory.as_bytes())),
            cgroup: plan.cgroup,
            namespaces: plan.namespaces,
            kill_leftover: plan.kill_leftover,
            log,
            lines: [Lines::new(Stream::Stdout), Lines::new(Stream::Stderr)],
            outputs: Vec::new(),
            input: None,
            stdin_once: plan.stdin_once,
            master,
            kill_at_ns: None,
        };
        let ours = stdio.map_or([None; 3], |s| s.ours);
        container.input = ours[0].or(master.filter(|_| plan.stdin)).map(|fd| Input {
            fd,
            token: None,
            pending: Vec::new(),
            closing: false,
        });
        for (stream, fd) in [(1, ours[1].or(master)), (2, ours[2])] {
            let Some(fd) = fd else { continue };
            let _ = sys::set_nonblocking(fd);
            let source = Source::Output { id: id.clone(), stream };
            let token = self.watch(fd, source).map_err(|e| failed(e.to_string()))?;
            container.outputs.push((token, stream));
        }
        self.containers.insert(id, container);
        Ok(Reply::Started(Started { pid: child.pid, at_ns: 0 }))
    }

    pub(super) fn start(&mut self, id: &str) -> Result<Reply, Reply> {
        let container = self.containers.get_mut(id).ok_or_else(|| not_found(id))?;
        let Some(waiting) = container.waiting.take() else {
            return Err(failed(format!("container {id:?} was started before")));
        };
        let at_ns = sys::now_ns();
        if let Err(e) = waiting.launched.start(&waiting.process) {
            // It is reaped, and its descriptor closed.
            container.child.pid = 0;
            self.forget(id, true);
            return Err(launch_failed(&e));
        }
        container.started_at_ns = at_ns;
        Ok(Reply::Started(Started { pid: container.child.pid, at_ns }))
    }

    pub(super) fn signal(&mut self, id: &str, signal: i32) -> Result<(), Reply> {
        let container = self.containers.get(id).ok_or_else(|| not_found(id))?;
        if !container.is_running() {
            return Ok(());
        }
        sys::pidfd_send_signal(container.child.pidfd, signal).map_err(|e| failed(e.to_string()))
    }

    pub(super) fn stop(&mut self, stop: &Stop) -> Result<(), Reply> {
        let container = self.containers.get_mut(&stop.id).ok_or_else(|| not_found(&stop.id))?;
        if container.exit.is_some() {
            return Ok(());
        }
        if stop.grace_period_ms == 0 || container.waiting.is_some() {
            container.kill();
            return Ok(());
        }
        let at_ns = sys::monotonic_ns().saturating_add((stop.grace_period_ms.min(1 << 40) as i64) * 1_000_000);
        // Asked again, the earlier end counts.
        container.kill_at_ns = Some(container.kill_at_ns.map_or(at_ns, |old| old.min(at_ns)));
        sys::pidfd_send_signal(container.child.pidfd, stop.signal).map_err(|e| failed(e.to_string()))
    }

    pub(super) fn kill(&mut self, id: &str) -> Result<(), Reply> {
        self.containers.get(id).ok_or_else(|| not_found(id))?.kill();
        Ok(())
    }

    pub(super) fn reopen_log(&mut self, id: &str) -> Result<(), Reply> {
        let container = self.containers.get_mut(id).ok_or_else(|| not_found(id))?;
        match &mut container.log {
            Some(log) => log.reopen().map_err(|e| failed(e.to_string())),
            None => Ok(()),
        }
    }

    pub(super) fn delete(&mut self, id: &str) -> Result<(), Reply> {
        let container = self.containers.get(id).ok_or_else(|| not_found(id))?;
        if container.is_running() {
            return Err(failed(format!("container {id:?} is running")));
        }
        self.forget(id, false);
        Ok(())
    }

    /// Closes all that is left of it.
    fn forget(&mut self, id: &str, reaped: bool) {
        let Some(mut container) = self.containers.remove(id) else { return };
        if let Some(waiting) = container.waiting.take() {
            waiting.launched.abandon();
        } else if !reaped {
            sys::close(container.child.pidfd);
        }
        for (token, _) in container.outputs {
            self.unwatch(token);
        }
        self.close_input(container.input.take(), container.master);
    }

    fn close_input(&mut self, input: Option<Input>, master: Option<RawFd>) {
        let Some(input) = input else { return };
        if let Some(token) = input.token {
            // Watched under a number of its own.
            self.unwatch(token);
        }
        if master != Some(input.fd) {
            sys::close(input.fd);
        }
    }

    pub(super) fn read_output(&mut self, token: u64, id: &str, stream: u32) {
        let mut bytes = [0u8; 16 * 1024];
        let Some((fd, _)) = self.sources.get(&token) else { return };
        match sys::read(*fd, &mut bytes) {
            Ok(n) if n > 0 => self.output(id, stream, &bytes[..n]),
            Err(Errno(libc::EAGAIN)) => {}
            // A terminal nobody has open answers EIO.
            _ => self.output_ended(token, id, stream),
        }
    }

    fn output(&mut self, id: &str, stream: u32, bytes: &[u8]) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Some(log) = &mut container.log {
            let mut out = Vec::with_capacity(bytes.len() + 128);
            container.lines[stream as usize - 1].feed(bytes, sys::now_ns(), &mut out);
            log.write(&out);
        }
        for token in self.attached_to(id) {
            self.send(token, &Reply::Data(Data { stream, bytes: Bytes(bytes.to_vec()) }), &[]);
        }
    }

    fn output_ended(&mut self, token: u64, id: &str, stream: u32) {
        if let Some(container) = self.containers.get_mut(id) {
            container.outputs.retain(|(t, _)| *t != token);
            let mut out = Vec::new();
            container.lines[stream as usize - 1].end(sys::now_ns(), &mut out);
            if let Some(log) = &mut container.log {
                log.write(&out);
            }
            if container.master.take().is_some()
                && let Some(Input { token: Some(watched), .. }) = container.input.take()
            {
                self.unwatch(watched);
            }
        }
        self.unwatch(token);
    }

    fn attached_to(&self, id: &str) -> Vec<u64> {
        self.connections
            .iter()
            .filter(|(_, c)| c.attached.as_ref().is_some_and(|(attached, _)| attached == id))
            .map(|(token, _)| *token)
            .collect()
    }

    /// Its first process ended: all of its output is read, its end is written to disk, and only then told.
    pub(super) fn container_ended(&mut self, id: &str, code: i32, signal: i32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.waiting.is_some() {
            // It died before its program; `start` will find that out.
            return;
        }
        container.kill_at_ns = None;
        if container.kill_leftover {
            kill_group(&container.cgroup);
        }
        let exit = ExitRecord {
            id: id.to_owned(),
            code,
            signal,
            oom_killed: container.oom_killed(),
            started_at_ns: container.started_at_ns,
            finished_at_ns: sys::now_ns(),
        };
        container.exit = Some(exit.clone());
        for (token, stream) in container.outputs.clone() {
            // What others hold open is read on as it comes.
            for _ in 0..1024 {
                if !self.has_output(token) {
                    break;
                }
                self.read_output(token, id, stream);
            }
        }
        if let Some(container) = self.containers.get_mut(id) {
            if let Err(e) = write_exit(&container.directory, &exit) {
                let _ = sys::write(2, format!("exit of {id}: {e}\n").as_bytes());
            }
            let input = container.input.take();
            let master = container.master;
            self.close_input(input, master);
        }
        self.tell_subscribers(&Reply::Exited(exit.clone()));
        for token in self.attached_to(id) {
            self.send(token, &Reply::Exited(exit.clone()), &[]);
            self.close_when_sent(token);
        }
    }

    fn has_output(&self, token: u64) -> bool {
        let Some((fd, _)) = self.sources.get(&token) else { return false };
        let mut poll = libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor is passed.
        unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
    }

    pub(super) fn attach(&mut self, token: u64, attach: &Attach) -> Result<(), Reply> {
        let container = self.containers.get(&attach.id).ok_or_else(|| not_found(&attach.id))?;
        if container.exit.is_some() {
            return Err(failed(format!("container {:?} is not running", attach.id)));
        }
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.attached = Some((attach.id.clone(), attach.stdin));
        }
        self.send(token, &Reply::Ok(Empty {}), &[]);
        Ok(())
    }

    /// Input from an attached client; empty: its end.
    pub(super) fn input(&mut self, token: u64, bytes: &[u8]) {
        let Some(connection) = self.connections.get(&token) else { return };
        let Some((id, true)) = connection.attached.clone() else { return };
        if bytes.is_empty() {
            return self.input_ended(&id);
        }
        let Some(input) = self.containers.get_mut(&id).and_then(|c| c.input.as_mut()) else { return };
        input.pending.extend_from_slice(bytes);
        self.write_input(&id);
        let full = self
            .containers
            .get(&id)
            .and_then(|c| c.input.as_ref())
            .is_some_and(|input| input.pending.len() > INPUT_MAX);
        if full {
            self.pause_input(token, true);
        }
    }

    /// A client's input ended: that ends the container's if one was all it was to get.
    pub(super) fn input_ended(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if !container.stdin_once || container.master.is_some() {
            return;
        }
        if let Some(input) = &mut container.input {
            input.closing = true;
        }
        self.write_input(id);
    }

    pub(super) fn write_input(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let master = container.master;
        let Some(input) = &mut container.input else { return };
        while !input.pending.is_empty() {
            match sys::write(input.fd, &input.pending) {
                Ok(n) => drop(input.pending.drain(..n)),
                Err(Errno(libc::EAGAIN)) => break,
                Err(_) => {
                    input.pending.clear();
                    input.closing = true;
                }
            }
        }
        if input.pending.is_empty() && input.closing {
            let input = container.input.take();
            self.close_input(input, master);
            return;
        }
        let wanted = !input.pending.is_empty();
        self.watch_input(id, wanted);
        if !wanted {
            for token in self.attached_to(id) {
                self.pause_input(token, false);
            }
        }
    }

    /// Watches the input for room, through a descriptor of its own (a terminal's is watched for output already).
    fn watch_input(&mut self, id: &str, wanted: bool) {
        let Some(input) = self.containers.get_mut(id).and_then(|c| c.input.as_mut()) else { return };
        match (input.token, wanted) {
            (None, true) => {
                // SAFETY: numbers only.
                let fd = unsafe { libc::fcntl(input.fd, libc::F_DUPFD_CLOEXEC, 3) };
                if let Ok(token) = self.watch(fd, Source::Input { id: id.to_owned() }) {
                    let _ = self.control(libc::EPOLL_CTL_MOD, fd, token, libc::EPOLLOUT as u32);
                    if let Some(input) = self.containers.get_mut(id).and_then(|c| c.input.as_mut()) {
                        input.token = Some(token);
                    }
                }
            }
            (Some(token), false) => {
                input.token = None;
                self.unwatch(token);
            }
            _ => {}
        }
    }

    pub(super) fn resize(&mut self, resize: &Resize) -> Result<(), Reply> {
        let container = self.containers.get(&resize.id).ok_or_else(|| not_found(&resize.id))?;
        let Some(master) = container.master else { return Ok(()) };
        launch::set_window(master, resize.columns, resize.rows).map_err(|e| failed(e.to_string()))
    }
}

/// The file in a container's directory that holds its `ExitRecord`.
const EXIT_FILE: &str = "exit";

fn write_exit(directory: &Path, exit: &ExitRecord) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    exit.put(&mut bytes);
    let new = directory.join("exit.new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(new, directory.join(EXIT_FILE))
}

/// Reads what the shim wrote when a container ended; `None`: it has not.
pub fn read_exit(directory: &Path) -> std::io::Result<Option<ExitRecord>> {
    match std::fs::read(directory.join(EXIT_FILE)) {
        Ok(bytes) => {
            ExitRecord::get(&bytes).map(Some).map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
