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

/// One of the Pods that live through the death of minke. `shell` runs in its container, with the test's directory at `/host`.
fn outliving(host: &str, name: &str, policy: &str, shell: &str) -> String {
    serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "restartPolicy": policy,
        "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "host", "hostPath": {"path": host}}],
        "containers": [{
            "name": "c", "image": "busybox:1.37", "command": ["sh", "-c", shell],
            "volumeMounts": [{"name": "host", "mountPath": "/host"}],
        }],
    }})
    .to_string()
}

#[test]
fn twenty_pods_outlive_a_killed_minke() {
    let cluster = Cluster::start();
    let host = cluster.path("host");
    std::fs::create_dir(&host).unwrap();
    let counts = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.2; done";
    // Opening a FIFO to write waits for its reader: each of these ends when it is read.
    let ends = |code: u32| format!("echo $$; exec 3> /host/{code}; sleep 0.3; exit {code}");
    let once = "[ -e /host/been ] && exec sleep 1000; touch /host/been; : > /host/9; exit 9";
    let mut pods: Vec<_> = (0..15).map(|n| (format!("counts-{n}"), "Always", counts.to_owned())).collect();
    pods.extend((0..4).map(|code| (format!("ends-{code}"), "Never", ends(code))));
    pods.push(("again".to_owned(), "Always", once.to_owned()));
    let fifos: Vec<_> = ["0", "1", "2", "3", "9"].into_iter().map(|name| host.join(name)).collect();
    for fifo in &fifos {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    }
    let manifests = pods.iter().map(|(name, policy, shell)| outliving(host.to_str().unwrap(), name, policy, shell));
    cluster.apply(&manifests.collect::<Vec<_>>().join("\n---\n"));
    cluster.kubectl(&["wait", "pod", "--all", "--for=condition=Ready", "--timeout=120s"]);
    let ids = "jsonpath={range .items[*]}{.metadata.name}={.status.containerStatuses[0].containerID}{\"\\n\"}{end}";
    let before = cluster.kubectl(&["get", "pods", "-o", ids]);
    let memory = &cluster.status()["memoryBytes"];
    assert!(
        memory["shimCount"] == pods.len() + 1 && memory["shims"].as_u64() > Some(0),
        "one each and their spawner: {memory}"
    );
    kill_and_wait(cluster.pid());
    let dead = jiff::Timestamp::now().to_string();
    for fifo in &fifos {
        assert_eq!(std::fs::read(fifo).unwrap(), b"");
    }
    let alive = jiff::Timestamp::now().to_string();
    cluster.up();
    for code in ["0", "1", "2", "3"] {
        let pod = format!("pod/ends-{code}");
        cluster.wait(&pod, ".status.containerStatuses[0].state.terminated.exitCode", code);
        cluster.wait(&pod, ".status.phase", if code == "0" { "Succeeded" } else { "Failed" });
        assert_eq!(cluster.kubectl(&["logs", &pod]).lines().count(), 1);
    }
    cluster.wait("pod/again", ".status.containerStatuses[0].restartCount", "1");
    assert_eq!(cluster.get("pod/again", ".status.containerStatuses[0].lastState.terminated.exitCode"), "9");
    let after = cluster.kubectl(&["get", "pods", "-o", ids]);
    for (name, ..) in pods.iter().filter(|(name, ..)| name.starts_with("counts")) {
        let of = |text: &str| text.lines().find(|line| line.starts_with(&format!("{name}="))).map(str::to_owned);
        assert_eq!(of(&after), of(&before), "another container");
        let pod = format!("pod/{name}");
        assert_eq!(cluster.get(&pod, ".status.containerStatuses[0].restartCount"), "0");
        let log = cluster.kubectl(&["logs", &pod, "--timestamps"]);
        let lines: Vec<_> = log.lines().map(|line| line.split_once(' ').unwrap()).collect();
        assert!(lines.iter().enumerate().all(|(i, (_, n))| i.to_string() == *n), "a gap in the log:\n{log}");
        let meanwhile = lines.iter().filter(|(time, _)| *time > dead.as_str() && *time < alive.as_str());
        assert!(meanwhile.count() > 0, "nothing was written between {dead} and {alive}:\n{log}");
    }
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

#[test]
fn fields_that_few_pods_have() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: rare}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  subdomain: sub
  setHostnameAsFQDN: true
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: tools, image: {reference: "nginx:1.27", pullPolicy: IfNotPresent}}
  initContainers:
  - name: writer
    image: busybox:1.37
    command: [sh, -c, "echo \"COLOUR='blue' # as the sky\" > /shared/env"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: reader
    image: busybox:1.37
    command: [sh, -c, "echo $COLOUR $(hostname); test -x /tools/usr/sbin/nginx && ! touch /tools/x 2>/dev/null && echo read-only"]
    env:
    - {name: COLOUR, valueFrom: {fileKeyRef: {volumeName: shared, path: env, key: COLOUR}}}
    - {name: NONE, valueFrom: {fileKeyRef: {volumeName: shared, path: env, key: NONE, optional: true}}}
    volumeMounts:
    - {name: tools, mountPath: /tools}
---
apiVersion: v1
kind: Pod
metadata: {name: refused}
spec:
  securityContext: {sysctls: [{name: kernel.msgmax, value: "65536"}]}
  containers: [{name: c, image: "busybox:1.37"}]
---
apiVersion: v1
kind: Pod
metadata: {name: nowhere}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: gone, image: {reference: "127.0.0.1:1/nosuch:1"}}]
  containers: [{name: c, image: "busybox:1.37", volumeMounts: [{name: gone, mountPath: /gone}]}]
"#,
    );
    cluster.wait("pod/rare", ".status.phase", "Succeeded");
    let log = cluster.kubectl(&["logs", "rare", "-c", "reader"]);
    assert!(log.starts_with("blue rare.sub.default.svc.cluster.local\n") && log.ends_with("read-only\n"), "{log}");
    cluster.wait("pod/refused", ".status.reason", "SysctlForbidden");
    let message = "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted";
    assert_eq!(cluster.get("pod/refused", ".status.message"), message);
    cluster.until(&["get", "pod", "nowhere"], "ImagePullBackOff");
    let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=nowhere"]);
    assert!(events.contains("Failed to pull image \"127.0.0.1:1/nosuch:1\": "), "{events}");
}
