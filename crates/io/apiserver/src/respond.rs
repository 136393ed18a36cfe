//! An answer in the form that the client accepts: JSON, YAML or protobuf; itself, as a Table or metadata only.

use crate::body::Body;
use crate::call::{Answer, Call, List};
use crate::convert;
use crate::errors::{self, Result};
use crate::negotiate::{Encoding, Negotiated, Target};
use crate::refusal::Refusal;
use crate::{partial, stored, table_form, yaml};
use api::object::Object;
use futures::StreamExt;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// Writes an answer.
pub(crate) fn respond(call: &Call<'_>, form: &Negotiated, answer: Answer) -> Result<Response<Body>> {
    match answer {
        Answer::Response(response) => Ok(response),
        Answer::Object { code, object } => {
            if form.target == Target::Itself && form.encoding == Encoding::Json && call.resource.stored && !form.pretty
            {
                return Ok(json_response(code, object.json()));
            }
            let tree = convert::from_stored(call.resource, tree_of(&object)?);
            write(code, form, single(call, form, tree)?)
        }
        Answer::Tree { code, tree } => write(code, form, single(call, form, tree)?),
        Answer::List(list) => respond_list(call, form, list),
    }
}

/// The tree of a stored object, in the stored version.
pub(crate) fn tree_of(object: &Object) -> Result<Value> {
    object.decode().map_err(|e| Refusal::internal(format!("the stored object {object:?} cannot be read: {e}")))
}

fn json_response(code: u16, bytes: impl Into<bytes::Bytes>) -> Response<Body> {
    response(code, Encoding::Json.content_type(), bytes)
}

/// A complete answer.
pub(crate) fn response(code: u16, content_type: &str, bytes: impl Into<bytes::Bytes>) -> Response<Body> {
    complete(code, content_type, Body::Full(bytes.into()))
}

fn complete(code: u16, content_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}

/// One object in the target form.
fn single(call: &Call<'_>, form: &Negotiated, tree: Value) -> Result<Value> {
    match &form.target {
        Target::Itself => Ok(tree),
        // A Status (of a delete) is handed out as it is, whatever was asked for.
        _ if tree["kind"] == "Status" => Ok(tree),
        Target::Partial(version) => Ok(partial::object(&tree, version)),
        Target::PartialList(_) => {
            let why = format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list (*{})",
                internal_name(call, "")
            );
            Err(errors::not_acceptable(why))
        }
        Target::Table(version) => {
            let revision = tree["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
            let mut table = table_form::Table::new(call, version)?;
            table.push(call, &tree);
            Ok(table.finish(json!({"resourceVersion": revision})))
        }
    }
}

/// `core.ConfigMap`, `core.ConfigMapList`: Go's name of the internal type.
pub(crate) fn internal_name(call: &Call<'_>, suffix: &str) -> String {
    let group = call.resource.group;
    let package = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or_default() };
    format!("{package}.{}{suffix}", call.resource.kind)
}

/// Any tree in an encoding.
pub(crate) fn write(code: u16, form: &Negotiated, tree: Value) -> Result<Response<Body>> {
    let bytes = match form.encoding {
        Encoding::Json if form.pretty => serde_json::to_vec_pretty(&tree),
        Encoding::Json => serde_json::to_vec(&tree),
        Encoding::Yaml => Ok(yaml::write(&tree).into_bytes()),
        Encoding::Protobuf => Ok(protobuf(&tree)?),
    };
    let bytes = bytes.map_err(|e| Refusal::internal(e.to_string()))?;
    Ok(response(code, form.encoding.content_type(), bytes))
}

/// The protobuf form of a tree, found by its own kind and version.
pub(crate) fn protobuf(tree: &Value) -> Result<Vec<u8>> {
    let api_version = tree["apiVersion"].as_str().unwrap_or_default();
    let kind = tree["kind"].as_str().unwrap_or_default();
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let of = api::table::type_of(group, version, kind)
        .ok_or_else(|| errors::not_acceptable(format!("{kind} in version \"{api_version}\" has no protobuf form")))?;
    Ok(schema::protobuf::encode(api::table::table(), of, tree))
}

