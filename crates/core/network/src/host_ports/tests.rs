//! What stands in the table for which ports.

#![allow(clippy::unwrap_used)]
use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(protocol: Protocol, host_ip: &str, host_port: u16, container_port: u16) -> HostPort {
    let host_ip = (!host_ip.is_empty()).then(|| ip(host_ip));
    HostPort { protocol, host_ip, host_port, container_port }
}

fn claim(pod: &[&str], ports: &[HostPort]) -> Claim {
    Claim { pod: pod.iter().map(|pod| ip(pod)).collect(), ports: ports.to_vec() }
}

fn shown(claims: &[Claim]) -> Vec<String> {
    let part = |datum: &Datum| match datum {
        Datum::Address(address) => address.to_string(),
        Datum::Protocol(number) => number.to_string(),
        Datum::Port(number) => number.to_string(),
    };
    let parts = |data: &[Datum]| data.iter().map(part).collect::<Vec<_>>().join(" ");
    let all = elements(claims).into_iter().flat_map(|(set, elements)| {
        let line = move |(key, value): (Vec<Datum>, Value)| match value {
            Value::Data(data) => format!("{set}: {} -> {}", parts(&key), parts(&data)),
            _ => format!("{set}: {}", parts(&key)),
        };
        elements.into_iter().map(line).collect::<Vec<_>>()
    });
    all.collect()
}

const DUAL: &[&str] = &["10.0.0.2", "fd00::2"];

#[test]
fn ports_are_mapped_by_address_protocol_and_family() {
    use Protocol::{Sctp, Tcp, Udp};
    for (claims, expected) in [
        (vec![], vec![]),
        (
            vec![claim(DUAL, &[port(Tcp, "", 8080, 80)])],
            vec![
                "hairpin4: 10.0.0.2 10.0.0.2",
                "hairpin6: fd00::2 fd00::2",
                "ports4: 6 8080 -> 10.0.0.2 80",
                "ports6: 6 8080 -> fd00::2 80",
            ],
        ),
        // An address binds a port to its family, even the unspecified one.
        (
            vec![claim(DUAL, &[port(Udp, "0.0.0.0", 53, 5353), port(Sctp, "fd00::1", 9, 9)])],
            vec![
                "addressed6: fd00::1 132 9 -> fd00::2 9",
                "hairpin4: 10.0.0.2 10.0.0.2",
                "hairpin6: fd00::2 fd00::2",
                "ports4: 17 53 -> 10.0.0.2 5353",
            ],
        ),
        // Loopback addresses are listened on, and a Pod of one family has nothing for the other.
        (vec![claim(DUAL, &[port(Tcp, "127.0.0.1", 80, 80)])], vec![]),
        (vec![claim(&["10.0.0.2"], &[port(Tcp, "::", 80, 80)])], vec![]),
        // The first that claims a port has it.
        (
            vec![claim(&["10.0.0.9"], &[port(Tcp, "", 80, 1)]), claim(&["10.0.0.2"], &[port(Tcp, "", 80, 2)])],
            vec!["hairpin4: 10.0.0.2 10.0.0.2", "hairpin4: 10.0.0.9 10.0.0.9", "ports4: 6 80 -> 10.0.0.9 1"],
        ),
    ] {
        assert_eq!(shown(&claims), expected);
    }
}

#[test]
fn loopback_ports_are_listened_on() {
    let lines = |ports: &[HostPort], pod: &[&str]| -> Vec<String> {
        listeners([&claim(pod, ports)]).into_iter().map(|(from, to)| format!("{from} -> {to}")).collect()
    };
    use Protocol::{Tcp, Udp};
    assert_eq!(
        lines(&[port(Tcp, "", 8080, 80)], DUAL),
        ["127.0.0.1:8080 -> 10.0.0.2:80", "[::1]:8080 -> [fd00::2]:80"]
    );
    assert_eq!(
        lines(&[port(Tcp, "", 8080, 80)], &["10.0.0.2"]),
        ["127.0.0.1:8080 -> 10.0.0.2:80", "[::1]:8080 -> 10.0.0.2:80"]
    );
    assert_eq!(lines(&[port(Tcp, "127.0.0.5", 8080, 80)], DUAL), ["127.0.0.5:8080 -> 10.0.0.2:80"]);
    assert_eq!(lines(&[port(Tcp, "192.0.2.1", 8080, 80), port(Udp, "", 53, 53)], DUAL), Vec::<String>::new());
}

#[test]
fn a_table_knows_the_families_of_its_node() {
    let facts = |node: &[&str], own: &[&str], pods: &[&str]| Facts {
        instance: "0a1b2c3d".into(),
        node: node.iter().map(|node| ip(node)).collect(),
        pods: pods.iter().map(|range| range.parse().unwrap()).collect(),
        own: own.iter().map(|range| range.parse().unwrap()).collect(),
        pod_links: "mk".into(),
    };
    let single = table(&facts(&["10.97.0.1"], &["10.97.0.0/16"], &["10.97.64.0/18"]));
    assert_eq!(single.name, "minke-0a1b2c3d");
    let names = |table: &Table| table.sets.iter().map(|set| set.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&single), ["addressed4", "ports4", "hairpin4"]);
    let rules = |table: &Table, chain: &str| table.chains.iter().find(|c| c.name == chain).unwrap().rules.len();
    assert_eq!([rules(&single, "own"), rules(&single, "host"), rules(&single, "postrouting")], [3, 1, 2]);
    let dual =
        table(&facts(&["10.97.0.1", "fd00::1"], &["10.97.0.0/16", "fd00::/48"], &["10.97.64.0/18", "fd00:0:0:1::/64"]));
    assert_eq!(names(&dual).len(), 6);
    assert_eq!([rules(&dual, "own"), rules(&dual, "host"), rules(&dual, "postrouting")], [6, 2, 4]);
}
