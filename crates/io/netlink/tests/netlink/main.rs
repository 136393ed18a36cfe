//! On the real kernel, every test in network namespaces of its own. Needs root.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod nftables;

use netlink::{InstanceLink, Link, PodLink, Remover};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

/// A new network namespace.
fn namespace() -> OwnedFd {
    std::thread::spawn(|| {
        #[allow(deprecated)] // the safe form; only the network is unshared, by a thread that ends here
        rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
        std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
    })
    .join()
    .unwrap()
}

/// Runs `f` in a thread that lives in `netns`.
fn within<T: Send>(netns: &OwnedFd, f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                f()
            })
            .join()
            .unwrap()
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn instance() -> InstanceLink {
    InstanceLink {
        name: "minke0".into(),
        instance: "test".into(),
        addresses: vec![(ip("10.244.0.1"), 24), (ip("fd00:10:244::1"), 64)],
        mtu: 0,
    }
}

fn pod(n: u8) -> PodLink {
    PodLink {
        name: format!("mktest{n}"),
        alias: format!("test/sandbox{n}"),
        addresses: vec![ip(&format!("10.244.0.{n}")), ip(&format!("fd00:10:244::{n}"))],
        node_addresses: vec![ip("10.244.0.1"), ip("fd00:10:244::1")],
        mtu: 1400,
    }
}

/// A listener in `netns` on every address; returns the thread's answer: who connected.
fn serve(netns: &OwnedFd, address: IpAddr) -> TcpListener {
    within(netns, || TcpListener::bind((address, 7)).unwrap())
}

/// Connects from within `netns` and tells from which address the other side saw it.
fn seen_from(netns: &OwnedFd, listener: &TcpListener, to: IpAddr) -> IpAddr {
    let stream = within(netns, || TcpStream::connect((to, 7)).unwrap());
    let (_, peer) = listener.accept().unwrap();
    drop(stream);
    peer.ip()
}

fn sh(netns: &OwnedFd, command: &str) -> String {
    within(netns, || {
        let output = std::process::Command::new("sh").args(["-c", command]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    })
}

#[test]
fn pods_node_and_pods_reach_each_other() {
    let node = namespace();
    let (a, b) = (namespace(), namespace());
    within(&node, || {
        netlink::ensure_instance_link(&instance()).unwrap();
        netlink::ensure_instance_link(&instance()).unwrap();
        // A new namespace has what the first one has.
        netlink::sysctl::set("net/ipv4/ip_forward", "0").unwrap();
        let switches = netlink::sysctl::forwarding(true);
        let before = netlink::sysctl::differing(&switches);
        assert_eq!(before["net/ipv4/ip_forward"], "0");
        for (key, value) in &switches {
            netlink::sysctl::set(key, value).unwrap();
        }
        assert!(netlink::sysctl::differing(&switches).is_empty());
        netlink::attach(&pod(2), a.as_fd()).unwrap();
        netlink::attach(&pod(3), b.as_fd()).unwrap();
        for (key, value) in &before {
            netlink::sysctl::set(key, value).unwrap();
        }
        assert_eq!(netlink::sysctl::get("net/ipv4/ip_forward").as_deref(), Some("0"));
        for (key, value) in &switches {
            netlink::sysctl::set(key, value).unwrap();
        }
    });
    for (node_address, a_address, b_address) in
        [("10.244.0.1", "10.244.0.2", "10.244.0.3"), ("fd00:10:244::1", "fd00:10:244::2", "fd00:10:244::3")]
    {
        let (node_address, a_address, b_address) = (ip(node_address), ip(a_address), ip(b_address));
        let listener = serve(&a, a_address);
        assert_eq!(seen_from(&node, &listener, a_address), node_address);
        assert_eq!(seen_from(&b, &listener, a_address), b_address);
        assert_eq!(seen_from(&a, &listener, a_address), a_address);
        let listener = serve(&node, node_address);
        assert_eq!(seen_from(&b, &listener, node_address), b_address);
        // Localhost is there, too.
        let loopback = if a_address.is_ipv4() { ip("127.0.0.1") } else { ip("::1") };
        let listener = serve(&a, loopback);
        assert_eq!(seen_from(&a, &listener, loopback), loopback);
    }
    // Packets as large as the link takes pass, and nothing was asked on the wire.
    let receiver = within(&b, || UdpSocket::bind("10.244.0.3:9").unwrap());
    within(&a, || UdpSocket::bind("10.244.0.2:0").unwrap().send_to(&[7; 1372], "10.244.0.3:9").unwrap());
    let mut buffer = [0; 2000];
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 1372);
    let neighbours = sh(&a, "ip -4 neigh; ip -6 neigh show fe80::1");
    assert!(neighbours.lines().all(|line| line.contains("PERMANENT")), "{neighbours}");
    assert_eq!(
        sh(&a, "cat /sys/class/net/eth0/mtu 2>/dev/null || true; ip -o link show eth0 | grep -c 'mtu 1400'")
            .lines()
            .last(),
        Some("1")
    );
}

