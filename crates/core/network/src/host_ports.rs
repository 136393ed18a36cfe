//! What a node's table does for its Pods: their traffic leaves with the node's address, and host ports lead to them.
//! One table per instance; other instances and other programs have tables of their own.
//!
//! ```text
//! prerouting, output   own    the instance's node address: its host ports; nobody else's rules get a hand on it
//!                      host   every other address of the host but the loopbacks: the same ports
//! postrouting          a Pod that reaches itself by a host port; Pods' traffic to what is not of the instance
//! ```
//!
//! The loopback addresses cannot be rewritten without letting other hosts in on them (`route_localnet`): ports there are
//! listened on, see [`listeners`].

use crate::cidr::Cidr;
use crate::nft::{
    Base, Chain, Change, Datum, Elements, Family, Field, Hook, Kind, Rule, Set, Statement, Table, Type, Value, Values,
    Verdict,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a table is made of; one address and one range of each family the instance uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The instance's id.
    pub instance: String,
    /// The node's own addresses.
    pub node: Vec<IpAddr>,
    pub pods: Vec<Cidr>,
    /// All that is the instance's: traffic to it keeps its source.
    pub own: Vec<Cidr>,
    /// How the names of all Pods' links on this host begin, of other instances' too: traffic to a Pod keeps its source.
    pub pod_links: String,
}

/// One port of a container that the host answers on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    /// `None`: all addresses of the host; unspecified: all of its family.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A Pod's host ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The Pod's addresses.
    pub pod: Vec<IpAddr>,
    pub ports: Vec<HostPort>,
}

/// The one before destination addresses are usually rewritten (-100), so that no other instance's `host` chain comes first.
const OWN_PRIORITY: i32 = -110;
const HOST_PRIORITY: i32 = -100;
const POSTROUTING_PRIORITY: i32 = 100;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The name of an instance's table.
pub fn table_name(instance: &str) -> String {
    format!("minke-{instance}")
}

/// The table of an instance, without its elements.
pub fn table(facts: &Facts) -> Table {
    let families = || FAMILIES.into_iter().filter(|family| facts.node.iter().any(|node| family_of(*node) == *family));
    let sets = families().flat_map(|family| {
        let address = if family == Family::V4 { Type::Ipv4 } else { Type::Ipv6 };
        let target = Values::Data(vec![address, Type::Port]);
        [
            Set { name: of(ADDRESSED, family), key: vec![address, Type::Protocol, Type::Port], values: target.clone() },
            Set { name: of(PORTS, family), key: vec![Type::Protocol, Type::Port], values: target },
            Set { name: of(HAIRPIN, family), key: vec![address, address], values: Values::None },
        ]
    });
    let base = |name: &str, hook, priority, to: &str| Chain {
        name: name.to_owned(),
        base: Some(Base { kind: Kind::Nat, hook, priority }),
        rules: vec![Rule { family: None, statements: vec![Statement::Verdict(Verdict::Jump(to.to_owned()))] }],
    };
    let chain = |name: &str, rules| Chain { name: name.to_owned(), base: None, rules };
    Table {
        name: table_name(&facts.instance),
        sets: sets.collect(),
        chains: vec![
            chain("own", families().flat_map(|family| own_rules(facts, family)).collect()),
            chain("host", families().flat_map(host_rules).collect()),
            base("prerouting-own", Hook::Prerouting, OWN_PRIORITY, "own"),
            base("output-own", Hook::Output, OWN_PRIORITY, "own"),
            base("prerouting-host", Hook::Prerouting, HOST_PRIORITY, "host"),
            base("output-host", Hook::Output, HOST_PRIORITY, "host"),
            Chain {
                name: "postrouting".to_owned(),
                base: Some(Base { kind: Kind::Nat, hook: Hook::Postrouting, priority: POSTROUTING_PRIORITY }),
                rules: families().flat_map(|family| leaving_rules(facts, family)).collect(),
            },
        ],
    }
}

const ADDRESSED: &str = "addressed";
const PORTS: &str = "ports";
const HAIRPIN: &str = "hairpin";

