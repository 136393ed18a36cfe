//! `serviceaccounts/token`: a bound token for an account.

use crate::admission::{self, Operation};
use crate::authentication::token_request;
use crate::call::{Answer, Call};
use crate::decode_body::{self, Expected};
use crate::errors::{self, Result};
use crate::query::WriteOptions;
use crate::server::admission_request;
use crate::world;

pub(super) async fn request(call: &Call<'_>) -> Result<Answer> {
    let options = WriteOptions::parse(call.query, "CreateOptions", false)?;
    let of = api::table::type_of("authentication.k8s.io", "v1", "TokenRequest").ok_or_else(errors::no_such_resource)?;
    let expected = Expected { group: "authentication.k8s.io", version: "v1", kind: "TokenRequest", of };
    let mut body = decode_body::body(call, expected, options.field_validation)?;
    let server = call.server;
    server.caches.fresh().await?;
    let (name, namespace) = (call.info.name.as_str(), call.info.namespace.as_str());
    let request = admission_request(call, Operation::Create, name, namespace, None, options.dry_run);
    call.warn_all(admission::mutate(&request, &mut body)?);
    call.warn_all(admission::validate(&request, &body)?);
    let id = world::uid(&*server.world);
    let tokens = &server.authenticator.tokens;
    let tree = token_request::create(namespace, name, &body, tokens, &server.caches, call.now, id)?;
    Ok(Answer::Tree { code: 201, tree })
}
