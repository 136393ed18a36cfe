//! CertificateSigningRequests: who asks is told by the request's own identity, and who approves or signs must be allowed
//! to for that signer (upstream `plugin/pkg/admission/certificates` and `registry/certificates`).

use super::{Operation, Request};
use crate::authentication::MASTERS;
use crate::authorization::Attributes;
use crate::pki::requests::{CLIENT_SIGNER, SigningRequest};
use crate::refusal::Refusal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";

pub(super) fn mutate(request: &Request<'_>, new: &mut Value) {
    if !request.is(GROUP, REQUESTS) || request.operation != Operation::Create || !new["spec"].is_object() {
        return;
    }
    let user = request.user;
    let spec = &mut new["spec"];
    spec["username"] = json!(user.name);
    spec["groups"] = json!(user.groups);
    for (field, value) in [
        ("uid", (!user.uid.is_empty()).then(|| json!(user.uid))),
        ("extra", (!user.extra.is_empty()).then(|| json!(user.extra))),
    ] {
        match (value, spec.as_object_mut()) {
            (Some(value), Some(spec)) => drop(spec.insert(field.to_owned(), value)),
            (None, Some(spec)) => drop(spec.remove(field)),
            (_, None) => {}
        }
    }
}

pub(super) fn validate(request: &Request<'_>, new: &Value) -> Result<(), Refusal> {
    if request.group != GROUP || request.resource != REQUESTS {
        return Ok(());
    }
    match (request.operation, request.subresource) {
        (Operation::Create, "") => subject(request, new),
        (Operation::Update, "approval") => signer(request, new, "approve"),
        (Operation::Update, "status") if request.old.is_none_or(|old| changes(old, new)) => {
            signer(request, new, "sign")
        }
        _ => Ok(()),
    }
}

fn changes(old: &Value, new: &Value) -> bool {
    ["certificate", "conditions"].iter().any(|field| old["status"][*field] != new["status"][*field])
}

/// Nobody becomes an administrator by a signature.
fn subject(request: &Request<'_>, new: &Value) -> Result<(), Refusal> {
    if new["spec"]["signerName"] != CLIENT_SIGNER {
        return Ok(());
    }
    let pem = STANDARD.decode(new["spec"]["request"].as_str().unwrap_or_default()).unwrap_or_default();
    let parsed = SigningRequest::parse(&pem)
        .map_err(|problem| request.forbidden(new, &format!("failed to parse CSR: {problem}")))?;
    if parsed.organizations.iter().any(|group| group == MASTERS) {
        let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
        return Err(request.forbidden(new, &why));
    }
    Ok(())
}

/// The user must hold the verb on the signer of the stored request, or on its whole domain (`example.com/*`).
fn signer(request: &Request<'_>, new: &Value, verb: &str) -> Result<(), Refusal> {
    let name = request.old.map_or(&Value::Null, |old| &old["spec"]["signerName"]).as_str().unwrap_or_default();
    let domain = name.split_once('/').map(|(domain, _)| format!("{domain}/*")).unwrap_or_default();
    let allowed = [name, &domain].into_iter().filter(|name| !name.is_empty()).any(|name| {
        let mut attributes = Attributes::new(request.user, verb);
        (attributes.group, attributes.version) = (GROUP, "*");
        (attributes.resource, attributes.name) = ("signers", name);
        request.authorizer.authorize(&attributes, request.lookup).is_allowed()
    });
    if allowed {
        return Ok(());
    }
    Err(request.forbidden(new, &format!("user not permitted to {verb} requests with signerName {name:?}")))
}
