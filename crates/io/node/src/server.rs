//! The kubelet's HTTPS API, as the API server asks it: logs, exec, attach, port-forward, health, the node's Pods.
//! Only clients whose certificate our CA signed for `system:masters` are heard (that is the API server's own).

mod exec;
mod follow;
pub(crate) mod logs;

use crate::{NodeError, Shared};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use runtime::streaming::command::Call;
pub(crate) use runtime::streaming::{Body, text};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Serves for ever.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener) -> Result<(), NodeError> {
    let acceptor = TlsAcceptor::from(shared.config.tls.clone());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(shared.clone(), acceptor.clone(), stream));
                }
                Err(error) => tracing::warn!(%error, "kubelet API cannot accept a connection"),
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve(shared: Arc<Shared>, acceptor: TlsAcceptor, stream: TcpStream) {
    stream.set_nodelay(true).ok();
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let allowed = certificates.first().is_some_and(|certificate| is_master(certificate));
    let service = hyper::service::service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(shared, request, allowed).await) }
    });
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    if let Err(error) = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(error, "kubelet API connection ended");
    }
}

/// Whether the subject names the organisation `system:masters`; the chain was checked by TLS.
fn is_master(certificate: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    certificate.subject().iter_organization().any(|name| name.as_str() == Ok("system:masters"))
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>, allowed: bool) -> Response<Body> {
    if !allowed {
        return text(StatusCode::FORBIDDEN, "Forbidden\n");
    }
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["healthz"]) => text(StatusCode::OK, "ok"),
        (&Method::GET, ["pods"]) => pods(&shared),
        (&Method::GET, ["containerLogs", namespace, pod, container]) => {
            logs::answer(&shared, namespace, pod, container, &query).await
        }
        (_, ["exec", namespace, pod, container]) => {
            exec::answer(&shared, request, Call::Exec, [namespace, pod, container], &query)
        }
        (_, ["attach", namespace, pod, container]) => {
            exec::answer(&shared, request, Call::Attach, [namespace, pod, container], &query)
        }
        (_, ["portForward", namespace, pod]) => port_forward(&shared, request, [namespace, pod]),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn port_forward(shared: &Shared, request: Request<Incoming>, [namespace, pod]: [&str; 2]) -> Response<Body> {
    let Some(entry) = shared.pods.find(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    if entry.sandbox_id.is_empty() {
        return text(StatusCode::INTERNAL_SERVER_ERROR, &format!("pod not found (\"{pod}_{namespace}\")"));
    }
    runtime::streaming::port_forward::answer(&shared.tasks, request, shared.runtime.clone(), entry.sandbox_id)
}

fn pods(shared: &Shared) -> Response<Body> {
    let items: Vec<_> = shared.pods.all().into_iter().map(|entry| (*entry.pod).clone()).collect();
    let list = serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    text(StatusCode::OK, &list.to_string())
}

/// Query parameters; a name may come several times (`command`).
pub(crate) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    fn parse(query: &str) -> Self {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            all.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        Self(all)
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.get(name).cloned().unwrap_or_default()
    }

    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|values| values.first()).map(String::as_str)
    }

    /// `1` and `true` (kubelet and API server spell it differently).
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.one(name), Some("1" | "true"))
    }
}

pub(crate) fn stream(chunks: BoxStream<'static, Bytes>) -> Response<Body> {
    let frames = chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    let content = http::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content);
    response
}
