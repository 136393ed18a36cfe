//! SubjectAccessReview, its local and self forms, and SelfSubjectRulesReview: answered, never stored.

use super::rbac::aggregate;
use super::{Attributes, Authorizer, Decision};
use crate::authentication::User;
use crate::errors;
use crate::lookup::Lookup;
use crate::refusal::Refusal;
use k8s_openapi::api::rbac::v1::PolicyRule;
use schema::field::{ErrorList, Path, invalid, required};
use schema::selector::FieldSelector;
use serde_json::{Value, json};

const GROUP: &str = "authorization.k8s.io";
const ONE_OF: &str = "exactly one of nonResourceAttributes or resourceAttributes must be specified";

/// Answers a SubjectAccessReview, LocalSubjectAccessReview (`namespace` set) or SelfSubjectAccessReview in normal
/// form. `user` is the one who asks.
///
/// # Errors
/// 422 as upstream validates; its text names no kind.
pub fn access_review(
    kind: &str,
    namespace: &str,
    body: &Value,
    user: &User,
    authorizer: &Authorizer,
    lookup: &dyn Lookup,
) -> Result<Value, Refusal> {
    let spec = &body["spec"];
    let errors = validate(kind, body);
    if !errors.is_empty() {
        return Err(errors::invalid(GROUP, "", "", &errors));
    }
    let local = kind == "LocalSubjectAccessReview";
    if local && body["metadata"]["namespace"].as_str().unwrap_or_default() != namespace {
        let why = format!("spec.resourceAttributes.namespace must match namespace: {namespace}");
        return Err(Refusal::bad_request(why));
    }
    let about = if kind == "SelfSubjectAccessReview" { user.clone() } else { subject(spec) };
    let decision = decide(spec, &about, authorizer, lookup);
    let mut status = json!({"allowed": decision.is_allowed()});
    let (Decision::Allow(reason) | Decision::Deny(reason) | Decision::NoOpinion(reason)) = &decision;
    if matches!(decision, Decision::Deny(_)) {
        status["denied"] = true.into();
    }
    if !reason.is_empty() {
        status["reason"] = reason.as_str().into();
    }
    let mut answer = body.clone();
    answer["status"] = status;
    Ok(answer)
}

fn decide(spec: &Value, user: &User, authorizer: &Authorizer, lookup: &dyn Lookup) -> Decision {
    let text = |of: &'static str, field: &str| spec[of][field].as_str().unwrap_or_default();
    let resource = |field: &str| text("resourceAttributes", field);
    let selector = field_selector(&spec["resourceAttributes"]["fieldSelector"]);
    let question = if spec["resourceAttributes"].is_object() {
        let version = Some(resource("version")).filter(|version| !version.is_empty()).unwrap_or("*");
        Attributes {
            group: resource("group"),
            version,
            resource: resource("resource"),
            subresource: resource("subresource"),
            namespace: resource("namespace"),
            name: resource("name"),
            field_selector: selector.as_ref(),
            ..Attributes::new(user, resource("verb"))
        }
    } else {
        let path = text("nonResourceAttributes", "path");
        // An empty path is still no resource.
        let path = if path.is_empty() { "\0" } else { path };
        Attributes { path, ..Attributes::new(user, text("nonResourceAttributes", "verb")) }
    };
    authorizer.authorize(&question, lookup)
}

/// The selector of a review; parts that cannot be understood widen the question, as upstream has it.
fn field_selector(attributes: &Value) -> Option<FieldSelector> {
    if let Some(raw) = attributes["rawSelector"].as_str().filter(|raw| !raw.is_empty()) {
        return FieldSelector::parse(raw).ok();
    }
    let mut selector = FieldSelector::default();
    for requirement in attributes["requirements"].as_array()? {
        let (key, operator) = (requirement["key"].as_str()?, requirement["operator"].as_str()?);
        if let ("In" | "NotIn", Some([value])) = (operator, requirement["values"].as_array().map(Vec::as_slice)) {
            selector.terms.push((key.to_owned(), value.as_str()?.to_owned(), operator == "In"));
        }
    }
    Some(selector)
}

fn subject(spec: &Value) -> User {
    let strings = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
    let extra = spec["extra"].as_object().into_iter().flatten();
    User {
        name: text("user"),
        uid: text("uid"),
        groups: strings(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), strings(values))).collect(),
    }
}

