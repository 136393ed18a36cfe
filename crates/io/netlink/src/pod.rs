//! A Pod's link: a veth from the node into the Pod's namespace, with addresses, routes and neighbours on both sides.

use crate::NetlinkError;
use crate::instance::check_name;
use crate::message::{Message, address_body, family, link_body, neighbour_body, route_body, width};
use crate::remover::{Remover, group_removal};
use crate::socket::{Socket, index_of, is};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A Pod's link as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// The name of the node's end, at most 15 characters. The Pod's is `eth0`.
    pub name: String,
    /// `INSTANCE/SANDBOX`
    pub alias: String,
    /// The Pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The node's addresses: what the node speaks from when it speaks to the Pod.
    pub node_addresses: Vec<IpAddr>,
    /// Bytes; 0: the kernel's default.
    pub mtu: u32,
}

/// What the Pod's default routes point at; nobody else has it, and everybody may.
const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
/// The node's end of every veth: each is alone on its wire.
const NODE_MAC: [u8; 6] = [0x0e, 0x58, 0, 0, 0, 1];
const POD_INTERFACE: &str = "eth0";
const VETH_INFO_PEER: u16 = 1;
const LOOPBACK: u32 = 1;
const RTNH_F_ONLINK: u32 = 4;
const IFA_F_NODAD: u8 = 0x02;
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;

/// Makes the Pod's link into `netns`. Whatever was there under that name goes first, so it may be called again. Blocks.
pub fn attach(link: &PodLink, netns: BorrowedFd<'_>) -> Result<(), NetlinkError> {
    check_name(&link.name)?;
    // A thread of its own: it moves into the Pod's namespace and never returns.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("pod-network".to_owned());
        let thread = thread.spawn_scoped(scope, || attach_here(link, netns)).map_err(NetlinkError::Socket)?;
        thread.join().unwrap_or_else(|_| Err(NetlinkError::Namespace(std::io::Error::other("the thread panicked"))))
    })
}

fn attach_here(link: &PodLink, netns: BorrowedFd<'_>) -> Result<(), NetlinkError> {
    let mut host = Socket::route()?;
    match create(&mut host, link, netns) {
        Err(error) if is(&error, libc::EEXIST) => {
            let old: Vec<u32> = index_of(&mut host, &link.name)?.into_iter().collect();
            group_removal(&mut host, &old)?;
            create(&mut host, link, netns)?;
        }
        result => result?,
    }
    let result = configure(&mut host, link, netns);
    if result.is_err()
        && let Ok(Some(index)) = index_of(&mut host, &link.name)
    {
        // Half a link is none; the error that counts is the first.
        let _ = group_removal(&mut host, &[index]);
    }
    result
}

fn configure(host: &mut Socket, link: &PodLink, netns: BorrowedFd<'_>) -> Result<(), NetlinkError> {
    // The kernel ignores the alias of a link in the making.
    let up = libc::IFF_UP as u32;
    let mark = Message::new(libc::RTM_NEWLINK, 0, &link_body(0, up, up), format!("bring up link {}", link.name));
    host.call(vec![mark.text(libc::IFLA_IFNAME, &link.name).text(libc::IFLA_IFALIAS, &link.alias)])?;
    let index = index_of(host, &link.name)?.ok_or_else(|| gone(&link.name))?;
    host.call(host_side(link, index))?;
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
        .map_err(|e| NetlinkError::Namespace(e.into()))?;
    let mut pod = Socket::route()?;
    let index = index_of(&mut pod, POD_INTERFACE)?.ok_or_else(|| gone(POD_INTERFACE))?;
    pod.call(pod_side(link, index))
}

fn gone(name: &str) -> NetlinkError {
    NetlinkError::Refused { what: format!("find link {name}"), source: std::io::ErrorKind::NotFound.into() }
}

fn create(host: &mut Socket, link: &PodLink, netns: BorrowedFd<'_>) -> Result<(), NetlinkError> {
    let mtu = |message: Message| if link.mtu > 0 { message.u32(libc::IFLA_MTU, link.mtu) } else { message };
    let what = format!("make link {}", link.name);
    let message =
        Message::new(libc::RTM_NEWLINK, CREATE, &link_body(0, 0, 0), what).text(libc::IFLA_IFNAME, &link.name);
    let message = mtu(message.attr(libc::IFLA_ADDRESS, &NODE_MAC)).nest(libc::IFLA_LINKINFO, |m| {
        m.text(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |m| {
            m.nest(VETH_INFO_PEER, |m| {
                let m = m.raw(&link_body(0, 0, 0)).text(libc::IFLA_IFNAME, POD_INTERFACE);
                let m = mtu(m.attr(libc::IFLA_ADDRESS, &pod_mac(&link.addresses)));
                m.u32(libc::IFLA_NET_NS_FD, netns.as_raw_fd() as u32)
            })
        })
    });
    host.call(vec![message])
}

