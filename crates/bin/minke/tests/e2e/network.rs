//! The network of Pods as other hosts, the node and other Pods see it.

use crate::cluster::{Cluster, succeed};
use crate::pods::{kill_and_wait, page_at};
use std::net::{IpAddr, TcpListener};
use std::process::Command;

/// A network namespace that stands for another host: a wire to this one, and its default route over it.
struct Outside {
    name: String,
    /// This host's end of the wire.
    host: [String; 2],
    own: [String; 2],
}

impl Outside {
    fn new(cluster: &Cluster) -> Self {
        let id = cluster.id();
        let byte = |at: usize| u8::from_str_radix(&id[at..at + 2], 16).unwrap();
        // Of the ranges for benchmarks and documentation.
        let v4 = |n: u8| format!("198.{}.{}.{}", 18 + byte(0) % 2, byte(2), byte(4) / 4 * 4 + n);
        let v6 = |n: u8| format!("2001:db8:{}:{}::{n}", &id[..4], &id[4..]);
        let outside = Self { name: format!("out-{id}"), host: [v4(1), v6(1)], own: [v4(2), v6(2)] };
        let (name, [host4, host6], [own4, own6]) = (&outside.name, &outside.host, &outside.own);
        let wire = format!("out{id}");
        sh(&format!(
            "ip netns add {name}
             ip link add {wire} address 02:00:00:00:00:01 type veth peer name eth0 address 02:00:00:00:00:02 netns {name}
             ip addr add {host4}/30 dev {wire}; ip addr add {host6}/64 dev {wire} nodad; ip link set {wire} up
             ip -n {name} addr add {own4}/30 dev eth0; ip -n {name} addr add {own6}/64 dev eth0 nodad
             ip -n {name} link set eth0 up; ip -n {name} link set lo up
             ip neigh add {own6} lladdr 02:00:00:00:00:02 dev {wire}
             ip -n {name} neigh add {host6} lladdr 02:00:00:00:00:01 dev eth0
             ip -n {name} route add default via {host4}; ip -n {name} -6 route add default via {host6}"
        ));
        outside
    }

    fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let netns = std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let run = || {
                rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&netns), None).unwrap();
                f()
            };
            scope.spawn(run).join().unwrap()
        })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // The wire goes with it.
        sh(&format!("ip netns delete {}", self.name));
    }
}

fn sh(commands: &str) -> String {
    succeed(Command::new("sh").args(["-ec", commands]))
}

fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

fn server(name: &str, host_port: Option<u16>) -> String {
    let host_port = host_port.map(|port| format!(", hostPort: {port}")).unwrap_or_default();
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:1.37
    command: [sh, -c, "mkdir /w; echo $HOSTNAME > /w/index.html; exec httpd -f -p 8000 -h /w"]
    ports: [{{containerPort: 8000{host_port}}}]
    readinessProbe: {{tcpSocket: {{port: 8000}}, periodSeconds: 1}}
"#
    )
}

fn ready(cluster: &Cluster, pods: &[&str]) {
    for pod in pods {
        cluster.wait(&format!("pod/{pod}"), ".status.containerStatuses[0].ready", "true");
    }
}

#[test]
fn a_host_port_leads_to_its_pod_from_everywhere() {
    let cluster = Cluster::start();
    let outside = Outside::new(&cluster);
    let port = free_port();
    cluster.apply(&server("first", Some(port)));
    cluster.apply(&server("client", None));
    ready(&cluster, &["first", "client"]);
    let node = cluster.get("node/node-1", ".status.addresses[?(@.type==\"InternalIP\")].address");
    let wire6 = format!("[{}]", outside.host[1]);
    for address in ["127.0.0.1", "[::1]", &node, &outside.host[0], &wire6] {
        assert!(page_at(&format!("{address}:{port}")).ends_with("first\n"), "{address}");
    }
    for address in [&node, &outside.host[0], &wire6] {
        let to = format!("{address}:{port}");
        assert!(outside.within(|| page_at(&to)).ends_with("first\n"), "{to}");
        for pod in ["client", "first"] {
            assert_eq!(cluster.kubectl(&["exec", pod, "--", "wget", "-qO-", &format!("http://{to}/")]), "first\n");
        }
    }
    // A port is one Pod's at a time.
    cluster.apply(&server("second", Some(port)));
    cluster.wait("pod/second", ".status.conditions[0].reason", "Unschedulable");
    let message = cluster.get("pod/second", ".status.conditions[0].message");
    assert!(message.starts_with("0/1 nodes are available: 1 node(s) didn't have free ports"), "{message}");
    // The kernel goes on without minke; a new one takes up what runs.
    kill_and_wait(cluster.pid());
    assert!(outside.within(|| page_at(&format!("{node}:{port}"))).ends_with("first\n"));
    cluster.up();
    assert!(page_at(&format!("127.0.0.1:{port}")).ends_with("first\n"));
    cluster.kubectl(&["delete", "pod", "first"]);
    ready(&cluster, &["second"]);
    let text = outside.within(|| page_at(&format!("{node}:{port}")));
    assert!(text.ends_with("second\n"), "{text}");
    assert!(page_at(&format!("127.0.0.1:{port}")).ends_with("second\n"));
    // An instance that is down has no table.
    assert!(sh("nft list tables").contains(cluster.id()));
    cluster.minke(&["down"]);
    assert!(!sh("nft list tables").contains(cluster.id()));
}

