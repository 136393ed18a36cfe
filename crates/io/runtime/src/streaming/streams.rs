//! exec and attach over SPDY/3.1, protocol `v4.channel.k8s.io` (kubectl up to 1.29): a stream for each of standard input,
//! output and error, one for the final Status and, with a terminal, one for its size.

use super::Body;
use super::command::{self, Call, Output, Size};
use super::spdy::connection::{self, Connection, Gone, Receiver, Sender, Stream};
use super::spdy::upgrade;
use crate::types::{ExecConfig, Reader, RuntimeError, Session, Writer};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::Value;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

const PROTOCOLS: [&str; 1] = ["v4.channel.k8s.io"];
/// How long the client may take to open all streams (upstream `DefaultStreamCreationTimeout`).
const OPENING: Duration = Duration::from_secs(30);

/// `open` starts what is asked for, once all streams are there.
pub(super) fn answer(
    tasks: &TaskTracker,
    request: Request<Incoming>,
    call: Call,
    config: &ExecConfig,
    open: impl Future<Output = Result<Session, RuntimeError>> + Send + 'static,
) -> Response<Body> {
    let (response, ends) = match upgrade::accept(request, &PROTOCOLS) {
        Ok(accepted) => accepted,
        Err(refusal) => return refusal,
    };
    let names = names(config);
    tasks.spawn(async move {
        let Some((incoming, outgoing)) = ends.await else { return };
        connection::serve(incoming, outgoing, |connection| run(connection, call, names, open)).await;
    });
    response
}

/// Which streams the client will open.
fn names(config: &ExecConfig) -> Vec<&'static str> {
    let all = [
        ("error", true),
        ("stdin", config.stdin),
        ("stdout", config.stdout),
        ("stderr", config.stderr),
        ("resize", config.tty),
    ];
    all.into_iter().filter_map(|(name, wanted)| wanted.then_some(name)).collect()
}

async fn run(
    mut connection: Connection,
    call: Call,
    names: Vec<&'static str>,
    open: impl Future<Output = Result<Session, RuntimeError>>,
) {
    let streams = tokio::time::timeout(OPENING, collect(&mut connection, &names)).await;
    let Ok(Some(mut streams)) = streams else {
        tracing::debug!("timed out waiting for client to create streams");
        return;
    };
    let Some(error) = streams.take("error") else { return };
    let status = match open.await {
        Ok(session) => drive(session, &mut streams).await,
        Err(error) => call.failure(&error),
    };
    for stream in streams.0 {
        stream.1.sender.finish().await;
    }
    let mut sender = error.sender;
    if sender.send(Bytes::from(status.to_string())).await.is_ok() {
        sender.finish().await;
    }
}

struct Streams(Vec<(String, Stream)>);

impl Streams {
    fn take(&mut self, name: &str) -> Option<Stream> {
        let at = self.0.iter().position(|(have, _)| have == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

/// `None`: the client has hung up.
async fn collect(connection: &mut Connection, names: &[&str]) -> Option<Streams> {
    let mut streams = Streams(Vec::new());
    while streams.0.len() < names.len() {
        let stream = connection.accept().await?;
        let kind = stream.header("streamtype").to_owned();
        if !names.contains(&kind.as_str()) || streams.0.iter().any(|(have, _)| *have == kind) {
            tracing::debug!(kind, "unexpected stream type");
            continue;
        }
        stream.reply().await;
        streams.0.push((kind, stream));
    }
    Some(streams)
}

/// Until the process has ended and all it wrote is sent; returns the final Status.
async fn drive(session: Session, streams: &mut Streams) -> Value {
    let Session { stdin, stdout, stderr, resize, exit } = session;
    let (input, size) = (streams.take("stdin"), streams.take("resize"));
    let (output, errors) = (streams.take("stdout"), streams.take("stderr"));
    let ended = async {
        tokio::join!(write(stdout, output), write(stderr, errors));
        command::outcome(exit.await)
    };
    let inputs = async {
        tokio::join!(read(input, stdin), sizes(size, resize));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        status = ended => status,
        () = inputs => command::failure("the client closed the connection"),
    }
}

async fn write(reader: Option<Reader>, stream: Option<Stream>) {
    let Some(stream) = stream else { return command::pump(reader, Nowhere).await };
    let mut sender = stream.sender;
    command::pump(reader, Ongoing(&mut sender)).await;
    sender.finish().await;
}

/// For what the client did not ask to see.
struct Nowhere;

impl Output for Nowhere {
    async fn put(&mut self, _: Bytes) -> bool {
        true
    }
}

struct Ongoing<'a>(&'a mut Sender);

impl Output for Ongoing<'_> {
    async fn put(&mut self, data: Bytes) -> bool {
        self.0.send(data).await != Err(Gone)
    }
}

/// The stream's other direction stays open until the process ends: kubectl takes its end for that of the process.
async fn read(stream: Option<Stream>, writer: Option<Writer>) {
    let Some(Stream { mut receiver, sender, .. }) = stream else { return };
    let mut writer = writer;
    while let Some(data) = receiver.receive().await {
        if let Some(open) = &mut writer
            && open.write_all(&data).await.is_err()
        {
            writer = None;
        }
    }
    if let Some(mut writer) = writer {
        writer.shutdown().await.ok();
    }
    hold(sender).await;
}

async fn sizes(stream: Option<Stream>, resize: Option<mpsc::Sender<(u16, u16)>>) {
    let Some(Stream { mut receiver, sender, .. }) = stream else { return };
    let mut text = Vec::new();
    while let Some(size) = size(&mut receiver, &mut text).await {
        if let Some(resize) = &resize {
            resize.send((size.width, size.height)).await.ok();
        }
    }
    hold(sender).await;
}

async fn hold(sender: Sender) {
    std::future::pending::<()>().await;
    drop(sender);
}

/// The next of the JSON objects that follow one another on the stream.
async fn size(receiver: &mut Receiver, text: &mut Vec<u8>) -> Option<Size> {
    loop {
        let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
        match values.next() {
            Some(Ok(size)) => {
                let used = values.byte_offset();
                text.drain(..used);
                return Some(size);
            }
            Some(Err(error)) if !error.is_eof() || text.len() > MAX_SIZE_BYTES => return None,
            Some(Err(_)) | None => text.extend_from_slice(&receiver.receive().await?),
        }
    }
}

/// A size is some 30 bytes of JSON.
const MAX_SIZE_BYTES: usize = 1024;
