//! One registry over HTTP: the distribution specification's pull half, with authentication and the registry's own words
//! in every error.

use crate::challenge::{self, Challenge};
use crate::hosts::Host;
use crate::{Auth, Reference};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Identity, Method, Response, StatusCode};
use serde::Deserialize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Nothing at all arrived for so long.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
/// A server that asks again and again, and never for the same, is not answered for ever.
const MAX_CHALLENGES: usize = 5;
/// A registry's error and a token are read up to here.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Why a request has no answer that can be used. `Display` has containerd's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// Nobody there: no such host, connection refused, no route, TLS failed.
    #[error("{0}")]
    Unreachable(String),
    #[error("pull access denied, repository does not exist or may require authorization: {0}")]
    Denied(String),
    #[error("{0}: not found")]
    NotFound(String),
    #[error("{0}")]
    Other(String),
}

/// A server and what was agreed with it.
pub(crate) struct Registry {
    pub(crate) host: Host,
    client: Client,
    headers: HeaderMap,
    repository: String,
    /// The image's registry, told to mirrors.
    namespace: String,
    auth: Option<Auth>,
    authorization: Mutex<Option<HeaderValue>>,
}

impl Registry {
    /// Reads certificates; blocks for that.
    pub(crate) fn new(host: Host, reference: &Reference, auth: Option<Auth>) -> Result<Registry, String> {
        let mut builder = Client::builder()
            .user_agent(concat!("minke/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(host.dial_timeout.unwrap_or(CONNECT_TIMEOUT))
            .read_timeout(READ_TIMEOUT)
            .tls_danger_accept_invalid_certs(host.skip_verify);
        if host.skip_verify {
            builder = builder.tls_danger_accept_invalid_hostnames(true);
        }
        let read =
            |path: &std::path::Path| std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()));
        for path in &host.ca {
            let bundle = Certificate::from_pem_bundle(&read(path)?).map_err(|e| format!("{}: {e}", path.display()))?;
            builder = builder.tls_certs_merge(bundle);
        }
        for (certificate, key) in &host.client {
            let mut pem = read(certificate)?;
            if let Some(key) = key {
                pem.extend_from_slice(b"\n");
                pem.extend(read(key)?);
            }
            builder =
                builder.identity(Identity::from_pem(&pem).map_err(|e| format!("{}: {e}", certificate.display()))?);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &host.header {
            let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no header name"))?;
            let value: HeaderValue = value.parse().map_err(|_| format!("the value of header {name} cannot be sent"))?;
            headers.append(name, value);
        }
        Ok(Registry {
            client: builder.build().map_err(|e| root_cause(&e))?,
            headers,
            repository: reference.path().to_owned(),
            namespace: reference.domain().to_owned(),
            // The credentials are the registry's: nobody else gets to see them.
            auth: auth.filter(|_| !host.mirror),
            host,
            authorization: Mutex::default(),
        })
    }

    /// `kind`: `manifests`, `blobs`.
    pub(crate) fn url(&self, kind: &str, name: &str) -> String {
        let Host { scheme, authority, path, mirror, .. } = &self.host;
        let query = if *mirror { format!("?ns={}", self.namespace) } else { String::new() };
        format!("{scheme}://{authority}{path}/{}/{kind}/{name}{query}", self.repository)
    }

    /// Sends a request, authenticating as the registry asks; any status but 401 is an answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        accept: &str,
        from_byte: u64,
    ) -> Result<Response, RequestError> {
        let mut last_challenge = None;
        for _ in 0..MAX_CHALLENGES {
            let mut request = self.client.request(method.clone(), url).headers(self.headers.clone());
            request = request.header(header::ACCEPT, accept);
            if from_byte > 0 {
                request = request.header(header::RANGE, format!("bytes={from_byte}-"));
            }
            let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(authorization) = &authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let response = request.send().await.map_err(|e| transport(&method, url, &e))?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            let challenges: Vec<Challenge> = (response.headers().get_all(header::WWW_AUTHENTICATE).iter())
                .flat_map(|value| challenge::parse(value.to_str().unwrap_or_default()))
                .collect();
            let Some(challenge) = ["bearer", "basic"].iter().find_map(|s| challenges.iter().find(|c| c.scheme == *s))
            else {
                return Ok(response);
            };
            // The same question again: the answer was not good enough.
            if last_challenge
                .as_ref()
                .is_some_and(|last: &Challenge| last.parameters.get("scope") == challenge.parameters.get("scope"))
            {
                return match challenge.parameters.get("error").filter(|e| !e.is_empty()) {
                    Some(error) => Err(RequestError::Denied(format!("server message: {error}: authorization failed"))),
                    None if challenge.scheme == "basic" => Ok(response),
                    None => Err(RequestError::Denied("authorization failed".to_owned())),
                };
            }
            let value = self.answer(challenge).await?;
            last_challenge = Some(challenge.clone());
            *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        }
        Err(RequestError::Denied("authorization failed".to_owned()))
    }

