//! `discovery.k8s.io/v1` EndpointSlice.

use crate::addresses::{endpoint_ip, ip, ip_warning, legacy_ip, parse_ip};
use crate::human;
use crate::kinds::columns;
use crate::kinds::core::endpoints::{PROTOCOLS, listed};
use crate::meta;
use crate::names::{IMMUTABLE, dns_label, dns_subdomain, dns_subdomain_name, errors, label_value, qualified_name};
use crate::rules::Rules;
use crate::tree::{Tree, list_mut, object_mut, remove, same};
use jiff::Timestamp;
use schema::field::{ErrorList, Path, duplicate, internal, invalid, not_supported, required, too_many};
use serde_json::{Value, json};

const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_TOPOLOGY: usize = 16;
const MAX_HINTS: usize = 8;
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

pub static RULES: Rules = Rules {
    default,
    prepare_create: |slice| prepare(slice, &Value::Null),
    prepare_update: prepare,
    validate: |slice| validate(slice, &Value::Null),
    validate_update: update,
    warnings,
    columns: columns::ENDPOINT_SLICE,
    row,
    generation: true,
    ..Rules::PLAIN
};

fn default(slice: &mut Value) {
    for port in list_mut(slice, "ports") {
        for (field, value) in [("name", ""), ("protocol", "TCP")] {
            if !port.has(field) {
                port[field] = value.into();
            }
        }
    }
}

/// In this version `deprecatedTopology` can only be kept.
fn prepare(slice: &mut Value, old: &Value) {
    let kept: Vec<Value> =
        old.list("endpoints").iter().map(|endpoint| endpoint["deprecatedTopology"].clone()).collect();
    for endpoint in list_mut(slice, "endpoints") {
        if endpoint.has("deprecatedTopology") && !kept.contains(&endpoint["deprecatedTopology"]) {
            remove(endpoint, "deprecatedTopology");
        }
        if endpoint["conditions"].is_null() {
            let _ = object_mut(endpoint, "conditions");
        }
    }
}

fn row(slice: &Value, now: Timestamp) -> Vec<Value> {
    let port = |port: &Value| match port.int_opt("port") {
        Some(number) => number.to_string(),
        None => port.text_opt("name").unwrap_or("*").to_owned(),
    };
    let ports: Vec<String> = slice.list("ports").iter().map(port).collect();
    let endpoints = slice.list("endpoints").iter();
    let addresses: Vec<String> =
        endpoints.flat_map(|endpoint| endpoint.texts("addresses")).map(str::to_owned).collect();
    let or_unset = |text: String| if text.is_empty() { "<unset>".to_owned() } else { text };
    vec![
        json!(meta::name(slice)),
        json!(slice.text("addressType")),
        json!(or_unset(listed(&ports))),
        json!(or_unset(listed(&addresses))),
        json!(human::age(&slice["metadata"]["creationTimestamp"], now)),
    ]
}

fn validate(slice: &Value, old: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    let of = slice.text("addressType");
    found.extend(validate_ports(slice.list("ports"), &Path::new("ports")));
    if old.is_null() || !same(&slice["endpoints"], &old["endpoints"]) {
        found.extend(validate_endpoints(slice.list("endpoints"), of, &Path::new("endpoints")));
    }
    // Upstream's declarative rules come last.
    let path = Path::new("addressType");
    if of.is_empty() {
        found.push(required(&path, ""));
    } else if !ADDRESS_TYPES.contains(&of) {
        found.push(not_supported(&path, of, &ADDRESS_TYPES));
    }
    let changed = old.is_null() || !same(&slice["endpoints"], &old["endpoints"]);
    for (at, endpoint) in slice.list("endpoints").iter().enumerate().filter(|_| changed) {
        let path = Path::new("endpoints").index(at).child("addresses");
        let count = endpoint.list("addresses").len();
        if count == 0 {
            found.push(required(&path, ""));
        } else if count > MAX_ADDRESSES {
            found.push(too_many(&path, count, MAX_ADDRESSES));
        }
    }
    found
}

fn validate_ports(ports: &[Value], path: &Path) -> ErrorList {
    if ports.len() > MAX_PORTS {
        return vec![too_many(path, ports.len(), MAX_PORTS)];
    }
    let mut found = ErrorList::new();
    let mut names: Vec<&str> = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let path = path.index(at);
        let name = port.text("name");
        if !name.is_empty() {
            found.extend(errors(&path.child("name"), name, dns_label(name)));
        }
        if names.contains(&name) {
            found.push(duplicate(&path.child("name"), name));
        } else {
            names.push(name);
        }
        match port.text_opt("protocol") {
            None => found.push(required(&path.child("protocol"), "")),
            Some(protocol) if !PROTOCOLS.contains(&protocol) => {
                found.push(not_supported(&path.child("protocol"), protocol, &PROTOCOLS));
            }
            Some(_) => {}
        }
        if let Some(protocol) = port.text_opt("appProtocol") {
            found.extend(errors(&path.child("appProtocol"), protocol, qualified_name(protocol)));
        }
    }
    found
}

