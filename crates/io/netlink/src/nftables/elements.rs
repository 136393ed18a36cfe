//! What sets and maps hold.

use super::{IN_TABLE, LIST_ELEMENT, SET_NAME, message};
use crate::message::Message;
use network::nft::{Datum, Elements, Table, Value, Verdict};
use std::net::IpAddr;

const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
pub(super) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// A list is one attribute, and an attribute has less than 64 KiB; the largest element takes less than 128 bytes.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// Adds the messages that put elements in, or take them out.
pub(super) fn put_elements(batch: &mut Vec<Message>, table: &Table, elements: &Elements, add: bool) {
    for (set, elements) in elements {
        let (kind, flags, verb) =
            if add { (NEW_ELEMENTS, libc::NLM_F_CREATE, "add to") } else { (DELETE_ELEMENTS, 0, "take from") };
        let all: Vec<_> = elements.iter().collect();
        for part in all.chunks(ELEMENTS_PER_MESSAGE) {
            let list = message(kind, flags, format!("{verb} set {} {set}", table.name));
            let list = list.text(IN_TABLE, &table.name).text(SET_NAME, set);
            batch.push(list.nest(ELEMENTS, |m| {
                part.iter().fold(m, |m, (key, value)| m.nest(LIST_ELEMENT, |m| element(m, key, value, add)))
            }));
        }
    }
}

fn element(m: Message, key: &[Datum], value: &Value, add: bool) -> Message {
    let m = m.nest(ELEMENT_KEY, |m| m.attr(DATA_VALUE, &data(key)));
    match value {
        Value::None => m,
        // What is taken out is named by its key alone.
        _ if !add => m,
        Value::Data(parts) => m.nest(ELEMENT_DATA, |m| m.attr(DATA_VALUE, &data(parts))),
        Value::Verdict(verdict) => m.nest(ELEMENT_DATA, |m| put_verdict(m, verdict)),
    }
}

/// As registers hold it: in a concatenation each part fills whole registers of four bytes.
fn data(parts: &[Datum]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Datum::Address(IpAddr::V4(address)) => bytes.extend(address.octets()),
            Datum::Address(IpAddr::V6(address)) => bytes.extend(address.octets()),
            Datum::Protocol(number) => bytes.push(*number),
            Datum::Port(number) => bytes.extend(number.to_be_bytes()),
        }
        if parts.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

pub(super) fn put_verdict(m: Message, verdict: &Verdict) -> Message {
    let (code, chain) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Return => (-5, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
    };
    m.nest(DATA_VERDICT, |m| {
        let m = m.be32(VERDICT_CODE, i32::cast_unsigned(code));
        match chain {
            Some(chain) => m.text(VERDICT_CHAIN, chain),
            None => m,
        }
    })
}
