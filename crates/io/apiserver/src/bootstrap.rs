//! The objects that exist before anybody asked for them, as upstream's API server makes them at its first start.

mod flow_control;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

const RBAC: &str = include_str!("bootstrap/rbac.txt");
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Where the API server is found, for the Service `kubernetes`.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// First address of the service range.
    pub service_ip: IpAddr,
    /// Address that Pods reach the server under.
    pub address: IpAddr,
    pub port: u16,
}

/// An object with its resource's group and plural; the object says version, namespace and name.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    pub group: &'static str,
    pub plural: &'static str,
    pub object: Value,
}

impl Bootstrap {
    fn new(group: &'static str, plural: &'static str, object: Value) -> Self {
        Self { group, plural, object }
    }
}

/// Everything to create where it is missing, in an order in which each finds its namespace. RBAC objects carry
/// `rbac.authorization.kubernetes.io/autoupdate`: missing rules and subjects are added to them at each start.
pub fn objects(endpoint: &Endpoint) -> Vec<Bootstrap> {
    let mut all: Vec<Bootstrap> = ["default", "kube-system", "kube-public", "kube-node-lease"]
        .into_iter()
        .map(|name| {
            let object = json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            });
            Bootstrap::new("", "namespaces", object)
        })
        .collect();
    all.extend(rbac());
    all.extend(priority_classes());
    all.extend(flow_control::objects());
    all.extend(kubernetes_service(endpoint));
    all
}

/// The rules that a bootstrap ClusterRole has.
pub fn cluster_role_rules(name: &str) -> Vec<PolicyRule> {
    let role = rbac().into_iter().find(|one| one.plural == "clusterroles" && one.object["metadata"]["name"] == name);
    role.and_then(|role| serde_json::from_value(role.object["rules"].clone()).ok()).unwrap_or_default()
}

fn priority_classes() -> Vec<Bootstrap> {
    let classes = [
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ];
    classes
        .into_iter()
        .map(|(name, value, description)| {
            let object = json!({
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name, "generation": 1},
                "value": value,
                "description": description,
                "preemptionPolicy": "PreemptLowerPriority",
            });
            Bootstrap::new("scheduling.k8s.io", "priorityclasses", object)
        })
        .collect()
}

/// The Service `kubernetes` and where it leads; the addresses are renewed by [`kubernetes_service`] at each start.
pub fn kubernetes_service(endpoint: &Endpoint) -> Vec<Bootstrap> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let ip = endpoint.service_ip.to_string();
    let family = if endpoint.service_ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ipFamilies": [family],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": endpoint.port}],
        },
        "status": {"loadBalancer": {}},
    });
    let port = json!({"name": "https", "port": endpoint.port, "protocol": "TCP"});
    let endpoints = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": [{"ip": endpoint.address.to_string()}], "ports": [port]}],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "generation": 1,
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if endpoint.address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [endpoint.address.to_string()], "conditions": {"ready": true}}],
        "ports": [port],
    });
    vec![
        Bootstrap::new("", "services", service),
        Bootstrap::new("", "endpoints", endpoints),
        Bootstrap::new("discovery.k8s.io", "endpointslices", slice),
    ]
}

/// RBAC objects from their compact form, with aggregated roles filled in.
fn rbac() -> Vec<Bootstrap> {
    let mut all: Vec<Bootstrap> = Vec::new();
    for line in RBAC.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            None => all.extend(head(line)),
            Some(item) => {
                if let Some(last) = all.last_mut() {
                    add_item(&mut last.object, item);
                }
            }
        }
    }
    // Roles aggregate roles that aggregate: view, then edit, then admin.
    for name in ["view", "edit", "admin"] {
        let roles: Vec<&Value> = all.iter().filter(|one| one.plural == "clusterroles").map(|one| &one.object).collect();
        let Some(role) = roles.iter().copied().find(|role| role["metadata"]["name"] == name) else {
            continue;
        };
        let rules = aggregated_rules(role, &roles);
        if let Some(role) = all.iter_mut().find(|one| one.object["metadata"]["name"] == name) {
            role.object["rules"] = rules;
        }
    }
    all
}

/// The rules of an aggregated ClusterRole: those of every role that its selectors match, by name, each once
/// (upstream `pkg/controller/clusterroleaggregation`).
pub fn aggregated_rules(role: &Value, roles: &[&Value]) -> Value {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
    let matches = |other: &Value, selector: &Value| {
        let labels = selector["matchLabels"].as_object();
        labels
            .is_some_and(|labels| labels.iter().all(|(key, value)| other["metadata"]["labels"].get(key) == Some(value)))
    };
    let mut found: Vec<Value> = Vec::new();
    for selector in selectors.into_iter().flatten() {
        let mut chosen: Vec<&&Value> = roles.iter().filter(|other| matches(other, selector)).collect();
        chosen.sort_by_key(|other| other["metadata"]["name"].as_str());
        for rule in chosen
            .into_iter()
            .filter(|other| other["metadata"]["name"] != role["metadata"]["name"])
            .filter_map(|other| other["rules"].as_array())
            .flatten()
        {
            if !found.contains(rule) {
                found.push(rule.clone());
            }
        }
    }
    Value::Array(found)
}

fn head(line: &str) -> Option<Bootstrap> {
    let mut words = line.split(' ');
    let (kind, name) = (words.next()?, words.next()?);
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    let mut labels = Map::new();
    labels.insert("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".into());
    let mut object = json!({
        "apiVersion": format!("{RBAC_GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
    });
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    for word in words {
        if let Some(label) = word.strip_prefix("label=") {
            labels.insert(format!("{RBAC_GROUP}/{label}"), "true".into());
        } else if let Some(label) = word.strip_prefix("aggregate=") {
            let label = format!("{RBAC_GROUP}/{label}");
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        } else if let Some((kind, name)) = word.split_once('/') {
            object["roleRef"] = json!({"apiGroup": RBAC_GROUP, "kind": kind, "name": name});
        }
    }
    object["metadata"]["labels"] = Value::Object(labels);
    let plural = match kind {
        "ClusterRole" => "clusterroles",
        "ClusterRoleBinding" => "clusterrolebindings",
        "Role" => "roles",
        _ => "rolebindings",
    };
    if kind.ends_with("Role") {
        object["rules"] = json!([]);
    }
    Some(Bootstrap::new(RBAC_GROUP, plural, object))
}

/// A rule of a role or a subject of a binding.
fn add_item(object: &mut Value, item: &str) {
    let words: Vec<&str> = item.split(' ').collect();
    let list = |text: &str| -> Vec<String> {
        text.split(',').map(|one| if one == "core" { String::new() } else { one.to_owned() }).collect()
    };
    let (field, value) = match words.as_slice() {
        [kind, name] => {
            let subject = match name.split_once('/') {
                Some((namespace, name)) if *kind == "ServiceAccount" => {
                    json!({"kind": kind, "name": name, "namespace": namespace})
                }
                _ => json!({"kind": kind, "apiGroup": RBAC_GROUP, "name": name}),
            };
            ("subjects", subject)
        }
        [verbs, "url", paths] => ("rules", json!({"verbs": list(verbs), "nonResourceURLs": list(paths)})),
        [verbs, groups, resources, names @ ..] => {
            let mut rule = json!({"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources)});
            if let [names] = names {
                rule["resourceNames"] = json!(list(names));
            }
            ("rules", rule)
        }
        _ => return,
    };
    match object[field].as_array_mut() {
        Some(all) => all.push(value),
        None => object[field] = json!([value]),
    }
}
