//! nftables as data: what a table of family `inet` holds. Rules are fixed for the life of a table; what comes and goes are
//! the elements of its sets and maps, so that a packet costs the same however many there are.

use crate::cidr::Cidr;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A table without its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub sets: Vec<Set>,
    pub chains: Vec<Chain>,
}

/// A set or a map; a key of several parts is a concatenation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    pub key: Vec<Type>,
    pub values: Values,
}

/// What a set's elements map to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// It is a set, not a map.
    None,
    Data(Vec<Type>),
    Verdicts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Ipv4,
    Ipv6,
    Protocol,
    Port,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    /// Where packets enter it; `None`: by jumps alone.
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

/// A base chain; the policy is `accept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    pub kind: Kind,
    pub hook: Hook,
    /// Lower comes first.
    pub priority: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Filter,
    Nat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// Statements are tried one after another; the first that does not match ends the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which packets it looks at. Fields that are addresses need one.
    pub family: Option<Family>,
    pub statements: Vec<Statement>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    Within(Field, Cidr),
    NotWithin(Field, Cidr),
    /// The link that it leaves by has a name that does not begin so.
    NotLeavingBy(String),
    /// The destination is an address of this host.
    ToThisHost,
    /// The connection's destination was rewritten.
    WasDnat,
    /// The fields' concatenation is in the set.
    In(Vec<Field>, String),
    /// The verdict that the map has for the fields; none: goes on.
    Dispatch(Vec<Field>, String),
    /// To the address and port that the map has for the fields; none: goes on.
    DnatBy(Vec<Field>, String),
    /// To the address; the port stays.
    Dnat(IpAddr),
    Snat(IpAddr),
    /// From the address of the link that the packet leaves by.
    Masquerade,
    Verdict(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Source,
    Destination,
    Protocol,
    DestinationPort,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// A part of a key or value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Datum {
    Address(IpAddr),
    /// As in an IP header: 6, 17, 132.
    Protocol(u8),
    Port(u16),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    None,
    Data(Vec<Datum>),
    Verdict(Verdict),
}

/// What the sets of a table hold, by the set's name.
pub type Elements = BTreeMap<String, BTreeMap<Vec<Datum>, Value>>;

/// From one content to another: what to take out, then what to put in. An element with a new value is in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub removed: Elements,
    pub added: Elements,
}

impl Change {
    pub fn between(old: &Elements, new: &Elements) -> Change {
        Change { removed: missing(old, new), added: missing(new, old) }
    }

    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }
}

/// What of `from` is not the same in `of`.
fn missing(from: &Elements, of: &Elements) -> Elements {
    let mut missing = Elements::new();
    for (set, elements) in from {
        let there = of.get(set);
        for (key, value) in elements {
            if there.and_then(|there| there.get(key)) != Some(value) {
                missing.entry(set.clone()).or_default().insert(key.clone(), value.clone());
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_what_goes_and_what_comes() {
        let element = |port, to| (vec![Datum::Port(port)], Value::Data(vec![Datum::Port(to)]));
        let set =
            |elements: Vec<(Vec<Datum>, Value)>| Elements::from([("s".to_owned(), elements.into_iter().collect())]);
        let (old, new) = (set(vec![element(1, 10), element(2, 20)]), set(vec![element(1, 10), element(2, 21)]));
        let change = Change::between(&old, &new);
        assert_eq!(change, Change { removed: set(vec![element(2, 20)]), added: set(vec![element(2, 21)]) });
        assert!(Change::between(&new, &new).is_empty());
        assert_eq!(Change::between(&new, &Elements::new()), Change { removed: new, added: Elements::new() });
    }
}
