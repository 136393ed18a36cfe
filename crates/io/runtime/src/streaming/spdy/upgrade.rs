//! How a client gets to SPDY: by `Upgrade: SPDY/3.1`, or inside the binary messages of a WebSocket (KEP-4006).

use crate::streaming::websocket::Socket;
use crate::streaming::{Body, text};
use crate::types::{Reader, Writer};
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, SplitSink};
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming as RequestBody;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const SPDY: &str = "SPDY/3.1";
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const CHUNK_BYTES: usize = 32 * 1024;

/// What the client sends; ends when it hangs up.
pub(in crate::streaming) type Incoming = BoxStream<'static, Bytes>;

/// Where its answers go.
pub(in crate::streaming) enum Outgoing {
    Plain(Writer),
    Tunnel(SplitSink<Socket, Message>),
}

/// The client is not there any more.
pub(super) struct HungUp;

impl Outgoing {
    pub(super) async fn send(&mut self, data: Bytes) -> Result<(), HungUp> {
        match self {
            Self::Plain(writer) => {
                writer.write_all(&data).await.map_err(|_| HungUp)?;
                writer.flush().await.map_err(|_| HungUp)
            }
            Self::Tunnel(sink) => sink.send(Message::Binary(data)).await.map_err(|_| HungUp),
        }
    }

    pub(super) async fn close(&mut self) {
        match self {
            Self::Plain(writer) => drop(writer.shutdown().await),
            Self::Tunnel(sink) => {
                let closing = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                sink.send(Message::Close(Some(closing))).await.ok();
                sink.close().await.ok();
            }
        }
    }
}

pub(in crate::streaming) fn is_websocket(headers: &HeaderMap) -> bool {
    values(headers, &UPGRADE).any(|value| value.eq_ignore_ascii_case("websocket"))
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty())
}

/// The first protocol the client offers that is known (upstream `httpstream.Handshake`), or the refusal.
fn negotiate(headers: &HeaderMap, known: &[&'static str]) -> Result<&'static str, Response<Body>> {
    let upgrades = values(headers, &CONNECTION).any(|value| value.eq_ignore_ascii_case("upgrade"));
    if !upgrades || !values(headers, &UPGRADE).any(|value| value.eq_ignore_ascii_case(SPDY)) {
        let message = "unable to upgrade: missing upgrade headers in request: WebSocket or SPDY/3.1 is needed\n";
        return Err(text(StatusCode::BAD_REQUEST, message));
    }
    let offered: Vec<&str> = values(headers, &PROTOCOL).collect();
    if offered.is_empty() {
        let count = headers.keys_len();
        let message = format!(
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with {count} headers\n"
        );
        return Err(text(StatusCode::BAD_REQUEST, &message));
    }
    let common = offered.iter().find_map(|offered| known.iter().find(|known| *known == offered));
    common.copied().ok_or_else(|| {
        let (offered, accepted) = (offered.join(" "), known.join(" "));
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{offered}], server accepts [{accepted}]\n"
        );
        let mut response = text(StatusCode::FORBIDDEN, &message);
        for protocol in known {
            response.headers_mut().append(ACCEPTED, HeaderValue::from_static(protocol));
        }
        response
    })
}

/// Answers `Upgrade: SPDY/3.1`. The future gives the connection once the answer has been sent.
pub(in crate::streaming) fn accept(
    request: Request<RequestBody>,
    known: &[&'static str],
) -> Result<(Response<Body>, impl Future<Output = Option<(Incoming, Outgoing)>> + use<>), Response<Body>> {
    let protocol = negotiate(request.headers(), known)?;
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    headers.insert(PROTOCOL, HeaderValue::from_static(protocol));
    let ends = async move {
        let upgraded = hyper::upgrade::on(request).await.ok()?;
        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        Some((chunks(Box::pin(reader)), Outgoing::Plain(Box::pin(writer))))
    };
    Ok((response, ends))
}

pub(super) fn chunks(reader: Reader) -> Incoming {
    let next = |mut reader: Reader| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        match reader.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some((chunk.freeze(), reader)),
        }
    };
    futures::stream::unfold(reader, next).boxed()
}

/// The two directions of a tunnel.
pub(in crate::streaming) fn tunnel(socket: Socket) -> (Incoming, Outgoing) {
    let (sink, messages) = socket.split();
    let incoming = futures::stream::unfold(messages, |mut messages| async move {
        loop {
            match messages.next().await {
                Some(Ok(Message::Binary(data))) => return Some((data, messages)),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return None,
            }
        }
    });
    (incoming.boxed(), Outgoing::Tunnel(sink))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(pairs: &[(&'static str, &'static str)]) -> Result<&'static str, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        negotiate(&headers, &["v4.channel.k8s.io"]).map_err(|refusal| refusal.status().as_u16())
    }

    #[test]
    fn the_clients_first_known_protocol_is_taken() {
        let version = "x-stream-protocol-version";
        let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        assert_eq!(check(&[upgrade[0], upgrade[1], (version, "v4.channel.k8s.io")]), Ok("v4.channel.k8s.io"));
        let several = [upgrade[0], upgrade[1], (version, "v5.x, v4.channel.k8s.io"), (version, "v3.channel.k8s.io")];
        assert_eq!(check(&several), Ok("v4.channel.k8s.io"));
        assert_eq!(
            check(&[("connection", "keep-alive, upgrade"), ("upgrade", "spdy/3.1"), several[2]]),
            Ok("v4.channel.k8s.io")
        );
        assert_eq!(check(&[upgrade[0], upgrade[1]]), Err(400));
        assert_eq!(check(&[upgrade[0], upgrade[1], (version, "v3.channel.k8s.io")]), Err(403));
        assert_eq!(check(&[upgrade[0], ("upgrade", "h2c"), (version, "v4.channel.k8s.io")]), Err(400));
        assert_eq!(check(&[upgrade[1], (version, "v4.channel.k8s.io")]), Err(400));
    }
}
