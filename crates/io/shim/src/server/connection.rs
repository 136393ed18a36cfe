//! One daemon's connection: requests in, answers and events out.

use super::{Shim, Source};
use crate::proto::{Empty, Failure, Hello, Reply, Request, StateInfo, VERSION, frame, take_frame};
use crate::sys::{self, Errno};
use std::collections::VecDeque;
use std::os::fd::RawFd;

/// An attached client that reads slower than this behind is let go: neither the container nor its log waits for it.
const BEHIND_MAX: usize = 1 << 20;
/// Input that a container has not taken; more is not read from the client.
pub(super) const INPUT_MAX: usize = 64 * 1024;

pub(super) struct Connection {
    fd: RawFd,
    input: Vec<u8>,
    /// Descriptors received and not yet asked for.
    fds: VecDeque<RawFd>,
    output: Vec<u8>,
    pub(super) subscribed: bool,
    /// The container it is attached to, and whether its input is passed on.
    pub(super) attached: Option<(String, bool)>,
    /// Closed once everything is sent.
    closing: bool,
    /// Not read for now: the container's input is full.
    paused: bool,
}

impl Connection {
    pub(super) fn new(fd: RawFd) -> Connection {
        Connection {
            fd,
            input: Vec::new(),
            fds: VecDeque::new(),
            output: Vec::new(),
            subscribed: false,
            attached: None,
            closing: false,
            paused: false,
        }
    }

    fn bits(&self) -> u32 {
        let read = if self.paused || self.closing { 0 } else { libc::EPOLLIN };
        let write = if self.output.is_empty() { 0 } else { libc::EPOLLOUT };
        (read | write) as u32
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for fd in &self.fds {
            sys::close(*fd);
        }
    }
}

pub(super) fn failed(text: impl Into<String>) -> Reply {
    Reply::Failed(Failure { text: text.into(), ..Failure::default() })
}

pub(super) fn not_found(id: &str) -> Reply {
    Reply::Failed(Failure { text: format!("container {id:?} not found"), not_found: true, start: false })
}

