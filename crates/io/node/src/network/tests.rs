//! On the real kernel, in network namespaces of their own. Needs root.
#![allow(clippy::unwrap_used)]

use super::*;
use netlink::nftables::{Nftables, Watcher};
use rustix::thread::UnshareFlags;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn namespace() -> OwnedFd {
    std::thread::spawn(|| {
        #[allow(deprecated)] // the safe form; only the network is unshared, by a thread that ends here
        rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
        std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
    })
    .join()
    .unwrap()
}

/// A thread that lives in a new namespace.
fn in_new_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        #[allow(deprecated)] // as above
        rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
        test();
    });
    thread.join().unwrap();
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs `f` in a thread that lives in `netns`.
fn within<T: Send>(netns: &OwnedFd, f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            rustix::thread::move_into_link_name_space(netns.as_fd(), None).unwrap();
            f()
        };
        scope.spawn(run).join().unwrap()
    })
}

fn sh(command: &str) -> String {
    let output = std::process::Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn options(dir: &Path, instance: &str, block: u8) -> Options {
    Options {
        instance: instance.into(),
        directory: dir.join(instance),
        node_addresses: vec![IpAddr::from([10, block, 0, 1]), ip(&format!("fd00:{block}::1"))],
        pod_cidrs: vec![format!("10.{block}.64.0/18"), format!("fd00:{block}:0:1::/64")],
        own_cidrs: vec![format!("10.{block}.0.0/16"), format!("fd00:{block}::/48")],
        dual_stack: true,
    }
}

#[test]
fn pods_come_go_and_are_taken_up_again() {
    in_new_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let forward = || netlink::sysctl::get("net/ipv4/ip_forward").unwrap();
        // A new namespace has what the first one has.
        netlink::sysctl::set("net/ipv4/ip_forward", "0").unwrap();
        let network = Network::open_here(options(dir.path(), "aaaa", 100)).unwrap();
        assert!(matches!(forward().as_str(), "1"));
        let (one, two) = (namespace(), namespace());
        let first = network.0.attach("sandbox1", vec![], &one).unwrap();
        assert_eq!(first, ["10.100.64.2".parse::<IpAddr>().unwrap(), "fd00:100:0:1::2".parse().unwrap()]);
        assert_eq!(network.0.attach("sandbox1", vec![], &one).unwrap(), first);
        let second = network.0.attach("sandbox2", vec![], &two).unwrap();
        // The node reaches a Pod, and is seen as the node.
        let listener = std::thread::spawn(move || {
            rustix::thread::move_into_link_name_space(one.as_fd(), None).unwrap();
            TcpListener::bind(("10.100.64.2", 80)).unwrap()
        });
        let listener = listener.join().unwrap();
        let _stream = TcpStream::connect(("10.100.64.2", 80)).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip(), IpAddr::from([10, 100, 0, 1]));
        // A crash: the first Pod's namespace is gone, the second lives on; a third was being made.
        let mut record = network.0.record().clone();
        record.allocate("sandbox3").unwrap();
        record.save(&network.0.options.directory).unwrap();
        network.0.detach("sandbox1").unwrap();
        network.settle();
        drop(network);
        let network = Network::open_here(options(dir.path(), "aaaa", 100)).unwrap();
        assert_eq!(network.0.record().owners().into_iter().collect::<Vec<_>>(), ["sandbox2"]);
        assert_eq!(network.0.attach("sandbox2", vec![], &two).unwrap(), second);
        // Another instance beside it; the switches go back with the last.
        let other = Network::open_here(options(dir.path(), "bbbb", 101)).unwrap();
        assert_eq!(netlink::nftables::tables().unwrap(), ["minke-aaaa", "minke-bbbb"]);
        drop((network, other));
        assert_eq!(netlink::links("bbbb").unwrap()[0].name, "minke1");
        purge(&dir.path().join("aaaa"), "aaaa").unwrap();
        assert_eq!((netlink::links("aaaa").unwrap().len(), forward().as_str()), (0, "1"));
        purge(&dir.path().join("bbbb"), "bbbb").unwrap();
        purge(&dir.path().join("bbbb"), "bbbb").unwrap();
        assert_eq!(forward(), "0");
        assert_eq!(
            netlink::all_links().unwrap().iter().filter(|link| link.name != "lo" && !link.alias.is_empty()).count(),
            0
        );
        assert_eq!(netlink::nftables::tables().unwrap(), Vec::<String>::new());
        assert!(std::fs::read_dir(dir.path().join("aaaa")).unwrap().next().is_none());
    });
}

const TCP: [HostPort; 1] = [HostPort { protocol: Protocol::Tcp, host_ip: None, host_port: 8080, container_port: 80 }];

