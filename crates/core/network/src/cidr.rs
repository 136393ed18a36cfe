//! Address ranges.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses: `10.244.0.0/24`. Its address is the range's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct CidrError(String);

impl Cidr {
    /// The range that `address` lies in. `None`: there is no such prefix length.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Cidr> {
        let width = width(address);
        if prefix > width {
            return None;
        }
        let bits = to_bits(address);
        let host_bits = u32::from(width - prefix);
        let first = if host_bits >= 128 { 0 } else { bits >> host_bits << host_bits };
        Some(Cidr { address: from_bits(first, address.is_ipv4()), prefix })
    }

    /// The range of one address.
    pub fn single(address: IpAddr) -> Cidr {
        Cidr { address, prefix: width(address) }
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// How many addresses are in it; at most `u128::MAX`.
    pub fn size(&self) -> u128 {
        let host_bits = u32::from(width(self.address) - self.prefix);
        1u128.checked_shl(host_bits).unwrap_or(u128::MAX)
    }

    /// The address at `offset` from the first. `None`: beyond the range.
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        (offset < self.size()).then(|| from_bits(to_bits(self.address) + offset, self.is_ipv4()))
    }

    /// How far `address` is from the first. `None`: it is not in the range.
    pub fn offset(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| to_bits(address) - to_bits(self.address))
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        Cidr::new(address, self.prefix).is_some_and(|range| range == *self) && address.is_ipv4() == self.is_ipv4()
    }

    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.is_ipv4() == other.is_ipv4() && (self.contains(other.address) || other.contains(self.address))
    }

    /// The `index`th range of the given prefix length within this one.
    pub fn subrange(&self, prefix: u8, index: u128) -> Option<Cidr> {
        if prefix < self.prefix {
            return None;
        }
        let size = Cidr::new(self.address, prefix)?.size();
        Cidr::new(self.nth(index.checked_mul(size)?)?, prefix)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_bits(bits: u128, ipv4: bool) -> IpAddr {
    if ipv4 { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let error = || CidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let plain = !prefix.starts_with('+') && (prefix == "0" || !prefix.starts_with('0'));
        let prefix = prefix.parse().ok().filter(|_| plain).ok_or_else(error)?;
        Cidr::new(address.parse().map_err(|_| error())?, prefix).ok_or_else(error)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cidr, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_read_and_measured() {
        for (text, shown, size) in [
            ("10.244.0.7/24", "10.244.0.0/24", 256),
            ("10.0.0.1/32", "10.0.0.1/32", 1),
            ("0.0.0.0/0", "0.0.0.0/0", 1 << 32),
            ("fd00::1/112", "fd00::/112", 1 << 16),
            ("::/0", "::/0", u128::MAX),
        ] {
            assert_eq!((cidr(text).to_string().as_str(), cidr(text).size()), (shown, size), "{text}");
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/08", "x/8", "::/129"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_hold_overlap_and_divide() {
        let range = cidr("10.244.0.0/16");
        assert_eq!(range.nth(257), Some("10.244.1.1".parse().unwrap()));
        assert_eq!(range.nth(65536), None);
        assert_eq!(range.offset("10.244.1.1".parse().unwrap()), Some(257));
        assert_eq!(range.offset("10.245.0.0".parse().unwrap()), None);
        assert!(!range.contains("fd00::1".parse().unwrap()));
        assert!(range.overlaps(&cidr("10.0.0.0/8")) && range.overlaps(&cidr("10.244.3.0/24")));
        assert!(!range.overlaps(&cidr("10.245.0.0/16")) && !range.overlaps(&cidr("::/0")));
        assert_eq!(range.subrange(24, 255), Some(cidr("10.244.255.0/24")));
        assert_eq!(range.subrange(24, 256), None);
        assert_eq!(range.subrange(8, 0), None);
        assert_eq!(cidr("fd00:10:244::/56").subrange(64, 1), Some(cidr("fd00:10:244:1::/64")));
    }
}