impl Shim {
    pub(super) fn serve(&mut self, token: u64, bits: u32) {
        if bits & libc::EPOLLOUT as u32 != 0 {
            self.flush(token);
        }
        if bits & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) as u32 == 0 {
            return;
        }
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let mut bytes = [0u8; 16 * 1024];
        let fds = &mut connection.fds;
        match sys::receive_fds(connection.fd, &mut bytes, |fd| fds.push_back(fd)) {
            Ok(n) if n > 0 => connection.input.extend_from_slice(&bytes[..n]),
            Err(Errno(libc::EAGAIN)) => return,
            _ => return self.hang_up(token),
        }
        self.take_requests(token);
    }

    fn take_requests(&mut self, token: u64) {
        while let Some(connection) = self.connections.get_mut(&token) {
            if connection.closing || connection.paused {
                return;
            }
            match take_frame::<Request>(&mut connection.input) {
                Ok(None) => {
                    if connection.input.is_empty() {
                        connection.input = Vec::new();
                    }
                    return;
                }
                Ok(Some(request)) => self.answer(token, request),
                Err(e) => {
                    self.send(token, &failed(e.to_string()), &[]);
                    self.close_when_sent(token);
                    return;
                }
            }
        }
    }

    fn answer(&mut self, token: u64, request: Request) {
        let result = match request {
            Request::Hello(_) => {
                let pid = std::process::id() as i32;
                Ok(Some(Reply::Hello(Hello { version: VERSION, pid, sandbox_id: self.sandbox_id.clone() })))
            }
            Request::Setup(plan) => self.set_up(&plan).map(ok),
            Request::Subscribe(_) => {
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.subscribed = true;
                }
                Ok(ok(()))
            }
            Request::State(_) => Ok(Some(Reply::State(StateInfo {
                set_up: self.set_up,
                containers: self.containers.values().map(super::container::Container::info).collect(),
            }))),
            Request::Create(plan) => self.create(plan).map(Some),
            Request::Start(target) => self.start(&target.id).map(Some),
            Request::Signal(signal) => self.signal(&signal.id, signal.signal).map(ok),
            Request::Stop(stop) => self.stop(&stop).map(ok),
            Request::Kill(target) => self.kill(&target.id).map(ok),
            Request::Exec(exec) => self.exec(token, &exec).map(|()| None),
            Request::Attach(attach) => self.attach(token, &attach).map(|()| None),
            Request::Resize(resize) => self.resize(&resize).map(ok),
            Request::ReopenLog(target) => self.reopen_log(&target.id).map(ok),
            Request::Delete(target) => self.delete(&target.id).map(ok),
            Request::Connect(connect) => self.connect(token, &connect).map(|()| None),
            Request::Shutdown(_) => self.shut_down().map(ok),
            Request::Data(data) => {
                self.input(token, &data.bytes.0);
                Ok(None)
            }
        };
        match result {
            Ok(Some(reply)) | Err(reply) => self.send(token, &reply, &[]),
            Ok(None) => {}
        }
    }

    /// Takes the descriptors that came with a request.
    pub(super) fn take_fds<const N: usize>(&mut self, token: u64) -> Option<[RawFd; N]> {
        let fds = &mut self.connections.get_mut(&token)?.fds;
        if fds.len() < N {
            return None;
        }
        let mut taken = [-1; N];
        for slot in &mut taken {
            *slot = fds.pop_front()?;
        }
        Some(taken)
    }

    /// Sends a message, with descriptors if given; the rest of it later if the socket is full.
    pub(super) fn send(&mut self, token: u64, reply: &Reply, fds: &[RawFd]) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let bytes = frame(reply);
        let mut sent = 0;
        if connection.output.is_empty() {
            sent = match sys::send_fds(connection.fd, &bytes, fds) {
                Ok(n) => n,
                Err(Errno(libc::EAGAIN)) if fds.is_empty() => 0,
                Err(_) => return self.hang_up(token),
            };
        } else if !fds.is_empty() {
            return self.hang_up(token);
        }
        connection.output.extend_from_slice(&bytes[sent..]);
        if connection.attached.is_some() && connection.output.len() > BEHIND_MAX {
            return self.hang_up(token);
        }
        self.rearm(token);
    }

    fn flush(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        match sys::send_fds(connection.fd, &connection.output, &[]) {
            Ok(n) => {
                connection.output.drain(..n);
                if connection.output.is_empty() {
                    connection.output = Vec::new();
                    if connection.closing {
                        return self.hang_up(token);
                    }
                }
            }
            Err(Errno(libc::EAGAIN)) => {}
            Err(_) => return self.hang_up(token),
        }
        self.rearm(token);
    }

    fn rearm(&mut self, token: u64) {
        if let Some(connection) = self.connections.get(&token) {
            let _ = self.control(libc::EPOLL_CTL_MOD, connection.fd, token, connection.bits());
        }
    }

    pub(super) fn close_when_sent(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        connection.closing = true;
        if connection.output.is_empty() {
            self.hang_up(token);
        } else {
            self.rearm(token);
        }
    }

    /// Stops or goes on reading from a client.
    pub(super) fn pause_input(&mut self, token: u64, paused: bool) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if connection.paused == paused {
            return;
        }
        connection.paused = paused;
        self.rearm(token);
        if !paused {
            self.take_requests(token);
        }
    }

    fn hang_up(&mut self, token: u64) {
        let Some(connection) = self.connections.remove(&token) else { return };
        if let Some((id, true)) = &connection.attached {
            self.input_ended(id);
        }
        drop(connection);
        debug_assert!(matches!(self.sources.get(&token), Some((_, Source::Connection))));
        self.unwatch(token);
        // Who asked for an exec is gone, and its streams with them.
        for exec in self.execs.values().filter(|e| e.connection == token) {
            let _ = sys::pidfd_send_signal(exec.child.pidfd, libc::SIGKILL);
        }
    }
}

fn ok((): ()) -> Option<Reply> {
    Some(Reply::Ok(Empty {}))
}