#[test]
fn pods_leave_the_machine_by_its_address() {
    let cluster = Cluster::start();
    let outside = Outside::new(&cluster);
    cluster.apply(&server("client", None));
    ready(&cluster, &["client"]);
    for (own, host) in outside.own.iter().zip(&outside.host) {
        let listener = outside.within(|| TcpListener::bind((own.as_str(), 7000)).unwrap());
        cluster.kubectl(&["exec", "client", "--", "sh", "-c", &format!("nc {own} 7000 </dev/null >/dev/null 2>&1 &")]);
        assert_eq!(listener.accept().unwrap().1.ip(), host.parse::<IpAddr>().unwrap());
    }
}

/// Only the first family counts, as the recorded upstream cluster has it; the other works all the same.
#[test]
fn pods_speak_ipv6() {
    let cluster = Cluster::start();
    cluster.apply(&server("one", None));
    cluster.apply(&server("two", None));
    ready(&cluster, &["one", "two"]);
    assert!(!cluster.get("pod/one", ".status.podIPs").contains("fd6d:"));
    assert!(!cluster.get("node/node-1", ".status.addresses").contains("fd6d:"));
    let shown = cluster.kubectl(&["exec", "one", "--", "ip", "-6", "addr", "show", "dev", "eth0", "scope", "global"]);
    let address = shown.split_whitespace().find_map(|word| word.strip_suffix("/128")).unwrap();
    assert!(address.starts_with("fd6d:"), "{shown}");
    assert!(page_at(&format!("[{address}]:8000")).ends_with("one\n"));
    let url = format!("http://[{address}]:8000/");
    assert_eq!(cluster.kubectl(&["exec", "two", "--", "wget", "-qO-", &url]), "one\n");
}

#[test]
fn a_dual_stack_instance_shows_both_families() {
    let cluster = Cluster::start_with(&["--ip-family", "dual"]);
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: says}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: busybox:1.37
    env:
    - {name: PODS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: HOSTS, valueFrom: {fieldRef: {fieldPath: status.hostIPs}}}
    command: [sh, -c, "echo $PODS $POD $HOSTS; grep says /etc/hosts"]
"#,
    );
    cluster.apply(&server("one", None));
    cluster.apply(&server("two", None));
    let listed = |object: &str, path: &str| -> Vec<String> {
        cluster.get(object, path).split_whitespace().map(str::to_owned).collect()
    };
    let nodes = listed("node/node-1", ".status.addresses[?(@.type==\"InternalIP\")].address");
    assert!(nodes.len() == 2 && nodes[0].starts_with("10.") && nodes[1].starts_with("fd6d:"), "{nodes:?}");
    let ranges = listed("node/node-1", ".spec.podCIDRs[*]");
    assert!(ranges.len() == 2 && ranges[1].starts_with("fd6d:") && ranges[1].ends_with(":1::/64"), "{ranges:?}");
    cluster.wait("pod/says", ".status.phase", "Succeeded");
    let pods = listed("pod/says", ".status.podIPs[*].ip");
    assert_eq!(listed("pod/says", ".status.hostIPs[*].ip"), nodes);
    assert_eq!(
        cluster.kubectl(&["logs", "says"]),
        format!("{0},{1} {0} {2}\n{0}\tsays\n{1}\tsays\n", pods[0], pods[1], nodes.join(","))
    );
    ready(&cluster, &["one", "two"]);
    for address in listed("pod/one", ".status.podIPs[*].ip") {
        let address = if address.contains(':') { format!("[{address}]") } else { address };
        assert!(page_at(&format!("{address}:8000")).ends_with("one\n"), "{address}");
        let url = format!("http://{address}:8000/");
        assert_eq!(cluster.kubectl(&["exec", "two", "--", "wget", "-qO-", &url]), "one\n");
    }
}

#[test]
fn a_pod_in_the_nodes_network_sees_the_nodes_files() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  hostNetwork: true
  restartPolicy: Never
  hostAliases: [{ip: 192.0.2.9, hostnames: [nine.example]}]
  containers:
  - {name: c, image: "busybox:1.37", command: [sh, -c, "cat /etc/hosts; echo --; cat /etc/resolv.conf; echo --; cat /etc/hostname; hostname"]}
"#,
    );
    cluster.wait("pod/host", ".status.phase", "Succeeded");
    let node = cluster.get("node/node-1", ".status.addresses[?(@.type==\"InternalIP\")].address");
    assert_eq!(cluster.get("pod/host", ".status.podIPs[*].ip"), node);
    let log = cluster.kubectl(&["logs", "host"]);
    let parts: Vec<&str> = log.split("--\n").collect();
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap();
    assert_eq!(
        parts[0],
        format!(
            "# Kubernetes-managed hosts file (host network).\n{hosts}\n# Entries added by HostAliases.\n192.0.2.9\tnine.example\n"
        )
    );
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert_eq!(parts[2], format!("{name}\n{name}\n"));
    let servers = |text: &str| text.lines().filter(|line| line.starts_with("nameserver")).count();
    assert!(servers(parts[1]) > 0, "{log}");
}
