//! Validation of a Service (upstream `apis/core/validation` `validateService`).

use super::{is_external, is_headless, needs_health_check, of_type};
use crate::addresses::{endpoint_ip, host_name, ip_warning, legacy_cidr, legacy_ip, parse_ip};
use crate::kinds::core::endpoints::PROTOCOLS;
use crate::meta;
use crate::names::{dns_label, dns_subdomain, errors, in_range, port_name, port_number, qualified_name};
use crate::tree::Tree;
use schema::field::{ErrorList, ErrorType, FieldError, Path, duplicate, forbidden, invalid, not_supported, required};
use serde_json::Value;
use std::collections::BTreeSet;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const MAX_AFFINITY_S: i64 = 86400;

/// `old` is `Null` on create: values that it has stay allowed.
pub(super) fn service(service: &Value, old: &Value) -> ErrorList {
    let (spec, path) = (&service["spec"], Path::new("spec"));
    let mut found = ErrorList::new();
    let annotations = &service["metadata"]["annotations"];
    if let (Some(mode), Some(hints)) = (annotations.text_opt(TOPOLOGY_MODE), annotations.text_opt(TOPOLOGY_HINTS))
        && mode != hints
    {
        let path = Path::new("metadata").child("annotations").key(TOPOLOGY_MODE);
        found.push(invalid(&path, mode, &format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified")));
    }
    let ports = spec.list("ports");
    if ports.is_empty() && !is_headless(service) && !of_type(service, &["ExternalName"]) {
        found.push(required(&path.child("ports"), ""));
    }
    found.extend(by_type(service, &path));
    let mut names: Vec<&str> = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        found.extend(validate_port(port, ports.len() > 1, &mut names, &path.child("ports").index(at)));
    }
    found.extend(meta::validate_labels(&spec["selector"], &path.child("selector")));
    found.extend(affinity(spec, &path));
    found.extend(cluster_ips(service, old, &path));
    let kept: Vec<&str> = old["spec"].texts("externalIPs").collect();
    for (at, ip) in spec.texts("externalIPs").enumerate() {
        let path = path.child("externalIPs").index(at);
        let wrong = legacy_ip(&path, ip, &kept);
        found.extend(if wrong.is_empty() { endpoint_ip(ip, &path) } else { wrong });
    }
    if spec.text("type").is_empty() {
        found.push(required(&path.child("type"), ""));
    } else if !of_type(service, &TYPES) {
        found.push(not_supported(&path.child("type"), spec.text("type"), &TYPES));
    }
    found.extend(port_conflicts(service, &path.child("ports")));
    found.extend(source_ranges(service, old, &path));
    let allocate = "allocateLoadBalancerNodePorts";
    if spec.has(allocate) && !of_type(service, &["LoadBalancer"]) {
        found.push(forbidden(&path.child(allocate), ONLY_LOAD_BALANCER));
    }
    if !spec.has(allocate) && of_type(service, &["LoadBalancer"]) {
        found.push(required(&Path::new(allocate), ""));
    }
    found.extend(load_balancer_class(service));
    found.extend(traffic(service, &path));
    found
}

fn by_type(service: &Value, path: &Path) -> ErrorList {
    let spec = &service["spec"];
    let mut found = ErrorList::new();
    match spec.text("type") {
        of @ ("LoadBalancer" | "NodePort") if is_headless(service) => {
            let detail = format!("may not be set to 'None' for {of} services");
            found.push(invalid(&path.child("clusterIPs").index(0), "None", &detail));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies"] {
                if !spec.list(field).is_empty() {
                    found.push(forbidden(&path.child(field), "may not be set for ExternalName services"));
                }
            }
            if spec.has("ipFamilyPolicy") {
                found.push(forbidden(&path.child("ipFamilyPolicy"), "may not be set for ExternalName services"));
            }
            let name = spec.text("externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                found.push(required(&path.child("externalName"), ""));
            } else {
                found.extend(errors(&path.child("externalName"), name, dns_subdomain(name)));
            }
        }
        _ => {}
    }
    found
}