fn of(name: &str, family: Family) -> String {
    format!("{name}{}", if family == Family::V4 { 4 } else { 6 })
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn rule(family: Family, statements: Vec<Statement>) -> Rule {
    Rule { family: Some(family), statements }
}

fn addressed(family: Family) -> Rule {
    let fields = vec![Field::Destination, Field::Protocol, Field::DestinationPort];
    rule(family, vec![Statement::DnatBy(fields, of(ADDRESSED, family))])
}

fn ports(family: Family) -> Statement {
    Statement::DnatBy(vec![Field::Protocol, Field::DestinationPort], of(PORTS, family))
}

/// What is for the node's own address and no host port is rewritten to itself: a connection is rewritten once, so no
/// other instance on this host, which takes every address of the host for its own, rewrites it after.
fn own_rules(facts: &Facts, family: Family) -> Vec<Rule> {
    let mut rules = vec![addressed(family)];
    for node in facts.node.iter().copied().filter(|node| family_of(*node) == family) {
        let to_node = Statement::Within(Field::Destination, Cidr::single(node));
        rules.push(rule(family, vec![to_node.clone(), ports(family)]));
        rules.push(rule(family, vec![to_node, Statement::Dnat(node)]));
    }
    rules
}

fn host_rules(family: Family) -> Vec<Rule> {
    let loopback = match family {
        Family::V4 => Cidr::new(Ipv4Addr::LOCALHOST.into(), 8),
        Family::V6 => Cidr::new(Ipv6Addr::LOCALHOST.into(), 128),
    };
    let not_loopback = loopback.map(|loopback| Statement::NotWithin(Field::Destination, loopback));
    let any = [Statement::ToThisHost].into_iter().chain(not_loopback).chain([ports(family)]).collect();
    vec![rule(family, any)]
}

fn leaving_rules(facts: &Facts, family: Family) -> Vec<Rule> {
    let mut rules = Vec::new();
    for node in facts.node.iter().copied().filter(|node| family_of(*node) == family) {
        let itself = Statement::In(vec![Field::Source, Field::Destination], of(HAIRPIN, family));
        rules.push(rule(family, vec![Statement::WasDnat, itself, Statement::Snat(node)]));
    }
    let multicast = match family {
        Family::V4 => Cidr::new(Ipv4Addr::new(224, 0, 0, 0).into(), 4),
        Family::V6 => Cidr::new(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8),
    };
    let own = |range: &&Cidr| range.is_ipv4() == (family == Family::V4);
    let kept = facts.own.iter().filter(own).copied().chain(multicast);
    let kept: Vec<_> = kept.map(|range| Statement::NotWithin(Field::Destination, range)).collect();
    for pods in facts.pods.iter().filter(own) {
        let from = [Statement::Within(Field::Source, *pods), Statement::NotLeavingBy(facts.pod_links.clone())];
        rules.push(rule(family, from.into_iter().chain(kept.clone()).chain([Statement::Masquerade]).collect()));
    }
    rules
}

/// The elements of a table for these claims; of two that claim the same, the first has it.
pub fn elements<'a>(claims: impl IntoIterator<Item = &'a Claim>) -> Elements {
    let mut elements = Elements::new();
    for claim in claims {
        for pod in &claim.pod {
            let family = family_of(*pod);
            for port in claim.ports.iter().filter(|port| applies(port, family)) {
                let what = [Datum::Protocol(number(port.protocol)), Datum::Port(port.host_port)];
                let (set, key) = match port.host_ip.filter(|address| !address.is_unspecified()) {
                    // Listened on.
                    Some(address) if address.is_loopback() => continue,
                    Some(address) => (ADDRESSED, [Datum::Address(address)].into_iter().chain(what).collect()),
                    None => (PORTS, what.to_vec()),
                };
                let target = Value::Data(vec![Datum::Address(*pod), Datum::Port(port.container_port)]);
                elements.entry(of(set, family)).or_default().entry(key).or_insert(target);
                let itself = vec![Datum::Address(*pod); 2];
                elements.entry(of(HAIRPIN, family)).or_default().insert(itself, Value::None);
            }
        }
    }
    elements
}

/// The TCP ports to listen on at the host's loopback addresses, and where each leads.
pub fn listeners<'a>(claims: impl IntoIterator<Item = &'a Claim>) -> BTreeMap<SocketAddr, SocketAddr> {
    let mut listeners = BTreeMap::new();
    for claim in claims {
        for port in claim.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
            for family in FAMILIES.into_iter().filter(|family| applies(port, *family)) {
                let loopback = match family {
                    Family::V4 => IpAddr::from(Ipv4Addr::LOCALHOST),
                    Family::V6 => Ipv6Addr::LOCALHOST.into(),
                };
                let address = match port.host_ip.filter(|address| !address.is_unspecified()) {
                    None => loopback,
                    Some(address) if address.is_loopback() => address,
                    Some(_) => continue,
                };
                // A listener passes bytes on, so the Pod need not have an address of the family.
                let same = claim.pod.iter().find(|pod| family_of(**pod) == family);
                if let Some(pod) = same.or(claim.pod.first()) {
                    let target = SocketAddr::new(*pod, port.container_port);
                    listeners.entry(SocketAddr::new(address, port.host_port)).or_insert(target);
                }
            }
        }
    }
    listeners
}

/// The UDP ports of the host that lead elsewhere after the change: what is tracked of them is stale.
pub fn udp_ports(change: &Change) -> BTreeSet<u16> {
    let keys =
        [&change.removed, &change.added].into_iter().flat_map(|elements| elements.values()).flat_map(BTreeMap::keys);
    let udp = keys.filter_map(|key| match key.as_slice() {
        [.., Datum::Protocol(protocol), Datum::Port(port)] if *protocol == number(Protocol::Udp) => Some(*port),
        _ => None,
    });
    udp.collect()
}

/// As upstream's `portmap`: an address, even the unspecified one, binds a port to its family.
fn applies(port: &HostPort, family: Family) -> bool {
    port.host_ip.is_none_or(|address| family_of(address) == family)
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

#[cfg(test)]
mod tests;
