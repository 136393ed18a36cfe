//! A connection to a shim. The sandbox's main one asks and hears of exits; each exec, attach and port-forward has its
//! own.

use super::{Tasks, failed, lock};
use crate::types::RuntimeError;
use shim::proto::{Empty, ExitRecord, Hello, Reply, Request, VERSION, frame, take_frame};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

/// What a shim tells unasked.
#[derive(Debug)]
pub(super) enum LinkEvent {
    Exited(ExitRecord),
    /// The shim is gone.
    Closed,
}

/// A plain connection: frames out, frames and descriptors in.
pub(super) struct Stream {
    socket: UnixStream,
    input: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

impl Stream {
    /// Connects to the shim of the sandbox in `dir`. The way through the directory's descriptor has no length limit.
    pub(super) async fn connect(dir: &Path) -> std::io::Result<Stream> {
        let handle = std::fs::File::open(dir)?;
        let path = format!("/proc/self/fd/{}/{}", handle.as_raw_fd(), super::state::SOCKET);
        let socket = UnixStream::connect(path).await?;
        Ok(Stream { socket, input: Vec::new(), fds: Vec::new() })
    }

    pub(super) async fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> std::io::Result<()> {
        let bytes = frame(request);
        let mut sent = 0;
        while sent < bytes.len() {
            let fds = if sent == 0 { fds } else { &[] };
            let send = || Ok(shim::sys::send(self.socket.as_fd(), &bytes[sent..], fds)?);
            sent += self.socket.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    /// `None`: the shim closed the connection.
    pub(super) async fn receive(&mut self) -> std::io::Result<Option<Reply>> {
        loop {
            let reply = take_frame(&mut self.input);
            if let Some(reply) = reply.map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e))? {
                return Ok(Some(reply));
            }
            let mut bytes = [0u8; 16 * 1024];
            let fds = &mut self.fds;
            let socket = &self.socket;
            let receive = || Ok(shim::sys::receive(socket.as_fd(), &mut bytes, fds)?);
            match socket.async_io(Interest::READABLE, receive).await {
                Ok(0) => return Ok(None),
                Ok(n) => self.input.extend_from_slice(&bytes[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }

    /// Asks and waits for the answer.
    pub(super) async fn call(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply, RuntimeError> {
        self.send(request, fds).await.map_err(failed("shim"))?;
        let reply = self.receive().await.map_err(failed("shim"))?;
        answer(reply.ok_or_else(gone)?)
    }

    /// Makes sure that it is a shim we understand.
    pub(super) async fn hello(&mut self, sandbox_id: &str) -> Result<Hello, RuntimeError> {
        match self.call(&Request::Hello(Hello { version: VERSION, ..Hello::default() }), &[]).await? {
            Reply::Hello(hello) if hello.sandbox_id == sandbox_id => Ok(hello),
            other => Err(RuntimeError::Failed(format!("not the shim of sandbox {sandbox_id}: {other:?}"))),
        }
    }
}

fn gone() -> RuntimeError {
    RuntimeError::Failed("the sandbox's shim is gone".into())
}

fn answer(reply: Reply) -> Result<Reply, RuntimeError> {
    match reply {
        Reply::Failed(f) if f.start => Err(RuntimeError::Start(f.text)),
        Reply::Failed(f) => Err(RuntimeError::Failed(f.text)),
        reply => Ok(reply),
    }
}

type Pending = Arc<Mutex<VecDeque<oneshot::Sender<Reply>>>>;

/// A sandbox's main connection.
pub(super) struct Link {
    requests: mpsc::UnboundedSender<(Request, oneshot::Sender<Reply>)>,
    /// Host process number of the shim.
    pub(super) pid: i32,
    task: tokio::task::AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Connects, and tells `events` from then on.
    pub(super) async fn open(
        tasks: &Tasks,
        dir: &Path,
        sandbox_id: &str,
        events: mpsc::UnboundedSender<LinkEvent>,
    ) -> Result<Link, RuntimeError> {
        let mut stream = Stream::connect(dir).await.map_err(failed("connecting to the shim"))?;
        let hello = stream.hello(sandbox_id).await?;
        stream.call(&Request::Subscribe(Empty {}), &[]).await?;
        let (requests, receiver) = mpsc::unbounded_channel();
        let task = tasks.spawn(run(stream, receiver, events)).abort_handle();
        Ok(Link { requests, pid: hello.pid, task })
    }

    pub(super) async fn call(&self, request: Request) -> Result<Reply, RuntimeError> {
        let (sender, receiver) = oneshot::channel();
        self.requests.send((request, sender)).map_err(|_| gone())?;
        answer(receiver.await.map_err(|_| gone())?)
    }
}

/// Writes requests and pairs answers with them: a shim answers in order.
async fn run(
    mut stream: Stream,
    mut requests: mpsc::UnboundedReceiver<(Request, oneshot::Sender<Reply>)>,
    events: mpsc::UnboundedSender<LinkEvent>,
) {
    let pending: Pending = Arc::default();
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some((request, sender)) = request else { return };
                lock(&pending).push_back(sender);
                if stream.send(&request, &[]).await.is_err() {
                    break;
                }
            }
            reply = stream.receive() => match reply {
                Ok(Some(Reply::Exited(exit))) => {
                    let _ = events.send(LinkEvent::Exited(exit));
                }
                Ok(Some(reply)) => {
                    if let Some(sender) = lock(&pending).pop_front() {
                        let _ = sender.send(reply);
                    }
                }
                Ok(None) | Err(_) => break,
            },
        }
    }
    lock(&pending).clear();
    let _ = events.send(LinkEvent::Closed);
}
