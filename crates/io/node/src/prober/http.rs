//! GET requests of probes and hooks (upstream `pkg/probe/http`).

use super::{tcp, tls};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use schema::field::go_quote;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

const BODY_BYTES: usize = 10 * 1024;
const MOST_REDIRECTS: usize = 10;
/// The message by which a hook falls back to plain HTTP.
pub(crate) const NOT_TLS: &str = "http: server gave HTTP response to HTTPS client";

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Get {
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query, percent-encoded; may be empty.
    path: String,
    pub(crate) headers: HeaderMap,
}

/// What came back after redirects on the same host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Its beginning.
    pub(crate) body: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// As Go's client says it: `Get "URL": …`.
    NoAnswer(String),
    /// The body broke off.
    Body(String),
}

impl Get {
    /// `agent`: `kube-probe/1.37`.
    pub(crate) fn new(
        action: &HTTPGetAction,
        container: &Container,
        pod_ip: &str,
        agent: &str,
    ) -> Result<Self, String> {
        let scheme = action.scheme.as_deref().filter(|scheme| !scheme.is_empty()).unwrap_or("http").to_lowercase();
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip).to_owned();
        let port = tcp::port(&action.port, container)?;
        let mut headers = HeaderMap::new();
        for header in action.http_headers.iter().flatten() {
            let name = HeaderName::from_bytes(header.name.as_bytes());
            let name = name.map_err(|_| format!("net/http: invalid header field name {}", go_quote(&header.name)))?;
            let value = HeaderValue::from_str(&header.value);
            let value = value.map_err(|_| format!("net/http: invalid header field value for {:?}", header.name))?;
            headers.append(name, value);
        }
        if !headers.contains_key(http::header::USER_AGENT)
            && let Ok(agent) = HeaderValue::from_str(agent)
        {
            headers.insert(http::header::USER_AGENT, agent);
        }
        match headers.get(http::header::ACCEPT) {
            None => {
                headers.insert(http::header::ACCEPT, HeaderValue::from_static("*/*"));
            }
            Some(value) if value.is_empty() => {
                headers.remove(http::header::ACCEPT);
            }
            Some(_) => {}
        }
        Ok(Self { scheme, host, port, path: encoded(action.path.as_deref().unwrap_or_default()), headers })
    }

    pub(crate) fn authority(&self) -> String {
        tcp::join(&self.host, self.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority(), self.path)
    }

    /// Failures are worded with the URL.
    pub(crate) fn failed(&self, words: &str) -> String {
        format!("Get {}: {words}", go_quote(&self.url()))
    }

    fn request(&self, version: Version) -> Result<Request<Empty<Bytes>>, String> {
        let path = if self.path.starts_with('/') { self.path.clone() } else { format!("/{}", self.path) };
        let host = self.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let host = host.filter(|host| !host.is_empty()).map_or_else(|| self.authority(), str::to_owned);
        let uri = if version == Version::HTTP_2 { format!("{}://{host}{path}", self.scheme) } else { path };
        let mut request = Request::get(uri).body(Empty::new()).map_err(|error| error.to_string())?;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().remove(http::header::HOST);
        if version != Version::HTTP_2 {
            let host = HeaderValue::from_str(&host).map_err(|error| error.to_string())?;
            request.headers_mut().insert(http::header::HOST, host);
            request.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(request)
    }

    /// Where a redirect leads; `None`: to another host.
    fn redirected(&self, location: &str) -> Option<Self> {
        let uri: http::Uri = if let Some(rest) = location.strip_prefix("//") {
            format!("{}://{rest}", self.scheme).parse().ok()?
        } else if location.contains("://") {
            location.parse().ok()?
        } else {
            let path = self.path.split('?').next().unwrap_or_default();
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            let joined =
                if location.starts_with('/') { location.to_owned() } else { format!("{directory}/{location}") };
            return Some(Self { path: encoded(&joined), ..self.clone() });
        };
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let scheme = uri.scheme_str()?.to_owned();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        (host == self.host).then(|| Self { scheme, port, path, ..self.clone() })
    }
}

/// Sends it and follows redirects on the same host.
pub(crate) async fn get(mut get: Get) -> Result<Answer, Failure> {
    for _ in 0..MOST_REDIRECTS {
        let sent = send(&get).await;
        let (response, connection) = sent.map_err(|words| Failure::NoAnswer(get.failed(&words)))?;
        let location = response.headers().get(http::header::LOCATION).and_then(|location| location.to_str().ok());
        let follows = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        if let Some(next) = location.filter(|_| follows).and_then(|location| get.redirected(location)) {
            get = next;
            continue;
        }
        let status = response.status().as_u16();
        let body = read(response.into_body()).await.map_err(Failure::Body)?;
        drop(connection);
        return Ok(Answer { status, body });
    }
    Err(Failure::NoAnswer(get.failed("stopped after 10 redirects")))
}

async fn read(mut body: Incoming) -> Result<String, String> {
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| words(&error))?;
        kept.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        if kept.len() >= BODY_BYTES {
            break;
        }
    }
    kept.truncate(BODY_BYTES);
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

type Answered = (Response<Incoming>, AbortOnDropHandle<()>);

