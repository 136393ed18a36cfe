//! NamespaceLifecycle: nothing is made in a namespace that is not there or ends; three namespaces never end.

use super::{Operation, Request};
use crate::lookup::GroupResource;
use crate::refusal::Refusal;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::Value;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
const NAMESPACES: GroupResource = GroupResource::new("", "namespaces");

pub(super) fn check(request: &Request<'_>, new: &Value) -> Result<(), Refusal> {
    let of_namespaces = request.group.is_empty() && request.resource == "namespaces";
    if of_namespaces {
        if request.operation == Operation::Delete && IMMORTAL.contains(&request.name) {
            return Err(request.forbidden(new, "this namespace may not be deleted"));
        }
        return Ok(());
    }
    // Saying that a namespace is missing would tell those who may only ask for their own rights.
    let review = request.group == "authorization.k8s.io" && request.resource == "localsubjectaccessreviews";
    if request.namespace.is_empty() || request.operation != Operation::Create || review {
        return Ok(());
    }
    let Some(namespace) = request.get::<Namespace>(NAMESPACES, "", request.namespace) else {
        return Err(Refusal::not_found("", "namespaces", request.namespace));
    };
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase != Some("Terminating") {
        return Ok(());
    }
    let name = request.namespace;
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let cause = format!("namespace {name} is being terminated");
    Err(request.forbidden(new, &why).with_cause("NamespaceTerminating", &cause, "metadata.namespace"))
}
