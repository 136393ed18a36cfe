//! `POST serviceaccounts/NAME/token` (upstream `registry/core/serviceaccount/storage/token.go`).

use super::tokens::{Bound, Claims, ISSUER, Reference, Tokens};
use crate::errors;
use crate::lookup::{GroupResource, Lookup};
use crate::refusal::Refusal;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use schema::field::{Path, invalid};
use serde_json::{Value, json};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
const MIN_EXPIRATION_S: i64 = 600;
const MAX_EXPIRATION_S: i64 = 1 << 32;
/// What the projected token volume asks for: such Pod tokens live longer than they say (upstream's safe rollout).
const EXTENDED_ASKED_S: i64 = 3607;
const EXTENDED_S: i64 = 365 * 24 * 3600;

/// Answers a TokenRequest in normal form for the service account of the path. `token_id` is a fresh UUID.
///
/// # Errors
/// 404 without account or bound object, 409 for another uid, 422 and 400 as upstream.
pub fn create(
    namespace: &str,
    name: &str,
    body: &Value,
    tokens: &Tokens,
    lookup: &dyn Lookup,
    now: Timestamp,
    token_id: String,
) -> Result<Value, Refusal> {
    check_address(namespace, name, body)?;
    let account = lookup
        .get(GroupResource::new("", "serviceaccounts"), namespace, name)
        .ok_or_else(|| Refusal::not_found("", "serviceaccounts", name))?
        .typed::<ServiceAccount>()
        .map_err(|problem| Refusal::internal(problem.to_string()))?;
    let uid = account.metadata.uid.clone().unwrap_or_default();
    let asked_uid = body["metadata"]["uid"].as_str().unwrap_or_default();
    if !asked_uid.is_empty() && asked_uid != uid {
        let why =
            format!("the UID in the token request ({asked_uid}) does not match the UID of the service account ({uid})");
        return Err(errors::conflict(GROUP, KIND, name, &why));
    }
    let mut answer = body.clone();
    let asked: Vec<String> = strings(&body["spec"]["audiences"]);
    let audiences = if asked.is_empty() { vec![ISSUER.to_owned()] } else { asked };
    let expiration_s = body["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    check_spec(body, expiration_s)?;
    let bound = bind(
        &Bound {
            namespace: namespace.to_owned(),
            serviceaccount: Reference { name: name.to_owned(), uid: uid.clone() },
            ..Bound::default()
        },
        body,
        lookup,
    )?;

    let mut claims = Claims {
        aud: audiences.clone(),
        exp: now.as_second() + expiration_s,
        iat: now.as_second(),
        iss: ISSUER.to_owned(),
        jti: token_id,
        kubernetes: bound,
        nbf: now.as_second(),
        sub: super::service_account::user_name(namespace, name),
    };
    let for_us = audiences.iter().all(|audience| audience == ISSUER);
    if for_us && claims.kubernetes.pod.is_some() && expiration_s == EXTENDED_ASKED_S {
        claims.kubernetes.warnafter = Some(claims.exp);
        claims.exp = claims.iat + EXTENDED_S;
    }
    let token =
        tokens.sign(&claims).map_err(|problem| Refusal::internal(format!("failed to generate token: {problem}")))?;
    if !answer["metadata"].is_object() {
        answer["metadata"] = json!({});
    }
    let metadata = &mut answer["metadata"];
    metadata["name"] = name.into();
    metadata["namespace"] = namespace.into();
    metadata["uid"] = uid.into();
    metadata["creationTimestamp"] = seconds(now).into();
    if !answer["spec"].is_object() {
        answer["spec"] = json!({});
    }
    let spec = &mut answer["spec"];
    spec["audiences"] = json!(audiences);
    spec["expirationSeconds"] = expiration_s.into();
    if spec.get("boundObjectRef").is_none() {
        spec["boundObjectRef"] = Value::Null;
    }
    let until = now.saturating_add(SignedDuration::from_secs(expiration_s)).unwrap_or(now);
    answer["status"] = json!({"token": token, "expirationTimestamp": seconds(until)});
    Ok(answer)
}

fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn check_address(namespace: &str, name: &str, body: &Value) -> Result<(), Refusal> {
    for (field, wanted, what) in [("name", name, "name"), ("namespace", namespace, "namespace")] {
        let given = body["metadata"][field].as_str().unwrap_or_default();
        if !given.is_empty() && given != wanted {
            let path = Path::new("metadata").child(field);
            let error = invalid(&path, given, &format!("must match the service account {what} if specified"));
            return Err(errors::invalid(GROUP, KIND, name, &vec![error]));
        }
    }
    Ok(())
}

fn check_spec(body: &Value, expiration_s: i64) -> Result<(), Refusal> {
    let path = Path::new("spec");
    let mut found = Vec::new();
    if expiration_s < MIN_EXPIRATION_S {
        let detail = "may not specify a duration less than 10 minutes";
        found.push(invalid(&path.child("expirationSeconds"), expiration_s, detail));
    }
    if expiration_s > MAX_EXPIRATION_S {
        let detail = "may not specify a duration larger than 2^32 seconds";
        found.push(invalid(&path.child("expirationSeconds"), expiration_s, detail));
    }
    let attestations = &body["spec"]["attestations"];
    if attestations.as_object().is_some_and(|all| !all.is_empty()) {
        let detail = "attestations may only be specified with a webhook bound object reference";
        found = vec![invalid(&path.child("attestations"), attestations.clone(), detail)];
    }
    if found.is_empty() { Ok(()) } else { Err(errors::invalid(GROUP, KIND, "", &found)) }
}

/// The claims of the object that the request binds its token to.
fn bind(account: &Bound, body: &Value, lookup: &dyn Lookup) -> Result<Bound, Refusal> {
    let mut bound = account.clone();
    let reference = &body["spec"]["boundObjectRef"];
    if !reference.is_object() {
        return Ok(bound);
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (kind, name, api_version) = (text("kind"), text("name"), text("apiVersion"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let plural = match (group, kind) {
        ("", "Pod") => "pods",
        ("", "Node") => "nodes",
        ("", "Secret") => "secrets",
        _ => {
            let of = format!("{group}/{version}, Kind={kind}");
            return Err(Refusal::bad_request(format!("cannot bind token to object of type {of}")));
        }
    };
    let namespace = if plural == "nodes" { "" } else { account.namespace.as_str() };
    let object = lookup
        .get(GroupResource::new("", plural), namespace, name)
        .ok_or_else(|| Refusal::not_found("", plural, name))?;
    let broken = |problem: serde_json::Error| Refusal::internal(problem.to_string());
    let uid = match plural {
        "pods" => {
            let pod = object.typed::<Pod>().map_err(broken)?;
            bind_pod(&pod, &account.serviceaccount.name, lookup, &mut bound)?
        }
        "nodes" => object.typed::<Node>().map_err(broken)?.metadata.uid.clone().unwrap_or_default(),
        _ => object.typed::<Secret>().map_err(broken)?.metadata.uid.clone().unwrap_or_default(),
    };
    let wanted = text("uid");
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(errors::conflict(group, kind, name, &why));
    }
    let reference = Some(Reference { name: name.to_owned(), uid });
    match plural {
        "pods" => bound.pod = reference,
        "nodes" => bound.node = reference,
        _ => bound.secret = reference,
    }
    Ok(bound)
}

/// A Pod's token names its node, too. Gives the Pod's uid.
fn bind_pod(pod: &Pod, account: &str, lookup: &dyn Lookup, bound: &mut Bound) -> Result<String, Refusal> {
    let spec = pod.spec.clone().unwrap_or_default();
    if spec.service_account_name.as_deref() != Some(account) {
        return Err(Refusal::bad_request(format!(
            "cannot bind token for serviceaccount \"{account}\" to pod running with different serviceaccount name."
        )));
    }
    if let Some(node) = spec.node_name.filter(|node| !node.is_empty()) {
        let found = lookup.get(GroupResource::new("", "nodes"), "", &node).and_then(|o| o.typed::<Node>().ok());
        let uid = found.and_then(|node| node.metadata.uid.clone()).unwrap_or_default();
        bound.node = Some(Reference { name: node, uid });
    }
    Ok(pod.metadata.uid.clone().unwrap_or_default())
}
