//! Which address ranges the machine uses already.

use crate::NetlinkError;
use crate::message::{Message, attributes};
use crate::socket::Socket;
use std::net::IpAddr;

/// The destinations of every route, default routes left out, and every address: address and prefix length. Blocks.
pub fn taken_ranges() -> Result<Vec<(IpAddr, u8)>, NetlinkError> {
    let mut socket = Socket::route()?;
    let dump = libc::NLM_F_DUMP as u16;
    let routes = socket.query(Message::new(libc::RTM_GETROUTE, dump, &[0; 12], "list routes"))?;
    let addresses = socket.query(Message::new(libc::RTM_GETADDR, dump, &[0; 8], "list addresses"))?;
    let routes = routes.iter().filter_map(|(_, body)| range(body, 12, libc::RTA_DST));
    let addresses = addresses.iter().filter_map(|(_, body)| range(body, 8, libc::IFA_ADDRESS));
    let mut all: Vec<(IpAddr, u8)> = routes.chain(addresses).filter(|(_, prefix)| *prefix > 0).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

/// Both bodies begin with family and prefix length.
fn range(body: &[u8], skip: usize, kind: u16) -> Option<(IpAddr, u8)> {
    let (_, value) = attributes(body.get(skip..)?).find(|(k, _)| *k == kind)?;
    let address = match value.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
        _ => return None,
    };
    Some((address, *body.get(1)?))
}
