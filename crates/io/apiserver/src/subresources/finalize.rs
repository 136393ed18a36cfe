//! `namespaces/finalize`: takes finalizers out of a namespace's spec; the last one lets it go (upstream
//! `registry/core/namespace` `FinalizeREST`).

use crate::call::{Answer, Call};
use crate::commit::Committed;
use crate::create::expected;
use crate::decode_body;
use crate::errors::{self, Result};
use crate::query::WriteOptions;
use crate::server::ApiServer;
use crate::{respond, stored, update};
use api::meta;

pub(super) async fn finalize(call: &Call<'_>) -> Result<Answer> {
    let options = WriteOptions::parse(call.query, "UpdateOptions", false)?;
    let body = decode_body::body(call, expected(call), options.field_validation)?;
    update::check_name(call, &body)?;
    let name = call.info.name.as_str();
    loop {
        let entry = call.server.current(call, name).await?.ok_or_else(|| call.not_found(name))?;
        let old = respond::tree_of(&entry.object)?;
        let wanted = meta::resource_version(&body);
        if !wanted.is_empty() && wanted != meta::resource_version(&old) {
            return Err(errors::conflict("", "namespaces", name, errors::MODIFIED));
        }
        let mut new = old;
        match body["spec"].get("finalizers") {
            Some(finalizers) => new["spec"]["finalizers"] = finalizers.clone(),
            None => new["spec"] = serde_json::json!({}),
        }
        let spec_empty = new["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        let gone = spec_empty && meta::deletion_timestamp(&new).is_some() && meta::finalizers(&new).next().is_none();
        let bytes = stored::encode(&new);
        let revision = entry.object.revision;
        if options.dry_run {
            return Ok(Answer::Object { code: 200, object: ApiServer::written("", name, revision, bytes) });
        }
        let key = call.key(name);
        let committed = if gone {
            call.server.remove(&key, revision).await?
        } else {
            call.server.put(&key, revision, bytes.clone()).await?
        };
        if let Committed::Done(revision) = committed {
            return Ok(Answer::Object { code: 200, object: ApiServer::written("", name, revision, bytes) });
        }
    }
}
