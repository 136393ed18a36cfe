//! The one link of an instance: it carries the node's addresses and the connected routes of the Pods' ranges, so that a
//! Pod address that nobody has is unreachable here and never leaves the machine.

use crate::NetlinkError;
use crate::message::{Message, address_body, link_body};
use crate::remover::group_removal;
use crate::socket::{Socket, index_of, is, text};
use std::net::IpAddr;

/// An instance's link as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceLink {
    /// At most 15 characters: `minke0`.
    pub name: String,
    /// The instance's id.
    pub instance: String,
    /// The node's addresses with the prefix length of the range each is from.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Bytes; 0: the kernel's default.
    pub mtu: u32,
}

/// A link of an instance, as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub alias: String,
}

const IFA_F_NODAD: u8 = 0x02;

/// Makes the link, or completes it if it is there. Blocks.
pub fn ensure_instance_link(link: &InstanceLink) -> Result<(), NetlinkError> {
    check_name(&link.name)?;
    let mut socket = Socket::route()?;
    if index_of(&mut socket, &link.name)?.is_none() {
        // A bridge without ports; a kernel without bridges has dummies.
        match socket.call(vec![create(link, "bridge")]) {
            Err(error) if is(&error, libc::EOPNOTSUPP) => socket.call(vec![create(link, "dummy")])?,
            result => result?,
        }
    }
    let what = |what: &str| format!("{what} link {}", link.name);
    let index = index_of(&mut socket, &link.name)?
        .ok_or_else(|| NetlinkError::Refused { what: what("find"), source: std::io::ErrorKind::NotFound.into() })?;
    let up = libc::IFF_UP as u32;
    let mut batch = vec![
        Message::new(libc::RTM_NEWLINK, 0, &link_body(index, up, up), what("bring up"))
            .text(libc::IFLA_IFALIAS, &link.instance),
    ];
    for (address, prefix) in &link.addresses {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        let dad = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
        let body = address_body(*address, *prefix, dad, index);
        let message =
            Message::new(libc::RTM_NEWADDR, flags, &body, format!("give {address}/{prefix} to link {}", link.name));
        batch.push(message.address(libc::IFA_LOCAL, *address).address(libc::IFA_ADDRESS, *address));
    }
    socket.call(batch)
}

fn create(link: &InstanceLink, kind: &str) -> Message {
    let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
    let what = format!("make link {} ({kind})", link.name);
    let mut message =
        Message::new(libc::RTM_NEWLINK, flags, &link_body(0, 0, 0), what).text(libc::IFLA_IFNAME, &link.name);
    if link.mtu > 0 {
        message = message.u32(libc::IFLA_MTU, link.mtu);
    }
    message.nest(libc::IFLA_LINKINFO, |m| m.text(libc::IFLA_INFO_KIND, kind)).tolerate(&[libc::EEXIST])
}

/// Every link whose alias is `instance`, or begins with it and a `/`. Blocks.
pub fn links(instance: &str) -> Result<Vec<Link>, NetlinkError> {
    let ours =
        |link: &Link| link.alias.strip_prefix(instance).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    Ok(all_links()?.into_iter().filter(ours).collect())
}

/// Removes every link of the instance, and waits until they are gone. Blocks.
pub fn purge(instance: &str) -> Result<(), NetlinkError> {
    let indices: Vec<u32> = links(instance)?.into_iter().map(|link| link.index).collect();
    group_removal(&mut Socket::route()?, &indices)
}

/// Removes links by name: those that a crash left before they were marked. Blocks.
pub fn remove_named(names: &[String]) -> Result<(), NetlinkError> {
    let mut socket = Socket::route()?;
    let mut indices = Vec::new();
    for name in names {
        indices.extend(index_of(&mut socket, name)?);
    }
    group_removal(&mut socket, &indices)
}

/// Every link of the machine. Blocks.
pub fn all_links() -> Result<Vec<Link>, NetlinkError> {
    let mut socket = Socket::route()?;
    let message = Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP as u16, &link_body(0, 0, 0), "list links");
    let all = socket.query(message)?.into_iter().filter_map(|(_, body)| {
        let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
        let (name, alias) = (text(&body, 16, libc::IFLA_IFNAME), text(&body, 16, libc::IFLA_IFALIAS));
        Some(Link { index, name, alias })
    });
    Ok(all.collect())
}

pub(crate) fn check_name(name: &str) -> Result<(), NetlinkError> {
    let ok = !name.is_empty() && name.len() < libc::IFNAMSIZ && name.bytes().all(|c| c.is_ascii_graphic() && c != b'/');
    if ok { Ok(()) } else { Err(NetlinkError::Name(name.to_owned())) }
}
