//! `networking.k8s.io/v1` NetworkPolicy (upstream `apis/networking/validation`).

use crate::addresses::{cidr_warning, legacy_cidr, parse_cidr, strictly_contains};
use crate::kinds::core::endpoints::PROTOCOLS;
use crate::kinds::rows;
use crate::kinds::shared::set_default;
use crate::meta::{validate_label_selector, validate_label_selector_lenient};
use crate::names::{errors, port_name, port_number};
use crate::rules::Rules;
use crate::tree::{Tree, list_mut, object_mut};
use schema::field::{ErrorList, Path, forbidden, invalid, not_supported, required};
use serde_json::{Value, json};

pub static RULES: Rules = Rules {
    default,
    validate: |policy| validate(policy, &Value::Null),
    validate_update: validate,
    warnings: |policy, _| warnings(policy),
    ..rows::NETWORK_POLICY
};

const TYPES: [&str; 2] = ["Ingress", "Egress"];
/// Each direction's list of rules and, in a rule, its list of peers.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

/// A policy speaks of incoming traffic, and of outgoing where it has rules for it.
fn default(policy: &mut Value) {
    let Some(spec) = object_mut(policy, "spec") else { return };
    if spec.list("policyTypes").is_empty() {
        let egress = !spec.list("egress").is_empty();
        spec["policyTypes"] = if egress { json!(TYPES) } else { json!(["Ingress"]) };
    }
    for (direction, _) in DIRECTIONS {
        for rule in list_mut(spec, direction) {
            for port in list_mut(rule, "ports") {
                set_default(port, "protocol", "TCP");
            }
        }
    }
}

/// Every peer of a policy that is a block of addresses, with its place.
fn blocks(policy: &Value) -> Vec<(Path, &Value)> {
    let mut found = Vec::new();
    for (direction, peers) in DIRECTIONS {
        for (at, rule) in policy["spec"].list(direction).iter().enumerate() {
            let path = Path::new("spec").child(direction).index(at).child(peers);
            for (at, peer) in rule.list(peers).iter().enumerate() {
                found.extend(peer.field("ipBlock").map(|block| (path.index(at).child("ipBlock"), block)));
            }
        }
    }
    found
}

fn validate(policy: &Value, old: &Value) -> ErrorList {
    let (spec, path) = (&policy["spec"], Path::new("spec"));
    let lenient = !validate_label_selector(old["spec"].field("podSelector"), &path).is_empty();
    let kept: Vec<&str> =
        blocks(old).into_iter().flat_map(|(_, block)| block.texts("except").chain([block.text("cidr")])).collect();
    let mut found = validate_label_selector_lenient(&spec["podSelector"], &path.child("podSelector"), lenient);
    for (direction, peers) in DIRECTIONS {
        for (at, rule) in spec.list(direction).iter().enumerate() {
            let path = path.child(direction).index(at);
            for (at, port) in rule.list("ports").iter().enumerate() {
                found.extend(validate_port(port, &path.child("ports").index(at)));
            }
            for (at, peer) in rule.list(peers).iter().enumerate() {
                found.extend(validate_peer(peer, lenient, &kept, &path.child(peers).index(at)));
            }
        }
    }
    let (types, path) = (spec.list("policyTypes"), path.child("policyTypes"));
    if types.len() > TYPES.len() {
        found.push(invalid(&path, spec["policyTypes"].clone(), "may not specify more than two policyTypes"));
        return found;
    }
    for (at, of) in spec.texts("policyTypes").enumerate().filter(|(_, of)| !TYPES.contains(of)) {
        found.push(not_supported(&path.index(at), of, &TYPES));
    }
    found
}

fn validate_port(port: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let protocol = port.text("protocol");
    if !PROTOCOLS.contains(&protocol) {
        found.push(not_supported(&path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]));
    }
    let (at, at_end, end) = (path.child("port"), path.child("endPort"), port.int_opt("endPort"));
    match port.field("port") {
        None => found.extend(end.map(|end| invalid(&at_end, end, "may not be specified when `port` is not specified"))),
        Some(Value::String(name)) => {
            found.extend(end.map(|end| invalid(&at_end, end, "may not be specified when `port` is non-numeric")));
            found.extend(errors(&at, name, port_name(name)));
        }
        Some(number) => {
            let number = number.as_i64().unwrap_or_default();
            found.extend(port_number(number).iter().map(|message| invalid(&at, number, message)));
            if let Some(end) = end {
                if end < number {
                    found.push(invalid(&at_end, end, "must be greater than or equal to `port`"));
                }
                found.extend(port_number(end).iter().map(|message| invalid(&at_end, end, message)));
            }
        }
    }
    found
}

fn validate_peer(peer: &Value, lenient: bool, kept: &[&str], path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let selectors = ["podSelector", "namespaceSelector"];
    for field in selectors {
        if let Some(selector) = peer.field(field) {
            found.extend(validate_label_selector_lenient(selector, &path.child(field), lenient));
        }
    }
    if let Some(block) = peer.field("ipBlock") {
        found.extend(validate_block(block, kept, &path.child("ipBlock")));
    }
    let selects = selectors.iter().any(|field| peer.has(field));
    match (selects, peer.has("ipBlock")) {
        (false, false) => found.push(required(path, "must specify a peer")),
        (true, true) => found.push(forbidden(path, "may not specify both ipBlock and another peer")),
        _ => {}
    }
    found
}

fn validate_block(block: &Value, kept: &[&str], path: &Path) -> ErrorList {
    let cidr = block.text("cidr");
    if cidr.is_empty() {
        return vec![required(&path.child("cidr"), "")];
    }
    let mut found = legacy_cidr(&path.child("cidr"), cidr, kept);
    let Some(whole) = parse_cidr(cidr) else { return found };
    for (at, except) in block.texts("except").enumerate() {
        let path = path.child("except").index(at);
        found.extend(legacy_cidr(&path, except, kept));
        if parse_cidr(except).is_some_and(|part| !strictly_contains(whole, part)) {
            found.push(invalid(&path, except, "must be a strict subset of `cidr`"));
        }
    }
    found
}

fn warnings(policy: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (path, block) in blocks(policy) {
        found.extend(cidr_warning(&path.child("cidr"), block.text("cidr")));
        for (at, except) in block.texts("except").enumerate() {
            found.extend(cidr_warning(&path.child("except").index(at), except));
        }
    }
    found
}
