//! The gRPC health check (upstream `pkg/probe/grpc`): one call of `grpc.health.v1.Health/Check`. Its two messages are a
//! string and a number, so they are written here by hand.

use super::{go_seconds, tcp, tls};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use schema::field::go_quote;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// gRPC's connection back-off (`doc/connection-backoff.md`), without its jitter.
const BACKOFF: (Duration, f64) = (Duration::from_secs(1), 1.6);
const SERVING: u64 = 1;

/// Whom to ask.
pub(super) struct Check<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) service: &'a str,
    pub(super) tls: bool,
    pub(super) agent: &'a str,
}

/// Ok: it serves. Else what is wrong, in upstream's words.
pub(super) async fn check(check: &Check<'_>, timeout: Duration) -> Result<(), String> {
    let address = tcp::join(check.host, check.port);
    let until = Instant::now() + timeout;
    let took_too_long = || {
        let within = go_seconds(timeout.as_secs());
        format!("timeout: failed to connect service {} within {within}: context deadline exceeded", go_quote(&address))
    };
    let connected = tokio::time::timeout_at(until, connect(check)).await;
    let (sender, _connection) = connected.map_err(|_| took_too_long())?;
    match tokio::time::timeout_at(until, call(sender, check, &address)).await {
        Ok(result) => result,
        Err(_) => Err(format!("timeout: health rpc did not complete within {}", go_seconds(timeout.as_secs()))),
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// Tries until it is given up.
async fn connect(check: &Check<'_>) -> (Sender, AbortOnDropHandle<()>) {
    let mut wait = BACKOFF.0;
    loop {
        match connect_once(check).await {
            Ok(connected) => return connected,
            Err(error) => tracing::debug!(host = check.host, port = check.port, error, "gRPC probe does not connect"),
        }
        tokio::time::sleep(wait).await;
        wait = wait.mul_f64(BACKOFF.1);
    }
}

async fn connect_once(check: &Check<'_>) -> Result<(Sender, AbortOnDropHandle<()>), String> {
    let stream = tcp::dial(check.host, check.port).await?;
    let failed = |error: hyper::Error| error.to_string();
    if check.tls {
        let stream = tls::connect(stream, check.host, &["h2"]).await?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(failed)?;
        return Ok((sender, driven(connection)));
    }
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(failed)?;
    Ok((sender, driven(connection)))
}

fn driven(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> AbortOnDropHandle<()> {
    super::owned(async move {
        connection.await.ok();
    })
}

async fn call(mut sender: Sender, check: &Check<'_>, address: &str) -> Result<(), String> {
    let failed = |words: &str| format!("error: health rpc probe failed: rpc error: code = Unavailable desc = {words}");
    let scheme = if check.tls { "https" } else { "http" };
    let request = Request::post(format!("{scheme}://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", check.agent)
        .body(Full::new(question(check.service)))
        .map_err(|error| failed(&error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error.to_string()))?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| failed(&error.to_string()))?;
    let none = HeaderMap::new();
    let trailers =
        if head.headers.contains_key("grpc-status") { &head.headers } else { body.trailers().unwrap_or(&none) };
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let code: usize = text("grpc-status").parse().unwrap_or(2);
    let message = if head.status == 200 {
        decoded(text("grpc-message"))
    } else {
        format!("unexpected HTTP status code received from server: {}", head.status)
    };
    match code {
        0 => verdict(&body.to_bytes()),
        12 => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        code => {
            let code = CODES.get(code).copied().unwrap_or("Unknown");
            Err(format!("error: health rpc probe failed: rpc error: code = {code} desc = {message}"))
        }
    }
}

/// Names of gRPC's status codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// `HealthCheckRequest { string service = 1; }` with gRPC's length before it.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(0x80 | u8::try_from(length & 0x7f).unwrap_or_default());
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or_default());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or_default());
    framed.put(message);
    framed.freeze()
}

/// `HealthCheckResponse { ServingStatus status = 1; }`
fn verdict(framed: &[u8]) -> Result<(), String> {
    let status = match framed.get(5..) {
        Some([0x08, status, ..]) => u64::from(*status),
        _ => 0,
    };
    let name = match status {
        SERVING => return Ok(()),
        0 => "UNKNOWN".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    };
    Err(format!("service unhealthy (responded with {})", go_quote(&name)))
}

/// `grpc-message` is percent-encoded.
fn decoded(message: &str) -> String {
    let mut bytes = Vec::with_capacity(message.len());
    let mut rest = message.as_bytes();
    while let [first, after @ ..] = rest {
        let code = std::str::from_utf8(after.get(..2).unwrap_or_default()).ok();
        match code.filter(|_| *first == b'%').and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn messages() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(verdict(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        let words = "service unhealthy (responded with \"NOT_SERVING\")";
        assert_eq!(verdict(&[0, 0, 0, 0, 2, 8, 2]), Err(words.to_owned()));
        assert_eq!(decoded("unknown%20service"), "unknown service");
    }

    #[tokio::test]
    async fn nobody_listens() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let asked = Check { host: "127.0.0.1", port, service: "", tls: false, agent: "kube-probe/1.37" };
        let words = check(&asked, Duration::from_secs(1)).await.unwrap_err();
        let told =
            format!("timeout: failed to connect service \"127.0.0.1:{port}\" within 1s: context deadline exceeded");
        assert_eq!(words, told);
    }
}
