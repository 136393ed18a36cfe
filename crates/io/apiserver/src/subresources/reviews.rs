//! Access, token and self reviews: questions in the form of a create.

use crate::authentication::reviews;
use crate::authorization::reviews as access;
use crate::call::{Answer, Call};
use crate::create::expected;
use crate::decode_body;
use crate::errors::{self, Result};
use crate::query::WriteOptions;

pub(super) async fn review(call: &Call<'_>) -> Result<Answer> {
    let options = WriteOptions::parse(call.query, "CreateOptions", false)?;
    let body = decode_body::body(call, expected(call), options.field_validation)?;
    let server = call.server;
    server.caches.fresh().await?;
    let (lookup, authorizer) = (&server.caches, &server.authorizer);
    let kind = call.resource.kind;
    let tree = match kind {
        "TokenReview" => reviews::token_review(&body, &server.authenticator.tokens, lookup, call.now)?,
        "SelfSubjectReview" => reviews::self_subject_review(&call.resource.api_version(), call.user, call.now),
        "SelfSubjectRulesReview" => access::rules_review(&body, call.user, authorizer, lookup)?,
        "SubjectAccessReview" | "SelfSubjectAccessReview" | "LocalSubjectAccessReview" => {
            access::access_review(kind, &call.info.namespace, &body, call.user, authorizer, lookup)?
        }
        other => return Err(errors::not_supported(other)),
    };
    Ok(Answer::Tree { code: 201, tree })
}
