//! `pods/binding` and `bindings`: a Pod gets its node, once (upstream `registry/core/pod/storage` `BindingREST`).

use crate::admission::{self, Operation};
use crate::call::{Answer, Call};
use crate::commit::Committed;
use crate::decode_body::{self, Expected};
use crate::errors::{self, Result};
use crate::query::WriteOptions;
use crate::refusal::Refusal;
use crate::server::{self, ApiServer};
use crate::{create, respond, stored, world};
use api::meta;
use serde_json::{Value, json};

pub(super) async fn bind(call: &Call<'_>) -> Result<Answer> {
    let options = WriteOptions::parse(call.query, "CreateOptions", false)?;
    let of = api::table::type_of("", "v1", "Binding").ok_or_else(errors::no_such_resource)?;
    let expected = Expected { group: "", version: "v1", kind: "Binding", of };
    let mut binding = decode_body::body(call, expected, options.field_validation)?;
    create::ensure_namespace(&mut binding, &call.info.namespace)?;
    let name = name(call, &binding)?;
    let request =
        server::admission_request(call, Operation::Create, &name, &call.info.namespace, None, options.dry_run);
    call.warn_all(admission::mutate(&request, &mut binding)?);
    validate(&binding)?;
    call.warn_all(admission::validate(&request, &binding)?);
    assign(call, &name, &binding, &options).await?;
    let tree = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Answer::Tree { code: 201, tree })
}

fn name(call: &Call<'_>, binding: &Value) -> Result<String> {
    let own = meta::name(binding);
    if call.info.name.is_empty() {
        return Ok(own.to_owned());
    }
    if !own.is_empty() && own != call.info.name {
        return Err(Refusal::bad_request("name in URL does not match name in Binding object"));
    }
    Ok(call.info.name.clone())
}

/// Upstream's validation of bindings; it answers 500 without a reason.
fn validate(binding: &Value) -> Result<()> {
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    if !matches!(kind, "" | "Node") {
        found.push(format!(
            "target.kind: Unsupported value: {}: supported values: \"Node\", \"<empty>\"",
            errors::quoted(kind)
        ));
    }
    if binding["target"]["name"].as_str().unwrap_or_default().is_empty() {
        found.push("target.name: Required value".to_owned());
    }
    match found.len() {
        0 => Ok(()),
        1 => Err(errors::plain(found.remove(0))),
        _ => Err(errors::plain(format!("[{}]", found.join(", ")))),
    }
}

async fn assign(call: &Call<'_>, name: &str, binding: &Value, options: &WriteOptions) -> Result<()> {
    let caches = &call.server.caches;
    let pods = api::resource::find("", "v1", "pods").ok_or_else(errors::no_such_resource)?;
    let cache = caches.of(pods).ok_or_else(errors::no_such_resource)?;
    let key = pods.key(&call.info.namespace, name);
    loop {
        caches.fresh().await?;
        let entry = cache.get(&key).ok_or_else(|| Refusal::not_found("", "pods", name))?;
        let mut pod = respond::tree_of(&entry.object)?;
        check(&pod, binding, name)?;
        set(call, &mut pod, binding);
        let bytes = stored::encode(&pod);
        if options.dry_run {
            return Ok(());
        }
        match call.server.put(&key, entry.object.revision, bytes.clone()).await? {
            Committed::Done(revision) => {
                let _ = ApiServer::written(&call.info.namespace, name, revision, bytes);
                return Ok(());
            }
            Committed::Moved => {}
        }
    }
}

fn check(pod: &Value, binding: &Value, name: &str) -> Result<()> {
    let conflict = |why: &str| Err(errors::conflict("", "pods/binding", name, why));
    let uid = meta::uid(binding);
    if !uid.is_empty() && uid != meta::uid(pod) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta::uid(pod));
        return conflict(&why);
    }
    if meta::deletion_timestamp(pod).is_some() {
        return conflict(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if !node.is_empty() {
        return conflict(&format!("pod {name} is already assigned to node {}", errors::quoted(node)));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return conflict(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    Ok(())
}

fn set(call: &Call<'_>, pod: &mut Value, binding: &Value) {
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for map in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][map].as_object().into_iter().flatten() {
            pod["metadata"][map][key.as_str()] = value.clone();
        }
    }
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": world::rfc3339(call.now),
    });
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(condition);
    }
}
