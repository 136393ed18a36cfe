//! Commands and ports of Pods as streams over HTTP: by `Upgrade: SPDY/3.1` or WebSocket, as kubectl and crictl speak
//! (upstream's `cri-streaming`). The kubelet's API and the CRI server answer with it.

pub mod command;
mod dialect;
pub mod port_forward;
mod spdy;
mod streams;
mod websocket;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use std::convert::Infallible;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A whole answer.
pub fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Full::from(text.to_owned()).boxed_unsync());
    *response.status_mut() = status;
    response
}
