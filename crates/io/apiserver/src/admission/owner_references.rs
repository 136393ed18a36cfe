//! OwnerReferencesPermissionEnforcement: who makes an object depend on an owner must be allowed to delete the one, and
//! to hold up the deletion of the other.

use super::pod::{items, text};
use super::{Operation, Request};
use crate::authorization::{Attributes, Decision};
use crate::lookup::GroupResource;
use crate::refusal::Refusal;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

const DEFINITIONS: GroupResource = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");

pub(super) fn validate(request: &Request<'_>, new: &Value) -> Result<(), Refusal> {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    let pod_status = request.group.is_empty() && request.resource == "pods" && request.subresource == "status";
    let none = Value::Null;
    let old = request.old.unwrap_or(&none);
    if !writes || pod_status || owners(new).eq(owners(old)) {
        return Ok(());
    }
    if request.operation != Operation::Create {
        let question = Attributes {
            group: request.group,
            version: request.version,
            resource: request.resource,
            subresource: request.subresource,
            namespace: request.namespace,
            name: request.name,
            ..Attributes::new(request.user, "delete")
        };
        if let Some(reason) = refused(request, &question) {
            let why = format!("cannot set an ownerRef on a resource you can't delete: {reason}, <nil>");
            return Err(request.forbidden(new, &why));
        }
    }
    let blocking: Vec<&Value> = owners(new).filter(|owner| newly_blocks(owner, old)).collect();
    let anything = Attributes {
        group: "*",
        version: "*",
        resource: "*",
        subresource: "finalizers",
        name: "*",
        ..Attributes::new(request.user, "update")
    };
    if blocking.is_empty() || refused(request, &anything).is_none() {
        return Ok(());
    }
    blocking.into_iter().try_for_each(|owner| check_owner(request, new, owner))
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    items(&object["metadata"], "ownerReferences")
}

fn newly_blocks(owner: &Value, old: &Value) -> bool {
    let blocked = |owner: &Value| owner["blockOwnerDeletion"] == true;
    blocked(owner) && !owners(old).any(|before| before["uid"] == owner["uid"] && blocked(before))
}

fn refused(request: &Request<'_>, question: &Attributes<'_>) -> Option<String> {
    match request.authorizer.authorize(question, request.lookup) {
        Decision::Allow(_) => None,
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Some(reason),
    }
}

fn check_owner(request: &Request<'_>, new: &Value, owner: &Value) -> Result<(), Refusal> {
    let (api_version, kind) = (text(owner, "apiVersion"), text(owner, "kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let Some((plural, namespaced)) = resource_of(request, group, version, kind) else {
        let why = format!(
            "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {kind}: no matches for kind \"{kind}\" in version \"{api_version}\""
        );
        return Err(request.forbidden(new, &why));
    };
    let question = Attributes {
        group,
        version,
        resource: &plural,
        subresource: "finalizers",
        namespace: if namespaced { request.namespace } else { "" },
        name: text(owner, "name"),
        ..Attributes::new(request.user, "update")
    };
    let Some(reason) = refused(request, &question) else {
        return Ok(());
    };
    let why = format!(
        "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {reason}, <nil>"
    );
    Err(request.forbidden(new, &why))
}

/// The plural of a kind and whether it is namespaced, built-in or custom.
fn resource_of(request: &Request<'_>, group: &str, version: &str, kind: &str) -> Option<(String, bool)> {
    let built_in = api::table::resources().iter().find(|r| r.group == group && r.version == version && r.kind == kind);
    if let Some(resource) = built_in {
        return Some((resource.plural.to_owned(), resource.namespaced));
    }
    let custom = request.list::<CustomResourceDefinition>(DEFINITIONS, "");
    custom
        .iter()
        .find(|definition| definition.spec.group == group && definition.spec.names.kind == kind)
        .map(|definition| (definition.spec.names.plural.clone(), definition.spec.scope == "Namespaced"))
}
