//! Tables as the kernel has them, compared with what Debian's `nft` lists.

use super::{ip, namespace, sh, within};
use netlink::nftables::{Nftables, Watcher, remove_table, tables};
use network::host_ports::{Claim, Facts, HostPort, Protocol, elements, table};
use network::nft::{
    Base, Chain, Change, Datum, Elements, Family, Field, Hook, Kind, Rule, Set, Statement, Table, Type, Value, Values,
    Verdict,
};
use std::sync::mpsc;

fn facts() -> Facts {
    Facts {
        instance: "test".into(),
        node: vec![ip("10.97.0.1"), ip("fd6d::1")],
        pods: vec!["10.97.64.0/18".parse().unwrap(), "fd6d:0:0:1::/64".parse().unwrap()],
        own: vec!["10.97.0.0/16".parse().unwrap(), "fd6d::/48".parse().unwrap()],
        pod_links: "mk".into(),
    }
}

fn claim(host_ip: Option<&str>, host_port: u16, protocol: Protocol) -> Claim {
    let port = HostPort { protocol, host_ip: host_ip.map(ip), host_port, container_port: 80 };
    Claim { pod: vec![ip("10.97.64.2"), ip("fd6d:0:0:1::2")], ports: vec![port] }
}

const LISTED: &str = r#"table inet minke-test {
	flags owner

	map addressed4 {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		elements = { 192.0.2.7 . udp . 53 : 10.97.64.2 . 80 }
	}

	map ports4 {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = { tcp . 8080 : 10.97.64.2 . 80 }
	}

	set hairpin4 {
		type ipv4_addr . ipv4_addr
		elements = { 10.97.64.2 . 10.97.64.2 }
	}

	map addressed6 {
		type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
	}

	map ports6 {
		type inet_proto . inet_service : ipv6_addr . inet_service
		elements = { tcp . 8080 : fd6d:0:0:1::2 . 80 }
	}

	set hairpin6 {
		type ipv6_addr . ipv6_addr
		elements = { fd6d:0:0:1::2 . fd6d:0:0:1::2 }
	}

	chain own {
		dnat ip to ip daddr . meta l4proto . th dport map @addressed4
		ip daddr 10.97.0.1 dnat ip to meta l4proto . th dport map @ports4
		ip daddr 10.97.0.1 dnat ip to 10.97.0.1
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @addressed6
		ip6 daddr fd6d::1 dnat ip6 to meta l4proto . th dport map @ports6
		ip6 daddr fd6d::1 dnat ip6 to fd6d::1
	}

	chain host {
		fib daddr type local ip daddr != 127.0.0.0/8 dnat ip to meta l4proto . th dport map @ports4
		fib daddr type local ip6 daddr != ::1 dnat ip6 to meta l4proto . th dport map @ports6
	}

	chain prerouting-own {
		type nat hook prerouting priority dstnat - 10; policy accept;
		jump own
	}

	chain output-own {
		type nat hook output priority -110; policy accept;
		jump own
	}

	chain prerouting-host {
		type nat hook prerouting priority dstnat; policy accept;
		jump host
	}

	chain output-host {
		type nat hook output priority -100; policy accept;
		jump host
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ct status dnat ip saddr . ip daddr @hairpin4 snat ip to 10.97.0.1
		ip saddr 10.97.64.0/18 oifname != "mk*" ip daddr != 10.97.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
		ct status dnat ip6 saddr . ip6 daddr @hairpin6 snat ip6 to fd6d::1
		ip6 saddr fd6d:0:0:1::/64 oifname != "mk*" ip6 daddr != fd6d::/48 ip6 daddr != ff00::/8 masquerade fully-random
	}
}
"#;

#[test]
fn the_table_is_listed_as_planned() {
    let node = namespace();
    within(&node, || {
        let claims = [claim(None, 8080, Protocol::Tcp), claim(Some("192.0.2.7"), 53, Protocol::Udp)];
        let _held = Nftables::install(table(&facts()), &elements(&claims)).unwrap();
        assert_eq!(tables().unwrap(), ["minke-test"]);
        let listed = sh(&node, "nft list table inet minke-test");
        // The first line names the program that owns the table.
        let (first, rest) = listed.split_once('\n').unwrap();
        assert_eq!(format!("{}\n{rest}", first.split(" #").next().unwrap()), LISTED);
    });
}

