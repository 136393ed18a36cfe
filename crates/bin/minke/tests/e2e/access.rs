//! logs, exec, attach, cp.

use crate::cluster::Cluster;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

const TWO: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: two}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: a, image: "busybox:1.37", command: [sh, -c, "echo one; echo two; echo three >&2; exec sleep 1000"]}
  - {name: b, image: "busybox:1.37", command: [sleep, "1000"]}
"#;

fn two() -> Cluster {
    let cluster = Cluster::start();
    cluster.apply(TWO);
    cluster.kubectl(&["wait", "pod/two", "--for=condition=Ready", "--timeout=60s"]);
    cluster
}

#[test]
fn exec_as_kubectl_asks_for_it() {
    let cluster = two();
    assert_eq!(cluster.kubectl(&["exec", "two", "-c", "b", "--", "hostname"]), "two\n");
    let (code, text) =
        cluster.try_kubectl(&["exec", "two", "-c", "b", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!(code, 42, "{text}");
    assert!(text.contains("out\n") && text.contains("err\n"), "{text}");
    let (code, text) = cluster.kubectl_with(&["exec", "-i", "two", "-c", "b", "--", "cat"], "through standard input");
    assert_eq!((code, text.as_str()), (0, "through standard input"));
    let (code, text) = cluster.try_kubectl(&["exec", "two", "-c", "b", "--", "/no/such"]);
    let words = "Internal error occurred: Internal error occurred: error executing command in container: ";
    assert!(code == 1 && text.starts_with(&format!("error: {words}")), "{code} {text}");
    assert!(text.contains("exec: \"/no/such\": stat /no/such: no such file or directory"), "{text}");
}

/// `script` gives kubectl a terminal; its size reaches the container at first and when it changes.
#[test]
fn exec_with_a_terminal() {
    let cluster = two();
    let first = "stty rows 40 cols 132; exec $KUBECTL exec -it two -c b -- \
        sh -c 'tty; until stty size | grep \"40 132\"; do sleep 0.1; done; exit 7'";
    let (code, text) = cluster.in_terminal(first);
    assert!(code == 7 && text.contains("/dev/pts/") && text.contains("40 132"), "{code} {text}");
    let changes = "stty rows 40 cols 132; \
        (until $KUBECTL exec two -c b -- test -e /ready; do :; done; stty rows 50 cols 100 < /dev/tty) & \
        exec $KUBECTL exec -it two -c b -- \
        sh -c 'trap \"stty size | grep \\\"50 100\\\" && exit 5\" WINCH; touch /ready; while :; do sleep 0.1; done'";
    let (code, text) = cluster.in_terminal(changes);
    assert!(code == 5 && text.contains("50 100"), "{code} {text}");
}

#[test]
fn logs_by_every_flag() {
    let cluster = two();
    // Nothing tells when a process that has just started has written.
    cluster.until(&["logs", "two", "-c", "a"], "three");
    let logs = |flags: &[&str]| cluster.kubectl(&[&["logs", "two", "-c", "a"], flags].concat());
    let all = logs(&[]);
    assert_eq!(all.lines().collect::<std::collections::BTreeSet<_>>().len(), 3, "{all}");
    assert_eq!(logs(&["--limit-bytes=5"]), all[..5]);
    assert_eq!(logs(&["--tail=2"]).lines().count(), 2);
    assert_eq!(logs(&["--tail=0"]), "");
    assert_eq!(logs(&["--since=1h"]), all);
    assert_eq!(logs(&["--since-time=2100-01-01T00:00:00Z"]), "");
    let stamped = logs(&["--timestamps"]);
    let (times, texts): (Vec<_>, Vec<_>) = stamped.lines().map(|line| line.split_once(' ').unwrap()).unzip();
    assert_eq!(texts, all.lines().collect::<Vec<_>>());
    assert!(times.iter().all(|time| time.len() == 30 && time.ends_with('Z')), "{times:?}");
    assert_eq!(logs(&[&format!("--since-time={}", times[0])]), all);
    let named = cluster.kubectl(&["logs", "two"]);
    assert!(named.contains("Defaulted container \"a\" out of: a, b"), "{named}");
    let prefixed: String = all.lines().map(|line| format!("[pod/two/a] {line}\n")).collect();
    assert_eq!(cluster.kubectl(&["logs", "two", "--all-containers", "--prefix"]), prefixed);
    assert_eq!(cluster.kubectl(&["logs", "-l", "app=two", "--all-containers", "--prefix"]), prefixed);
    let (code, text) = cluster.try_kubectl(&["logs", "two", "-c", "b", "--previous"]);
    let words = "Error from server (BadRequest): previous terminated container \"b\" in pod \"two\" not found\n";
    assert_eq!((code, text.as_str()), (1, words));
}

#[test]
fn logs_of_other_runs() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: c
    image: busybox:1.37
    command: [sh, -c, "[ -e /v/x ] || { touch /v/x; printf first; exit 1; }; printf second; exec sleep 1000"]
    volumeMounts: [{name: v, mountPath: /v}]
---
apiVersion: v1
kind: Pod
metadata: {name: never}
spec:
  containers: [{name: c, image: "nosuch:1", imagePullPolicy: Never}]
---
apiVersion: v1
kind: Pod
metadata: {name: followed}
spec:
  restartPolicy: Never
  containers: [{name: c, image: "busybox:1.37", command: [sh, -c, "echo 1; until [ -e /go ]; do sleep 0.1; done; echo 2"]}]
"#,
    );
    cluster.wait("pod/again", ".status.containerStatuses[0].restartCount", "1");
    assert_eq!(cluster.kubectl(&["logs", "again", "--previous"]), "first");
    assert_eq!(cluster.kubectl(&["logs", "again", "-p", "--tail=1"]), "first");
    cluster.wait("pod/never", ".status.containerStatuses[0].state.waiting.reason", "ErrImageNeverPull");
    let (code, text) = cluster.try_kubectl(&["logs", "never"]);
    let words = "container \"c\" in pod \"never\" is waiting to start: ErrImageNeverPull";
    assert_eq!((code, text), (1, format!("Error from server (BadRequest): {words}\n")));
    cluster.kubectl(&["wait", "pod/followed", "--for=condition=Ready", "--timeout=60s"]);
    let mut kubectl = cluster.command(&["logs", "-f", "followed"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(kubectl.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "1\n");
    cluster.kubectl(&["exec", "followed", "--", "touch", "/go"]);
    output.read_to_string(&mut line).unwrap();
    assert_eq!(line, "1\n2\n");
    assert!(kubectl.wait().unwrap().success());
}

#[test]
fn attach_gives_and_takes() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: listens}
spec:
  restartPolicy: Never
  containers: [{name: c, image: "busybox:1.37", stdin: true, stdinOnce: true, command: [cat]}]
"#,
    );
    cluster.kubectl(&["wait", "pod/listens", "--for=condition=Ready", "--timeout=60s"]);
    let (code, text) = cluster.kubectl_with(&["attach", "-i", "listens"], "hello\n");
    assert!(code == 0 && text.starts_with("hello\n"), "{code} {text}");
    // Its input was for one client, whose end is the container's.
    cluster.wait("pod/listens", ".status.phase", "Succeeded");
    assert_eq!(cluster.kubectl(&["logs", "listens"]), "hello\n");
    let run = ["run", "once", "-i", "--rm", "--quiet", "--restart=Never", "--image=busybox:1.37", "--", "sh", "-c"];
    let (code, text) = cluster.kubectl_with(&[&run[..], &["cat; exit 3"]].concat(), "piped\n");
    assert!(code == 3 && text.contains("piped\n"), "{code} {text}");
}

#[test]
fn files_are_copied_in_and_out() {
    let cluster = two();
    let (here, back) = (cluster.path("here"), cluster.path("back"));
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::create_dir(&here).unwrap();
    std::fs::write(here.join("file"), &content).unwrap();
    cluster.kubectl(&["cp", here.to_str().unwrap(), "two:/tmp/there", "-c", "a"]);
    cluster.kubectl(&["cp", "two:/tmp/there", back.to_str().unwrap(), "-c", "a"]);
    assert_eq!(std::fs::read(back.join("file")).unwrap(), content);
}