#[test]
fn links_are_found_replaced_and_removed() {
    let node = namespace();
    let (first, second) = (namespace(), namespace());
    within(&node, || {
        netlink::ensure_instance_link(&instance()).unwrap();
        let names =
            || -> Vec<String> { netlink::links("test").unwrap().into_iter().map(|link: Link| link.name).collect() };
        assert_eq!(names(), ["minke0"]);
        netlink::attach(&pod(2), first.as_fd()).unwrap();
        // Once more, into another namespace: as after a crash in between.
        netlink::attach(&pod(2), second.as_fd()).unwrap();
        assert_eq!(names(), ["minke0", "mktest2"]);
        assert_eq!(netlink::links("tes").unwrap(), []);
        let ranges = netlink::taken_ranges().unwrap();
        for range in [("10.244.0.0", 24), ("10.244.0.2", 32), ("fd00:10:244::", 64), ("127.0.0.1", 8)] {
            assert!(ranges.contains(&(ip(range.0), range.1)) || range.1 == 8, "{range:?} {ranges:?}");
        }
        // The address goes to another Pod at once, while the link still goes.
        let remover = Remover::default();
        netlink::detach(&pod(2), &remover).unwrap();
        assert!(!netlink::taken_ranges().unwrap().contains(&(ip("10.244.0.2"), 32)));
        let successor = PodLink { name: "mktest9".into(), alias: "test/other".into(), ..pod(2) };
        netlink::attach(&successor, first.as_fd()).unwrap();
        remover.settle();
        assert_eq!(names(), ["minke0", "mktest9"]);
        assert!(netlink::taken_ranges().unwrap().contains(&(ip("10.244.0.2"), 32)));
        netlink::detach(&pod(2), &remover).unwrap();
        // One that no alias marks yet goes by its name.
        sh(&node, "ip link add mkhalf type bridge; ip link add other type bridge");
        netlink::remove_named(&["mkhalf".into(), "mknone".into()]).unwrap();
        netlink::purge("test").unwrap();
        assert_eq!(netlink::links("test").unwrap(), []);
        assert_eq!(sh(&node, "ip -o link | grep -c 'mkhalf\\|mktest' || true").trim(), "0");
        assert_eq!(sh(&node, "ip -o link | grep -c other").trim(), "1");
        netlink::purge("test").unwrap();
    });
    // A namespace that went took its link along: nothing to do.
    within(&node, || {
        let netns = namespace();
        netlink::ensure_instance_link(&instance()).unwrap();
        netlink::attach(&pod(4), netns.as_fd()).unwrap();
        let remover = Remover::default();
        drop(netns);
        netlink::detach(&pod(4), &remover).unwrap();
        remover.settle();
        netlink::detach(&pod(4), &remover).unwrap();
    });
}

#[test]
fn errors_name_what_was_refused() {
    let node = namespace();
    within(&node, || {
        let words = |result: Result<(), netlink::NetlinkError>| result.unwrap_err().to_string();
        let netns = namespace();
        let long = PodLink { name: "a-name-much-too-long".into(), ..pod(2) };
        assert_eq!(words(netlink::attach(&long, netns.as_fd())), "\"a-name-much-too-long\" is no interface name");
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(
            words(netlink::attach(&pod(2), file.as_fd())),
            "cannot make link mktest2: Invalid argument (os error 22)"
        );
        // The node has no such address: half a link is none.
        assert_eq!(
            words(netlink::attach(&pod(2), netns.as_fd())),
            "cannot add route to 10.244.0.2: Invalid argument (os error 22)"
        );
        assert_eq!(netlink::links("test").unwrap(), []);
    });
}

#[test]
fn a_host_without_ipv6_is_known() {
    within(&namespace(), || {
        assert!(netlink::sysctl::has_ipv6());
        netlink::sysctl::set("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        assert!(!netlink::sysctl::has_ipv6());
    });
}

#[test]
fn many_at_once() {
    let node = namespace();
    let pods: Vec<OwnedFd> = (0..60).map(|_| namespace()).collect();
    within(&node, || {
        netlink::ensure_instance_link(&instance()).unwrap();
        let start = std::time::Instant::now();
        for (n, netns) in pods.iter().enumerate() {
            netlink::attach(&pod(n as u8 + 2), netns.as_fd()).unwrap();
        }
        let each = start.elapsed() / 60;
        let remover = Remover::default();
        let start = std::time::Instant::now();
        for n in 0..60 {
            netlink::detach(&pod(n + 2), &remover).unwrap();
        }
        let detached = start.elapsed() / 60;
        remover.settle();
        eprintln!("attach {each:?} each, detach {detached:?} each, all gone after {:?}", start.elapsed());
        assert_eq!(netlink::links("test").unwrap().len(), 1);
    });
}
