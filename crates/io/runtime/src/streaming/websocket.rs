//! The server side of a WebSocket handshake, with the sub-protocols of remote commands.

use super::{Body, text};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// The largest message a client may send; kubectl sends at most 32 KiB.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Answers the handshake. `known`: best first; an empty name is for clients that offer none. The future gives the socket once the answer has been sent.
pub(super) fn accept(
    request: Request<Incoming>,
    known: &[&'static str],
) -> Result<(Response<Body>, impl Future<Output = Option<Socket>> + use<>, &'static str), Response<Body>> {
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let upgrade = header(UPGRADE).unwrap_or_default();
    if !upgrade.eq_ignore_ascii_case("websocket") {
        return Err(text(StatusCode::BAD_REQUEST, "unable to upgrade: not a WebSocket request"));
    }
    let offered: Vec<&str> =
        header(SEC_WEBSOCKET_PROTOCOL).into_iter().flat_map(|all| all.split(',')).map(str::trim).collect();
    let fits = |known: &&&'static str| if offered.is_empty() { known.is_empty() } else { offered.contains(*known) };
    let Some(protocol) = known.iter().find(fits).copied() else {
        return Err(text(StatusCode::BAD_REQUEST, "no supported WebSocket sub-protocol was offered"));
    };
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return Err(text(StatusCode::BAD_REQUEST, "the WebSocket key is missing"));
    };
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if !protocol.is_empty() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let socket = async move {
        let upgraded = hyper::upgrade::on(request).await.ok()?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        Some(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await)
    };
    Ok((response, socket, protocol))
}
