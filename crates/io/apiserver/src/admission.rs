//! What the built-in admission plug-ins change and refuse between decoding and storing, one file each.
//!
//! The pipeline calls [`mutate`] before the kind's validation and [`validate`] after it, with the same [`Request`].
//! Plug-ins run in upstream's order (`pkg/kubeapiserver/options/plugins.go`).

mod certificates;
mod default_classes;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod object_in_use;
mod owner_references;
mod pod;
mod pod_resize;
mod pod_security;
mod priority;
mod runtime_class;
mod service_account;
mod taint_nodes;
mod topology_labels;

pub use service_account::waits_for;

use crate::authentication::User;
use crate::authorization::Authorizer;
use crate::lookup::{GroupResource, Lookup};
use crate::metrics::Times;
use crate::refusal::Refusal;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// exec, attach, portforward, proxy
    Connect,
}

/// One write on its way to the store.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub operation: Operation,
    pub group: &'a str,
    pub version: &'a str,
    /// Plural.
    pub resource: &'a str,
    pub kind: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty when a create leaves it to `generateName`.
    pub name: &'a str,
    pub user: &'a User,
    /// The stored object on update and delete.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    pub lookup: &'a dyn Lookup,
    /// Where the plug-ins' durations are kept.
    pub times: &'a Times,
    /// For plug-ins that ask what the user may do.
    pub authorizer: &'a Authorizer,
    pub now: Timestamp,
    /// Fresh for each request; names that need chance are drawn from it.
    pub random: u64,
}

impl Request<'_> {
    /// Whether it concerns the resource itself, not a subresource.
    fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.group == group && self.resource == resource
    }

    /// `pods "x" is forbidden: WHY`; before a create has a name its object's is told.
    fn forbidden(&self, object: &Value, why: &str) -> Refusal {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let name = [self.name, text("name"), text("generateName")].into_iter().find(|name| !name.is_empty());
        Refusal::forbidden(self.group, self.resource, name.unwrap_or_default(), why)
    }

    fn get<K: DeserializeOwned + Send + Sync + 'static>(
        &self,
        resource: GroupResource,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<K>> {
        self.lookup.get(resource, namespace, name)?.typed::<K>().ok()
    }

    fn list<K: DeserializeOwned + Send + Sync + 'static>(
        &self,
        resource: GroupResource,
        namespace: &str,
    ) -> Vec<Arc<K>> {
        self.lookup.list(resource, namespace).iter().filter_map(|object| object.typed::<K>().ok()).collect()
    }
}

/// Changes `new` (`Null` on delete and connect) and gives `Warning:` texts.
///
/// # Errors
/// The first plug-in's refusal.
pub fn mutate(request: &Request<'_>, new: &mut Value) -> Result<Vec<String>, Refusal> {
    let mut laps = request.times.laps("admit", request.operation);
    laps.judged("NamespaceLifecycle", namespace_lifecycle::check(request, new))?;
    limit_ranger::mutate(request, new);
    laps.done("LimitRanger");
    laps.judged("ServiceAccount", service_account::mutate(request, new))?;
    laps.judged("NodeRestriction", node_restriction::check(request, new))?;
    taint_nodes::mutate(request, new);
    laps.done("TaintNodesByCondition");
    laps.judged("Priority", priority::mutate(request, new))?;
    default_toleration_seconds::mutate(request, new);
    laps.done("DefaultTolerationSeconds");
    default_classes::storage(request, new);
    laps.done("DefaultStorageClass");
    object_in_use::mutate(request, new);
    laps.done("StorageObjectInUseProtection");
    laps.judged("RuntimeClass", runtime_class::mutate(request, new))?;
    certificates::mutate(request, new);
    laps.done("CertificateSigning");
    default_classes::ingress(request, new);
    laps.done("DefaultIngressClass");
    topology_labels::mutate(request, new);
    laps.done("PodTopologyLabels");
    Ok(Vec::new())
}

/// Judges the object as it will be stored and gives `Warning:` texts.
///
/// # Errors
/// The first plug-in's refusal.
pub fn validate(request: &Request<'_>, new: &Value) -> Result<Vec<String>, Refusal> {
    let mut laps = request.times.laps("validate", request.operation);
    laps.judged("LimitRanger", limit_ranger::validate(request, new))?;
    laps.judged("ServiceAccount", service_account::validate(request, new))?;
    let warnings = laps.judged("PodSecurity", pod_security::validate(request, new))?;
    laps.judged("Priority", priority::validate(request, new))?;
    laps.judged("OwnerReferencesPermissionEnforcement", owner_references::validate(request, new))?;
    laps.judged("RuntimeClass", runtime_class::validate(request, new))?;
    laps.judged("PodResize", pod_resize::validate(request, new))?;
    laps.judged("CertificateSigning", certificates::validate(request, new))?;
    Ok(warnings)
}

#[cfg(test)]
mod tests;
