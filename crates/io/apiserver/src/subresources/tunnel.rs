//! An upgraded connection of a client, tied to one of a kubelet: bytes both ways, whatever protocol they speak.

use crate::body::Body;
use crate::call::Call;
use crate::errors::Result;
use crate::refusal::Refusal;
use crate::subresources::kubelet;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::pin::pin;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// How long a client whose node has said all may take to go.
const LINGER: Duration = Duration::from_secs(5);

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
        tie(TokioIo::new(client), TokioIo::new(node)).await;
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Moves bytes both ways until the node has ended and the client has what it said. Either may break off at any time; there is
/// nobody left to tell.
async fn tie(client: impl AsyncRead + AsyncWrite, node: impl AsyncRead + AsyncWrite) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_node, mut to_node) = tokio::io::split(node);
    let mut down = pin!(async {
        let sent = tokio::io::copy(&mut from_node, &mut to_client).await;
        to_client.shutdown().await.ok();
        sent
    });
    let mut up = pin!(async {
        tokio::io::copy(&mut from_client, &mut to_node).await.ok();
        to_node.shutdown().await.ok();
        // What the node no longer hears is read all the same: a connection closed with bytes unread is reset, and the client
        // loses what it has not read yet.
        tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await.ok();
    });
    tokio::select! {
        sent = &mut down => {
            if sent.is_ok() {
                tokio::time::timeout(LINGER, up).await.ok();
            }
        }
        () = &mut up => drop(down.await),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::AsyncReadExt;

    /// The client goes on talking to a node that has said all and gone.
    #[tokio::test]
    async fn what_a_node_said_before_it_went_arrives() {
        let (mut client, ours) = tokio::io::duplex(64);
        let (mut node, theirs) = tokio::io::duplex(1 << 20);
        node.write_all(&[7; 100_000]).await.unwrap();
        drop(node);
        client.write_all(b"are you there?").await.unwrap();
        let reads = async {
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            assert_eq!(got.len(), 100_000);
            drop(client);
        };
        tokio::join!(tie(ours, theirs), reads);
    }
}