/// Local, unicast, and the address's own.
fn pod_mac(addresses: &[IpAddr]) -> [u8; 6] {
    let octets = match addresses.first() {
        Some(IpAddr::V4(v4)) => v4.octets(),
        Some(IpAddr::V6(v6)) => [v6.octets()[12], v6.octets()[13], v6.octets()[14], v6.octets()[15]],
        None => [0; 4],
    };
    [0x0a, 0x58, octets[0], octets[1], octets[2], octets[3]]
}

fn neighbour(address: IpAddr, index: u32, mac: [u8; 6]) -> Message {
    let body = neighbour_body(address, index, libc::NUD_PERMANENT);
    let message = Message::new(libc::RTM_NEWNEIGH, REPLACE, &body, format!("add neighbour {address}"));
    message.address(libc::NDA_DST, address).attr(libc::NDA_LLADDR, &mac)
}

fn host_side(link: &PodLink, index: u32) -> Vec<Message> {
    let mut batch = Vec::new();
    for address in &link.addresses {
        batch.push(neighbour(*address, index, pod_mac(&link.addresses)));
        // Replaces a route that an earlier holder of the address may have left.
        let body = route_body(family(*address), width(*address), libc::RT_SCOPE_LINK, 0);
        let mut route = Message::new(libc::RTM_NEWROUTE, REPLACE, &body, format!("add route to {address}"));
        route = route.address(libc::RTA_DST, *address).u32(libc::RTA_OIF, index);
        if let Some(source) = link.node_addresses.iter().find(|node| node.is_ipv4() == address.is_ipv4()) {
            route = route.address(libc::RTA_PREFSRC, *source);
        }
        batch.push(route);
    }
    batch
}

fn pod_side(link: &PodLink, index: u32) -> Vec<Message> {
    let up = libc::IFF_UP as u32;
    let bring_up =
        |index, name: &str| Message::new(libc::RTM_NEWLINK, 0, &link_body(index, up, up), format!("bring up {name}"));
    let mut batch = vec![bring_up(LOOPBACK, "lo"), bring_up(index, POD_INTERFACE)];
    for address in &link.addresses {
        let dad = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
        let body = address_body(*address, width(*address), dad, index);
        let give = Message::new(libc::RTM_NEWADDR, CREATE, &body, format!("give {address} to the Pod"));
        batch.push(give.address(libc::IFA_LOCAL, *address).address(libc::IFA_ADDRESS, *address));
    }
    for gateway in [GATEWAY_V4, GATEWAY_V6] {
        if !link.addresses.iter().any(|address| address.is_ipv4() == gateway.is_ipv4()) {
            continue;
        }
        batch.push(neighbour(gateway, index, NODE_MAC));
        let body = route_body(family(gateway), 0, libc::RT_SCOPE_UNIVERSE, RTNH_F_ONLINK);
        let route =
            Message::new(libc::RTM_NEWROUTE, CREATE, &body, format!("add the Pod's default route via {gateway}"));
        batch.push(route.address(libc::RTA_GATEWAY, gateway).u32(libc::RTA_OIF, index));
    }
    batch
}

/// Takes the Pod's routes away at once, so that its addresses can be another's, and its link in the background. All may
/// be gone already. Blocks.
pub fn detach(link: &PodLink, remover: &Remover) -> Result<(), NetlinkError> {
    let mut host = Socket::route()?;
    let Some(index) = index_of(&mut host, &link.name)? else { return Ok(()) };
    let route = |address: &IpAddr| {
        let body = route_body(family(*address), width(*address), libc::RT_SCOPE_NOWHERE, 0);
        let message = Message::new(libc::RTM_DELROUTE, 0, &body, format!("delete route to {address}"));
        let message = message.address(libc::RTA_DST, *address).u32(libc::RTA_OIF, index);
        message.tolerate(&[libc::ESRCH, libc::ENODEV])
    };
    host.call(link.addresses.iter().map(route).collect())?;
    remover.remove(index);
    Ok(())
}