fn respond_list(call: &Call<'_>, form: &Negotiated, list: List) -> Result<Response<Body>> {
    let mut metadata = json!({"resourceVersion": list.revision.to_string()});
    if !list.continue_token.is_empty() {
        metadata["continue"] = list.continue_token.as_str().into();
        if let Some(remaining) = list.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    match &form.target {
        Target::Itself if form.encoding == Encoding::Json && call.resource.stored && !form.pretty => {
            Ok(complete(200, Encoding::Json.content_type(), splice_list(call, list, &metadata)))
        }
        Target::Itself => {
            let mut items = Vec::with_capacity(list.objects.len());
            for object in &list.objects {
                let mut tree = convert::from_stored(call.resource, tree_of(object)?);
                if let Some(tree) = tree.as_object_mut() {
                    tree.remove("kind");
                    tree.remove("apiVersion");
                }
                items.push(tree);
            }
            let kind = format!("{}List", call.resource.kind);
            write(
                200,
                form,
                json!({"kind": kind, "apiVersion": call.resource.api_version(), "metadata": metadata, "items": items}),
            )
        }
        Target::Partial(_) => {
            let why = format!(
                "you requested PartialObjectMetadata, but the requested object is a list (*{})",
                internal_name(call, "List")
            );
            Err(errors::not_acceptable(why))
        }
        Target::PartialList(version) => {
            let mut items = Vec::with_capacity(list.objects.len());
            for object in &list.objects {
                items.push(partial::object(&tree_of(object)?, version));
            }
            let api_version = format!("meta.k8s.io/{version}");
            write(
                200,
                form,
                json!({"kind": "PartialObjectMetadataList", "apiVersion": api_version, "metadata": metadata, "items": items}),
            )
        }
        Target::Table(version) => {
            let mut table = table_form::Table::new(call, version)?;
            for object in &list.objects {
                table.push(call, &convert::from_stored(call.resource, tree_of(object)?));
            }
            write(200, form, table.finish(metadata))
        }
    }
}

/// A JSON list put together from stored bytes, nothing decoded.
fn splice_list(call: &Call<'_>, list: List, metadata: &Value) -> Body {
    let (kind, api_version) = (call.resource.kind, call.resource.api_version());
    let head =
        format!("{{\"kind\":\"{kind}List\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[");
    let mut pieces = Splice { out: head.into(), objects: list.objects.into_iter(), first: true };
    match (pieces.next(), pieces.objects.len()) {
        (Some(all), 0) => Body::Full(all),
        (first, _) => Body::Stream(futures::stream::iter(first.into_iter().chain(pieces).map(Ok)).boxed()),
    }
}

/// A list in pieces, made as the client takes them: a long one never lies in memory whole.
struct Splice {
    /// Made and not handed out yet.
    out: Vec<u8>,
    objects: std::vec::IntoIter<Arc<Object>>,
    first: bool,
}

const PIECE_BYTES: usize = 64 << 10;

impl Iterator for Splice {
    type Item = bytes::Bytes;

    fn next(&mut self) -> Option<bytes::Bytes> {
        if self.out.is_empty() && self.objects.len() == 0 {
            return None;
        }
        while let Some(object) = self.objects.next() {
            self.out.extend_from_slice(if std::mem::take(&mut self.first) { b"" } else { b"," });
            match object.parts() {
                (bytes, Some(gap)) => {
                    self.out.push(b'{');
                    object.write_json_from(stored::type_prefix_len(bytes, gap), &mut self.out);
                }
                _ => object.write_json(&mut self.out),
            }
            if self.out.len() >= PIECE_BYTES && self.objects.len() > 0 {
                return Some(std::mem::replace(&mut self.out, Vec::with_capacity(PIECE_BYTES * 2)).into());
            }
        }
        self.out.extend_from_slice(b"]}\n");
        Some(std::mem::take(&mut self.out).into())
    }
}

/// The answer to a refused request: a `Status`, in the encoding accepted if that is one of ours.
pub(crate) fn refuse(refusal: &Refusal, accept: &str) -> Response<Body> {
    if refusal.message == errors::PAGE_NOT_FOUND {
        return response(404, "text/plain; charset=utf-8", errors::PAGE_NOT_FOUND);
    }
    // What cannot be negotiated is answered in JSON.
    let encoding = crate::negotiate::negotiate(accept, crate::negotiate::Conversions::Resource, false)
        .map_or(Encoding::Json, |form| form.encoding);
    // Upstream writes it indented, for somebody who does not read JSON by program.
    let pretty = refusal.reason == "NotAcceptable";
    let form = Negotiated { encoding, pretty, ..Negotiated::plain_json() };
    let status = errors::status(refusal);
    let mut response =
        write(refusal.code, &form, status.clone()).unwrap_or_else(|_| json_response(refusal.code, status.to_string()));
    if let Some(seconds) = refusal.details.get("retryAfterSeconds").and_then(Value::as_u64) {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_list_is_whole_however_many_pieces_it_takes() {
        let object = |number: u64| {
            let json = format!("{{\"metadata\":{{\"name\":\"{number}\"}},\"data\":\"{}\"}}", "x".repeat(1000));
            Arc::new(Object::new(String::new(), number.to_string(), number, json.into()))
        };
        for count in [0, 1, 60, 64, 65, 66, 67, 500] {
            let objects: Vec<_> = (0..count).map(object).collect();
            let splice = Splice { out: b"{\"items\":[".to_vec(), objects: objects.into_iter(), first: true };
            let pieces: Vec<_> = splice.collect();
            assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() < 2 * PIECE_BYTES));
            let list: Value = serde_json::from_slice(&pieces.concat()).unwrap();
            let items = list["items"].as_array().unwrap().iter();
            let names: Vec<_> = items.map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
            assert_eq!(names, (0..count).map(|number| number.to_string()).collect::<Vec<_>>());
        }
    }
}
