//! Pods' lives, from `kubectl apply` to nothing left.

use crate::cluster::Cluster;
use std::io::{Read, Write};
use std::net::TcpStream;

pub(crate) const WRITER_AND_NGINX: &str = include_str!("../../../../dev/xtask/demo.yaml");

pub(crate) fn page(address: &str) -> String {
    page_at(&format!("{address}:80"))
}

/// The address with its port.
pub(crate) fn page_at(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// SIGKILL; returns when the process is gone.
pub(crate) fn kill_and_wait(pid: i32) {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let process = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&process, Signal::KILL).unwrap();
    poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
}

#[test]
fn a_writer_feeds_an_nginx_through_a_shared_volume() {
    let cluster = Cluster::start();
    cluster.apply(WRITER_AND_NGINX);
    cluster.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=60s"]);
    let text = page(&cluster.get("pod/web", ".status.podIP"));
    assert!(text.contains("written by the writer"), "{text}");
    assert_eq!(cluster.get("pod/web", ".status.phase"), "Running");
    let row = cluster.kubectl(&["get", "pod", "web", "--no-headers"]);
    assert!(row.split_whitespace().collect::<Vec<_>>().starts_with(&["web", "2/2", "Running", "0"]), "{row}");
    cluster.kubectl(&["delete", "pod", "web", "--grace-period=1"]);
    assert_eq!(cluster.try_kubectl(&["get", "pod", "web"]).0, 1);
}

#[test]
fn init_containers_sidecars_and_mains_in_their_order() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: order}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 5
  volumes: [{name: shared, emptyDir: {}}]
  initContainers:
  - {name: first, image: "busybox:1.37", command: [sh, -c, "echo first >> /shared/log"], volumeMounts: [{name: shared, mountPath: /shared}]}
  - name: sidecar
    image: busybox:1.37
    restartPolicy: Always
    command: [sh, -c, "echo sidecar >> /shared/log; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: second
    image: busybox:1.37
    command: [sh, -c, "until grep -q sidecar /shared/log; do :; done; echo second >> /shared/log"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - {name: main, image: "busybox:1.37", command: [sh, -c, "echo main >> /shared/log; cat /shared/log; exit 0"], volumeMounts: [{name: shared, mountPath: /shared}]}
"#,
    );
    cluster.wait("pod/order", ".status.phase", "Succeeded");
    assert_eq!(cluster.kubectl(&["logs", "order", "-c", "main"]), "first\nsidecar\nsecond\nmain\n");
    let exit = ".status.initContainerStatuses[1].state.terminated.exitCode";
    assert_eq!(cluster.get("pod/order", exit), "0");
}

#[test]
fn a_container_that_exits_is_restarted_and_says_so() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: "busybox:1.37", command: [sh, -c, "echo once; exit 3"]}
  - {name: other, image: "busybox:1.37", command: [sleep, "1000"]}
"#,
    );
    cluster.wait("pod/again", ".status.containerStatuses[0].restartCount", "1");
    assert_eq!(cluster.get("pod/again", ".status.containerStatuses[0].lastState.terminated.exitCode"), "3");
    assert_eq!(cluster.get("pod/again", ".status.containerStatuses[1].restartCount"), "0");
    let events =
        cluster.kubectl(&["get", "events", "-o", "jsonpath={range .items[*]}{.reason}:{.message}{\"\\n\"}{end}"]);
    assert!(events.contains("Started:Container started"), "{events}");
    assert!(events.contains("Scheduled:Successfully assigned default/again to node-1"), "{events}");
}

#[test]
fn pods_outlive_a_killed_minke() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: alive}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: "busybox:1.37", command: [sh, -c, "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"]}
---
apiVersion: v1
kind: Pod
metadata: {name: ends}
spec:
  restartPolicy: Never
  containers:
  - {name: c, image: "busybox:1.37", command: [sh, -c, "until [ -e /go ]; do sleep 0.05; done; exit 7"]}
"#,
    );
    cluster.kubectl(&["wait", "pod/alive", "pod/ends", "--for=condition=Ready", "--timeout=60s"]);
    let id = cluster.get("pod/alive", ".status.containerStatuses[0].containerID");
    let exec = cluster.kubectl(&["exec", "ends", "--", "sh", "-c", "(sleep 1; touch /go) >/dev/null 2>&1 &"]);
    assert_eq!(exec, "");
    kill_and_wait(cluster.pid());
    cluster.up();
    cluster.wait("pod/ends", ".status.containerStatuses[0].state.terminated.exitCode", "7");
    assert_eq!(cluster.get("pod/alive", ".status.containerStatuses[0].containerID"), id);
    assert_eq!(cluster.get("pod/alive", ".status.containerStatuses[0].restartCount"), "0");
    let log = cluster.kubectl(&["logs", "alive"]);
    let numbers: Vec<u32> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().enumerate().all(|(i, n)| i as u32 == *n), "a gap in the log");
}

#[test]
fn secrets_config_maps_and_the_token_arrive() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "configmap", "settings", "--from-literal=colour=blue"]);
    cluster.kubectl(&["create", "secret", "generic", "hidden", "--from-literal=word=sesame"]);
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: reads, labels: {app: x}}
spec:
  restartPolicy: Never
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: hidden, secret: {secretName: hidden, defaultMode: 0400}}
  - {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  containers:
  - name: c
    image: busybox:1.37
    env: [{name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}, {name: SAID, value: "it is $(COLOUR)"}]
    command: [sh, -c, "echo $SAID; cat /s/colour; echo; cat /h/word; echo; cat /a/labels; echo; stat -L -c %a /h/word; test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token"]
    volumeMounts: [{name: settings, mountPath: /s}, {name: hidden, mountPath: /h}, {name: about, mountPath: /a}]
"#,
    );
    cluster.wait("pod/reads", ".status.phase", "Succeeded");
    assert_eq!(cluster.kubectl(&["logs", "reads"]), "it is blue\nblue\nsesame\napp=\"x\"\n400\ntoken\n");
}
