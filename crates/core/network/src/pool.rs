//! Which Pod has which address: a pool per range of the node. Whoever holds a pool writes it down before an address is
//! used, and may throw away what it could not write.

use crate::cidr::Cidr;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// The addresses of one range. The first is the network's, the second the node's; of IPv4 the last is the broadcast
/// address. None of them is ever given away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    range: Cidr,
    /// Who has an address.
    owners: BTreeMap<IpAddr, String>,
    /// The offset of the first address that nobody ever had.
    fresh: u128,
    /// Given back, the longest ago first. Reused only when there is no fresh one: peers may still have the old holder in
    /// their caches.
    released: VecDeque<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("no IP addresses available in range {0}")]
    Exhausted(Cidr),
    #[error("range {0} is too small: it holds no address for a Pod")]
    TooSmall(Cidr),
}

/// Network and node.
const RESERVED_FIRST: u128 = 2;

impl Pool {
    pub fn new(range: Cidr) -> Result<Pool, PoolError> {
        let pool = Pool { range, owners: BTreeMap::new(), fresh: RESERVED_FIRST, released: VecDeque::new() };
        if pool.end() <= RESERVED_FIRST { Err(PoolError::TooSmall(range)) } else { Ok(pool) }
    }

    pub fn range(&self) -> Cidr {
        self.range
    }

    /// The node's own address in this range, with the range's prefix length.
    pub fn node_address(&self) -> (IpAddr, u8) {
        // `new` and a checked read keep the range large enough; its first address is what there always is.
        (self.range.nth(1).unwrap_or(self.range.address()), self.range.prefix())
    }

    /// The address of `owner`: the one it has, else a new one.
    pub fn allocate(&mut self, owner: &str) -> Result<IpAddr, PoolError> {
        if let Some(address) = self.address_of(owner) {
            return Ok(address);
        }
        let address = match self.range.nth(self.fresh).filter(|_| self.fresh < self.end()) {
            Some(address) => {
                self.fresh += 1;
                address
            }
            None => self.released.pop_front().ok_or(PoolError::Exhausted(self.range))?,
        };
        self.owners.insert(address, owner.to_owned());
        Ok(address)
    }

    /// Takes the address of `owner` back, if it has one.
    pub fn release(&mut self, owner: &str) -> Option<IpAddr> {
        let address = self.address_of(owner)?;
        self.owners.remove(&address);
        self.released.push_back(address);
        Some(address)
    }

    pub fn address_of(&self, owner: &str) -> Option<IpAddr> {
        self.owners.iter().find(|(_, name)| *name == owner).map(|(address, _)| *address)
    }

    pub fn owners(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        self.owners.iter().map(|(address, owner)| (owner.as_str(), *address))
    }

    fn end(&self) -> u128 {
        self.range.size() - u128::from(self.range.is_ipv4())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn pool(range: &str) -> Pool {
        Pool::new(range.parse().unwrap()).unwrap()
    }

    #[test]
    fn released_addresses_come_last_and_in_order() {
        let mut pool = pool("10.0.0.0/29");
        assert_eq!(pool.node_address(), ("10.0.0.1".parse().unwrap(), 29));
        let mut give = |owner| pool.allocate(owner).map(|a| a.to_string()).unwrap_or_else(|e| e.to_string());
        assert_eq!([give("a"), give("b"), give("a")], ["10.0.0.2", "10.0.0.3", "10.0.0.2"]);
        assert_eq!(pool.release("a"), Some("10.0.0.2".parse().unwrap()));
        assert_eq!(pool.release("a"), None);
        let mut give = |owner| pool.allocate(owner).map(|a| a.to_string()).unwrap_or_else(|e| e.to_string());
        assert_eq!([give("c"), give("d"), give("e")], ["10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!([give("f"), give("g")], ["10.0.0.2", "no IP addresses available in range 10.0.0.0/29"]);
    }

    #[test]
    fn small_ranges_and_large_ones() {
        for range in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127", "fd00::/128"] {
            assert!(Pool::new(range.parse().unwrap()).is_err(), "{range}");
        }
        assert_eq!(pool("10.0.0.0/30").allocate("a").unwrap().to_string(), "10.0.0.2");
        assert_eq!(pool("fd00::/126").allocate("a").unwrap().to_string(), "fd00::2");
        assert_eq!(pool("::/0").allocate("a").unwrap().to_string(), "::2");
    }

    proptest! {
        #[test]
        fn no_address_has_two_owners(steps in prop::collection::vec((any::<bool>(), 0u8..20), 0..200)) {
            let mut pool = pool("10.0.0.0/28");
            for (take, owner) in steps {
                let owner = format!("p{owner}");
                if take { let _ = pool.allocate(&owner); } else { pool.release(&owner); }
                let held: Vec<IpAddr> = pool.owners().map(|(_, address)| address).collect();
                let names: BTreeSet<&str> = pool.owners().map(|(owner, _)| owner).collect();
                prop_assert_eq!(names.len(), held.len());
                for address in &held {
                    prop_assert!((2..15).contains(&pool.range().offset(*address).unwrap()));
                    prop_assert!(!pool.released.contains(address));
                }
                let text = serde_json::to_string(&pool).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Pool>(&text).unwrap(), &pool);
            }
        }
    }
}
