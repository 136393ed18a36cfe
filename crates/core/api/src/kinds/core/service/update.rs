//! What an update of a Service keeps, and what it may not change (upstream `registry/core/service`).

use super::validate as checks;
use super::{is_external, is_headless, needs_health_check, of_type};
use crate::tree::{Tree, keep, list_mut, remove};
use schema::field::{ErrorList, Path, forbidden, invalid};
use serde_json::{Value, json};

fn has_cluster_ip(service: &Value) -> bool {
    !of_type(service, &["ExternalName"])
}

fn has_node_ports(service: &Value) -> bool {
    of_type(service, &["NodePort", "LoadBalancer"])
}

pub(super) fn prepare(new: &mut Value, old: &Value) {
    keep(new, old, "status");
    keep_allocated(new, old);
    sync_cluster_ips(new, old);
    drop_dependent(new, old);
    if !of_type(new, &["LoadBalancer"]) {
        new["status"] = json!({"loadBalancer": {}});
    }
}

/// Clients that repeat their manifest leave out what was allocated (`patchAllocatedValues`).
fn keep_allocated(new: &mut Value, old: &Value) {
    if has_cluster_ip(old) && has_cluster_ip(new) {
        if new["spec"].text("clusterIP").is_empty() {
            keep(&mut new["spec"], &old["spec"], "clusterIP");
        }
        let same = new["spec"].text("clusterIP") == old["spec"].text("clusterIP");
        if same && new["spec"].list("clusterIPs").is_empty() {
            keep(&mut new["spec"], &old["spec"], "clusterIPs");
        }
    }
    if has_node_ports(old) && has_node_ports(new) {
        let mut used: Vec<i64> = new["spec"].list("ports").iter().map(|port| port.int("nodePort")).collect();
        for port in list_mut(&mut new["spec"], "ports").iter_mut().filter(|port| port.int("nodePort") == 0) {
            let same = |before: &&Value| {
                before.text("protocol") == port.text("protocol") && before.int("port") == port.int("port")
            };
            let given = old["spec"].list("ports").iter().find(same).map_or(0, |before| before.int("nodePort"));
            if given != 0 && !used.contains(&given) {
                port["nodePort"] = given.into();
                used.push(given);
            }
        }
    }
    if needs_health_check(old) && needs_health_check(new) && new["spec"].int("healthCheckNodePort") == 0 {
        keep(&mut new["spec"], &old["spec"], "healthCheckNodePort");
    }
}

/// The one of `clusterIP` and `clusterIPs` that the client changed decides (`normalizeClusterIPs`).
fn sync_cluster_ips(new: &mut Value, old: &Value) {
    let (ip, was) = (new["spec"].text("clusterIP").to_owned(), old["spec"].text("clusterIP"));
    let plural_same = new["spec"]["clusterIPs"] == old["spec"]["clusterIPs"];
    if ip.is_empty() && !was.is_empty() {
        if plural_same {
            remove(&mut new["spec"], "clusterIPs");
        }
    } else if ip != was && plural_same && !new["spec"].list("clusterIPs").is_empty() {
        new["spec"]["clusterIPs"][0] = ip.into();
    } else if !ip.is_empty() && new["spec"].list("clusterIPs").is_empty() {
        new["spec"]["clusterIPs"] = json!([ip]);
    }
}

/// Fields that the old type had and the new one has not, unless the client set them anew (`dropTypeDependentFields`).
fn drop_dependent(new: &mut Value, old: &Value) {
    let same = |new: &Value, field: &str| new["spec"][field] == old["spec"][field];
    if has_cluster_ip(old) && !has_cluster_ip(new) {
        if same(new, "clusterIP") && same(new, "clusterIPs") {
            remove(&mut new["spec"], "clusterIP");
            remove(&mut new["spec"], "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if same(new, field) {
                remove(&mut new["spec"], field);
            }
        }
    }
    if of_type(new, &["ExternalName"]) {
        remove(&mut new["spec"], "internalTrafficPolicy");
    }
    if has_node_ports(old) && !has_node_ports(new) {
        let before: Vec<i64> = old["spec"].list("ports").iter().map(|port| port.int("nodePort")).collect();
        let ports = new["spec"].list("ports");
        if ports.iter().map(|port| port.int("nodePort")).all(|port| port == 0 || before.contains(&port)) {
            list_mut(&mut new["spec"], "ports").iter_mut().for_each(|port| remove(port, "nodePort"));
        }
    }
    let balanced = |service: &Value| of_type(service, &["LoadBalancer"]);
    if needs_health_check(old) && !needs_health_check(new) && same(new, "healthCheckNodePort") {
        remove(&mut new["spec"], "healthCheckNodePort");
    }
    if is_external(old) && !is_external(new) && same(new, "externalTrafficPolicy") {
        remove(&mut new["spec"], "externalTrafficPolicy");
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if balanced(old) && !balanced(new) && same(new, field) {
            remove(&mut new["spec"], field);
        }
    }
}

