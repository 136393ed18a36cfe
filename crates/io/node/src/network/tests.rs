//! On the real kernel, in network namespaces of their own. Needs root.
#![allow(clippy::unwrap_used)]

use super::*;
use rustix::thread::UnshareFlags;
use std::net::{TcpListener, TcpStream};

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

fn options(dir: &Path, instance: &str, block: u8) -> Options {
    Options {
        instance: instance.into(),
        directory: dir.join(instance),
        node_address: IpAddr::from([10, block, 0, 1]),
        pod_cidrs: vec![format!("10.{block}.64.0/18"), format!("fd00:{block}::/64")],
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
        let first = network.0.attach("sandbox1", &one).unwrap();
        assert_eq!(first, ["10.100.64.2".parse::<IpAddr>().unwrap(), "fd00:100::2".parse().unwrap()]);
        assert_eq!(network.0.attach("sandbox1", &one).unwrap(), first);
        let second = network.0.attach("sandbox2", &two).unwrap();
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
        assert_eq!(network.0.attach("sandbox2", &two).unwrap(), second);
        // Another instance beside it; the switches go back with the last.
        let other = Network::open_here(options(dir.path(), "bbbb", 101)).unwrap();
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
        drop((network, other));
        assert!(std::fs::read_dir(dir.path().join("aaaa")).unwrap().next().is_none());
    });
}
