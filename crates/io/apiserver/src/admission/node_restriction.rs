//! NodeRestriction: a kubelet writes only its own Node, its own Pods and what belongs to them.

use super::pod::{self, all_containers, items, text};
use super::{Operation, Request};
use crate::authorization::node::node_of;
use crate::authorization::{Attributes, go_quoted};
use crate::lookup::GroupResource;
use crate::refusal::Refusal;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::Value;
use std::collections::BTreeSet;

const PODS: GroupResource = GroupResource::new("", "pods");
const NODES: GroupResource = GroupResource::new("", "nodes");

/// Labels below `kubernetes.io` and `k8s.io` that a kubelet may set on its Node (upstream `IsKubeletLabel`).
const KUBELET_LABELS: [&str; 13] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
    "node.kubernetes.io/exclude-from-external-load-balancers",
];
const KUBELET_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub(super) fn check(request: &Request<'_>, new: &Value) -> Result<(), Refusal> {
    let Some(node) = node_of(request.user) else {
        return Ok(());
    };
    let node = Restricted { node, request, new };
    if node.node.is_empty() {
        return node.refuse(&format!("could not determine node from user {}", go_quoted(&request.user.name)));
    }
    match (request.group, request.resource) {
        ("", "pods") => node.pod(),
        ("", "nodes") => node.own_node(),
        ("", "persistentvolumeclaims") => node.claim(),
        ("", "serviceaccounts") => node.token(),
        ("coordination.k8s.io", "leases") => node.lease(),
        ("storage.k8s.io", "csinodes") => node.named("CSINode"),
        _ => Ok(()),
    }
}

struct Restricted<'a> {
    node: &'a str,
    request: &'a Request<'a>,
    new: &'a Value,
}

