//! OpenAPI: the documents that upstream publishes, kept compressed and handed out as they are where the client takes
//! gzip. (Nothing is held in memory; a client that does not is served a copy that lives as long as the answer.)

use crate::body::Body;
use crate::errors::{self, Result};
use crate::negotiate;
use crate::query::Query;
use crate::respond::response;
use crate::server::header;
use flate2::read::GzDecoder;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, HeaderValue, LOCATION, VARY};
use http::{HeaderMap, Response, StatusCode};
use std::io::Read;

static V2_JSON: &[u8] = include_bytes!("../../openapi/v2.json.gz");
static V2_PROTOBUF: &[u8] = include_bytes!("../../openapi/v2.pb.gz");
static V3_INDEX: &[u8] = include_bytes!("../../openapi/v3-index.json.gz");

/// A document of OpenAPI v3 in both its forms (protobuf is made of the JSON by `crates/core/api/generator`).
struct Document {
    /// The path below `/openapi/v3/`, slashes as `_` and dots as `-`.
    name: &'static str,
    json: &'static [u8],
    protobuf: &'static [u8],
}

macro_rules! v3 {
    ($name:literal) => {
        Document {
            name: $name,
            json: include_bytes!(concat!("../../openapi/v3/", $name, ".json.gz")),
            protobuf: include_bytes!(concat!("../../openapi/v3/", $name, ".pb.gz")),
        }
    };
}

static V3: &[Document] = &[
    v3!("-well-known_openid-configuration"),
    v3!("api"),
    v3!("api_v1"),
    v3!("apis"),
    v3!("apis_admissionregistration-k8s-io"),
    v3!("apis_admissionregistration-k8s-io_v1"),
    v3!("apis_apiextensions-k8s-io"),
    v3!("apis_apiextensions-k8s-io_v1"),
    v3!("apis_apiregistration-k8s-io"),
    v3!("apis_apiregistration-k8s-io_v1"),
    v3!("apis_apps"),
    v3!("apis_apps_v1"),
    v3!("apis_authentication-k8s-io"),
    v3!("apis_authentication-k8s-io_v1"),
    v3!("apis_authorization-k8s-io"),
    v3!("apis_authorization-k8s-io_v1"),
    v3!("apis_autoscaling"),
    v3!("apis_autoscaling_v1"),
    v3!("apis_autoscaling_v2"),
    v3!("apis_batch"),
    v3!("apis_batch_v1"),
    v3!("apis_certificates-k8s-io"),
    v3!("apis_certificates-k8s-io_v1"),
    v3!("apis_coordination-k8s-io"),
    v3!("apis_coordination-k8s-io_v1"),
    v3!("apis_discovery-k8s-io"),
    v3!("apis_discovery-k8s-io_v1"),
    v3!("apis_events-k8s-io"),
    v3!("apis_events-k8s-io_v1"),
    v3!("apis_flowcontrol-apiserver-k8s-io"),
    v3!("apis_flowcontrol-apiserver-k8s-io_v1"),
    v3!("apis_networking-k8s-io"),
    v3!("apis_networking-k8s-io_v1"),
    v3!("apis_node-k8s-io"),
    v3!("apis_node-k8s-io_v1"),
    v3!("apis_policy"),
    v3!("apis_policy_v1"),
    v3!("apis_rbac-authorization-k8s-io"),
    v3!("apis_rbac-authorization-k8s-io_v1"),
    v3!("apis_resource-k8s-io"),
    v3!("apis_resource-k8s-io_v1"),
    v3!("apis_scheduling-k8s-io"),
    v3!("apis_scheduling-k8s-io_v1"),
    v3!("apis_storage-k8s-io"),
    v3!("apis_storage-k8s-io_v1"),
    v3!("apis_storagemigration-k8s-io"),
    v3!("apis_storagemigration-k8s-io_v1"),
    v3!("openid_v1_jwks"),
    v3!("version"),
];

const V3_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

pub(super) fn answer(path: &str, query: &Query, headers: &HeaderMap, accept: &str) -> Result<Response<Body>> {
    let gzip = header(headers, "accept-encoding").contains("gzip");
    match path.trim_end_matches('/') {
        "v2" => v2(accept, gzip),
        "v3" => packed(V3_INDEX, "text/plain; charset=utf-8", gzip),
        path => v3(path.strip_prefix("v3/").ok_or_else(errors::page_not_found)?, query, accept, gzip),
    }
}

fn v2(accept: &str, gzip: bool) -> Result<Response<Body>> {
    for clause in negotiate::clauses(accept) {
        match clause.media_type.as_str() {
            "application/json" | "*/*" | "application/*" => return packed(V2_JSON, "application/json", gzip),
            "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
            | "application/com.github.proto-openapi.spec.v2.v1.0+protobuf" => {
                return packed(V2_PROTOBUF, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", gzip);
            }
            _ => {}
        }
    }
    if accept.trim().is_empty() { packed(V2_JSON, "application/json", gzip) } else { Ok(not_acceptable()) }
}

fn v3(path: &str, query: &Query, accept: &str, gzip: bool) -> Result<Response<Body>> {
    let key = path.replace('/', "_").replace('.', "-");
    let Some(document) = V3.iter().find(|document| document.name == key) else {
        return Ok(empty(404));
    };
    let chosen = negotiate::clauses(accept).iter().find_map(|clause| match clause.media_type.as_str() {
        "application/json" | "*/*" | "application/*" => Some((document.json, "application/json")),
        "application/com.github.proto-openapi.spec.v3@v1.0+protobuf" | V3_PROTOBUF => {
            Some((document.protobuf, V3_PROTOBUF))
        }
        _ => None,
    });
    let (bytes, content_type) = match chosen {
        Some(chosen) => chosen,
        None if accept.trim().is_empty() => (document.json, "application/json"),
        None => return Ok(not_acceptable()),
    };
    let hash = query.get("hash");
    let mut answer = packed(bytes, content_type, gzip)?;
    if !hash.is_empty() {
        // The hash names the content; clients may keep it for ever. Another hash leads to the right one.
        let right = hash_of(path)?;
        if right.as_deref().is_some_and(|right| right != hash) {
            let mut moved = response(301, "text/html; charset=utf-8", &b""[..]);
            let location = format!("/openapi/v3/{path}?hash={}", right.unwrap_or_default());
            if let Ok(location) = HeaderValue::from_str(&location) {
                moved.headers_mut().insert(LOCATION, location);
            }
            return Ok(moved);
        }
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Ok(answer)
}

/// The hash that the index gives a document.
fn hash_of(path: &str) -> Result<Option<String>> {
    let index: serde_json::Value = serde_json::from_slice(&unpack(V3_INDEX)?).unwrap_or_default();
    let url = index["paths"][path]["serverRelativeURL"].as_str();
    Ok(url.and_then(|url| url.split_once("hash=")).map(|(_, hash)| hash.to_owned()))
}

fn not_acceptable() -> Response<Body> {
    empty(406)
}

/// An answer without body or type.
fn empty(code: u16) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::NOT_FOUND);
    answer
}

fn packed(packed: &'static [u8], content_type: &str, gzip: bool) -> Result<Response<Body>> {
    let bytes = if gzip { bytes::Bytes::from_static(packed) } else { unpack(packed)?.into() };
    let mut answer = response(200, content_type, bytes);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    if gzip {
        answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(answer)
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let read = GzDecoder::new(packed).read_to_end(&mut out);
    read.map(|_| out).map_err(|e| crate::refusal::Refusal::internal(format!("an embedded document is damaged: {e}")))
}
