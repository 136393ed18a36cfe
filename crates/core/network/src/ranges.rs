//! Which ranges an instance takes: upstream's usual ones where they are free, others beside another instance, a VPN or
//! a company network.

use crate::cidr::Cidr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The ranges of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    /// All Pods of the instance; a node takes a /24 (/64) of it.
    pub pods: Vec<Cidr>,
    pub services: Vec<Cidr>,
}

/// Chooses ranges that overlap nothing of `taken` (routes and addresses of the machine, ranges of other instances).
/// `None`: nothing is free in a family.
pub fn choose(taken: &[Cidr], ipv6: bool) -> Option<Ranges> {
    let mut taken = taken.to_vec();
    let mut pick = |candidates: Vec<Cidr>| {
        let chosen = candidates.into_iter().find(|candidate| !taken.iter().any(|range| range.overlaps(candidate)))?;
        taken.push(chosen);
        Some(chosen)
    };
    let mut ranges = Ranges { pods: vec![pick(pods_v4())?], services: vec![pick(services_v4())?] };
    if ipv6 {
        ranges.pods.push(pick(v6(0x244, 56))?);
        ranges.services.push(pick(v6(0x96, 112))?);
    }
    Some(ranges)
}

/// A node's part of the Pods' range: the `index`th /24 or /64.
pub fn node_range(pods: &Cidr, index: u128) -> Option<Cidr> {
    let prefix = if pods.is_ipv4() { 24 } else { 64 };
    pods.subrange(prefix.max(pods.prefix()), index)
}

fn v4(a: u8, b: u8, prefix: u8) -> Option<Cidr> {
    Cidr::new(IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), prefix)
}

/// 10.244.0.0/16 first (kubeadm's usual), then its neighbours up and down, then 172.16–31.
fn pods_v4() -> Vec<Cidr> {
    let ten = (244..=255).chain((192..244).rev()).filter_map(|b| v4(10, b, 16));
    ten.chain((16..32).rev().filter_map(|b| v4(172, b, 16))).collect()
}

/// 10.96.0.0/12 first (upstream's default), then /16s above and below, then 172.16–31.
fn services_v4() -> Vec<Cidr> {
    let others = (112..192).chain(32..96).filter_map(|b| v4(10, b, 16)).chain((16..32).filter_map(|b| v4(172, b, 16)));
    v4(10, 96, 12).into_iter().chain(others).collect()
}

/// fd00:10:244::/56 and so on (as kind has them).
fn v6(third: u16, prefix: u8) -> Vec<Cidr> {
    let range = |second: u16| Cidr::new(IpAddr::V6(Ipv6Addr::new(0xfd00, second, third, 0, 0, 0, 0, 0)), prefix);
    (0x10..0x60).filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shown(taken: &[&str], ipv6: bool) -> String {
        let taken: Vec<Cidr> = taken.iter().map(|text| text.parse().unwrap()).collect();
        match choose(&taken, ipv6) {
            None => "none".to_owned(),
            Some(Ranges { pods, services }) => {
                let list = |ranges: Vec<Cidr>| ranges.iter().map(Cidr::to_string).collect::<Vec<_>>().join(",");
                format!("{} {}", list(pods), list(services))
            }
        }
    }

    #[test]
    fn free_ranges_are_chosen() {
        for (taken, ipv6, expected) in [
            (&[][..], true, "10.244.0.0/16,fd00:10:244::/56 10.96.0.0/12,fd00:10:96::/112"),
            (&["192.168.1.0/24"][..], false, "10.244.0.0/16 10.96.0.0/12"),
            // Beside an instance that has the usual ones.
            (
                &["10.244.0.0/16", "10.96.0.0/12", "fd00:10:244::/56", "fd00:10:96::/112"][..],
                true,
                "10.245.0.0/16,fd00:11:244::/56 10.112.0.0/16,fd00:11:96::/112",
            ),
            // A single address of it is enough.
            (&["10.244.3.7/32"][..], false, "10.245.0.0/16 10.96.0.0/12"),
            // A company network that takes all of 10.0.0.0/8, and one that takes everything private.
            (&["10.0.0.0/8"][..], false, "172.31.0.0/16 172.16.0.0/16"),
            (&["10.0.0.0/8", "172.16.0.0/12"][..], false, "none"),
            (&["10.192.0.0/10"][..], false, "172.31.0.0/16 10.96.0.0/12"),
        ] {
            assert_eq!(shown(taken, ipv6), expected, "{taken:?}");
        }
    }

    #[test]
    fn nodes_take_parts() {
        let part = |range: &str, index| node_range(&range.parse().unwrap(), index).map(|r| r.to_string());
        assert_eq!(part("10.244.0.0/16", 1).as_deref(), Some("10.244.1.0/24"));
        assert_eq!(part("10.244.0.0/16", 256), None);
        assert_eq!(part("10.244.0.0/26", 0).as_deref(), Some("10.244.0.0/26"));
        assert_eq!(part("fd00:10:244::/56", 2).as_deref(), Some("fd00:10:244:2::/64"));
    }
}
