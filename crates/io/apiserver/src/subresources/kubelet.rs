//! Requests to a node's kubelet over TLS, with this server's client certificate.

use crate::call::Call;
use crate::errors::{self, Result};
use crate::lookup::{GroupResource, Lookup};
use crate::refusal::Refusal;
use crate::respond;
use http::Request;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(super) const NODES: GroupResource = GroupResource::new("", "nodes");
const DEFAULT_PORT: u64 = 10250;
/// Which of a node's addresses is tried first.
const PREFERRED: [&str; 4] = ["InternalIP", "ExternalIP", "Hostname", "InternalDNS"];

/// Where a node's kubelet listens.
pub(super) struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    pub(super) fn of_node(call: &Call<'_>, name: &str) -> Result<Self> {
        let node = call.server.caches.get(NODES, "", name).ok_or_else(|| Refusal::not_found("", "nodes", name))?;
        Self::of(&respond::tree_of(&node)?, name)
    }

    fn of(node: &Value, name: &str) -> Result<Self> {
        let addresses = node["status"]["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let host = PREFERRED.iter().find_map(|wanted| {
            let of_kind = addresses.iter().find(|a| a["type"] == **wanted);
            of_kind.and_then(|a| a["address"].as_str())
        });
        let host = host.ok_or_else(|| {
            Refusal::internal(format!("no preferred addresses found; known addresses: [] of node {name}"))
        })?;
        let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
            .as_u64()
            .filter(|p| *p != 0)
            .unwrap_or(DEFAULT_PORT);
        let port = u16::try_from(port).map_err(|_| Refusal::internal(format!("node {name} names no port")))?;
        Ok(Self { host: host.to_owned(), port })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Sends a request; the answer's body comes as it comes. `target` is path and query.
    pub(super) async fn send(&self, call: &Call<'_>, target: &str, upgrade: bool) -> Result<http::Response<Incoming>> {
        let unreachable =
            |why: String| Refusal { code: 500, ..Refusal::internal(format!("error dialing backend: {why}")) };
        let tls = call
            .server
            .kubelet_client
            .clone()
            .ok_or_else(|| errors::not_supported("reaching kubelets (no client certificate is configured)"))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|e| unreachable(format!("dial tcp {}: {e}", self.authority())))?;
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(self.host.clone()).map_err(|e| unreachable(e.to_string()))?;
        let stream =
            TlsConnector::from(tls).connect(name, stream).await.map_err(|e| unreachable(format!("tls: {e}")))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(e.to_string()))?;
        call.server.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a kubelet ended");
            }
        });
        let mut request = Request::builder().method(call.method.clone()).uri(target).header("host", self.authority());
        for (key, value) in call.headers {
            if forwarded(key.as_str(), upgrade) {
                request = request.header(key, value);
            }
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|e| unreachable(e.to_string()))?;
        sender.send_request(request).await.map_err(|e| unreachable(e.to_string()))
    }
}

/// Headers that go on to the kubelet: all that an upgrade consists of, none that identifies.
fn forwarded(name: &str, upgrade: bool) -> bool {
    let identity = name.starts_with("impersonate-")
        || matches!(name, "authorization" | "host" | "content-length" | "transfer-encoding");
    let hop = matches!(name, "connection" | "upgrade");
    !identity && (!hop || upgrade)
}

/// Shares the answer's body with the client as it comes.
pub(super) fn stream(body: Incoming) -> crate::body::Body {
    use futures::StreamExt;
    let data = http_body_util::BodyDataStream::new(body).map(|part| part.map_err(std::io::Error::other));
    crate::body::Body::Stream(data.boxed())
}