fn validate_endpoints(endpoints: &[Value], of: &str, path: &Path) -> ErrorList {
    if endpoints.len() > MAX_ENDPOINTS {
        return vec![too_many(path, endpoints.len(), MAX_ENDPOINTS)];
    }
    endpoints.iter().enumerate().flat_map(|(at, endpoint)| validate_endpoint(endpoint, of, &path.index(at))).collect()
}

fn validate_endpoint(endpoint: &Value, of: &str, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let place = path.child("addresses");
    for (at, address) in endpoint.texts("addresses").enumerate() {
        found.extend(validate_address(address, of, &place, at));
    }
    if let Some(node) = endpoint.text_opt("nodeName") {
        found.extend(errors(&path.child("nodeName"), node, dns_subdomain_name(node, false)));
    }
    let topology = path.child("deprecatedTopology");
    let count = endpoint.entries("deprecatedTopology").count();
    if count > MAX_TOPOLOGY {
        found.push(too_many(&topology, count, MAX_TOPOLOGY));
    }
    found.extend(meta::validate_labels(&endpoint["deprecatedTopology"], &topology));
    if endpoint["deprecatedTopology"].get(ZONE_LABEL).is_some() {
        found.push(internal(&topology.key(ZONE_LABEL), "reserved key was not removed in conversion"));
    }
    if let Some(host) = endpoint.text_opt("hostname") {
        found.extend(errors(&path.child("hostname"), host, dns_label(host)));
    }
    if let Some(hints) = endpoint.field("hints") {
        found.extend(validate_hints(hints, "forZones", label_value, &path.child("hints")));
        let node_name = |name: &str| dns_subdomain_name(name, false);
        found.extend(validate_hints(hints, "forNodes", node_name, &path.child("hints")));
    }
    found
}

fn validate_address(address: &str, of: &str, list: &Path, at: usize) -> ErrorList {
    let path = &list.index(at);
    let family = |wanted: &str, is: fn(std::net::IpAddr) -> bool, mut found: ErrorList| {
        if !found.is_empty() {
            return found;
        }
        if !parse_ip(address).is_some_and(is) {
            found.push(invalid(list, address, &format!("must be an {wanted} address")));
        }
        found.extend(endpoint_ip(address, path));
        found
    };
    match of {
        "IPv4" => family("IPv4", |ip| ip.is_ipv4(), legacy_ip(path, address, &[])),
        "IPv6" => family("IPv6", |ip| ip.is_ipv6(), ip(path, address)),
        "FQDN" => validate_domain(address, path),
        _ => ErrorList::new(),
    }
}

/// `IsFullyQualifiedDomainName`.
fn validate_domain(name: &str, path: &Path) -> ErrorList {
    if name.is_empty() {
        return vec![required(path, "")];
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let messages = dns_subdomain(name);
    if !messages.is_empty() {
        return errors(path, name, messages).collect();
    }
    if name.split('.').count() < 2 {
        return vec![invalid(path, name, "should be a domain with at least two segments separated by dots")];
    }
    name.split('.')
        .filter(|label| label.len() > 63)
        .map(|_| invalid(path, name, "must be no more than 63 characters"))
        .collect()
}

fn validate_hints(hints: &Value, list: &str, check: impl Fn(&str) -> Vec<String>, path: &Path) -> ErrorList {
    let (path, all) = (path.child(list), hints.list(list));
    if all.len() > MAX_HINTS {
        return vec![too_many(&path, all.len(), MAX_HINTS)];
    }
    let mut found = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (at, hint) in all.iter().enumerate() {
        let (path, name) = (path.index(at).child("name"), hint.text("name"));
        if seen.contains(&name) {
            found.push(duplicate(&path, name));
        } else {
            seen.push(name);
        }
        found.extend(errors(&path, name, check(name)));
    }
    found
}

fn update(new: &Value, old: &Value) -> ErrorList {
    let mut found = validate(new, old);
    if new.text("addressType") != old.text("addressType") {
        found.push(invalid(&Path::new("addressType"), Value::Null, IMMUTABLE));
    }
    found
}

fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    if old.is_none() && new.text("addressType") == "FQDN" {
        found.push("addressType: FQDN endpoints are deprecated".to_owned());
    }
    let manager = meta::label(new, "endpointslice.kubernetes.io/managed-by").unwrap_or_default();
    let by_controller =
        matches!(manager, "endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io");
    if by_controller || new.text("addressType") == "FQDN" {
        return found;
    }
    for (at, endpoint) in new.list("endpoints").iter().enumerate() {
        for (place, address) in endpoint.texts("addresses").enumerate() {
            let path = Path::new("endpoints").index(at).child("addresses").index(place);
            found.extend(ip_warning(&path, address));
        }
    }
    found
}
