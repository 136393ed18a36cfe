//! A rule as the kernel's expressions: loads into registers, comparisons, look-ups, ends.

use super::LIST_ELEMENT;
use super::elements::{DATA_VALUE, put_verdict};
use crate::message::Message;
use network::cidr::Cidr;
use network::nft::{Family, Field, Rule, Statement, Table, Type, Values, Verdict};
use std::net::IpAddr;

const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// Registers of four bytes; what is loaded begins at the first.
const FIRST_REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATUS: u32 = 2;
const IPS_DST_NAT: u32 = 1 << 5;
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_OF_DESTINATION: u32 = 2;
const SNAT: u32 = 0;
const DNAT: u32 = 1;
/// A port that two connections want is not fought over: `fully-random`, as kube-proxy masquerades.
const RANDOM_FULLY: u32 = 0x10;

pub(super) fn put(m: Message, table: &Table, rule: &Rule) -> Message {
    let m = match rule.family {
        Some(family) => {
            let m = meta(m, META_NFPROTO, FIRST_REGISTER);
            compare(m, EQUAL, &[number(family)])
        }
        None => m,
    };
    rule.statements.iter().fold(m, |m, statement| put_statement(m, table, rule.family, statement))
}

fn put_statement(m: Message, table: &Table, family: Option<Family>, statement: &Statement) -> Message {
    match statement {
        Statement::Within(field, range) => within(m, family, *field, range, EQUAL),
        Statement::NotWithin(field, range) => within(m, family, *field, range, NOT_EQUAL),
        Statement::NotLeavingBy(prefix) => compare(meta(m, META_OIFNAME, FIRST_REGISTER), NOT_EQUAL, prefix.as_bytes()),
        Statement::ToThisHost => {
            let m = expression(m, "fib", |m| {
                m.be32(1, FIRST_REGISTER).be32(2, FIB_ADDRESS_TYPE).be32(3, FIB_OF_DESTINATION)
            });
            compare(m, EQUAL, &u32::from(libc::RTN_LOCAL).to_ne_bytes())
        }
        Statement::WasDnat => {
            let m = expression(m, "ct", |m| m.be32(1, FIRST_REGISTER).be32(2, CT_STATUS));
            let m = mask(m, &IPS_DST_NAT.to_ne_bytes());
            compare(m, NOT_EQUAL, &[0; 4])
        }
        Statement::In(fields, set) => look_up(load(m, family, fields), set, None),
        Statement::Dispatch(fields, map) => look_up(load(m, family, fields), map, Some(VERDICT_REGISTER)),
        Statement::DnatBy(fields, map) => {
            let m = look_up(load(m, family, fields), map, Some(FIRST_REGISTER));
            // The value is address and port.
            let values = table.sets.iter().find(|set| set.name == *map).map(|set| &set.values);
            let is_v6 = matches!(values, Some(Values::Data(parts)) if parts.first() == Some(&Type::Ipv6));
            let family = if is_v6 { Family::V6 } else { Family::V4 };
            nat(m, DNAT, family, Some(FIRST_REGISTER + if is_v6 { 4 } else { 1 }))
        }
        Statement::Dnat(to) => nat(address(m, *to), DNAT, family_of(*to), None),
        Statement::Snat(to) => nat(address(m, *to), SNAT, family_of(*to), None),
        Statement::Masquerade => expression(m, "masq", |m| m.be32(1, RANDOM_FULLY)),
        Statement::Verdict(verdict) => end(m, verdict),
    }
}

fn number(family: Family) -> u8 {
    match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    }
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn expression(m: Message, name: &str, data: impl FnOnce(Message) -> Message) -> Message {
    m.nest(LIST_ELEMENT, |m| m.text(EXPRESSION_NAME, name).nest(EXPRESSION_DATA, data))
}

fn meta(m: Message, key: u32, register: u32) -> Message {
    expression(m, "meta", |m| m.be32(1, register).be32(2, key))
}

