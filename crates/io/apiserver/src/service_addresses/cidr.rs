//! Ranges of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cidr {
    base: IpAddr,
    length: u32,
}

impl Cidr {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (base, length) = text.split_once('/')?;
        let cidr = Self { base: base.parse().ok()?, length: length.parse().ok()? };
        Some(Self { base: cidr.at(0), ..cidr })
    }

    pub(super) fn family(&self) -> &'static str {
        family_of(self.base)
    }

    pub(super) fn text(&self) -> String {
        format!("{}/{}", self.base, self.length)
    }

    /// How many addresses, as far as 64 bits tell.
    fn size(&self) -> u64 {
        let bits = if self.base.is_ipv4() { 32 } else { 128 } - self.length;
        1u64.checked_shl(bits).unwrap_or(u64::MAX)
    }

    /// The address at an offset from the range's begin.
    fn at(&self, offset: u64) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => {
                let mask = u32::MAX.checked_shl(32 - self.length.min(32)).unwrap_or(0);
                Ipv4Addr::from((u32::from(base) & mask).wrapping_add(u32::try_from(offset).unwrap_or(0))).into()
            }
            IpAddr::V6(base) => {
                let mask = u128::MAX.checked_shl(128 - self.length.min(128)).unwrap_or(0);
                Ipv6Addr::from((u128::from(base) & mask).wrapping_add(u128::from(offset))).into()
            }
        }
    }

    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        family_of(ip) == self.family() && Self { base: ip, length: self.length }.at(0) == self.base
    }

    /// A free address: from the upper part of the range first, whose lower part users choose from by hand.
    pub(super) fn choose(&self, random: u64, taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        // Neither the network's nor the broadcast address.
        let last = self.size().saturating_sub(2).max(1);
        let offset = (self.size() / 16).clamp(16, 256);
        let lower = if self.size() <= 32 { 0 } else { offset };
        let upper = last.saturating_sub(lower).max(1);
        let start = random % upper;
        let dynamic = (0..upper.min(1 << 20)).map(|i| lower + 1 + (start + i) % upper).filter(|o| *o <= last);
        dynamic.chain(1..=lower).map(|offset| self.at(offset)).find(|ip| !taken(*ip))
    }
}

/// The first address of a range, which belongs to the Service `kubernetes`.
pub(crate) fn first_address(cidr: &str) -> Option<IpAddr> {
    Cidr::parse(cidr).map(|cidr| cidr.at(1))
}

pub(super) fn family_of(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges() {
        let cidr = Cidr::parse("10.96.0.0/12").unwrap();
        assert_eq!(first_address("10.96.0.0/12").unwrap().to_string(), "10.96.0.1");
        assert!(cidr.contains("10.111.255.254".parse().unwrap()));
        assert!(!cidr.contains("10.112.0.1".parse().unwrap()));
        assert_eq!(cidr.choose(0, |_| false).unwrap().to_string(), "10.96.1.1");
        let small = Cidr::parse("10.0.0.0/30").unwrap();
        let one: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(small.choose(7, |ip| ip == one).unwrap().to_string(), "10.0.0.2");
        assert_eq!(small.choose(7, |_| true), None);
        let six = Cidr::parse("fd00::/108").unwrap();
        assert!(six.contains(six.choose(12345, |_| false).unwrap()));
    }
}