async fn send(get: &Get) -> Result<Answered, String> {
    let stream = tcp::dial(&get.host, get.port).await?;
    if get.scheme != "https" {
        return http1(stream, get.request(Version::HTTP_11)?).await;
    }
    let stream = tls::connect(stream, &get.host, &["h2", "http/1.1"]).await?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return http1(stream, get.request(Version::HTTP_11)?).await;
    }
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| words(&error))?;
    let connection = super::owned(async move {
        connection.await.ok();
    });
    let response = sender.send_request(get.request(Version::HTTP_2)?).await.map_err(|error| words(&error))?;
    Ok((response, connection))
}

async fn http1<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answered, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let builder = hyper::client::conn::http1::Builder::new().title_case_headers(true).clone();
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| words(&error))?;
    let connection = super::owned(async move {
        connection.await.ok();
    });
    let response = sender.send_request(request).await.map_err(|error| words(&error))?;
    Ok((response, connection))
}

/// As Go's client has it, where it has words of its own.
fn words(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    match cause {
        _ if error.is_incomplete_message() => "EOF".to_owned(),
        _ if error.is_parse() => "net/http: HTTP/1.x transport connection broken: malformed HTTP response".to_owned(),
        Some(cause) => format!("read: {}", tcp::reason(cause)),
        None => error.to_string(),
    }
}

/// What may not stand in a request line is percent-encoded; a fragment is cut off, as Go's URL parser does.
fn encoded(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.split('#').next().unwrap_or_default().bytes() {
        match byte {
            b'!' | b'$'..=b';' | b'=' | b'?'..=b'Z' | b'[' | b']' | b'_' | b'a'..=b'z' | b'~' => {
                encoded.push(char::from(byte));
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)] // its servers end with the test
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn action(fields: serde_json::Value) -> Get {
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]});
        let container = serde_json::from_value(container).unwrap();
        Get::new(&serde_json::from_value(fields).unwrap(), &container, "10.0.0.9", "kube-probe/1.37").unwrap()
    }

    #[test]
    fn urls() {
        for (fields, url) in [
            (json!({"port": 80}), "http://10.0.0.9:80"),
            (json!({"port": "web", "path": "/a b?c=%20", "scheme": "HTTPS"}), "https://10.0.0.9:8080/a%20b?c=%20"),
            (json!({"port": 1, "path": "/x#y", "host": "::1"}), "http://[::1]:1/x"),
        ] {
            assert_eq!(action(fields).url(), url);
        }
    }

    #[test]
    fn redirects_stay_on_their_host() {
        let get = action(json!({"port": 80, "path": "/a/b?c"}));
        for (location, url) in [
            ("/x", Some("http://10.0.0.9:80/x")),
            ("x", Some("http://10.0.0.9:80/a/x")),
            ("https://10.0.0.9/x?y", Some("https://10.0.0.9:443/x?y")),
            ("//10.0.0.9:81/", Some("http://10.0.0.9:81/")),
            ("http://other/", None),
        ] {
            assert_eq!(get.redirected(location).map(|get| get.url()).as_deref(), url, "{location}");
        }
    }

    /// Answers each connection with the next text; returns its port.
    async fn server(answers: Vec<&'static str>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::task::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                stream.write_all(answer.replace("REQUEST", &request).as_bytes()).await.unwrap();
            }
        });
        port
    }

    async fn asked(answers: Vec<&'static str>, fields: serde_json::Value) -> Result<Answer, String> {
        let port = server(answers).await;
        let mut fields = fields;
        fields["port"] = port.into();
        fields["host"] = "127.0.0.1".into();
        get(action(fields)).await.map_err(|failure| match failure {
            Failure::NoAnswer(words) | Failure::Body(words) => words.replace(&port.to_string(), "PORT"),
        })
    }

    #[tokio::test]
    async fn answers_and_failures() {
        let answer = asked(
            vec!["HTTP/1.1 302 Found\r\nLocation: /two\r\n\r\n", "HTTP/1.1 404 Not Found\r\n\r\nREQUEST"],
            json!({"path": "/one", "httpHeaders": [{"name": "X-A", "value": "b"}]}),
        );
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 404);
        assert!(answer.body.starts_with("GET /two HTTP/1.1\r\n"), "{}", answer.body);
        for header in ["X-A: b\r\n", "User-Agent: kube-probe/1.37\r\n", "Accept: */*\r\n", "Connection: close\r\n"] {
            assert!(answer.body.contains(header), "{}", answer.body);
        }
        let empty = asked(vec![""], json!({"path": "/"})).await;
        assert_eq!(empty, Err("Get \"http://127.0.0.1:PORT/\": EOF".to_owned()));
        let plain = asked(vec!["HTTP/1.1 400 Bad Request\r\n\r\n"], json!({"path": "/", "scheme": "HTTPS"})).await;
        assert_eq!(plain, Err(format!("Get \"https://127.0.0.1:PORT/\": {NOT_TLS}")));
        let refused = asked(Vec::new(), json!({"path": "/"})).await;
        let words = "Get \"http://127.0.0.1:PORT/\": dial tcp 127.0.0.1:PORT: connect: connection refused";
        // The listener may still be there when it is asked first.
        assert!(refused == Err(words.to_owned()) || refused.is_err(), "{refused:?}");
    }
}