pub(super) fn validate(new: &Value, old: &Value) -> ErrorList {
    let mut found = cluster_ips(new, old);
    found.extend(families(new, old));
    let path = Path::new("spec");
    let class = "loadBalancerClass";
    if of_type(old, &["LoadBalancer"]) && of_type(new, &["LoadBalancer"]) && new["spec"][class] != old["spec"][class] {
        found.push(invalid(&path.child(class), new["spec"][class].clone(), "may not change once set"));
    }
    found.extend(checks::load_balancer_class(new));
    let port = "healthCheckNodePort";
    if needs_health_check(old) && needs_health_check(new) && new["spec"].int(port) != old["spec"].int(port) {
        found.push(forbidden(&path.child(port), "field is immutable"));
    }
    found.extend(checks::service(new, old));
    found
}

const FIXED: &str = "may not change once set";

fn cluster_ips(new: &Value, old: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    if !has_cluster_ip(new) || !has_cluster_ip(old) || (is_headless(new) && is_headless(old)) {
        return found;
    }
    let (ips, before) = (new["spec"].list("clusterIPs"), old["spec"].list("clusterIPs"));
    let path = Path::new("spec").child("clusterIPs");
    let shown = || new["spec"]["clusterIPs"].clone();
    if ips.len() == before.len() {
        let changed = before.iter().zip(ips).enumerate().filter(|(_, (old, new))| old != new);
        found.extend(changed.map(|(at, _)| invalid(&path.index(at), shown(), FIXED)));
        return found;
    }
    if ips.is_empty() {
        found.push(invalid(&path.index(0), shown(), "primary clusterIP can not be unset"));
    } else if !before.is_empty() && ips[0] != before[0] {
        found.push(invalid(&path.index(0), shown(), FIXED));
    }
    if before.len() > ips.len() && ips.len() == 1 {
        found.extend(single_stack(new, "clusterIP"));
    }
    found
}

fn single_stack(new: &Value, what: &str) -> Option<schema::field::FieldError> {
    let policy = &new["spec"]["ipFamilyPolicy"];
    let path = Path::new("spec").child("ipFamilyPolicy");
    let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
    (policy != "SingleStack").then(|| invalid(&path, policy.clone(), &detail))
}

fn families(new: &Value, old: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    if !has_cluster_ip(new) || !has_cluster_ip(old) || is_headless(new) || is_headless(old) {
        return found;
    }
    let (families, before) = (new["spec"].list("ipFamilies"), old["spec"].list("ipFamilies"));
    let path = Path::new("spec").child("ipFamilies").index(0);
    if families.len() == before.len() {
        let changed = before.iter().zip(families).filter(|(old, new)| old != new);
        found.extend(changed.map(|_| invalid(&path, new["spec"]["ipFamilies"].clone(), FIXED)));
        return found;
    }
    if before.len() > families.len() && new["spec"].list("clusterIPs").is_empty() {
        found.push(invalid(&path, new["spec"]["ipFamilies"].clone(), "primary ipFamily can not be unset"));
    }
    if !before.is_empty() && !families.is_empty() && families[0] != before[0] {
        found.push(invalid(&path, new["spec"]["clusterIPs"].clone(), FIXED));
    }
    if before.len() > families.len() && families.len() == 1 {
        found.extend(single_stack(new, "ipFamily"));
    }
    found
}
