//! exec and attach, here over WebSocket (over SPDY: `streams`): each message names its channel, in the client's `dialect`
//! (KEP-4006).

use super::dialect::{Dialect, PROTOCOLS};
use super::spdy::upgrade;
use super::websocket::{self, Socket};
use super::{Body, streams};
use crate::types::{ExecConfig, Reader, RuntimeError, Session, Writer};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::sync::oneshot::error::RecvError;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::task::TaskTracker;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5: `[255, channel]` ends a channel.
const CLOSE: u8 = 255;

const CHUNK_BYTES: usize = 32 * 1024;
/// How long a client may take to answer the end.
const LINGER: Duration = Duration::from_secs(5);

/// What is asked of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Exec,
    Attach,
}

impl Call {
    /// The Status for what kept it from being done, in the words of upstream's runtimes.
    pub(super) fn failure(self, error: &RuntimeError) -> Value {
        let what = match self {
            Self::Exec => "executing command in",
            Self::Attach => "attaching to",
        };
        failure(&format!("error {what} container: {error}"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Size {
    pub(super) width: u16,
    pub(super) height: u16,
}

/// Answers a request to exec or attach with the upgrade that it asks for, and serves it as one of `tasks`. `open` starts the
/// command, once the client is ready.
pub fn answer(
    tasks: &TaskTracker,
    request: Request<Incoming>,
    call: Call,
    config: &ExecConfig,
    open: impl Future<Output = Result<Session, RuntimeError>> + Send + 'static,
) -> Response<Body> {
    if !upgrade::is_websocket(request.headers()) {
        return streams::answer(tasks, request, call, config, open);
    }
    let (response, socket, protocol) = match websocket::accept(request, &PROTOCOLS) {
        Ok(accepted) => accepted,
        Err(refusal) => return refusal,
    };
    tasks.spawn(async move {
        let Some(socket) = socket.await else { return };
        let session = open.await;
        run(socket, Dialect::of(protocol), call, session).await;
    });
    response
}

async fn run(socket: Socket, dialect: Dialect, call: Call, session: Result<Session, RuntimeError>) {
    let (mut sink, mut messages) = socket.split();
    let status = match session {
        Ok(session) => drive(&mut sink, &mut messages, dialect, session).await,
        // Upstream translates WebSocket to SPDY, and wraps what the runtime says once more on the way.
        Err(error) => failure(call.failure(&error)["message"].as_str().unwrap_or_default()),
    };
    if let Some(verdict) = dialect.verdict(&status) {
        let mut frame = BytesMut::with_capacity(256);
        frame.put_u8(ERROR);
        frame.put_slice(verdict.as_bytes());
        sink.send(dialect.message(frame.freeze())).await.ok();
    }
    let closing = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    sink.send(Message::Close(Some(closing))).await.ok();
    sink.close().await.ok();
    // A connection closed with bytes unread is reset, and what was sent last is lost.
    tokio::time::timeout(LINGER, async { while let Some(Ok(_)) = messages.next().await {} }).await.ok();
}

type Sink = SplitSink<Socket, Message>;

/// Moves bytes both ways until the process has ended and all it wrote is sent; returns the final Status.
async fn drive(sink: &mut Sink, messages: &mut SplitStream<Socket>, dialect: Dialect, session: Session) -> Value {
    let Session { stdin, stdout, stderr, resize, exit } = session;
    let (sender, mut frames) = mpsc::channel::<Bytes>(16);
    let outputs = async {
        let out = pump(stdout, Channel(STDOUT, sender.clone()));
        let err = pump(stderr, Channel(STDERR, sender.clone()));
        tokio::join!(out, err);
        drop(sender);
    };
    let forward = async {
        while let Some(frame) = frames.recv().await {
            if sink.send(dialect.message(frame)).await.is_err() {
                return;
            }
        }
    };
    let inputs = inputs(messages, dialect, stdin, resize);
    let ended = async {
        tokio::join!(outputs, forward);
        exit.await
    };
    tokio::select! {
        exit = ended => outcome(exit),
        // The client has gone: dropping the session ends an exec.
        () = inputs => failure("the client closed the connection"),
    }
}

/// Where a process's output goes.
pub(super) trait Output {
    /// A byte to begin each piece with.
    fn head(&self) -> Option<u8> {
        None
    }
    /// Whether more can be sent.
    fn put(&mut self, data: Bytes) -> impl Future<Output = bool> + Send;
}

/// A channel of the WebSocket.
struct Channel(u8, mpsc::Sender<Bytes>);

impl Output for Channel {
    fn head(&self) -> Option<u8> {
        Some(self.0)
    }

    async fn put(&mut self, data: Bytes) -> bool {
        self.1.send(data).await.is_ok()
    }
}

pub(super) async fn pump(reader: Option<Reader>, mut output: impl Output) {
    let Some(mut reader) = reader else { return };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES);
        buffer.extend(output.head());
        match reader.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if !output.put(buffer.split().freeze()).await {
                    return;
                }
            }
        }
    }
}

/// Ends only when the client is gone.
async fn inputs(
    messages: &mut SplitStream<Socket>,
    dialect: Dialect,
    mut stdin: Option<Writer>,
    resize: Option<mpsc::Sender<(u16, u16)>>,
) {
    while let Some(Ok(message)) = messages.next().await {
        let Some(frame) = dialect.frame(message) else { continue };
        match frame.split_first() {
            Some((&STDIN, data)) => {
                if let Some(writer) = &mut stdin
                    && writer.write_all(data).await.is_err()
                {
                    stdin = None;
                }
            }
            Some((&RESIZE, data)) => {
                if let (Some(resize), Ok(size)) = (&resize, serde_json::from_slice::<Size>(data)) {
                    resize.send((size.width, size.height)).await.ok();
                }
            }
            Some((&CLOSE, [STDIN])) => {
                if let Some(mut writer) = stdin.take() {
                    writer.shutdown().await.ok();
                }
            }
            _ => {}
        }
    }
}

/// The Status for how a process ended.
pub(super) fn outcome(exit: Result<Result<i32, RuntimeError>, RecvError>) -> Value {
    match exit {
        Ok(Ok(0)) => json!({"metadata": {}, "status": "Success"}),
        Ok(Ok(code)) => exit_status(code),
        Ok(Err(error)) => failure(&error.to_string()),
        Err(_) => failure("the container runtime ended"),
    }
}

/// What kubectl turns into its own exit code.
fn exit_status(code: i32) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

pub(super) fn failure(message: &str) -> Value {
    let message = format!("Internal error occurred: {message}");
    json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500})
}