#[test]
fn an_owned_table_outlives_others_and_its_owner() {
    let node = namespace();
    within(&node, || {
        let claims = [claim(None, 8080, Protocol::Tcp)];
        let mut held = Nftables::install(table(&facts()), &elements(&claims)).unwrap();
        assert!(held.is_owned());
        sh(&node, "nft flush ruleset");
        assert_eq!(tables().unwrap(), ["minke-test"]);
        assert_eq!(
            remove_table("minke-test").unwrap_err().to_string(),
            "cannot remove table minke-test: Operation not permitted (os error 1)"
        );
        let count = |map: &str| {
            let listed = sh(&node, &format!("nft list map inet minke-test {map}"));
            listed.matches(" : ").count() - 1
        };
        assert_eq!((count("ports4"), count("ports6")), (1, 1));
        let more = elements(&[claim(None, 8080, Protocol::Tcp), claim(None, 8080, Protocol::Sctp)]);
        held.change(&Change::between(&elements(&claims), &more)).unwrap();
        assert_eq!((count("ports4"), count("ports6")), (2, 2));
        // Nothing of a batch is done when a part of it cannot be.
        let mut wrong = Change::between(&more, &elements(&[claim(None, 81, Protocol::Tcp)]));
        wrong.removed.entry("ports4".into()).or_default().insert(vec![Datum::Protocol(6), Datum::Port(9)], Value::None);
        assert_eq!(
            held.change(&wrong).unwrap_err().to_string(),
            "cannot take from set minke-test ports4: No such file or directory (os error 2)"
        );
        assert_eq!((count("ports4"), count("ports6")), (2, 2));
        held.change(&Change::between(&more, &elements([]))).unwrap();
        // The owner is gone: the table stays, and the next takes it over.
        drop(held);
        assert_eq!(tables().unwrap(), ["minke-test"]);
        let again = Nftables::install(table(&facts()), &elements(&claims)).unwrap();
        assert_eq!(count("ports4"), 1);
        drop(again);
        remove_table("minke-test").unwrap();
        remove_table("minke-test").unwrap();
        assert_eq!(tables().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_table_that_others_can_change_is_watched_and_repaired() {
    let node = namespace();
    within(&node, || {
        let wanted = elements(&[claim(None, 8080, Protocol::Tcp)]);
        let mut held = Nftables::install_unowned(table(&facts()), &wanted).unwrap();
        assert!(!held.is_owned());
        let before = sh(&node, "nft list ruleset");
        let (touched, told) = mpsc::channel();
        let watcher = Watcher::start("minke-test", held.port().unwrap(), move || touched.send(()).unwrap()).unwrap();
        // Neither our own changes nor others' tables count.
        held.change(&Change::between(&wanted, &Elements::new())).unwrap();
        held.change(&Change::between(&Elements::new(), &wanted)).unwrap();
        sh(&node, "nft add table inet minke-other; nft add table ip minke-test; nft delete table ip minke-test");
        sh(&node, "nft delete element inet minke-test ports4 '{ tcp . 8080 }'");
        told.recv().unwrap();
        held.restore(&wanted).unwrap();
        sh(&node, "nft flush ruleset");
        // One touch may be told in several parts.
        while sh(&node, "nft list tables").is_empty() {
            told.recv().unwrap();
            held.restore(&wanted).unwrap();
        }
        assert_eq!(sh(&node, "nft list ruleset"), before);
        drop(watcher);
        while told.recv().is_ok() {}
    });
}

/// Many elements go in parts, and a map of verdicts leads to chains.
#[test]
fn many_elements_and_verdicts() {
    let node = namespace();
    within(&node, || {
        let chain = |name: &str, base, statements| Chain {
            name: name.into(),
            base,
            rules: vec![Rule { family: Some(Family::V4), statements }],
        };
        let fields = vec![Field::Destination, Field::Protocol, Field::DestinationPort];
        let filter = Base { kind: Kind::Filter, hook: Hook::Output, priority: 0 };
        let table = Table {
            name: "minke-many".into(),
            sets: vec![Set {
                name: "services".into(),
                key: vec![Type::Ipv4, Type::Protocol, Type::Port],
                values: Values::Verdicts,
            }],
            chains: vec![
                chain("one", None, vec![Statement::Verdict(Verdict::Drop)]),
                chain("out", Some(filter), vec![Statement::Dispatch(fields, "services".into())]),
            ],
        };
        let service = |n: u32| {
            let address = std::net::Ipv4Addr::from_bits(0x0a60_0000 + n);
            let verdict = if n == 7 { Verdict::Accept } else { Verdict::Goto("one".into()) };
            (vec![Datum::Address(address.into()), Datum::Protocol(17), Datum::Port(53)], Value::Verdict(verdict))
        };
        let elements = Elements::from([("services".into(), (0..10_000).map(service).collect())]);
        let began = std::time::Instant::now();
        let mut held = Nftables::install(table, &elements).unwrap();
        eprintln!("10,000 elements in {:?}", began.elapsed());
        let listed =
            sh(&node, "nft list chain inet minke-many out; nft list map inet minke-many services | grep -c goto");
        assert!(listed.contains("ip daddr . meta l4proto . th dport vmap @services"), "{listed}");
        let sent = |address: &str| {
            within(&node, || {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.send_to(b"x", (address, 53)).err().map(|error| error.kind())
            })
        };
        sh(&node, "ip link set lo up; ip route add 10.96.0.0/16 dev lo");
        assert_eq!(sent("10.96.0.7"), None);
        assert_eq!(sent("10.96.0.8"), Some(std::io::ErrorKind::PermissionDenied));
        held.change(&Change::between(&elements, &Elements::new())).unwrap();
        assert_eq!(sent("10.96.0.8"), None);
    });
}