    async fn answer(&self, challenge: &Challenge) -> Result<HeaderValue, RequestError> {
        let value = if challenge.scheme == "basic" {
            let auth = self.auth.as_ref().filter(|auth| !auth.username.is_empty() && !auth.password.is_empty());
            let auth =
                auth.ok_or_else(|| RequestError::Denied("authorization failed: no basic auth credentials".to_owned()))?;
            basic(auth)
        } else {
            format!("Bearer {}", self.token(challenge).await?)
        };
        let mut value: HeaderValue =
            value.parse().map_err(|_| RequestError::Other("the credentials cannot be sent in a header".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Fetches a token for this repository (distribution's `auth/token` and, for identity tokens, `auth/oauth`).
    async fn token(&self, challenge: &Challenge) -> Result<String, RequestError> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let failed = |words: String| RequestError::Other(format!("failed to authorize: {words}"));
        let realm = challenge.parameters.get("realm").filter(|realm| !realm.is_empty());
        let realm = realm.ok_or_else(|| failed("no realm specified for token auth challenge".to_owned()))?;
        let mut url =
            reqwest::Url::parse(realm).map_err(|e| failed(format!("invalid token auth challenge realm: {e}")))?;
        let default_scope = format!("repository:{}:pull", self.repository);
        let scope = challenge.parameters.get("scope").unwrap_or(&default_scope);
        let service = challenge.parameters.get("service").map(String::as_str).unwrap_or_default();
        let auth = self.auth.as_ref();
        let request = match auth.filter(|auth| !auth.identity_token.is_empty()) {
            Some(auth) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", service),
                    ("client_id", "minke"),
                    ("scope", scope),
                    ("refresh_token", &auth.identity_token),
                ];
                let mut encoded = reqwest::Url::parse("http://localhost").map_err(|e| failed(e.to_string()))?;
                encoded.query_pairs_mut().extend_pairs(form);
                let body = encoded.query().unwrap_or_default().to_owned();
                let form_type = "application/x-www-form-urlencoded";
                self.client.post(url.clone()).header(header::CONTENT_TYPE, form_type).body(body)
            }
            None => {
                {
                    let mut query = url.query_pairs_mut();
                    if !service.is_empty() {
                        query.append_pair("service", service);
                    }
                    query.extend_pairs(scope.split(' ').map(|scope| ("scope", scope)));
                }
                let mut request = self.client.get(url.clone());
                if let Some(auth) = auth.filter(|auth| !auth.username.is_empty()) {
                    request = request.header(header::AUTHORIZATION, basic(auth));
                }
                request
            }
        };
        let kind = if auth.is_some() { "oauth" } else { "anonymous" };
        let method = if auth.is_some_and(|auth| !auth.identity_token.is_empty()) { Method::POST } else { Method::GET };
        let response = request.send().await.map_err(|e| match transport(&method, url.as_str(), &e) {
            RequestError::Unreachable(words) => {
                RequestError::Unreachable(format!("failed to authorize: failed to fetch {kind} token: {words}"))
            }
            other => failed(format!("failed to fetch {kind} token: {other}")),
        })?;
        if !response.status().is_success() {
            let words = unexpected(&method, response).await;
            return Err(failed(format!("failed to fetch {kind} token: {words}")));
        }
        let body = read_bounded(response, MAX_ANSWER_BYTES).await.map_err(failed)?;
        let token: Token =
            serde_json::from_slice(&body).map_err(|e| failed(format!("unable to decode token response: {e}")))?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        token.ok_or_else(|| failed("authorization server did not include a token in the response".to_owned()))
    }
}

fn basic(auth: &Auth) -> String {
    format!("Basic {}", base64(format!("{}:{}", auth.username, auth.password).as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let c = ALPHABET[(word >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= chunk.len() { char::from(c) } else { '=' });
        }
    }
    text
}

/// `unexpected status from GET request to URL: 500 Internal Server Error`, with what the registry says about it.
pub(crate) async fn unexpected(method: &Method, response: Response) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let status = response.status();
    let head = format!("unexpected status from {method} request to {}: {}", response.url(), status_words(status));
    let body = read_bounded(response, MAX_ANSWER_BYTES).await.unwrap_or_default();
    match serde_json::from_slice::<Errors>(&body) {
        Ok(Errors { errors }) if !errors.is_empty() => {
            let words = |Item { code, message }: Item| {
                let code = code.to_lowercase().replace('_', " ");
                if message.is_empty() { code } else { format!("{}: {message}", code.replace(' ', "")) }
            };
            let all: Vec<String> = errors.into_iter().map(words).collect();
            format!("{head} - Server message: {}", all.join("; "))
        }
        _ => head,
    }
}

fn status_words(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// The whole body, unless it is larger than `limit`.
pub(crate) async fn read_bounded(mut response: Response, limit: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| root_cause(&e))? {
        if body.len() + chunk.len() > limit {
            return Err(format!("the answer of {} is larger than {limit} bytes", response.url()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// `failed to do request: Head "URL": dial tcp HOST: connect: connection refused`.
fn transport(method: &Method, url: &str, error: &reqwest::Error) -> RequestError {
    let name = method.as_str();
    let name = format!("{}{}", &name[..1], name[1..].to_lowercase());
    let words = format!("failed to do request: {name} \"{url}\": {}", network_words(url, error));
    if error.is_connect() || error.is_timeout() { RequestError::Unreachable(words) } else { RequestError::Other(words) }
}

fn network_words(url: &str, error: &reqwest::Error) -> String {
    let parsed = reqwest::Url::parse(url).ok();
    let host = parsed.as_ref().and_then(|url| url.host_str()).unwrap_or_default().to_owned();
    let port = parsed.as_ref().and_then(reqwest::Url::port_or_known_default).unwrap_or_default();
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.to_string().starts_with("dns error") {
            return format!("dial tcp: lookup {host}: no such host");
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.raw_os_error().is_some()
        {
            let text = io.to_string();
            let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
            return format!("dial tcp {host}:{port}: connect: {text}");
        }
        source = error.source();
    }
    if error.is_timeout() {
        return format!("dial tcp {host}:{port}: i/o timeout");
    }
    root_cause(error)
}

pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_pads() {
        for (plain, encoded) in
            [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("user:pass?~", "dXNlcjpwYXNzP34=")]
        {
            assert_eq!(super::base64(plain.as_bytes()), encoded);
        }
    }
}
