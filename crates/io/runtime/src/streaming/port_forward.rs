//! port-forward. SPDY streams in pairs (upstream `cri-streaming/pkg/streaming/portforward`): `data` carries one connection to
//! a port inside the Pod, `error` what went wrong; `requestid` ties the two.

use super::spdy::connection::{self, Connection, Receiver, Sender, Stream};
use super::spdy::upgrade;
use super::{Body, websocket};
use crate::types::{Duplex, Runtime};
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::body::Incoming;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

const PROTOCOL: &str = "portforward.k8s.io";
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";
/// How long the second stream of a pair may take (upstream `DefaultStreamCreationTimeout`).
const PAIRING: Duration = Duration::from_secs(30);
const CHUNK_BYTES: usize = 32 * 1024;

/// Answers a request to forward ports of a sandbox with the upgrade that it asks for, and serves it as one of `tasks`.
pub fn answer(
    tasks: &TaskTracker,
    request: Request<Incoming>,
    runtime: Arc<dyn Runtime>,
    sandbox_id: String,
) -> Response<Body> {
    let target = Target { runtime, sandbox_id };
    if upgrade::is_websocket(request.headers()) {
        let (response, socket, _) = match websocket::accept(request, &[TUNNELLED]) {
            Ok(accepted) => accepted,
            Err(refusal) => return refusal,
        };
        tasks.spawn(async move {
            let Some(socket) = socket.await else { return };
            let (incoming, outgoing) = upgrade::tunnel(socket);
            connection::serve(incoming, outgoing, |connection| run(connection, target)).await;
        });
        return response;
    }
    let (response, ends) = match upgrade::accept(request, &[PROTOCOL]) {
        Ok(accepted) => accepted,
        Err(refusal) => return refusal,
    };
    tasks.spawn(async move {
        let Some((incoming, outgoing)) = ends.await else { return };
        connection::serve(incoming, outgoing, |connection| run(connection, target)).await;
    });
    response
}

#[derive(Clone)]
struct Target {
    runtime: Arc<dyn Runtime>,
    sandbox_id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

/// What a new stream's headers ask for, or why it is refused.
fn wanted(port: &str, kind: &str) -> Result<(u16, Kind), String> {
    if port.is_empty() {
        return Err("\"port\" header is required".to_owned());
    }
    let number: u16 = port.parse().map_err(|_| format!("unable to parse {port:?} as a port"))?;
    match (number, kind) {
        (0, _) => Err(format!("port {port:?} must be > 0")),
        (_, "data") => Ok((number, Kind::Data)),
        (_, "error") => Ok((number, Kind::Error)),
        (_, "") => Err("\"streamType\" header is required".to_owned()),
        _ => Err(format!("invalid stream type {kind:?}")),
    }
}

/// Clients of before Kubernetes 1.1 send no request id, but open a pair's error stream just before its data stream.
fn request_id(given: &str, stream_id: u32, kind: Kind) -> String {
    match (given, kind) {
        ("", Kind::Error) => stream_id.to_string(),
        ("", Kind::Data) => stream_id.saturating_sub(2).to_string(),
        (given, _) => given.to_owned(),
    }
}

/// A pair of which one stream has come.
struct Half {
    deadline: Instant,
    kind: Kind,
    port: u16,
    stream: Stream,
}

async fn run(mut connection: Connection, target: Target) {
    let mut halves: BTreeMap<String, Half> = BTreeMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let deadline = halves.values().map(|half| half.deadline).min();
        let expiry = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stream = connection.accept() => match stream {
                Some(stream) => pair(stream, &mut halves, &mut forwards, &target).await,
                None => return,
            },
            () = expiry => expire(&mut halves).await,
            Some(_) = forwards.join_next(), if !forwards.is_empty() => {}
        }
    }
}

