//! The shim's process: one thread around epoll. It owns a Pod's namespaces, its containers' streams, logs and exit
//! codes; daemons come and go on its socket.

mod connection;
mod container;
mod exec;
mod sandbox;
mod spawner;

use crate::launch::{Held, UserNamespace};
use crate::proto::Reply;
use crate::sys::{self, Child};
use connection::Connection;
use container::Container;
pub use container::read_exit;
pub use spawner::Spawner;
use std::collections::BTreeMap;
use std::os::fd::RawFd;

/// What a descriptor in epoll belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Listener,
    /// A child ended.
    Signals,
    Connection,
    /// A container's output: 1 or 2, or a terminal's master as 1.
    Output {
        id: String,
        stream: u32,
    },
    /// A container's input, when it had no room.
    Input {
        id: String,
    },
}

/// A process executed in a container, for one connection.
struct ExecProcess {
    child: Child,
    connection: u64,
    started_at_ns: i64,
}

pub(crate) struct Shim {
    epoll: RawFd,
    sources: BTreeMap<u64, (RawFd, Source)>,
    next_token: u64,
    listener: RawFd,
    signals: RawFd,
    connections: BTreeMap<u64, Connection>,
    containers: BTreeMap<String, Container>,
    /// By process number.
    execs: BTreeMap<i32, ExecProcess>,
    sandbox_id: String,
    pause: Option<Child>,
    set_up: bool,
    /// The Pod's shared memory: a mount nobody else sees.
    shm: Option<Held>,
    /// The process namespace the shim's children are born in.
    pid_namespace: RawFd,
    /// The Pod's own.
    users: Option<UserNamespace>,
    shutdown: bool,
}

/// Whether this process was started to be a shim: the program's name says so.
pub fn is_shim() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// The name a shim is started under.
pub const NAME: &str = "minke-shim";

/// Runs the process that shims are forked from, and in the end each of them. Descriptor 0 is the daemon's
/// [`Spawner`]; arguments are cgroup directories to join. Returns the exit code.
pub fn main() -> i32 {
    let result = spawner::run(std::env::args().skip(1)).and_then(|shim| match shim {
        Some((sandbox_id, listener)) => Shim::build(sandbox_id, listener).and_then(Shim::run),
        None => Ok(()),
    });
    match result {
        Ok(()) => 0,
        Err(e) => {
            let text = format!("minke-shim: {e}\n");
            let _ = sys::write(2, text.as_bytes());
            1
        }
    }
}

