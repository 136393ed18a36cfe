//! An upgraded connection of a client, tied to one of a kubelet: bytes both ways, whatever protocol they speak.

use crate::body::Body;
use crate::call::Call;
use crate::errors::Result;
use crate::refusal::Refusal;
use crate::subresources::kubelet;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::PoisonError;

/// The kubelet's answer for the client; behind a `101` both connections are tied.
pub(super) fn answer(call: &Call<'_>, mut from_kubelet: Response<Incoming>) -> Result<Response<Body>> {
    let status = from_kubelet.status();
    let headers = from_kubelet.headers().clone();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let mut response = Response::new(kubelet::stream(from_kubelet.into_body()));
        *response.status_mut() = status;
        for (key, value) in &headers {
            if !matches!(key.as_str(), "connection" | "transfer-encoding" | "content-length" | "keep-alive") {
                response.headers_mut().append(key, value.clone());
            }
        }
        return Ok(response);
    }
    let Some(client) = call.on_upgrade.as_ref() else {
        return Err(Refusal::bad_request("Upgrade request required"));
    };
    // The handle is cloned out of the lock and awaited by the task that ties the two.
    let client = client.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let node = hyper::upgrade::on(&mut from_kubelet);
    let open = call.server.metrics.long_running(call);
    call.server.spawn(async move {
        let _until_the_end = open;
        let (Ok(client), Ok(node)) = tokio::join!(client, node) else {
            return;
        };
        let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
        // Either end may break off at any time; there is nobody left to tell.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}
