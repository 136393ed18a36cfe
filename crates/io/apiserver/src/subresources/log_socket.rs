//! `pods/log` for a client that asks by WebSocket: each piece of the log is a message, and the end of the log the end of the
//! connection (upstream: apimachinery `wsstream.Reader`).

use crate::body::Body;
use crate::call::{Answer, Call};
use crate::errors::Result;
use crate::refusal::Refusal;
use base64::Engine;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::PoisonError;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Sends what the kubelet answered, as it comes.
pub(super) fn answer(call: &Call<'_>, log: Response<Incoming>) -> Result<Answer> {
    let (Some(client), Some(key)) = (call.on_upgrade.as_ref(), call.headers.get(SEC_WEBSOCKET_KEY)) else {
        return Err(Refusal::bad_request("the WebSocket key is missing"));
    };
    let protocol = protocol(call.headers.get(SEC_WEBSOCKET_PROTOCOL))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    // The handle is cloned out of the lock and awaited by the task that writes to it.
    let client = client.lock().unwrap_or_else(PoisonError::into_inner).clone();
    call.server.spawn(async move {
        let Ok(client) = client.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, None).await;
        let (mut sink, mut messages) = socket.split();
        let copy = async {
            let mut pieces = BodyDataStream::new(log.into_body());
            while let Some(Ok(piece)) = pieces.next().await {
                if sink.send(message(protocol, piece)).await.is_err() {
                    return;
                }
            }
            // A client that is gone hears of no end.
            let _ = sink.send(Message::Close(None)).await;
        };
        // What the client says is of no interest, but that it goes.
        let gone = async { while let Some(Ok(_)) = messages.next().await {} };
        tokio::select! {
            () = copy => {}
            () = gone => {}
        }
    });
    Ok(Answer::Response(response))
}

/// The first of the client's protocols that is known; `None` if it offers none.
fn protocol(offered: Option<&HeaderValue>) -> Result<Option<&'static str>> {
    let Some(offered) = offered.and_then(|offered| offered.to_str().ok()) else { return Ok(None) };
    let known = |offer: &str| [BINARY, BASE64].into_iter().find(|known| *known == offer.trim());
    match offered.split(',').find_map(known) {
        Some(protocol) => Ok(Some(protocol)),
        None => Err(Refusal::bad_request("no supported WebSocket sub-protocol was offered")),
    }
}

fn message(protocol: Option<&str>, piece: Bytes) -> Message {
    if protocol == Some(BASE64) {
        return Message::Text(base64::engine::general_purpose::STANDARD.encode(piece).into());
    }
    Message::Binary(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_first_known_protocol_is_taken() {
        let chosen = |offered: &'static str| protocol(Some(&HeaderValue::from_static(offered))).ok().flatten();
        assert_eq!(chosen("v9.x, base64.binary.k8s.io, binary.k8s.io"), Some(BASE64));
        assert_eq!(chosen("binary.k8s.io"), Some(BINARY));
        assert!(protocol(Some(&HeaderValue::from_static("channel.k8s.io"))).is_err());
        assert!(matches!(protocol(None), Ok(None)));
    }

    #[test]
    fn text_protocols_carry_base64() {
        let piece = Bytes::from_static(b"hi\n");
        assert_eq!(message(None, piece.clone()), Message::Binary(piece.clone()));
        assert_eq!(message(Some(BINARY), piece.clone()), Message::Binary(piece.clone()));
        assert_eq!(message(Some(BASE64), piece), Message::Text("aGkK".into()));
    }
}
