//! Checks of IP addresses and networks, with upstream's messages (apimachinery `util/validation/ip.go`).

use crate::names;
use schema::field::{ErrorList, Path, invalid};
use std::net::IpAddr;

/// Go's `ParseIPSloppy`: decimal octets may have leading zeros, zones are refused.
pub fn parse_ip(value: &str) -> Option<IpAddr> {
    if value.contains(':') {
        return value.parse().ok();
    }
    let mut octets = [0u8; 4];
    let mut parts = value.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octet =
            part.trim_start_matches('0').parse().or(part.bytes().all(|b| b == b'0').then_some(0).ok_or(())).ok()?;
    }
    parts.next().is_none().then_some(IpAddr::from(octets))
}

/// `IsValidIPForLegacyField` with `StrictIPCIDRValidation`, which 1.37 has on; `old` are values that stay allowed.
pub fn legacy_ip(path: &Path, value: &str, old: &[&str]) -> ErrorList {
    if old.contains(&value) {
        return ErrorList::new();
    }
    match (parse_ip(value), value.parse::<IpAddr>()) {
        (None, _) => vec![invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")],
        (Some(_), Err(_)) => vec![invalid(path, value, "must not have leading 0s")],
        (Some(_), Ok(IpAddr::V6(ip))) if ip.to_ipv4_mapped().is_some() => {
            vec![invalid(path, value, "must not be an IPv4-mapped IPv6 address")]
        }
        _ => ErrorList::new(),
    }
}

/// `IsValidIP`: also canonical.
pub fn ip(path: &Path, value: &str) -> ErrorList {
    let found = legacy_ip(path, value, &[]);
    match parse_ip(value) {
        Some(ip) if found.is_empty() && ip.to_string() != value => {
            vec![invalid(path, value, &format!("must be in canonical form (\"{ip}\")"))]
        }
        _ => found,
    }
}

/// Upstream `ValidateEndpointIP`: what traffic must not be sent to.
pub fn endpoint_ip(text: &str, path: &Path) -> ErrorList {
    let Some(ip) = parse_ip(text) else {
        return vec![invalid(path, text, "must be a valid IP address")];
    };
    let ip = ip.to_canonical();
    let mut found = ErrorList::new();
    if ip.is_unspecified() {
        found.push(invalid(path, text, &format!("may not be unspecified ({text})")));
    }
    if ip.is_loopback() {
        found.push(invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    let (link_local, multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), matches!(ip.octets(), [224, 0, 0, _])),
        IpAddr::V6(ip) => (ip.segments()[0] & 0xffc0 == 0xfe80, ip.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        found.push(invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"));
    }
    if multicast {
        found.push(invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"));
    }
    found
}

/// The host name by which a load balancer can be reached.
pub fn host_name(path: &Path, name: &str) -> ErrorList {
    let mut found: ErrorList = names::errors(path, name, names::dns_subdomain(name)).collect();
    if parse_ip(name).is_some() {
        found.push(invalid(path, name, "must be a DNS name, not an IP address"));
    }
    found
}

/// `GetWarningsForIP`.
pub fn ip_warning(path: &Path, value: &str) -> Option<String> {
    let shown = match parse_ip(value)? {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            // Go's net.IP prints a mapped address as IPv4.
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(ip),
        },
        v4 => v4,
    };
    if shown.to_string() == value {
        return None;
    }
    if value.contains(':') && shown.is_ipv6() {
        return Some(format!("{path}: IPv6 address \"{value}\" should be in RFC 5952 canonical format (\"{shown}\")"));
    }
    Some(format!("{path}: non-standard IP address \"{value}\" is invalid: use \"{shown}\""))
}

/// A network: address and prefix length. Go's `ParseCIDRSloppy`.
pub fn parse_cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = value.split_once('/')?;
    let address = parse_ip(address)?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    (length <= max).then_some((address, length))
}

/// Whether the network `part` lies in `whole` and is smaller.
pub fn strictly_contains(whole: (IpAddr, u8), part: (IpAddr, u8)) -> bool {
    if part.1 <= whole.1 {
        return false;
    }
    match (whole.0, part.0) {
        (IpAddr::V4(whole_ip), IpAddr::V4(part)) => {
            (u32::from(whole_ip) ^ u32::from(part)).leading_zeros() >= u32::from(whole.1)
        }
        (IpAddr::V6(whole_ip), IpAddr::V6(part)) => {
            (u128::from(whole_ip) ^ u128::from(part)).leading_zeros() >= u32::from(whole.1)
        }
        _ => false,
    }
}

/// `GetWarningsForCIDR` of a network that validation lets pass.
pub fn cidr_warning(path: &Path, value: &str) -> Option<String> {
    let (address, length) = parse_cidr(value).filter(|(address, _)| address.is_ipv6())?;
    let canonical = format!("{address}/{length}");
    (canonical != value).then(|| {
        format!("{path}: IPv6 CIDR value \"{value}\" should be in RFC 5952 canonical format (\"{canonical}\")")
    })
}

fn has_host_bits(address: IpAddr, length: u8) -> bool {
    match address {
        IpAddr::V4(ip) => length < 32 && (u32::from(ip) << length) != 0,
        IpAddr::V6(ip) => length < 128 && (u128::from(ip) << length) != 0,
    }
}

/// `IsValidCIDRForLegacyField` with `StrictIPCIDRValidation`.
pub fn legacy_cidr(path: &Path, value: &str, old: &[&str]) -> ErrorList {
    if old.contains(&value) {
        return ErrorList::new();
    }
    let Some((address, length)) = parse_cidr(value) else {
        return vec![invalid(path, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")];
    };
    let (text, digits) = value.split_once('/').unwrap_or_default();
    let message = match (text.parse::<IpAddr>(), address) {
        (Err(_), _) => "must not have leading 0s in IP or prefix length",
        _ if digits.len() > 1 && digits.starts_with('0') => "must not have leading 0s in IP or prefix length",
        (_, IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => "must not have an IPv4-mapped IPv6 address",
        _ if has_host_bits(address, length) => "must not have bits set beyond the prefix length",
        _ => return ErrorList::new(),
    };
    vec![invalid(path, value, message)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let path = Path::new("ip");
        let first = |found: ErrorList| found.first().map(|e| e.message.clone()).unwrap_or_default();
        for (value, legacy, strict) in [
            ("1.2.3.4", "", ""),
            ("::1", "", ""),
            ("2001:DB8::1", "", "must be in canonical form (\"2001:db8::1\")"),
            ("010.0.0.1", "must not have leading 0s", "must not have leading 0s"),
            ("::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address", "must not be an IPv4-mapped IPv6 address"),
            ("1.2.3", "must be a valid IP address", "must be a valid IP address"),
            ("1.2.3.256", "must be a valid IP address", "must be a valid IP address"),
            ("fe80::1%eth0", "must be a valid IP address", "must be a valid IP address"),
            ("", "must be a valid IP address", "must be a valid IP address"),
        ] {
            for (got, wanted) in [(first(legacy_ip(&path, value, &[])), legacy), (first(ip(&path, value)), strict)] {
                assert_eq!(got.is_empty(), wanted.is_empty(), "{value}: {got}");
                assert!(got.contains(wanted), "{value}: {got}");
            }
        }
        assert!(legacy_ip(&path, "010.0.0.1", &["010.0.0.1"]).is_empty());
    }

    #[test]
    fn networks() {
        let path = Path::new("cidr");
        for (value, wanted) in [
            ("10.0.0.0/8", ""),
            ("fd00::/64", ""),
            ("0.0.0.0/0", ""),
            ("10.0.0.1/32", ""),
            ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
            ("fd00::1/64", "must not have bits set beyond the prefix length"),
            ("010.0.0.0/8", "must not have leading 0s in IP or prefix length"),
            ("10.0.0.0/33", "must be a valid CIDR value"),
            ("10.0.0.0", "must be a valid CIDR value"),
        ] {
            let got = legacy_cidr(&path, value, &[]).first().map(|e| e.message.clone()).unwrap_or_default();
            assert_eq!(got.is_empty(), wanted.is_empty(), "{value}: {got}");
            assert!(got.contains(wanted), "{value}: {got}");
        }
    }

    #[test]
    fn warnings() {
        let path = Path::new("ip");
        for (value, wanted) in [
            ("1.2.3.4", None),
            ("010.0.0.1", Some("ip: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\"")),
            ("::ffff:1.2.3.4", Some("ip: non-standard IP address \"::ffff:1.2.3.4\" is invalid: use \"1.2.3.4\"")),
            (
                "2001:DB8::1",
                Some("ip: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")"),
            ),
        ] {
            assert_eq!(ip_warning(&path, value).as_deref(), wanted, "{value}");
        }
    }
}
