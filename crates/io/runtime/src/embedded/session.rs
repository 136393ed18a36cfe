//! Exec, attach and port-forward: each over a connection of its own to the shim.

use super::container::Container;
use super::link::Stream;
use super::sandbox::Sandbox;
use super::{Inner, Tasks, failed};
use crate::types::{ContainerState, Duplex, ExecConfig, RuntimeError, Session};
use shim::proto::{Attach, Connect, Data, Exec, Reply, Request, Resize};
use shim::wire::Bytes;
use std::io::{Error, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

type ExitSender = oneshot::Sender<Result<i32, RuntimeError>>;

/// The container, refused in containerd's words when nothing runs in it.
fn running(inner: &Inner, id: &str) -> Result<(Arc<Sandbox>, Arc<Container>), RuntimeError> {
    let (sandbox, container) = inner.container(id)?;
    let state = match container.status().state {
        ContainerState::Running => return Ok((sandbox, container)),
        ContainerState::Created => "CREATED",
        ContainerState::Exited => "EXITED",
        ContainerState::Unknown => "UNKNOWN",
    };
    Err(RuntimeError::Failed(format!("container is in CONTAINER_{state} state")))
}

pub(super) async fn exec(inner: &Arc<Inner>, id: &str, config: ExecConfig) -> Result<Session, RuntimeError> {
    let (sandbox, container) = running(inner, id)?;
    let mut process = (*container.process()?).clone();
    process.argv = config.command.iter().map(super::spec::c_string).collect();
    if process.argv.is_empty() {
        return Err(RuntimeError::Start("no command specified".into()));
    }
    process.tty = config.tty;
    if config.tty && !container.config.tty {
        process.env.push(c"TERM=xterm".into());
    }
    let mut stream = Stream::connect(&sandbox.dir).await.map_err(failed("shim"))?;
    let request = Request::Exec(Exec { id: id.to_owned(), process });
    let (sender, exit) = oneshot::channel();
    if config.tty {
        stream.call(&request, &[]).await?;
        let master = stream.fds.pop().ok_or_else(|| RuntimeError::Failed("the shim sent no terminal".into()))?;
        let terminal = Terminal::new(master).map_err(failed("terminal"))?;
        let resize = terminal.resizer(&inner.tasks);
        inner.tasks.spawn(wait_exec(stream, sender));
        return Ok(Session {
            stdin: config.stdin.then(|| Box::pin(terminal.clone()) as crate::types::Writer),
            stdout: Some(Box::pin(terminal)),
            stderr: None,
            resize: Some(resize),
            exit,
        });
    }
    let (theirs, stdin, stdout, stderr) = pipes(&config).map_err(failed("pipes"))?;
    stream.call(&request, &[theirs[0].as_fd(), theirs[1].as_fd(), theirs[2].as_fd()]).await?;
    drop(theirs);
    inner.tasks.spawn(wait_exec(stream, sender));
    Ok(Session { stdin, stdout, stderr, resize: None, exit })
}

/// Waits for the end of an exec, or for nobody to wait for it any more: closing the connection kills it.
async fn wait_exec(mut stream: Stream, mut sender: ExitSender) {
    tokio::select! {
        reply = stream.receive() => {
            let _ = sender.send(match reply {
                Ok(Some(Reply::Exited(exit))) => Ok(exit.code),
                Ok(Some(other)) => Err(RuntimeError::Failed(format!("the shim answered {other:?}"))),
                Ok(None) => Err(RuntimeError::Failed("the sandbox's shim is gone".into())),
                Err(e) => Err(RuntimeError::Failed(format!("shim: {e}"))),
            });
        }
        () = sender.closed() => {}
    }
}

type Ends = ([OwnedFd; 3], Option<crate::types::Writer>, Option<crate::types::Reader>, Option<crate::types::Reader>);

/// The process's streams, and our ends of those that are wanted.
fn pipes(config: &ExecConfig) -> std::io::Result<Ends> {
    let null = || std::fs::File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    let (theirs_in, stdin) = if config.stdin {
        let (sender, receiver) = pipe::pipe()?;
        (receiver.into_blocking_fd()?, Some(Box::pin(sender) as crate::types::Writer))
    } else {
        (null()?, None)
    };
    let output = |wanted: bool| -> std::io::Result<(OwnedFd, Option<crate::types::Reader>)> {
        if !wanted {
            return Ok((null()?, None));
        }
        let (sender, receiver) = pipe::pipe()?;
        Ok((sender.into_blocking_fd()?, Some(Box::pin(receiver))))
    };
    let (theirs_out, stdout) = output(config.stdout)?;
    let (theirs_err, stderr) = output(config.stderr)?;
    Ok(([theirs_in, theirs_out, theirs_err], stdin, stdout, stderr))
}

/// The master of an exec's terminal.
#[derive(Clone)]
struct Terminal {
    master: Arc<AsyncFd<OwnedFd>>,
}

impl Terminal {
    fn new(master: OwnedFd) -> std::io::Result<Terminal> {
        rustix::io::ioctl_fionbio(&master, true)?;
        // Its successor is `unsafe`, which this crate has none of; an `OwnedFd` keeps what that one asks for.
        #[allow(deprecated)]
        let master = AsyncFd::new(master)?;
        Ok(Terminal { master: Arc::new(master) })
    }

    /// Takes sizes (columns, rows) for as long as the sender lives.
    fn resizer(&self, tasks: &Tasks) -> mpsc::Sender<(u16, u16)> {
        let (sender, mut sizes) = mpsc::channel(8);
        let master = Arc::downgrade(&self.master);
        tasks.spawn(async move {
            while let Some((columns, rows)) = sizes.recv().await {
                let Some(master) = master.upgrade() else { return };
                let _ = shim::sys::resize(master.get_ref().as_fd(), columns, rows);
            }
        });
        sender
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        loop {
            let mut guard = ready!(self.master.poll_read_ready(cx))?;
            let unfilled = buf.initialize_unfilled();
            match guard.try_io(|master| rustix::io::read(master.get_ref(), &mut *unfilled).map_err(Error::from)) {
                Ok(Ok(n)) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                // Nobody has the terminal open any more.
                Ok(Err(e)) if e.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        loop {
            let mut guard = ready!(self.master.poll_write_ready(cx))?;
            match guard.try_io(|master| rustix::io::write(master.get_ref(), bytes).map_err(Error::from)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

pub(super) async fn attach(inner: &Arc<Inner>, id: &str, config: ExecConfig) -> Result<Session, RuntimeError> {
    let (sandbox, container) = running(inner, id)?;
    let mut stream = Stream::connect(&sandbox.dir).await.map_err(failed("shim"))?;
    let stdin = config.stdin && container.config.stdin;
    stream.call(&Request::Attach(Attach { id: id.to_owned(), stdin }), &[]).await?;
    let tty = container.config.tty;
    let (sender, exit) = oneshot::channel();
    let (resize, sizes) = mpsc::channel(8);
    let ours = |wanted: bool| wanted.then(|| tokio::io::duplex(64 * 1024)).unzip();
    let (input_writer, input) = ours(stdin);
    let (stdout, output) = ours(config.stdout);
    let (stderr, error) = ours(config.stderr && !tty);
    let attached = Attached { id: id.to_owned(), stream, input, output, error, sizes };
    inner.tasks.spawn(attached.run(sender));
    Ok(Session {
        stdin: input_writer.map(|s: DuplexStream| Box::pin(s) as crate::types::Writer),
        stdout: stdout.map(|s: DuplexStream| Box::pin(s) as crate::types::Reader),
        stderr: stderr.map(|s: DuplexStream| Box::pin(s) as crate::types::Reader),
        resize: tty.then_some(resize),
        exit,
    })
}

/// An attach's connection and the far ends of its streams.
struct Attached {
    id: String,
    stream: Stream,
    input: Option<DuplexStream>,
    output: Option<DuplexStream>,
    error: Option<DuplexStream>,
    sizes: mpsc::Receiver<(u16, u16)>,
}

impl Attached {
    async fn run(mut self, mut sender: ExitSender) {
        let mut bytes = vec![0; 16 * 1024];
        let mut resizable = true;
        let result = loop {
            tokio::select! {
                reply = self.stream.receive() => match reply {
                    Ok(Some(Reply::Data(data))) => self.output(&data).await,
                    Ok(Some(Reply::Exited(exit))) => break Ok(exit.code),
                    Ok(Some(Reply::Failed(f))) => break Err(RuntimeError::Failed(f.text)),
                    Ok(Some(_)) => {}
                    Ok(None) => break Err(RuntimeError::Failed("the attach was cut off".into())),
                    Err(e) => break Err(RuntimeError::Failed(format!("shim: {e}"))),
                },
                n = read(&mut self.input, &mut bytes) => {
                    let data = Data { stream: 0, bytes: Bytes(bytes[..n].to_vec()) };
                    if n == 0 {
                        self.input = None;
                    }
                    if self.stream.send(&Request::Data(data), &[]).await.is_err() {
                        break Err(RuntimeError::Failed("the sandbox's shim is gone".into()));
                    }
                }
                size = self.sizes.recv(), if resizable => match size {
                    Some((columns, rows)) => {
                        let resize = Resize { id: self.id.clone(), columns: columns.into(), rows: rows.into() };
                        let _ = self.stream.send(&Request::Resize(resize), &[]).await;
                    }
                    None => resizable = false,
                },
                () = sender.closed() => return,
            }
        };
        // The streams end before the exit is told.
        self.output = None;
        self.error = None;
        let _ = sender.send(result);
    }

    async fn output(&mut self, data: &Data) {
        let stream = if data.stream == 2 { &mut self.error } else { &mut self.output };
        if let Some(writer) = stream
            && writer.write_all(&data.bytes.0).await.is_err()
        {
            *stream = None;
        }
    }
}

async fn read(input: &mut Option<DuplexStream>, bytes: &mut [u8]) -> usize {
    match input {
        Some(input) => input.read(bytes).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

pub(super) async fn port_forward(
    inner: &Arc<Inner>,
    sandbox_id: &str,
    port: u16,
) -> Result<Box<dyn Duplex>, RuntimeError> {
    let sandbox = inner.sandbox(sandbox_id)?;
    sandbox.link()?;
    let mut errors = Vec::new();
    for ipv6 in [false, true] {
        match connect(&sandbox.dir, port, ipv6).await {
            Ok(socket) => return Ok(Box::new(socket)),
            Err(e) => errors.push(e),
        }
    }
    Err(RuntimeError::Failed(format!(
        "failed to connect to localhost:{port} inside namespace {:?}, IPv4: {} IPv6 {}",
        sandbox.id, errors[0], errors[1]
    )))
}

async fn connect(dir: &std::path::Path, port: u16, ipv6: bool) -> Result<tokio::net::TcpStream, String> {
    let mut stream = Stream::connect(dir).await.map_err(|e| e.to_string())?;
    let request = Request::Connect(Connect { port: port.into(), ipv6 });
    stream.call(&request, &[]).await.map_err(|e| e.to_string())?;
    let socket = stream.fds.pop().ok_or("the shim sent no socket")?;
    let result = async {
        let socket = tokio::net::TcpStream::from_std(std::net::TcpStream::from(socket))?;
        // It is connecting: writable says that it is done, the error how it went.
        socket.writable().await?;
        match socket.take_error()? {
            Some(e) => Err(e),
            None => Ok(socket),
        }
    };
    result.await.map_err(|e: Error| {
        let address = if ipv6 { format!("tcp6 [::1]:{port}") } else { format!("tcp4 127.0.0.1:{port}") };
        let why = if e.kind() == ErrorKind::ConnectionRefused { "connection refused".into() } else { e.to_string() };
        format!("dial {address}: connect: {why}")
    })
}