/// Connects from `netns` and tells whom `listener` sees.
fn seen(netns: Option<&OwnedFd>, listener: &TcpListener, to: &str) -> IpAddr {
    let connect = || TcpStream::connect(to).unwrap_or_else(|error| panic!("{to}: {error}"));
    let _stream = match netns {
        Some(netns) => within(netns, connect),
        None => connect(),
    };
    listener.accept().unwrap().1.ip()
}

/// A namespace beside the node's: 192.0.2.2 and 2001:db8::2 on its side, .1 on the node's, where its default route goes.
fn outside() -> OwnedFd {
    let outside = namespace();
    let pid = std::process::id();
    sh(&format!(
        "ip link add uplink address 02:00:00:00:00:01 type veth peer name eth0 address 02:00:00:00:00:02 netns /proc/{pid}/fd/{}",
        outside.as_raw_fd()
    ));
    sh(
        "ip addr add 192.0.2.1/24 dev uplink; ip addr add 2001:db8::1/64 dev uplink nodad; ip link set uplink up; ip link set lo up",
    );
    // Neighbours are known: a busy machine takes long to tell a link that it has a carrier, and until then nobody answers.
    sh("ip -6 neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev uplink");
    within(&outside, || {
        sh("ip -6 neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev eth0");
        sh("ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad; ip link set eth0 up");
        sh("ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1");
    });
    outside
}

#[test]
fn host_ports_lead_to_pods_and_pods_lead_out() {
    in_new_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let outside = outside();
        let network = Network::open_here(options(dir.path(), "aaaa", 100)).unwrap();
        let (a, b) = (namespace(), namespace());
        network.0.attach("a", TCP.into(), &a).unwrap();
        network.0.attach("b", vec![], &b).unwrap();
        let listen = |netns: &OwnedFd, address: &str| within(netns, || TcpListener::bind(address).unwrap());
        let families = [
            (
                "[::]:80",
                "[2001:db8::1]:8080",
                "[fd00:100::1]:8080",
                "2001:db8::1",
                "2001:db8::2",
                "fd00:100::1",
                "fd00:100:0:1::3",
            ),
            ("0.0.0.0:80", "192.0.2.1:8080", "10.100.0.1:8080", "192.0.2.1", "192.0.2.2", "10.100.0.1", "10.100.64.3"),
        ];
        for (any, host, node, host_address, outside_address, node_address, b_address) in families {
            let pod = listen(&a, any);
            // The host itself, by each of its addresses.
            assert_eq!(seen(None, &pod, host), ip(host_address));
            assert_eq!(seen(None, &pod, node), ip(node_address));
            // Another host's namespace, whose address is kept; another Pod; the Pod itself.
            assert_eq!(seen(Some(&outside), &pod, host), ip(outside_address));
            assert_eq!(seen(Some(&outside), &pod, node), ip(outside_address));
            for to in [host, node] {
                assert_eq!(seen(Some(&b), &pod, to), ip(b_address));
                assert_eq!(seen(Some(&a), &pod, to), ip(node_address));
            }
            // Out of the machine a Pod has the host's address; to another Pod its own.
            drop(pod);
            let world = listen(&outside, any);
            let to =
                if any.starts_with('[') { format!("[{outside_address}]:80") } else { format!("{outside_address}:80") };
            assert_eq!(seen(Some(&b), &world, &to), ip(host_address));
        }
        // Another instance's node address is its own, whatever this one maps; its own map is not looked at for ours.
        let other = Network::open_here(options(dir.path(), "bbbb", 101)).unwrap();
        let theirs = TcpListener::bind("10.101.0.1:8080").unwrap();
        assert_eq!(seen(None, &theirs, "10.101.0.1:8080"), ip("10.101.0.1"));
        assert_eq!(seen(Some(&outside), &theirs, "10.101.0.1:8080"), ip("192.0.2.2"));
        sh("nft flush ruleset");
        let pod = listen(&a, "0.0.0.0:80");
        assert_eq!(seen(Some(&outside), &pod, "192.0.2.1:8080"), ip("192.0.2.2"));
        // A Pod of another instance sees the Pod, not the host.
        let d = namespace();
        other.0.attach("d", vec![], &d).unwrap();
        let pod = listen(&d, "0.0.0.0:80");
        assert_eq!(seen(Some(&b), &pod, "10.101.64.2:80"), ip("10.100.64.3"));
        // Nobody claims the port any more: the host refuses, and a restart finds it so.
        network.0.detach("a").unwrap();
        assert!(TcpStream::connect("192.0.2.1:8080").is_err());
        network.settle();
        drop((network, other));
        let network = Network::open_here(options(dir.path(), "aaaa", 100)).unwrap();
        assert!(TcpStream::connect("192.0.2.1:8080").is_err());
        let c = namespace();
        network.0.attach("c", TCP.into(), &c).unwrap();
        drop(network);
        // A restart leads to who is there.
        let network = Network::open_here(options(dir.path(), "aaaa", 100)).unwrap();
        let pod = listen(&c, "0.0.0.0:80");
        assert_eq!(seen(Some(&outside), &pod, "192.0.2.1:8080"), ip("192.0.2.2"));
        drop(network);
        for instance in ["aaaa", "bbbb"] {
            purge(&dir.path().join(instance), instance).unwrap();
        }
    });
}

