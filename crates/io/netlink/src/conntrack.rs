//! Connections as the kernel tracks them.

use crate::NetlinkError;
use crate::message::{Message, attributes};
use crate::socket::Socket;
use std::collections::BTreeSet;

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const ORIGINAL: u16 = 1;
const ZONE: u16 = 18;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;
const NESTED: u16 = 0x8000;

/// Forgets what was ever sent over UDP to these ports: a client that goes on sending would be led to where its first
/// packet went, whatever the rules say by now. Blocks.
pub fn forget_udp(ports: &BTreeSet<u16>) -> Result<(), NetlinkError> {
    let mut socket = Socket::netfilter()?;
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let message =
            |kind, flags: i32, what| Message::new(SUBSYSTEM << 8 | kind, flags as u16, &[family, 0, 0, 0], what);
        let mut stale = Vec::new();
        for (_, body) in socket.query(message(GET, libc::NLM_F_DUMP, "list connections"))? {
            let parts = body.get(4..).unwrap_or_default();
            let Some(tuple) = part(parts, ORIGINAL).filter(|tuple| is_udp_to(tuple, ports)) else { continue };
            let delete = message(DELETE, 0, "forget a connection").attr(ORIGINAL | NESTED, tuple);
            let delete = part(parts, ZONE).into_iter().fold(delete, |m, zone| m.attr(ZONE, zone));
            stale.push(delete.tolerate(&[libc::ENOENT]));
        }
        socket.call(stale)?;
    }
    Ok(())
}

fn part(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

fn is_udp_to(tuple: &[u8], ports: &BTreeSet<u16>) -> bool {
    let protocol = part(tuple, TUPLE_PROTOCOL).unwrap_or_default();
    let port = part(protocol, DESTINATION_PORT).and_then(|port| Some(u16::from_be_bytes(port.try_into().ok()?)));
    part(protocol, PROTOCOL_NUMBER) == Some(&[libc::IPPROTO_UDP as u8])
        && port.is_some_and(|port| ports.contains(&port))
}