/// The fields one after another from the first register on.
fn load(m: Message, family: Option<Family>, fields: &[Field]) -> Message {
    let mut register = FIRST_REGISTER;
    let mut m = m;
    for field in fields {
        // Fields that are addresses have no meaning without a family: the kernel would read whatever stands there.
        let is_v6 = family == Some(Family::V6);
        let payload = |m, base, offset, length| {
            expression(m, "payload", |m| m.be32(1, register).be32(2, base).be32(3, offset).be32(4, length))
        };
        let registers;
        (m, registers) = match (field, is_v6) {
            (Field::Source, false) => (payload(m, NETWORK_HEADER, 12, 4), 1),
            (Field::Destination, false) => (payload(m, NETWORK_HEADER, 16, 4), 1),
            (Field::Source, true) => (payload(m, NETWORK_HEADER, 8, 16), 4),
            (Field::Destination, true) => (payload(m, NETWORK_HEADER, 24, 16), 4),
            (Field::Protocol, _) => (meta(m, META_L4PROTO, register), 1),
            (Field::DestinationPort, _) => (payload(m, TRANSPORT_HEADER, 2, 2), 1),
        };
        register += registers;
    }
    m
}

fn within(m: Message, family: Option<Family>, field: Field, range: &Cidr, operator: u32) -> Message {
    let m = load(m, family, &[field]);
    let (address, ones) = match range.address() {
        IpAddr::V4(v4) => (v4.octets().to_vec(), u32::MAX.to_be_bytes().to_vec()),
        IpAddr::V6(v6) => (v6.octets().to_vec(), u128::MAX.to_be_bytes().to_vec()),
    };
    let prefix = usize::from(range.prefix());
    if prefix == ones.len() * 8 {
        return compare(m, operator, &address);
    }
    let byte = |at: usize| match prefix.saturating_sub(at * 8) {
        0 => 0,
        bits @ 1..8 => 0xff_u8 << (8 - bits),
        _ => 0xff,
    };
    let bits: Vec<u8> = (0..ones.len()).map(byte).collect();
    compare(mask(m, &bits), operator, &address)
}

fn compare(m: Message, operator: u32, value: &[u8]) -> Message {
    expression(m, "cmp", |m| m.be32(1, FIRST_REGISTER).be32(2, operator).nest(3, |m| m.attr(DATA_VALUE, value)))
}

fn mask(m: Message, bits: &[u8]) -> Message {
    expression(m, "bitwise", |m| {
        let m = m.be32(1, FIRST_REGISTER).be32(2, FIRST_REGISTER).be32(3, bits.len() as u32);
        let m = m.nest(4, |m| m.attr(DATA_VALUE, bits));
        m.nest(5, |m| m.attr(DATA_VALUE, &vec![0; bits.len()]))
    })
}

fn look_up(m: Message, set: &str, into: Option<u32>) -> Message {
    expression(m, "lookup", |m| {
        let m = m.text(1, set).be32(2, FIRST_REGISTER);
        match into {
            Some(register) => m.be32(3, register),
            None => m,
        }
    })
}

fn address(m: Message, address: IpAddr) -> Message {
    let bytes = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    expression(m, "immediate", |m| m.be32(1, FIRST_REGISTER).nest(2, |m| m.attr(DATA_VALUE, &bytes)))
}

/// The address stands in the first register.
fn nat(m: Message, kind: u32, family: Family, port_register: Option<u32>) -> Message {
    expression(m, "nat", |m| {
        let m = m.be32(1, kind).be32(2, u32::from(number(family))).be32(3, FIRST_REGISTER);
        match port_register {
            Some(register) => m.be32(5, register),
            None => m,
        }
    })
}

fn end(m: Message, verdict: &Verdict) -> Message {
    expression(m, "immediate", |m| m.be32(1, VERDICT_REGISTER).nest(2, |m| put_verdict(m, verdict)))
}
