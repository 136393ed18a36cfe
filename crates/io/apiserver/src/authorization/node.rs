//! The Node authorizer: a kubelet reaches what its own Pods need (upstream `plugin/pkg/auth/authorizer/node`).
//!
//! Upstream keeps a graph; here the Pods of the asked namespace are looked at, which are shared, typed objects.

mod references;

use super::rbac::allows;
use super::{Attributes, Decision};
use crate::authentication::User;
use crate::lookup::{GroupResource, Lookup};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use references::Reference;
use std::sync::Arc;

const PODS: GroupResource = GroupResource::new("", "pods");
const VOLUMES: GroupResource = GroupResource::new("", "persistentvolumes");
const ATTACHMENTS: GroupResource = GroupResource::new("storage.k8s.io", "volumeattachments");

/// Keeps the rules that hold for every node alike: those of the ClusterRole `system:node`.
pub struct NodeAuthorizer {
    rules: Vec<PolicyRule>,
}

impl Default for NodeAuthorizer {
    fn default() -> Self {
        Self { rules: crate::bootstrap::cluster_role_rules("system:node") }
    }
}

/// The node that a user of the group `system:nodes` is.
pub fn node_of(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.is_in("system:nodes"))
}

fn no(why: impl Into<String>) -> Decision {
    Decision::NoOpinion(why.into())
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

impl NodeAuthorizer {
    pub fn authorize(&self, attributes: &Attributes<'_>, lookup: &dyn Lookup) -> Decision {
        let Some(node) = node_of(attributes.user) else {
            return no("");
        };
        if node.is_empty() {
            return no(format!("unknown node for user {:?}", attributes.user.name));
        }
        let asked = Asked { node, attributes, lookup };
        match (attributes.group, attributes.resource) {
            ("", "secrets") => asked.read(Reference::Secret),
            ("", "configmaps") => asked.read(Reference::ConfigMap),
            ("", "persistentvolumeclaims") if attributes.subresource == "status" => asked.claim_status(),
            ("", "persistentvolumeclaims") => asked.get(Reference::Claim),
            ("", "persistentvolumes") => asked.get_other(|asked| asked.has_volume()),
            ("resource.k8s.io", "resourceclaims") => asked.get(Reference::ResourceClaim),
            ("storage.k8s.io", "volumeattachments") => asked.get_other(|asked| asked.has_attachment()),
            ("", "serviceaccounts") => asked.service_account(),
            ("coordination.k8s.io", "leases") => asked.lease(),
            ("storage.k8s.io", "csinodes") => asked.csi_node(),
            ("", "nodes") => asked.node(),
            ("", "pods") => asked.pod(),
            // Neither slices nor Pod certificates have a component here that a node would write them for.
            ("resource.k8s.io", "resourceslices") | ("certificates.k8s.io", "podcertificaterequests") => asked.scoped(),
            _ if self.rules.iter().any(|rule| allows(rule, attributes)) => yes(),
            _ => no(""),
        }
    }
}

struct Asked<'a> {
    node: &'a str,
    attributes: &'a Attributes<'a>,
    lookup: &'a dyn Lookup,
}