fn validate_port<'a>(port: &'a Value, named: bool, names: &mut Vec<&'a str>, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let name = port.text("name");
    if !name.is_empty() {
        found.extend(errors(&path.child("name"), name, dns_label(name)));
        if names.contains(&name) {
            found.push(duplicate(&path.child("name"), name));
        } else {
            names.push(name);
        }
    } else if named {
        found.push(required(&path.child("name"), ""));
    }
    let number = port.int("port");
    found.extend(port_number(number).iter().map(|message| invalid(&path.child("port"), number, message)));
    let protocol = port.text("protocol");
    if protocol.is_empty() {
        found.push(required(&path.child("protocol"), ""));
    } else if !PROTOCOLS.contains(&protocol) {
        found.push(not_supported(&path.child("protocol"), protocol, &PROTOCOLS));
    }
    let target = path.child("targetPort");
    match &port["targetPort"] {
        Value::String(name) => found.extend(errors(&target, name, port_name(name))),
        number => {
            let number = number.as_i64().unwrap_or_default();
            found.extend(port_number(number).iter().map(|message| invalid(&target, number, message)));
        }
    }
    if let Some(protocol) = port.text_opt("appProtocol") {
        found.extend(errors(&path.child("appProtocol"), protocol, qualified_name(protocol)));
    }
    found
}

fn affinity(spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let place = path.child("sessionAffinityConfig");
    match spec.text("sessionAffinity") {
        "" => found.push(required(&path.child("sessionAffinity"), "")),
        "None" => {
            if spec.has("sessionAffinityConfig") {
                found.push(forbidden(&place, "must not be set when session affinity is None"));
            }
        }
        "ClientIP" => {
            let timeout = spec["sessionAffinityConfig"]["clientIP"].int("timeoutSeconds");
            if timeout <= 0 || timeout > MAX_AFFINITY_S {
                let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_S}");
                found.push(invalid(&place.child("clientIP").child("timeoutSeconds"), timeout, &detail));
            }
        }
        other => found.push(not_supported(&path.child("sessionAffinity"), other, &["ClientIP", "None"])),
    }
    found
}