fn validate(kind: &str, body: &Value) -> ErrorList {
    let (spec, path) = (&body["spec"], Path::new("spec"));
    let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut errors = ErrorList::new();
    if resource.is_object() == other.is_object() {
        errors.push(invalid(&path, internal_attributes(other), ONE_OF));
    }
    let self_review = kind == "SelfSubjectAccessReview";
    let empty = |field: &str| spec[field].as_str().is_none_or(str::is_empty);
    if !self_review && empty("user") && spec["groups"].as_array().is_none_or(Vec::is_empty) {
        errors.push(invalid(&path.child("user"), "", "at least one of user or group must be specified"));
    }
    for field in ["fieldSelector", "labelSelector"] {
        validate_selector(&resource[field], &path.child("resourceAttributes").child(field), &mut errors);
    }
    let local = kind == "LocalSubjectAccessReview";
    let metadata = body["metadata"].as_object().into_iter().flatten();
    let allowed = |field: &str| field == "managedFields" || (local && field == "namespace");
    if metadata.into_iter().any(|(field, value)| !allowed(field) && !value.is_null()) {
        let detail = if local { "must be empty except for namespace" } else { "must be empty" };
        errors.push(invalid(&Path::new("metadata"), body["metadata"].clone(), detail));
    }
    if local {
        let named = resource["namespace"].as_str().unwrap_or_default();
        if resource.is_object() && named != body["metadata"]["namespace"].as_str().unwrap_or_default() {
            let path = path.child("resourceAttributes").child("namespace");
            errors.push(invalid(&path, named, "must match metadata.namespace"));
        }
        if other.is_object() {
            let detail = "disallowed on this kind of request";
            errors.push(invalid(&path.child("nonResourceAttributes"), internal_attributes(other), detail));
        }
    }
    errors
}

/// Upstream prints its internal type, whose fields have Go's names.
fn internal_attributes(other: &Value) -> Value {
    if !other.is_object() {
        return Value::Null;
    }
    let text = |field: &str| other[field].as_str().unwrap_or_default();
    json!({"Path": text("path"), "Verb": text("verb")})
}

fn validate_selector(selector: &Value, path: &Path, errors: &mut ErrorList) {
    if !selector.is_object() {
        return;
    }
    let raw = selector["rawSelector"].as_str().unwrap_or_default();
    let listed = selector["requirements"].as_array().map_or(0, Vec::len);
    if !raw.is_empty() && listed > 0 {
        let detail = "may not specified at the same time as requirements";
        errors.push(invalid(&path.child("rawSelector"), raw, detail));
    }
    if raw.is_empty() && listed == 0 {
        let detail = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(required(&path.child("requirements"), &detail));
    }
    for (at, requirement) in selector["requirements"].as_array().into_iter().flatten().enumerate() {
        let path = path.child("requirements").index(at);
        let values = requirement["values"].as_array().map_or(0, Vec::len);
        match requirement["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if values == 0 => {
                errors.push(required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(schema::field::forbidden(&path.child("values"), detail));
            }
            _ => {}
        }
    }
}

/// Answers a SelfSubjectRulesReview for the one who asks.
///
/// # Errors
/// 400 without a namespace.
pub fn rules_review(body: &Value, user: &User, authorizer: &Authorizer, lookup: &dyn Lookup) -> Result<Value, Refusal> {
    let namespace = body["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Refusal::bad_request("no namespace on request"));
    }
    // The privileged group's authorizer tells no rules; it is the role cluster-admin, bound to the group, that shows.
    let (rules, mut errors) = authorizer.rbac.rules_for(user, namespace, lookup);
    let incomplete = super::node::node_of(user).is_some();
    if incomplete {
        errors.insert(0, "node authorizer does not support user rule resolution".to_owned());
    }
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let resource: Vec<Value> = rules.iter().filter(|rule| some(&rule.resources)).map(resource_rule).collect();
    let other: Vec<Value> = rules
        .iter()
        .filter(|rule| some(&rule.non_resource_urls))
        .map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}))
        .collect();
    let mut status = json!({"resourceRules": resource, "nonResourceRules": other, "incomplete": incomplete});
    if !errors.is_empty() {
        status["evaluationError"] = aggregate(&errors).into();
    }
    Ok(json!({
        "kind": "SelfSubjectRulesReview",
        "apiVersion": body["apiVersion"],
        "metadata": {},
        "spec": {},
        "status": status,
    }))
}

fn resource_rule(rule: &PolicyRule) -> Value {
    let mut told = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
    if let Some(names) = rule.resource_names.as_ref().filter(|names| !names.is_empty()) {
        told["resourceNames"] = json!(names);
    }
    told
}
