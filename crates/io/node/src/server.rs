//! The kubelet's HTTPS API (upstream `pkg/kubelet/server`): logs, exec, attach, port-forward, health, the node's Pods,
//! figures. Who is heard, [`auth`] says.

pub(crate) mod auth;
mod exec;
mod exposition;
mod follow;
pub(crate) mod logs;
mod metrics;
mod pods;

use crate::stats::summary;
use crate::{NodeError, Shared};
use auth::User;
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
    let user = Arc::new(certificates.first().and_then(|certificate| auth::of_certificate(certificate)));
    let service = hyper::service::service_fn(move |request| {
        let (shared, user) = (shared.clone(), user.clone());
        async move { Ok::<_, Infallible>(answer(shared, request, (*user).as_ref()).await) }
    });
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    if let Err(error) = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(error, "kubelet API connection ended");
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>, user: Option<&User>) -> Response<Body> {
    let asked = (request.method().as_str(), request.uri().path());
    if let Err((status, why)) = auth::check(&shared, user, asked, request.headers()).await {
        return text(status, &why);
    }
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["healthz"] | ["healthz", "ping" | "log" | "syncloop"]) => text(StatusCode::OK, "ok"),
        (&Method::GET, ["pods"]) => json(&pods::known(&shared)),
        (&Method::GET, ["runningpods"] | ["runningpods", ""]) => pods::running(&shared).await,
        (&Method::GET, ["configz"]) => json(&shared.config.shown()),
        (&Method::GET | &Method::POST, ["stats", "summary"]) => {
            let sample = shared.stats.sample(&shared, false).await;
            json(&summary::summary(&sample, &shared.config.name, query.flag("only_cpu_and_memory")))
        }
        (&Method::GET, ["metrics"]) => figures(metrics::kubelet(&shared, &*shared.stats.sample(&shared, false).await)),
        (&Method::GET, ["metrics", "resource"]) => {
            figures(metrics::resource(&*shared.stats.sample(&shared, false).await))
        }
        (&Method::GET, ["metrics", "cadvisor"]) => {
            figures(metrics::cadvisor::cadvisor(&*shared.stats.sample(&shared, false).await))
        }
        (&Method::GET, ["metrics", "probes"]) => figures(metrics::probes(&shared)),
        (&Method::GET, ["logs", ..]) => {
            let why = "minke does not serve the node's logs (/logs/, node log query); they are files of the host\n";
            text(StatusCode::NOT_IMPLEMENTED, why)
        }
        (&Method::POST, ["checkpoint", namespace, pod, container]) => {
            let why = "minke's runtime cannot checkpoint containers";
            let message = format!("checkpointing of {namespace}/{pod}/{container} failed ({why})");
            text(StatusCode::NOT_IMPLEMENTED, &message)
        }
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

fn json(value: &serde_json::Value) -> Response<Body> {
    with_type(text(StatusCode::OK, &value.to_string()), "application/json")
}

fn figures(exposition: String) -> Response<Body> {
    with_type(text(StatusCode::OK, &exposition), "text/plain; version=0.0.4; charset=utf-8")
}

fn with_type(mut response: Response<Body>, of: &'static str) -> Response<Body> {
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(of));
    response
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
