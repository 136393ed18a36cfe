//! Links, addresses, routes and nftables over netlink sockets: one link per instance, a point-to-point veth per Pod, no bridge:
//! every packet is routed. Everything here blocks, but never for long; a veth's deletion, which does take long, goes to
//! a [`Remover`].
//!
//! ```text
//! node                                             Pod's network namespace
//! minke0 (instance link) 10.244.0.1/24
//! mkXXXX  ── veth ──────────────────────────────── eth0 10.244.0.2/32
//!   route 10.244.0.2 dev mkXXXX src 10.244.0.1       default via 169.254.1.1 dev eth0 onlink
//!   neighbour 10.244.0.2 permanent                   neighbour 169.254.1.1 permanent
//! ```
//!
//! Both ends know each other's hardware address from the start: nothing is ever asked on the wire. Every link carries
//! its instance's id at the beginning of its alias.

mod conntrack;
mod instance;
mod message;
pub mod nftables;
mod pod;
mod ranges;
mod remover;
mod socket;
pub mod sysctl;

pub use conntrack::forget_udp;
pub use instance::{InstanceLink, Link, all_links, ensure_instance_link, links, purge, remove_named};
pub use pod::{PodLink, attach, detach};
pub use ranges::taken_ranges;
pub use remover::Remover;

/// Why the kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot {what}: {source}")]
    Refused { what: String, source: std::io::Error },
    #[error("netlink: {0}")]
    Socket(#[source] std::io::Error),
    #[error("netlink: malformed answer")]
    Malformed,
    #[error("cannot enter the network namespace: {0}")]
    Namespace(#[source] std::io::Error),
    #[error("{0:?} is no interface name")]
    Name(String),
    #[error("cannot set {path} to {value}: {source}")]
    Sysctl { path: String, value: String, source: std::io::Error },
}
