//! gRPC as CRI's clients speak it: HTTP/2 on a Unix socket, a message in, one or several out, a status in the trailers.

use super::{Server, methods};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// The longest message that is read (upstream `maxMsgSize`).
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// A flag and the length stand before each message.
const PREFIX_BYTES: usize = 5;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const OK: (HeaderName, HeaderValue) = (STATUS, HeaderValue::from_static("0"));

/// The numbers of gRPC's codes that are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    Unimplemented = 12,
    Internal = 13,
}

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(super) fn unimplemented(what: &str) -> Self {
        Self::new(Code::Unimplemented, format!("{what} is not supported"))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(STATUS, HeaderValue::from(self.code as u16));
        if let Ok(message) = HeaderValue::from_str(&percent_encoded(&self.message)) {
            headers.insert(MESSAGE, message);
        }
        headers
    }
}

/// gRPC's own percent-encoding: printable ASCII but `%` stands for itself.
fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'%' => "%25".to_owned(),
            b' '..=b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// What a call gives.
pub(super) enum Reply {
    One(Bytes),
    Many(BoxStream<'static, Bytes>),
}

/// A message with its prefix.
pub(super) fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

pub(super) async fn serve(server: Arc<Server>, listener: UnixListener) -> std::io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(connection(server.clone(), accepted?.0));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(server: Arc<Server>, stream: UnixStream) {
    let service = hyper::service::service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(answer(&server, request).await) }
    });
    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a CRI connection ended");
    }
}

async fn answer(server: &Arc<Server>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let reply = match read(request.into_body()).await {
        Ok(message) => methods::call(server, &path, message).await,
        Err(refusal) => Err(refusal),
    };
    let (messages, end) = match reply {
        Ok(Reply::One(message)) => (futures::stream::iter([message]).boxed(), HeaderMap::from_iter([OK])),
        Ok(Reply::Many(messages)) => (messages, HeaderMap::from_iter([OK])),
        Err(refusal) => {
            tracing::debug!(path, ?refusal, "a CRI call was refused");
            (futures::stream::empty().boxed(), refusal.headers())
        }
    };
    let end = futures::stream::iter([Frame::trailers(end)]);
    let frames = messages.map(Frame::data).chain(end).map(Ok).boxed();
    let mut response = Response::new(StreamBody::new(frames));
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The one message of a request.
async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    let collected = Limited::new(body, PREFIX_BYTES + MAX_MESSAGE_BYTES).collect().await;
    let collected =
        collected.map_err(|error| Refusal::new(Code::Internal, format!("cannot read the call: {error}")))?;
    unframed(collected.to_bytes())
}

fn unframed(mut bytes: Bytes) -> Result<Bytes, Refusal> {
    if bytes.len() < PREFIX_BYTES {
        return Err(Refusal::new(Code::Internal, "the call has no message"));
    }
    if bytes.get_u8() != 0 {
        return Err(Refusal::unimplemented("a compressed message"));
    }
    if bytes.get_u32() as usize != bytes.len() {
        return Err(Refusal::new(Code::Internal, "the message has not the length it is said to have"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_and_unframed() {
        let version = super::super::v1::VersionRequest { version: "v1".into() };
        let framed = encode(&version);
        assert_eq!(&framed[..], b"\0\0\0\0\x04\x0a\x02v1");
        assert_eq!(unframed(framed.clone()), Ok(framed.slice(5..)));
        for (bad, code) in [
            (&b"\0\0\0"[..], Code::Internal),
            (b"\x01\0\0\0\0", Code::Unimplemented),
            (b"\0\0\0\0\x02a", Code::Internal),
            (b"\0\xff\xff\xff\xffa", Code::Internal),
        ] {
            assert_eq!(unframed(Bytes::from_static(bad)).map_err(|refusal| refusal.code), Err(code));
        }
    }

    #[test]
    fn words_are_encoded_for_a_header() {
        assert_eq!(percent_encoded("50% of \"a\"\nü"), "50%25 of \"a\"%0A%C3%BC");
    }
}