async fn pair(stream: Stream, halves: &mut BTreeMap<String, Half>, forwards: &mut JoinSet<()>, target: &Target) {
    let (port, kind) = match wanted(stream.header("port"), stream.header("streamtype")) {
        Ok(wanted) => wanted,
        Err(why) => {
            tracing::warn!(why, "a port-forward stream is rejected");
            return;
        }
    };
    stream.reply().await;
    let id = request_id(stream.header("requestid"), stream.id, kind);
    match halves.remove(&id) {
        None => {
            let deadline = Instant::now() + PAIRING;
            halves.insert(id, Half { deadline, kind, port, stream });
        }
        Some(half) if half.kind == kind => {
            let name = if kind == Kind::Data { "data" } else { "error" };
            let message = format!("error processing stream for request {id}: {name} stream already assigned");
            tracing::warn!(message, "a port-forward stream is rejected");
            if kind == Kind::Error {
                tell(half.stream.sender, message).await;
            } else {
                halves.insert(id, half);
            }
        }
        Some(half) => {
            let target = target.clone();
            let (port, data, error) = match kind {
                Kind::Data => (port, stream, half.stream),
                Kind::Error => (half.port, half.stream, stream),
            };
            forwards.spawn(forward(target, port, data, error.sender));
        }
    }
}

async fn expire(halves: &mut BTreeMap<String, Half>) {
    let now = Instant::now();
    for (id, half) in halves.extract_if(.., |_, half| half.deadline <= now) {
        if half.kind == Kind::Error {
            tell(half.stream.sender, format!("(request={id}) timed out waiting for streams")).await;
        }
    }
}

async fn tell(mut error: Sender, message: String) {
    if error.send(Bytes::from(message)).await.is_ok() {
        error.finish().await;
    }
}

async fn forward(target: Target, port: u16, data: Stream, error: Sender) {
    let Target { runtime, sandbox_id } = target;
    match runtime.port_forward(&sandbox_id, port).await {
        Ok(socket) => {
            let (reader, writer) = tokio::io::split(socket);
            copy(data.receiver, data.sender, reader, writer).await;
            error.finish().await;
        }
        Err(why) => {
            let message = format!("error forwarding port {port} to pod {sandbox_id}, uid : {why}");
            tracing::info!(message, "port-forward");
            // The client looks at the error once the data stream has ended.
            tell(error, message).await;
        }
    }
}

/// Both ways until both ends have said all, or either has broken off; a broken stream is reset.
async fn copy(
    mut receiver: Receiver,
    mut sender: Sender,
    mut reader: ReadHalf<Box<dyn Duplex>>,
    mut writer: WriteHalf<Box<dyn Duplex>>,
) {
    let to_pod = async move {
        while let Some(data) = receiver.receive().await {
            if writer.write_all(&data).await.is_err() {
                // The Pod does not listen any more; what it still says is passed on.
                return Ok(());
            }
        }
        writer.shutdown().await.ok();
        Ok(())
    };
    let from_pod = async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK_BYTES);
            match reader.read_buf(&mut buffer).await {
                Ok(0) => break,
                Ok(_) => sender.send(buffer.split().freeze()).await.map_err(|_| Broken)?,
                Err(_) => return Err(Broken),
            }
        }
        sender.finish().await;
        Ok(())
    };
    tokio::try_join!(to_pod, from_pod).ok();
}

struct Broken;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn streams_are_checked_as_upstream_does() {
        assert_eq!(wanted("80", "data"), Ok((80, Kind::Data)));
        assert_eq!(wanted("65535", "error"), Ok((65535, Kind::Error)));
        let cases = [
            ("", "data", "\"port\" header is required"),
            ("http", "data", "unable to parse \"http\" as a port"),
            ("65536", "data", "unable to parse \"65536\" as a port"),
            ("0", "data", "port \"0\" must be > 0"),
            ("80", "", "\"streamType\" header is required"),
            ("80", "stdin", "invalid stream type \"stdin\""),
        ];
        for (port, kind, why) in cases {
            assert_eq!(wanted(port, kind), Err(why.to_owned()));
        }
    }

    #[test]
    fn streams_without_request_id_pair_by_their_numbers() {
        assert_eq!(request_id("7", 5, Kind::Data), "7");
        assert_eq!(request_id("", 5, Kind::Error), request_id("", 7, Kind::Data));
    }
}
