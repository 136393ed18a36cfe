//! `v1` Service. Addresses and ports are given by the API server's allocator.

mod update;
mod validate;

use crate::human;
use crate::kinds::columns;
use crate::meta;
use crate::names;
use crate::rules::Rules;
use crate::tree::{Tree, default_to, keep, list_mut, object_mut, remove};
use jiff::Timestamp;
use schema::field::{ErrorList, Path};
use serde_json::{Value, json};

pub static RULES: Rules = Rules {
    default,
    prepare_create,
    prepare_update: update::prepare,
    prepare_status_update: |new, old| keep(new, old, "spec"),
    validate: |service| validate::service(service, &Value::Null),
    validate_update: update::validate,
    validate_status_update: validate::status,
    warnings: |new, _| validate::warnings(new),
    validate_name: names::dns_label_name,
    selectable: |service| {
        let spec = &service["spec"];
        vec![("spec.clusterIP", spec.text("clusterIP").to_owned()), ("spec.type", spec.text("type").to_owned())]
    },
    columns: columns::SERVICE,
    row,
    create_on_update: true,
    ..Rules::PLAIN
};

/// Addresses and families as far as they can be judged before any are given (upstream
/// `ValidateServiceClusterIPsRelatedFields`).
pub fn cluster_ips(service: &Value, old: &Value) -> ErrorList {
    validate::cluster_ips(service, old, &Path::new("spec"))
}

const CLIENT_IP_TIMEOUT_S: i64 = 10800;

pub(super) fn of_type(service: &Value, types: &[&str]) -> bool {
    types.contains(&service["spec"].text("type"))
}

/// `ExternallyAccessible`.
pub(super) fn is_external(service: &Value) -> bool {
    let spec = &service["spec"];
    of_type(service, &["LoadBalancer", "NodePort"])
        || (of_type(service, &["ClusterIP"]) && !spec.list("externalIPs").is_empty())
}

/// `NeedsHealthCheck`.
pub fn needs_health_check(service: &Value) -> bool {
    of_type(service, &["LoadBalancer"]) && service["spec"].text("externalTrafficPolicy") == "Local"
}

pub fn is_headless(service: &Value) -> bool {
    let mut ips = service["spec"].texts("clusterIPs");
    ips.next() == Some("None") && ips.next().is_none()
}

fn default(service: &mut Value) {
    let external = is_external(service);
    let Some(spec) = object_mut(service, "spec") else { return };
    default_to(spec, "sessionAffinity", "None");
    match spec.text("sessionAffinity") {
        "None" => remove(spec, "sessionAffinityConfig"),
        "ClientIP" if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() => {
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": CLIENT_IP_TIMEOUT_S}});
        }
        _ => {}
    }
    default_to(spec, "type", "ClusterIP");
    for port in list_mut(spec, "ports") {
        default_to(port, "protocol", "TCP");
        let target = &port["targetPort"];
        if target.is_null() || *target == 0 || *target == "" {
            port["targetPort"] = port["port"].clone();
        }
    }
    let of = spec.text("type").to_owned();
    let external = external || (of == "ClusterIP" && !spec.list("externalIPs").is_empty());
    if external {
        default_to(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(of.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") && !spec.has("internalTrafficPolicy") {
        spec["internalTrafficPolicy"] = "Cluster".into();
    }
    if of != "LoadBalancer" {
        return;
    }
    if !spec.has("allocateLoadBalancerNodePorts") {
        spec["allocateLoadBalancerNodePorts"] = true.into();
    }
    if service["status"]["loadBalancer"].is_object() {
        for ingress in list_mut(&mut service["status"]["loadBalancer"], "ingress") {
            if !ingress.text("ip").is_empty() && !ingress.has("ipMode") {
                ingress["ipMode"] = "VIP".into();
            }
        }
    }
}

fn prepare_create(service: &mut Value) {
    service["status"] = json!({"loadBalancer": {}});
    // The singular and the plural field tell the same.
    let first = service["spec"].text("clusterIP").to_owned();
    if !first.is_empty() && service["spec"].list("clusterIPs").is_empty() {
        service["spec"]["clusterIPs"] = json!([first]);
    }
}

fn row(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &service["spec"];
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let ports: Vec<String> = spec
        .list("ports")
        .iter()
        .map(|port| {
            let (number, node, protocol) = (port.int("port"), port.int("nodePort"), port.text("protocol"));
            if node > 0 { format!("{number}:{node}/{protocol}") } else { format!("{number}/{protocol}") }
        })
        .collect();
    let selector: Vec<String> = spec.pairs("selector").map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        json!(meta::name(service)),
        json!(spec.text("type")),
        json!(or_none(spec.texts("clusterIPs").next().unwrap_or_default().to_owned())),
        json!(external_address(service)),
        json!(or_none(ports.join(","))),
        json!(human::age(&service["metadata"]["creationTimestamp"], now)),
        json!(or_none(selector.join(","))),
    ]
}

fn external_address(service: &Value) -> String {
    let spec = &service["spec"];
    let own: Vec<&str> = spec.texts("externalIPs").collect();
    match spec.text("type") {
        "ClusterIP" | "NodePort" if own.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => own.join(","),
        "LoadBalancer" => {
            let ingress = service["status"]["loadBalancer"].list("ingress").iter();
            let given: std::collections::BTreeSet<&str> = ingress
                .map(
                    |ingress| if ingress.text("ip").is_empty() { ingress.text("hostname") } else { ingress.text("ip") },
                )
                .filter(|address| !address.is_empty())
                .collect();
            let all: Vec<&str> = given.into_iter().chain(own).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => spec.text("externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}
