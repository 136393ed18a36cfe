//! An answer in the form that the client accepts: JSON, YAML or protobuf; itself, as a Table or metadata only.

use crate::body::Body;
use crate::call::{Answer, Call, List};
use crate::convert;
use crate::errors::{self, Result};
use crate::negotiate::{Encoding, Negotiated, Target};
use crate::refusal::Refusal;
use crate::{partial, stored, table_form, yaml};
use api::object::Object;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

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
        Answer::List(list) => respond_list(call, form, &list),
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
    let mut response = Response::new(Body::Full(bytes.into()));
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

fn respond_list(call: &Call<'_>, form: &Negotiated, list: &List) -> Result<Response<Body>> {
    let mut metadata = json!({"resourceVersion": list.revision.to_string()});
    if !list.continue_token.is_empty() {
        metadata["continue"] = list.continue_token.as_str().into();
        if let Some(remaining) = list.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    match &form.target {
        Target::Itself if form.encoding == Encoding::Json && call.resource.stored && !form.pretty => {
            Ok(json_response(200, splice_list(call, list, &metadata)))
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
fn splice_list(call: &Call<'_>, list: &List, metadata: &Value) -> Vec<u8> {
    let length: usize = list.objects.iter().map(|object| object.len_bytes()).sum();
    let mut out = Vec::with_capacity(length + 256);
    let (kind, api_version) = (call.resource.kind, call.resource.api_version());
    out.extend_from_slice(
        format!("{{\"kind\":\"{kind}List\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[")
            .as_bytes(),
    );
    for (index, object) in list.objects.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match object.parts() {
            (bytes, Some(gap)) => {
                out.push(b'{');
                object.write_json_from(stored::type_prefix_len(bytes, gap), &mut out);
            }
            _ => object.write_json(&mut out),
        }
    }
    out.extend_from_slice(b"]}\n");
    out
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
