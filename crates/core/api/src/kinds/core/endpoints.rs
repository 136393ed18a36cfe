//! `v1` Endpoints.

use crate::addresses::{endpoint_ip, ip_warning, legacy_ip};
use crate::human;
use crate::kinds::columns;
use crate::meta;
use crate::names::{dns_label, dns_subdomain_name, errors, port_number, qualified_name};
use crate::rules::Rules;
use crate::tree::{Tree, default_to, list_mut, same};
use jiff::Timestamp;
use schema::field::{ErrorList, Path, invalid, not_supported, required};
use serde_json::{Value, json};

pub(in crate::kinds) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const SHOWN: usize = 3;

pub static RULES: Rules = Rules {
    default,
    validate: |endpoints| validate(endpoints, &Value::Null),
    validate_update: validate,
    warnings: |new, _| warnings(new),
    columns: columns::ENDPOINTS,
    row,
    create_on_update: true,
    ..Rules::PLAIN
};

fn default(endpoints: &mut Value) {
    for subset in list_mut(endpoints, "subsets") {
        for port in list_mut(subset, "ports") {
            default_to(port, "protocol", "TCP");
        }
    }
}

fn row(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in endpoints.list("subsets") {
        let addresses = subset.list("addresses");
        if subset.list("ports").is_empty() {
            all.extend(addresses.iter().map(|address| address.text("ip").to_owned()));
        }
        for port in subset.list("ports") {
            all.extend(addresses.iter().map(|address| {
                let (ip, port) = (address.text("ip"), port.int("port"));
                if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
            }));
        }
    }
    let shown = if endpoints.list("subsets").is_empty() { "<none>".to_owned() } else { listed(&all) };
    vec![
        json!(meta::name(endpoints)),
        json!(shown),
        json!(human::age(&endpoints["metadata"]["creationTimestamp"], now)),
    ]
}

/// The first three, and how many more there are.
pub(in crate::kinds) fn listed(all: &[String]) -> String {
    let first = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(",");
    if all.len() > SHOWN { format!("{first} + {} more...", all.len() - SHOWN) } else { first }
}

fn validate(endpoints: &Value, old: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    if !old.is_null() && same(&endpoints["subsets"], &old["subsets"]) {
        return found;
    }
    for (at, subset) in endpoints.list("subsets").iter().enumerate() {
        let path = Path::new("subsets").index(at);
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|list| subset.list(list).is_empty()) {
            found.push(required(&path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for list in lists {
            for (at, address) in subset.list(list).iter().enumerate() {
                found.extend(validate_address(address, &path.child(list).index(at)));
            }
        }
        let ports = subset.list("ports");
        for (at, port) in ports.iter().enumerate() {
            found.extend(validate_port(port, ports.len() > 1, &path.child("ports").index(at)));
        }
    }
    found
}

fn validate_address(address: &Value, path: &Path) -> ErrorList {
    let ip = address.text("ip");
    let mut found = legacy_ip(&path.child("ip"), ip, &[]);
    let host = address.text("hostname");
    if !host.is_empty() {
        found.extend(errors(&path.child("hostname"), host, dns_label(host)));
    }
    if let Some(node) = address.text_opt("nodeName") {
        found.extend(errors(&path.child("nodeName"), node, dns_subdomain_name(node, false)));
    }
    found.extend(endpoint_ip(ip, &path.child("ip")));
    found
}

fn validate_port(port: &Value, named: bool, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let name = port.text("name");
    if !name.is_empty() {
        found.extend(errors(&path.child("name"), name, dns_label(name)));
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
    if let Some(protocol) = port.text_opt("appProtocol") {
        found.extend(errors(&path.child("appProtocol"), protocol, qualified_name(protocol)));
    }
    found
}

fn warnings(endpoints: &Value) -> Vec<String> {
    if meta::label(endpoints, "endpoints.kubernetes.io/managed-by") == Some("endpoint-controller") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, subset) in endpoints.list("subsets").iter().enumerate() {
        for list in ["addresses", "notReadyAddresses"] {
            for (place, address) in subset.list(list).iter().enumerate() {
                let path = Path::new("subsets").index(at).child(list).index(place).child("ip");
                found.extend(ip_warning(&path, address.text("ip")));
            }
        }
    }
    found
}
