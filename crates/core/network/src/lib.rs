//! Addresses, and later Services, policies and DNS: what the node's network should be, as pure functions.

pub mod cidr;
pub mod host_ports;
pub mod nft;
pub mod pool;
pub mod ranges;
