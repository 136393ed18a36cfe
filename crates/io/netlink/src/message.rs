//! Netlink messages: a header, a fixed body, attributes. Host byte order, as the kernel wants it; netfilter wants
//! network byte order in its attributes.

use std::net::IpAddr;

pub(crate) const HEADER_BYTES: usize = 16;
const ALIGN: usize = 4;

/// A request in the making. Its length and number are filled in when it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    /// What it asks for, to be named in an error.
    pub(crate) what: String,
    /// Errors that mean that all is as it should be.
    pub(crate) tolerated: &'static [i32],
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16, body: &[u8], what: impl Into<String>) -> Message {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        Message { bytes, what: what.into(), tolerated: &[] }
    }

    pub(crate) fn tolerate(mut self, errors: &'static [i32]) -> Message {
        self.tolerated = errors;
        self
    }

    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Message {
        self.put(kind, value);
        self
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Message {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// In network byte order, as netfilter wants its numbers.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Message {
        self.attr(kind, &value.to_be_bytes())
    }

    /// With a terminating zero.
    pub(crate) fn text(self, kind: u16, value: &str) -> Message {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    pub(crate) fn address(self, kind: u16, address: IpAddr) -> Message {
        match address {
            IpAddr::V4(v4) => self.attr(kind, &v4.octets()),
            IpAddr::V6(v6) => self.attr(kind, &v6.octets()),
        }
    }

    /// Attributes within an attribute.
    pub(crate) fn nest(mut self, kind: u16, inner: impl FnOnce(Message) -> Message) -> Message {
        self.align();
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self = inner(self);
        let length = (self.bytes.len() - at) as u16;
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[at + 2..at + 4].copy_from_slice(&kind.to_ne_bytes());
        self
    }

    /// Bytes that are no attribute: the body of a nested message.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Message {
        self.align();
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        self.align();
        self.bytes.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }

    /// Fills in the header; what follows begins at a multiple of four.
    pub(crate) fn finish(&mut self, sequence: u32) {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.align();
    }
}

/// Attributes of an answer; what is cut short ends the list.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & !(NLA_F_NESTED | NLA_F_NET_BYTEORDER);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((kind, value))
    })
}

const NLA_F_NESTED: u16 = 0x8000;
const NLA_F_NET_BYTEORDER: u16 = 0x4000;

/// `struct ifinfomsg`
pub(crate) fn link_body(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..].copy_from_slice(&change.to_ne_bytes());
    body
}

/// The family of an address, as netlink's bodies hold it.
pub(crate) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// How many bits a whole address has.
pub(crate) fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// `struct ifaddrmsg`
pub(crate) fn address_body(address: IpAddr, prefix: u8, flags: u8, index: u32) -> [u8; 8] {
    let mut body = [family(address), prefix, flags, libc::RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    body[4..].copy_from_slice(&index.to_ne_bytes());
    body
}

/// `struct rtmsg`
pub(crate) fn route_body(family: u8, prefix: u8, scope: u8, flags: u32) -> [u8; 12] {
    let mut body = [0; 12];
    body[0] = family;
    body[1] = prefix;
    body[4] = libc::RT_TABLE_MAIN;
    body[5] = libc::RTPROT_STATIC;
    body[6] = scope;
    body[7] = libc::RTN_UNICAST;
    body[8..].copy_from_slice(&flags.to_ne_bytes());
    body
}

/// `struct ndmsg`
pub(crate) fn neighbour_body(address: IpAddr, index: u32, state: u16) -> [u8; 12] {
    let mut body = [0; 12];
    body[0] = family(address);
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..10].copy_from_slice(&state.to_ne_bytes());
    body
}
