//! Who may do what: `system:masters`, the Node authorizer, RBAC, in this order.

pub mod escalation;
pub mod node;
pub mod rbac;
pub mod reviews;

use crate::authentication::{MASTERS, User};
use crate::lookup::Lookup;
use crate::refusal::Refusal;
use schema::selector::FieldSelector;

/// One question to the authorizers. Either `path` is set (a non-resource request) or `resource` and its company.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    pub user: &'a User,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or for a path the HTTP
    /// method in lower case.
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// `/healthz`; empty for a resource request.
    pub path: &'a str,
    /// The request's field selector, where a rule looks at it (nodes may list their own Pods only).
    pub field_selector: Option<&'a FieldSelector>,
}

impl<'a> Attributes<'a> {
    /// A question with only user and verb; fill in the rest with `..`.
    pub fn new(user: &'a User, verb: &'a str) -> Self {
        Self {
            user,
            verb,
            group: "",
            version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            field_selector: None,
        }
    }

    /// `pods/status`, as rules name it.
    pub fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// What an authorizer says. The texts are what a SubjectAccessReview prints as `status.reason`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    Deny(String),
    NoOpinion(String),
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// The chain of authorizers with what they keep between requests.
#[derive(Default)]
pub struct Authorizer {
    pub rbac: rbac::Rbac,
    pub node: node::NodeAuthorizer,
}

impl Authorizer {
    pub fn authorize(&self, attributes: &Attributes<'_>, lookup: &dyn Lookup) -> Decision {
        if attributes.user.is_in(MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for (name, decision) in
            [("node", self.node.authorize(attributes, lookup)), ("rbac", self.rbac.authorize(attributes, lookup))]
        {
            match decision {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(format!("{name}: {reason}")),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// `Ok` or the 403 that the client reads (upstream `responsewriters.Forbidden`).
    pub fn check(&self, attributes: &Attributes<'_>, lookup: &dyn Lookup) -> Result<(), Refusal> {
        match self.authorize(attributes, lookup) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(attributes, &reason)),
        }
    }
}

/// The 403 of a request that nobody allowed: `pods is forbidden: User "x" cannot list resource "pods" in API group ""
/// in the namespace "y"`.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Refusal {
    let mut why = describe(attributes);
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    Refusal::forbidden(attributes.group, attributes.resource, attributes.name, &why)
}

fn describe(attributes: &Attributes<'_>) -> String {
    let user = go_quoted(&attributes.user.name);
    if !attributes.path.is_empty() {
        return format!("User {user} cannot {} path \"{}\"", attributes.verb, attributes.path);
    }
    let scope = if attributes.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", attributes.namespace)
    };
    let resource = attributes.full_resource();
    let (verb, group) = (attributes.verb, attributes.group);
    format!("User {user} cannot {verb} resource \"{resource}\" in API group \"{group}\" {scope}")
}

/// Go's `%q` for names as they occur.
pub(crate) fn go_quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