pub(super) fn cluster_ips(service: &Value, old: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    if of_type(service, &["ExternalName"]) {
        return found;
    }
    let spec = &service["spec"];
    let ips: Vec<&str> = spec.texts("clusterIPs").collect();
    let place = path.child("clusterIPs");
    let shown = || spec["clusterIPs"].clone();
    match (spec.text("clusterIP"), ips.first()) {
        ("", Some(_)) => found.push(invalid(&place, shown(), "must be empty when `clusterIP` is not specified")),
        ("", None) => {}
        (_, None) => found.push(required(&place, "")),
        (ip, Some(first)) if ip != *first => found.push(invalid(&place, shown(), "first value must match `clusterIP`")),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for (at, family) in spec.texts("ipFamilies").enumerate() {
        let path = path.child("ipFamilies").index(at);
        if !matches!(family, "IPv4" | "IPv6") {
            found.push(not_supported(&path, family, &["IPv4", "IPv6"]));
        }
        if !seen.insert(family) {
            found.push(duplicate(&path, family));
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    if let Some(policy) = spec.text_opt("ipFamilyPolicy").filter(|policy| !policies.contains(policy)) {
        found.push(not_supported(&path.child("ipFamilyPolicy"), policy, &policies));
    }
    let kept: Vec<&str> = old["spec"].texts("clusterIPs").collect();
    let before = found.len();
    for (at, ip) in ips.iter().enumerate() {
        if at > 0 || *ip != "None" {
            found.extend(legacy_ip(&place.index(at), ip, &kept));
        } else if ips.len() > 1 {
            found.push(invalid(&place, shown(), "'None' must be the first and only value"));
        }
    }
    let wrong = found.len() > before;
    if ips.len() > 2 {
        found.push(invalid(&place, shown(), "may only hold up to 2 values"));
    }
    if wrong || is_headless(service) {
        return found;
    }
    let is_v6 = |ip: &str| parse_ip(ip).is_some_and(|ip| ip.is_ipv6());
    if ips.len() > 1 && ips.iter().map(|ip| is_v6(ip)).collect::<BTreeSet<_>>().len() < 2 {
        found.push(invalid(&place, shown(), "may specify no more than one IP for each IP family"));
    }
    for (at, (ip, family)) in ips.iter().zip(spec.texts("ipFamilies")).enumerate() {
        if (family == "IPv4" && is_v6(ip)) || (family == "IPv6" && !is_v6(ip)) {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{at}]`");
            found.push(invalid(&place.index(at), *ip, &detail));
        }
    }
    found
}

fn port_conflicts(service: &Value, path: &Path) -> ErrorList {
    let ports = service["spec"].list("ports");
    let mut found = ErrorList::new();
    if of_type(service, &["ClusterIP"]) {
        for (at, _) in ports.iter().enumerate().filter(|(_, port)| port.int("nodePort") != 0) {
            found.push(forbidden(&path.index(at).child("nodePort"), "may not be used when `type` is 'ClusterIP'"));
        }
    }
    let mut seen = BTreeSet::new();
    for (at, port) in ports.iter().enumerate().filter(|(_, port)| port.int("nodePort") != 0) {
        if !seen.insert((port.text("protocol"), port.int("nodePort"))) {
            found.push(duplicate(&path.index(at).child("nodePort"), port.int("nodePort")));
        }
    }
    let mut seen = BTreeSet::new();
    for (at, port) in ports.iter().enumerate() {
        let (protocol, number) = (port.text("protocol"), port.int("port"));
        if !seen.insert((protocol, number)) {
            // Upstream prints its internal type: Go's names in Go's order.
            let message = format!(
                "Duplicate value: {{\"Name\":\"\",\"Protocol\":{protocol:?},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}"
            );
            let path = path.index(at).as_str().to_owned();
            found.push(FieldError { error_type: ErrorType::Duplicate, path, message });
        }
    }
    found
}

fn source_ranges(service: &Value, old: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let balanced = of_type(service, &["LoadBalancer"]);
    let listed: Vec<&str> = service["spec"].texts("loadBalancerSourceRanges").collect();
    if !listed.is_empty() {
        let place = path.child("LoadBalancerSourceRanges");
        if !balanced {
            found.push(forbidden(&place, ONLY_LOAD_BALANCER));
        }
        let kept: Vec<&str> = old["spec"].texts("loadBalancerSourceRanges").map(str::trim).collect();
        for (at, range) in listed.iter().enumerate() {
            found.extend(legacy_cidr(&place.index(at), range.trim(), &kept));
        }
        return found;
    }
    let annotation = |service: &Value| meta::annotation(service, SOURCE_RANGES).map(str::to_owned);
    if let Some(ranges) = annotation(service) {
        let place = Path::new("metadata").child("annotations").key(SOURCE_RANGES);
        if !balanced {
            found.push(forbidden(&place, ONLY_LOAD_BALANCER));
        }
        if annotation(old).as_ref() != Some(&ranges) && !ranges.trim().is_empty() {
            found.extend(ranges.trim().split(',').flat_map(|range| legacy_cidr(&place, range.trim(), &[])));
        }
    }
    found
}

pub(super) fn load_balancer_class(service: &Value) -> ErrorList {
    let path = Path::new("spec").child("loadBalancerClass");
    match service["spec"].text_opt("loadBalancerClass") {
        None => ErrorList::new(),
        Some(class) if of_type(service, &["LoadBalancer"]) => errors(&path, class, qualified_name(class)).collect(),
        Some(_) => vec![forbidden(&path, ONLY_LOAD_BALANCER)],
    }
}

/// External and internal traffic policies, the health check port and the distribution.
fn traffic(service: &Value, path: &Path) -> ErrorList {
    let spec = &service["spec"];
    let mut found = ErrorList::new();
    let (policy, place) = (spec.text("externalTrafficPolicy"), path.child("externalTrafficPolicy"));
    match (is_external(service), policy) {
        (false, "") | (true, "Cluster" | "Local") => {}
        (false, policy) => found.push(invalid(&place, policy, "may only be set for externally-accessible services")),
        (true, "") => found.push(required(&place, "")),
        (true, policy) => found.push(not_supported(&place, policy, &["Cluster", "Local"])),
    }
    // One that is needed and missing is allocated later.
    let (port, place) = (spec.int("healthCheckNodePort"), path.child("healthCheckNodePort"));
    if port != 0 && !needs_health_check(service) {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        found.push(invalid(&place, port, detail));
    } else if port != 0 && !(1..=65535).contains(&port) {
        found.push(invalid(&place, port, &in_range(1, 65535)));
    }
    let place = path.child("internalTrafficPolicy");
    match spec.text_opt("internalTrafficPolicy") {
        None if of_type(service, &["ClusterIP", "LoadBalancer", "NodePort"]) => found.push(required(&place, "")),
        None | Some("Cluster" | "Local") => {}
        Some(policy) => found.push(not_supported(&place, policy, &["Cluster", "Local"])),
    }
    let distributions = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    if let Some(wanted) = spec.text_opt("trafficDistribution").filter(|wanted| !distributions.contains(wanted)) {
        found.push(not_supported(&path.child("trafficDistribution"), wanted, &distributions));
    }
    found
}

pub(super) fn status(new: &Value, old: &Value) -> ErrorList {
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let ingress = new["status"]["loadBalancer"].list("ingress");
    let mut found = ErrorList::new();
    if !of_type(new, &["LoadBalancer"]) {
        if !ingress.is_empty() {
            found.push(forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'"));
        }
        return found;
    }
    let kept: Vec<&str> =
        old["status"]["loadBalancer"].list("ingress").iter().map(|ingress| ingress.text("ip")).collect();
    for (at, ingress) in ingress.iter().enumerate() {
        let path = path.index(at);
        let (ip, host) = (ingress.text("ip"), ingress.text("hostname"));
        if !ip.is_empty() {
            found.extend(legacy_ip(&path.child("ip"), ip, &kept));
        }
        match ingress.text_opt("ipMode") {
            None if !ip.is_empty() => found.push(required(&path.child("ipMode"), "must be specified when `ip` is set")),
            None => {}
            Some(_) if ip.is_empty() => {
                found.push(forbidden(&path.child("ipMode"), "may not be specified when `ip` is not set"));
            }
            Some("Proxy" | "VIP") => {}
            Some(mode) => found.push(not_supported(&path.child("ipMode"), mode, &["Proxy", "VIP"])),
        }
        if !host.is_empty() {
            found.extend(host_name(&path.child("hostname"), host));
        }
    }
    found
}

pub(super) fn warnings(service: &Value) -> Vec<String> {
    let (spec, path) = (&service["spec"], Path::new("spec"));
    let mut found = Vec::new();
    if meta::annotation(service, TOPOLOGY_HINTS).is_some() {
        found.push(format!("annotation {TOPOLOGY_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
    }
    let external: Vec<&str> = spec.texts("externalIPs").collect();
    let headless = of_type(service, &["ClusterIP"]) && spec.text("clusterIP") == "None";
    if !headless && !spec.text("clusterIP").is_empty() {
        for (at, ip) in spec.texts("clusterIPs").enumerate() {
            found.extend(ip_warning(&path.child("clusterIPs").index(at), ip));
        }
    }
    if headless {
        if !spec.text("loadBalancerIP").is_empty() {
            found.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if !external.is_empty() {
            found.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if spec.text("sessionAffinity") != "None" {
            found.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    for (at, ip) in external.iter().enumerate() {
        found.extend(ip_warning(&path.child("externalIPs").index(at), ip));
    }
    let named = of_type(service, &["ExternalName"]);
    if !external.is_empty() && !headless && !named {
        found.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
    }
    if !spec.text("loadBalancerIP").is_empty() {
        found.extend(ip_warning(&path.child("loadBalancerIP"), spec.text("loadBalancerIP")));
    }
    if named && !external.is_empty() {
        found.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !named && !spec.text("externalName").is_empty() {
        found.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        found.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
    found
}