impl Shim {
    fn build(sandbox_id: String, listener: RawFd) -> sys::Result<Shim> {
        sys::set_nonblocking(listener)?;
        // SAFETY: the mask is a local; descriptors are checked.
        let (epoll, signals) = unsafe {
            let mut mask: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut mask);
            libc::sigaddset(&raw mut mask, libc::SIGCHLD);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
            let signals = libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            (libc::epoll_create1(libc::EPOLL_CLOEXEC), signals)
        };
        if epoll < 0 || signals < 0 {
            return Err(sys::errno());
        }
        let pid_namespace = sys::open(c"/proc/self/ns/pid", libc::O_RDONLY)?;
        let mut shim = Shim {
            epoll,
            sources: BTreeMap::new(),
            next_token: 1,
            listener,
            signals,
            connections: BTreeMap::new(),
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            sandbox_id,
            pause: None,
            set_up: false,
            shm: None,
            pid_namespace,
            users: None,
            shutdown: false,
        };
        shim.watch(listener, Source::Listener)?;
        shim.watch(signals, Source::Signals)?;
        Ok(shim)
    }

    fn run(mut self) -> sys::Result<()> {
        while !self.shutdown {
            // SAFETY: an all-zero event is valid.
            let mut events: [libc::epoll_event; 16] = unsafe { std::mem::zeroed() };
            let timeout_ms = self.timeout_ms();
            // SAFETY: the array is valid for its length.
            let n = unsafe { libc::epoll_wait(self.epoll, events.as_mut_ptr(), 16, timeout_ms) };
            for event in &events[..n.max(0) as usize] {
                let (token, bits) = (event.u64, event.events);
                // One event's handling may have closed the next one's descriptor.
                if let Some((_, source)) = self.sources.get(&token) {
                    let source = source.clone();
                    self.dispatch(token, source, bits);
                }
            }
            self.kill_overdue();
        }
        if let Some(pause) = self.pause {
            let _ = sys::pidfd_send_signal(pause.pidfd, libc::SIGKILL);
        }
        Ok(())
    }

    fn dispatch(&mut self, token: u64, source: Source, bits: u32) {
        match source {
            Source::Listener => self.accept(),
            Source::Signals => self.reap(),
            Source::Connection => self.serve(token, bits),
            Source::Output { id, stream } => self.read_output(token, &id, stream),
            Source::Input { id } => self.write_input(&id),
        }
    }

    fn watch(&mut self, fd: RawFd, source: Source) -> sys::Result<u64> {
        let token = self.next_token;
        self.next_token += 1;
        self.control(libc::EPOLL_CTL_ADD, fd, token, libc::EPOLLIN as u32)?;
        self.sources.insert(token, (fd, source));
        Ok(token)
    }

    fn control(&self, operation: i32, fd: RawFd, token: u64, bits: u32) -> sys::Result<()> {
        let mut event = libc::epoll_event { events: bits, u64: token };
        // SAFETY: the event is a local.
        if unsafe { libc::epoll_ctl(self.epoll, operation, fd, &raw mut event) } < 0 {
            return Err(sys::errno());
        }
        Ok(())
    }

    /// Stops watching and closes.
    fn unwatch(&mut self, token: u64) {
        if let Some((fd, _)) = self.sources.remove(&token) {
            let _ = self.control(libc::EPOLL_CTL_DEL, fd, token, 0);
            sys::close(fd);
        }
    }

    fn accept(&mut self) {
        // SAFETY: no address is asked for.
        let fd = unsafe {
            libc::accept4(
                self.listener,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            )
        };
        if fd < 0 {
            return;
        }
        match self.watch(fd, Source::Connection) {
            Ok(token) => {
                self.connections.insert(token, Connection::new(fd));
            }
            Err(_) => sys::close(fd),
        }
    }

    /// Reaps every ended child: containers, execs, and orphans of theirs that came to us.
    fn reap(&mut self) {
        let mut info = [0u8; 128];
        while matches!(sys::read(self.signals, &mut info), Ok(n) if n > 0) {}
        loop {
            let mut status = 0;
            // SAFETY: the status is a local.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            let (code, signal) = if libc::WIFEXITED(status) {
                (libc::WEXITSTATUS(status), 0)
            } else {
                (128 + libc::WTERMSIG(status), libc::WTERMSIG(status))
            };
            if let Some(exec) = self.execs.remove(&pid) {
                self.exec_ended(&exec, code, signal);
            } else if let Some(id) = self.containers.iter().find(|(_, c)| c.is_process(pid)).map(|(id, _)| id.clone()) {
                self.container_ended(&id, code, signal);
            }
        }
    }

    fn timeout_ms(&self) -> i32 {
        let Some(deadline_ns) = self.containers.values().filter_map(|c| c.kill_at_ns).min() else { return -1 };
        let left_ms = (deadline_ns - sys::monotonic_ns() + 999_999) / 1_000_000;
        left_ms.clamp(0, 3_600_000) as i32
    }

    fn kill_overdue(&mut self) {
        let now_ns = sys::monotonic_ns();
        for container in self.containers.values_mut() {
            if container.kill_at_ns.is_some_and(|at_ns| at_ns <= now_ns) {
                container.kill_at_ns = None;
                container.kill();
            }
        }
    }

    /// Sends to everyone who asked for events.
    fn tell_subscribers(&mut self, reply: &Reply) {
        let tokens: Vec<u64> = self.connections.iter().filter(|(_, c)| c.subscribed).map(|(t, _)| *t).collect();
        for token in tokens {
            self.send(token, reply, &[]);
        }
    }
}