#[test]
fn udp_and_addresses() {
    in_new_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let outside = outside();
        let network = Network::open_here(options(dir.path(), "aaaa", 100)).unwrap();
        let port = |protocol, host_ip: &str, host_port| HostPort {
            protocol,
            host_ip: Some(ip(host_ip)),
            host_port,
            container_port: 53,
        };
        let pod = namespace();
        let client = within(&outside, || UdpSocket::bind("192.0.2.2:1000").unwrap());
        client.connect("192.0.2.1:53").unwrap();
        client.send(b"too early").unwrap();
        assert_eq!(client.recv(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        let ports = vec![port(Protocol::Udp, "0.0.0.0", 53), port(Protocol::Tcp, "192.0.2.1", 5353)];
        network.0.attach("a", ports, &pod).unwrap();
        let socket = within(&pod, || UdpSocket::bind("0.0.0.0:53").unwrap());
        client.send(b"question").unwrap();
        let mut buffer = [0; 16];
        let (_, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from.to_string(), "192.0.2.2:1000");
        socket.send_to(b"answer", from).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 6);
        let listener = within(&pod, || TcpListener::bind("0.0.0.0:53").unwrap());
        assert_eq!(seen(Some(&outside), &listener, "192.0.2.1:5353"), ip("192.0.2.2"));
        within(&outside, || assert!(TcpStream::connect("10.100.0.1:5353").is_err()));
        let refused = host_ports(&[PortMapping {
            protocol: "UDP".into(),
            container_port: 53,
            host_port: 53,
            host_ip: Some(ip("127.0.0.1")),
        }]);
        assert_eq!(
            refused.unwrap_err().to_string(),
            "hostPort 53/UDP on 127.0.0.1 is not supported: on the host's loopback only TCP is answered"
        );
        purge(&dir.path().join("aaaa"), "aaaa").unwrap_err();
        drop(network);
        purge(&dir.path().join("aaaa"), "aaaa").unwrap();
    });
}

#[test]
fn loopback_ports_follow_their_pods() {
    in_new_namespace(|| {
        sh("ip link set lo up");
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let network = Network::open(options(dir.path(), "aaaa", 100)).await.unwrap();
            let pod = namespace();
            network.0.attach("a", TCP.into(), &pod).unwrap();
            network.0.listen().await;
            let echo = within(&pod, || TcpListener::bind("[::]:80").unwrap());
            let echo = std::thread::spawn(move || {
                for _ in 0..2 {
                    let mut stream = echo.accept().unwrap().0;
                    std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
                }
            });
            for address in ["127.0.0.1:8080", "[::1]:8080"] {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                stream.write_all(b"through").await.unwrap();
                stream.shutdown().await.unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                assert_eq!(text, "through");
            }
            tokio::task::spawn_blocking(|| echo.join().unwrap()).await.unwrap();
            network.detach("a").await.unwrap();
            assert!(tokio::net::TcpStream::connect("127.0.0.1:8080").await.is_err());
            // It is free at once for the next.
            TcpListener::bind("127.0.0.1:8080").unwrap();
        });
        purge(&dir.path().join("aaaa"), "aaaa").unwrap();
    });
}

/// As on a kernel without owned tables.
#[test]
fn a_table_that_others_can_flush_is_repaired() {
    in_new_namespace(|| {
        let facts = Facts {
            instance: "aaaa".into(),
            node: vec![ip("10.100.0.1")],
            pods: vec!["10.100.64.0/18".parse().unwrap()],
            own: vec!["10.100.0.0/16".parse().unwrap()],
            pod_links: POD_LINK_PREFIX.into(),
        };
        let claim = Claim { pod: vec![ip("10.100.64.2")], ports: TCP.into() };
        let elements = host_ports::elements([&claim]);
        let nftables = Nftables::install_unowned(host_ports::table(&facts), &elements).unwrap();
        let firewall = Firewall::keep("minke-aaaa", nftables, elements).unwrap();
        let before = sh("nft list ruleset");
        let (sender, told) = std::sync::mpsc::channel();
        // Told of everything, the repair's own changes, too.
        let watcher = Watcher::start("minke-aaaa", 0, move || sender.send(()).unwrap()).unwrap();
        sh("nft flush ruleset");
        while netlink::nftables::tables().unwrap().is_empty() {
            told.recv().unwrap();
        }
        assert_eq!(sh("nft list ruleset"), before);
        firewall.lead(|| host_ports::elements([])).unwrap();
        assert!(!sh("nft list ruleset").contains("8080"));
        drop((firewall, watcher));
    });
}
