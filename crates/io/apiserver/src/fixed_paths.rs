//! Paths that are no resources: discovery, OpenAPI, version, health, metrics, keys.

mod discovery;
mod health;
mod openapi;

use crate::body::Body;
use crate::errors::{self, Result};
use crate::negotiate::{self, Conversions, Encoding};
use crate::query::Query;
use crate::refusal::Refusal;
use crate::request::RequestInfo;
use crate::respond::{self, response};
use crate::server::{ApiServer, header};
use http::{Method, Response};
use serde_json::{Value, json};

pub(crate) async fn answer(
    server: &ApiServer,
    info: &RequestInfo,
    parts: &http::request::Parts,
    query: &Query,
) -> Result<Response<Body>> {
    let accept = header(&parts.headers, "accept");
    let path = info.path.as_str();
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    if path == "/api"
        || path == "/api/"
        || path == "/apis"
        || path == "/apis/"
        || path.starts_with("/api/")
        || path.starts_with("/apis/")
    {
        return discovery::answer(server, path, is_read, &accept);
    }
    if let Some(rest) = path.strip_prefix("/openapi/") {
        return openapi::answer(rest, query, &parts.headers, &accept);
    }
    if ["/healthz", "/livez", "/readyz"]
        .iter()
        .any(|p| path == *p || path.strip_prefix(p).is_some_and(|r| r.starts_with('/')))
    {
        return health::answer(server, path, query).await;
    }
    match path {
        "/" => Ok(root(&accept)),
        "/version" | "/version/" => tree(&accept, version()),
        "/metrics" => Ok(response(200, METRICS_TYPE, server.metrics.text(server))),
        "/metrics/slis" => Ok(response(200, METRICS_TYPE, &b""[..])),
        "/openid/v1/jwks" => keys(server, &accept),
        "/.well-known/openid-configuration" => {
            let issuer = crate::authentication::tokens::ISSUER;
            let keys = format!("https://{}/openid/v1/jwks", server.advertised_address);
            tree(
                &accept,
                json!({
                    "issuer": issuer,
                    "jwks_uri": keys,
                    "response_types_supported": ["id_token"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["ES256"],
                }),
            )
        }
        "/flagz" | "/statusz" => Err(errors::only_media_types()),
        _ => Err(errors::page_not_found()),
    }
}

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// The key set is served in one media type of its own, which upstream insists on.
fn keys(server: &ApiServer, accept: &str) -> Result<Response<Body>> {
    let wants_json = accept.contains("application/json") && !accept.contains("jwk");
    if wants_json && !accept.contains("*/*") {
        return Err(Refusal {
            details: json!({}),
            ..errors::not_acceptable("406: Not Acceptable\n\nAvailable representations: application/jwk-set+json")
        });
    }
    Ok(response(200, "application/jwk-set+json", server.authenticator.tokens.key_set().to_string()))
}

/// A tree in the encoding that the client accepts.
fn tree(accept: &str, tree: Value) -> Result<Response<Body>> {
    let form = negotiate::negotiate(accept, Conversions::None, false)?;
    if form.encoding == Encoding::Protobuf {
        return Ok(response(200, Encoding::Json.content_type(), tree.to_string()));
    }
    respond::write(200, &form, tree)
}

/// What this server says it is: upstream's version, so that clients choose their behaviour by it.
pub(crate) fn version() -> Value {
    json!({
        "major": "1",
        "minor": "37",
        "emulationMajor": "1",
        "emulationMinor": "37",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "36",
        "gitVersion": "v1.37.1+minke",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("linux/{}", platform()),
    })
}

fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn root(_accept: &str) -> Response<Body> {
    let mut paths: Vec<String> = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned(), "/apis/".to_owned()];
    for group in discovery::groups() {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|v| format!("/apis/{}/{v}", group.name)));
    }
    for path in [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ] {
        paths.push(path.to_owned());
    }
    paths.sort();
    response(200, Encoding::Json.content_type(), json!({"paths": paths}).to_string())
}
