//! HTTP/1.1 and HTTP/2 over TLS around [`ApiServer::handle`].

use crate::authentication::User;
use crate::body::Body;
use crate::respond;
use crate::server::ApiServer;
use crate::{errors, server::header};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Upstream's limit of request bodies.
pub const BODY_LIMIT_BYTES: usize = 3 << 20;
/// A client that does not finish its handshake or its request's head goes.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle HTTP/2 connections are asked for a sign of life (upstream's client does the same).
const PING_EVERY: Duration = Duration::from_secs(30);

/// Answers connections of `listener` until `shutdown`; open ones are then given until their requests end, watches
/// (which end with [`ApiServer::run`]) among them, but no longer than `grace`.
///
/// # Errors
/// None that ends the listener: what one connection meets is logged.
pub async fn serve(
    server: Arc<ApiServer>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    shutdown: impl Future<Output = ()>,
    grace: Duration,
) {
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(server.clone(), acceptor.clone(), stream, stopped.clone()));
                }
                Err(error) => {
                    // Out of file descriptors or the like; others may still be served.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::task::yield_now().await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    stop.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(grace, all).await;
}

async fn connection(
    server: Arc<ApiServer>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await else {
        return;
    };
    let chain: Vec<CertificateDer<'static>> =
        stream.get_ref().1.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
    let chain = Arc::new(chain);
    let service = service_fn(move |request| {
        let (server, chain) = (server.clone(), chain.clone());
        async move { Ok::<_, Infallible>(answer(&server, &chain, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .max_concurrent_streams(250)
        .enable_connect_protocol();
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "a connection ended");
    }
}

/// One request: who asks, the whole body, the pipeline.
async fn answer(server: &ApiServer, chain: &[CertificateDer<'static>], request: Request<Incoming>) -> Response<Body> {
    let accept = header(request.headers(), "accept");
    let user = match authenticate(server, chain, &request) {
        Ok(user) => user,
        Err(refusal) => return respond::refuse(&refusal, &accept),
    };
    let (mut parts, body) = request.into_parts();
    let body = match collect(body).await {
        Ok(body) => body,
        Err(refusal) => return respond::refuse(&refusal, &accept),
    };
    // Credentials are no business of anything behind.
    parts.headers.remove(header::AUTHORIZATION);
    let audit = crate::world::uid(&*server.world);
    let mut response = server.handle(&user, Request::from_parts(parts, body)).await;
    if let Ok(value) = audit.parse() {
        response.headers_mut().insert("audit-id", value);
    }
    if !response.headers().contains_key(header::CACHE_CONTROL) {
        response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, private"));
    }
    response
}

fn authenticate(
    server: &ApiServer,
    chain: &[CertificateDer<'static>],
    request: &Request<Incoming>,
) -> errors::Result<User> {
    let authorization = header(request.headers(), "authorization");
    let given = if authorization.is_empty() { websocket_token(request) } else { Some(authorization) };
    server.authenticator.authenticate(chain, given.as_deref(), &server.caches, server.world.now()).map_err(|why| {
        tracing::debug!(%why, "a request was not authenticated");
        errors::unauthorized()
    })
}

/// Browsers cannot send a header with a WebSocket; the token comes as a subprotocol (apiserver
/// `authentication/request/websocket`).
fn websocket_token(request: &Request<Incoming>) -> Option<String> {
    use base64::Engine;
    let protocols = header(request.headers(), "sec-websocket-protocol");
    let encoded =
        protocols.split(',').map(str::trim).find_map(|p| p.strip_prefix("base64url.bearer.authorization.k8s.io."))?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).ok()?;
    Some(format!("Bearer {}", String::from_utf8(bytes).ok()?))
}

async fn collect(mut body: Incoming) -> errors::Result<Bytes> {
    match Limited::new(&mut body, BODY_LIMIT_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            // Who still writes when the connection closes never reads the answer.
            let mut left = BODY_LIMIT_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(rest) => left = rest,
                    None => break,
                }
            }
            Err(errors::too_large())
        }
        Err(error) => Err(crate::refusal::Refusal::bad_request(format!("the request's body cannot be read: {error}"))),
    }
}