impl Asked<'_> {
    fn verb_is(&self, verbs: &[&str]) -> bool {
        verbs.contains(&self.attributes.verb)
    }

    fn related(&self, found: bool) -> Decision {
        if self.attributes.name.is_empty() {
            return no("No Object name found");
        }
        if found { yes() } else { no(format!("no relationship found between node '{}' and this object", self.node)) }
    }

    /// Pods of the asked namespace that are bound to this node, mirror Pods left out: they refer to nothing.
    fn pods(&self, namespace: &str) -> impl Iterator<Item = Arc<Pod>> {
        let objects = self.lookup.list(PODS, namespace);
        objects.into_iter().filter_map(|object| object.typed::<Pod>().ok()).filter(|pod| {
            let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(self.node);
            bound && !references::is_mirror(pod)
        })
    }

    fn refers(&self, to: Reference) -> bool {
        let name = self.attributes.name;
        !name.is_empty() && self.pods(self.attributes.namespace).any(|pod| references::refers(&pod, to, name))
    }

    fn read(&self, to: Reference) -> Decision {
        if !self.verb_is(&["get", "list", "watch"]) {
            return no("can only read resources of this type");
        }
        if !self.attributes.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if self.attributes.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(self.refers(to))
    }

    fn get(&self, to: Reference) -> Decision {
        self.get_other(|asked| asked.refers(to))
    }

    fn get_other(&self, found: impl Fn(&Self) -> bool) -> Decision {
        if !self.verb_is(&["get"]) {
            return no("can only get individual resources of this type");
        }
        if !self.attributes.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(found(self))
    }

    fn claim_status(&self) -> Decision {
        if !self.verb_is(&["update", "patch"]) {
            return no("can only get/update/patch this type");
        }
        self.related(self.refers(Reference::Claim))
    }

    fn has_volume(&self) -> bool {
        let Some(object) = self.lookup.get(VOLUMES, "", self.attributes.name) else {
            return false;
        };
        let Ok(volume) = object.typed::<PersistentVolume>() else {
            return false;
        };
        let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let Some((namespace, name)) = claim.and_then(|claim| Some((claim.namespace.as_ref()?, claim.name.as_ref()?)))
        else {
            return false;
        };
        self.pods(namespace).any(|pod| references::refers(&pod, Reference::Claim, name))
    }

    fn has_attachment(&self) -> bool {
        let found = self.lookup.get(ATTACHMENTS, "", self.attributes.name);
        let found = found.and_then(|object| object.typed::<VolumeAttachment>().ok());
        found.is_some_and(|attachment| attachment.spec.node_name == self.node)
    }

    fn service_account(&self) -> Decision {
        if self.verb_is(&["get"]) && self.attributes.subresource.is_empty() {
            return self.read(Reference::ServiceAccount);
        }
        if !self.verb_is(&["create"]) || self.attributes.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if self.attributes.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(self.refers(Reference::ServiceAccount))
    }

    fn lease(&self) -> Decision {
        if !self.verb_is(&["get", "create", "update", "patch", "delete"]) {
            return no("can only get, create, update, patch, or delete a node lease");
        }
        if self.attributes.namespace != "kube-node-lease" {
            return no("can only access leases in the \"kube-node-lease\" system namespace");
        }
        // The name of a new lease is NodeRestriction's to check.
        if !self.verb_is(&["create"]) && self.attributes.name != self.node {
            return no("can only access node lease with the same name as the requesting node");
        }
        yes()
    }

    fn csi_node(&self) -> Decision {
        if !self.attributes.subresource.is_empty() {
            return no("cannot authorize CSINode subresources");
        }
        if !self.verb_is(&["get", "create", "update", "patch", "delete"]) {
            return no("can only get, create, update, patch, or delete a CSINode");
        }
        if !self.verb_is(&["create"]) && self.attributes.name != self.node {
            return no("can only access CSINode with the same name as the requesting node");
        }
        yes()
    }

    /// What a node writes is NodeRestriction's to check.
    fn node(&self) -> Decision {
        let node = self.node;
        match self.attributes.subresource {
            "" if self.verb_is(&["create", "update", "patch"]) => yes(),
            "" if self.verb_is(&["get", "list", "watch"]) => match self.attributes.name {
                name if name == node => yes(),
                "" => no(format!("node '{node}' cannot read all nodes, only its own Node object")),
                name => no(format!("node '{node}' cannot read '{name}', only its own Node object")),
            },
            "status" if self.verb_is(&["update", "patch"]) => yes(),
            _ => no(""),
        }
    }

    fn pod(&self) -> Decision {
        let name = self.attributes.name;
        let own = || {
            let pod = self.lookup.get(PODS, self.attributes.namespace, name);
            let pod = pod.and_then(|object| object.typed::<Pod>().ok());
            pod.is_some_and(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(self.node))
        };
        match self.attributes.subresource {
            "" if self.verb_is(&["get"]) => self.related(own()),
            "" if self.verb_is(&["list", "watch"]) => {
                if self.selects("spec.nodeName") {
                    yes()
                } else if name.is_empty() {
                    no("can only list/watch pods with spec.nodeName field selector")
                } else {
                    self.related(own())
                }
            }
            "" if self.verb_is(&["create", "delete"]) => yes(),
            "status" if self.verb_is(&["update", "patch"]) => yes(),
            "eviction" if self.verb_is(&["create"]) => yes(),
            _ => no(""),
        }
    }

    /// Whether the field selector asks for this node's objects only.
    fn selects(&self, field: &str) -> bool {
        let terms = self.attributes.field_selector.map_or(&[][..], |selector| &selector.terms);
        terms.iter().any(|(of, value, equal)| of == field && *equal && value == self.node)
    }

    fn scoped(&self) -> Decision {
        if !self.attributes.subresource.is_empty() {
            return no("cannot authorize subresources of this type");
        }
        match self.attributes.verb {
            "create" => yes(),
            "list" | "watch" | "deletecollection" if self.selects("spec.nodeName") => yes(),
            _ => no("can only list/watch objects of this type with spec.nodeName field selector"),
        }
    }
}