impl Restricted<'_> {
    fn refuse(&self, why: &str) -> Result<(), Refusal> {
        Err(self.request.forbidden(self.new, why))
    }

    /// `node "NAME" WHAT`
    fn refuse_node(&self, what: &str) -> Result<(), Refusal> {
        self.refuse(&format!("node {} {what}", go_quoted(self.node)))
    }

    fn operation(&self) -> &'static str {
        match self.request.operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }

    fn pod(&self) -> Result<(), Refusal> {
        match (self.request.subresource, self.request.operation) {
            ("", Operation::Create) => self.mirror(),
            ("", Operation::Delete) => {
                self.bound_here(self.request.name, "can only delete pods with spec.nodeName set to itself")
            }
            ("", _) => self.refuse(&format!(
                "unexpected operation \"{}\", node {} can only create and delete mirror pods",
                self.operation(),
                go_quoted(self.node)
            )),
            ("status", Operation::Update) => self.status(),
            ("eviction", Operation::Create) => {
                let name = match self.request.name {
                    "" => text(&self.new["metadata"], "name"),
                    name => name,
                };
                if name.is_empty() {
                    return self.refuse("could not determine pod from request data");
                }
                let pod = self.request.get::<Pod>(PODS, self.request.namespace, name);
                let pod = pod.ok_or_else(|| Refusal::not_found("", "pods", name))?;
                if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(self.node) {
                    return Ok(());
                }
                self.refuse(&format!("node {} can only evict pods with spec.nodeName set to itself", self.node))
            }
            ("eviction", _) => self.refuse(&format!("unexpected operation {}", self.operation())),
            ("status", _) => self.refuse(&format!("unexpected operation \"{}\"", self.operation())),
            (other, _) => self
                .refuse(&format!("unexpected pod subresource \"{other}\", only 'status' and 'eviction' are allowed")),
        }
    }

    fn bound_here(&self, name: &str, rule: &str) -> Result<(), Refusal> {
        let pod = self.request.get::<Pod>(PODS, self.request.namespace, name);
        let pod = pod.ok_or_else(|| Refusal::not_found("", "pods", name))?;
        let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(self.node);
        if bound { Ok(()) } else { self.refuse_node(rule) }
    }

    fn mirror(&self) -> Result<(), Refusal> {
        let (pod, node) = (self.new, go_quoted(self.node));
        if !pod::is_mirror(pod) {
            return self.refuse(&format!(
                "pod does not have \"{}\" annotation, node {node} can only create mirror pods",
                pod::MIRROR
            ));
        }
        if text(&pod["spec"], "nodeName") != self.node {
            return self.refuse_node("can only create pods with spec.nodeName set to itself");
        }
        let owners: Vec<&Value> = items(&pod["metadata"], "ownerReferences").collect();
        let [owner] = owners.as_slice() else {
            let single = if owners.is_empty() { "an" } else { "a single" };
            return self.refuse_node(&format!("can only create pods with {single} owner reference set to itself"));
        };
        let is_node = text(owner, "apiVersion") == "v1" && text(owner, "kind") == "Node";
        if !is_node || text(owner, "name") != self.node {
            return self.refuse_node("can only create pods with an owner reference set to itself");
        }
        if owner["controller"] != true {
            return self.refuse_node("can only create pods with a controller owner reference set to itself");
        }
        if owner["blockOwnerDeletion"] == true {
            return self.refuse_node("must not set blockOwnerDeletion on an owner reference");
        }
        let own = self.request.get::<Node>(NODES, "", self.node);
        let own = own.ok_or_else(|| Refusal::not_found("", "nodes", self.node))?;
        let (given, uid) = (text(owner, "uid"), own.metadata.uid.as_deref().unwrap_or_default());
        if given != uid {
            return self.refuse(&format!("node {} UID mismatch: expected {given} got {uid}", self.node));
        }
        match reference(&pod["spec"]) {
            Some(what) => self.refuse_node(&format!("can not create pods that reference {what}")),
            None => Ok(()),
        }
    }

    fn status(&self) -> Result<(), Refusal> {
        let Some(old) = self.request.old else {
            return Ok(());
        };
        if text(&old["spec"], "nodeName") != self.node {
            return self.refuse_node("can only update pod status for pods with spec.nodeName set to itself");
        }
        if !same(&old["metadata"]["labels"], &self.new["metadata"]["labels"]) {
            return self.refuse_node("cannot update labels through pod status");
        }
        let fields = [
            ("resourceClaimStatuses", "cannot update resource claim statues"),
            ("extendedResourceClaimStatus", "cannot update extended resource claim status"),
        ];
        for (field, rule) in fields {
            if !same(&old["status"][field], &self.new["status"][field]) {
                return self.refuse_node(rule);
            }
        }
        Ok(())
    }

    fn own_node(&self) -> Result<(), Refusal> {
        let asked = match self.request.name {
            "" => text(&self.new["metadata"], "name"),
            name => name,
        };
        if asked != self.node {
            return self.refuse_node(&format!("is not allowed to modify node {}", go_quoted(asked)));
        }
        let none = Value::Null;
        let new_labels = &self.new["metadata"]["labels"];
        match (self.request.operation, self.request.old) {
            (Operation::Create, _) => {
                if !self.new["spec"]["configSource"].is_null() {
                    return self.refuse_node("is not allowed to create pods with a non-nil configSource");
                }
                let forbidden = forbidden_labels(new_labels, &none);
                if !forbidden.is_empty() {
                    return self.refuse_node(&format!("is not allowed to set the following labels: {forbidden}"));
                }
            }
            (Operation::Update, Some(old)) => {
                let source = &self.new["spec"]["configSource"];
                if !source.is_null() && *source != old["spec"]["configSource"] {
                    return self.refuse_node("is not allowed to update configSource to a new non-nil configSource");
                }
                if !same(&self.new["spec"]["taints"], &old["spec"]["taints"]) {
                    return self.refuse_node("is not allowed to modify taints");
                }
                if !same(&self.new["metadata"]["ownerReferences"], &old["metadata"]["ownerReferences"]) {
                    return self.refuse_node("is not allowed to modify ownerReferences");
                }
                let forbidden = forbidden_labels(new_labels, &old["metadata"]["labels"]);
                if !forbidden.is_empty() {
                    return self.refuse(&format!("is not allowed to modify labels: {forbidden}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn claim(&self) -> Result<(), Refusal> {
        if self.request.subresource != "status" {
            return self.refuse("may only update PVC status");
        }
        let (Operation::Update, Some(old)) = (self.request.operation, self.request.old) else {
            return self.refuse(&format!("unexpected operation \"{}\"", self.operation()));
        };
        let rest = |claim: &Value| {
            let mut claim = claim.clone();
            for (part, fields) in [
                ("metadata", &["resourceVersion", "managedFields"][..]),
                ("status", &["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"][..]),
            ] {
                if let Some(part) = claim.get_mut(part).and_then(Value::as_object_mut) {
                    fields.iter().for_each(|field| drop(part.remove(*field)));
                }
            }
            claim
        };
        if rest(old) == rest(self.new) {
            return Ok(());
        }
        self.refuse_node("is not allowed to update fields other than status.quantity and status.conditions")
    }

    fn token(&self) -> Result<(), Refusal> {
        if self.request.operation != Operation::Create || self.request.subresource != "token" {
            return Ok(());
        }
        let reference = &self.new["spec"]["boundObjectRef"];
        let (name, uid) = (text(reference, "name"), text(reference, "uid"));
        if text(reference, "apiVersion") != "v1" || text(reference, "kind") != "Pod" || name.is_empty() {
            return self.refuse("node requested token not bound to a pod");
        }
        if uid.is_empty() {
            return self.refuse("node requested token with a pod binding without a uid");
        }
        let pod = self.request.get::<Pod>(PODS, self.request.namespace, name);
        let pod = pod.ok_or_else(|| Refusal::not_found("", "pods", name))?;
        if pod.metadata.uid.as_deref() != Some(uid) {
            return self.refuse(&format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ));
        }
        let spec = pod.spec.clone().unwrap_or_default();
        if spec.node_name.as_deref() != Some(self.node) {
            return self.refuse("node requested token bound to a pod scheduled on a different node");
        }
        let audiences: Vec<&str> = items(&self.new["spec"], "audiences").filter_map(Value::as_str).collect();
        if audiences.len() > 1 {
            return self.refuse("node may only request 0 or 1 audiences");
        }
        let audience = audiences.first().copied().unwrap_or_default();
        let sources = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
        let mut tokens = sources.flat_map(|volume| volume.sources.iter().flatten());
        let in_pod = tokens.any(|source| {
            let token = source.service_account_token.as_ref();
            token.is_some_and(|token| token.audience.as_deref().unwrap_or_default() == audience)
        });
        if in_pod || self.may_request(audience) {
            return Ok(());
        }
        let user = &self.request.user.name;
        self.refuse(&format!("{user} is not authorized to request tokens for audience {}", go_quoted(audience)))
    }

    fn may_request(&self, audience: &str) -> bool {
        let question = Attributes {
            resource: audience,
            namespace: self.request.namespace,
            name: self.request.name,
            ..Attributes::new(self.request.user, "request-serviceaccounts-token-audience")
        };
        self.request.authorizer.authorize(&question, self.request.lookup).is_allowed()
    }

    fn lease(&self) -> Result<(), Refusal> {
        if self.request.namespace != "kube-node-lease" {
            return self.refuse("can only access leases in the \"kube-node-lease\" system namespace");
        }
        self.named("node lease")
    }

    /// The object is called as its node is.
    fn named(&self, what: &str) -> Result<(), Refusal> {
        let name = match self.request.operation {
            Operation::Create => text(&self.new["metadata"], "name"),
            _ => self.request.name,
        };
        if name == self.node {
            return Ok(());
        }
        self.refuse(&format!("can only access {what} with the same name as the requesting node"))
    }
}

/// Equal, where nothing and an empty list or map are the same.
fn same(a: &Value, b: &Value) -> bool {
    let empty = |value: &Value| {
        value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(|o| o.is_empty())
    };
    a == b || (empty(a) && empty(b))
}

/// Labels that differ and are not the kubelet's to set, joined.
fn forbidden_labels(new: &Value, old: &Value) -> String {
    let keys =
        |labels: &Value| -> Vec<String> { labels.as_object().into_iter().flat_map(|l| l.keys().cloned()).collect() };
    let differing = keys(new).into_iter().chain(keys(old)).filter(|key| new.get(key) != old.get(key));
    let forbidden: BTreeSet<String> = differing.filter(|key| is_forbidden(key)).collect();
    forbidden.into_iter().collect::<Vec<_>>().join(", ")
}

fn is_forbidden(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let below = |of: &str| domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    let kubelet = KUBELET_LABELS.contains(&label) || KUBELET_LABEL_DOMAINS.into_iter().any(below);
    below("node-restriction.kubernetes.io") || ((below("kubernetes.io") || below("k8s.io")) && !kubelet)
}

pub(super) fn refers_to_secrets(spec: &Value) -> bool {
    let pulls = items(spec, "imagePullSecrets").next().is_some();
    pulls || environment_has(spec, "secretKeyRef", "secretRef") || items(spec, "volumes").any(volume_has_secret)
}

fn environment_has(spec: &Value, key: &str, source: &str) -> bool {
    all_containers(spec).any(|container| {
        items(container, "env").any(|variable| variable["valueFrom"].get(key).is_some())
            || items(container, "envFrom").any(|from| from.get(source).is_some())
    })
}

fn volume_has_secret(volume: &Value) -> bool {
    let plain = volume.get("secret").is_some() || volume.get("azureFile").is_some();
    let with_reference = ["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"];
    plain
        || with_reference.into_iter().any(|of| volume[of].get("secretRef").is_some())
        || volume["csi"].get("nodePublishSecretRef").is_some()
        || items(&volume["projected"], "sources").any(|source| source.get("secret").is_some())
}

/// What of the API a Pod refers to, in upstream's words (`HasAPIObjectReference`).
fn reference(spec: &Value) -> Option<&'static str> {
    if !text(spec, "serviceAccountName").is_empty() {
        return Some("serviceaccounts");
    }
    if refers_to_secrets(spec) {
        return Some("secrets");
    }
    let projects = |kind: &str| {
        let mut sources = items(spec, "volumes").flat_map(|volume| items(&volume["projected"], "sources"));
        sources.any(|source| source.get(kind).is_some())
    };
    let has = |kind: &str| items(spec, "volumes").any(|volume| volume.get(kind).is_some());
    if environment_has(spec, "configMapKeyRef", "configMapRef") || has("configMap") || projects("configMap") {
        return Some("configmaps");
    }
    if items(spec, "resourceClaims").next().is_some() {
        return Some("resourceclaims");
    }
    let volumes = [
        ("csi", "csidrivers (via CSI volumes)"),
        ("glusterfs", "endpoints (via glusterFS volumes)"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ];
    let sources = [
        ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    let volume = volumes.into_iter().find(|(kind, _)| has(kind));
    volume.or_else(|| sources.into_iter().find(|(kind, _)| projects(kind))).map(|(_, what)| what)
}
