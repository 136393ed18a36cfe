//! logs, exec, cp.

use crate::cluster::Cluster;

const TWO: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: a, image: "busybox:1.37", command: [sh, -c, "echo one; echo two; echo three >&2; exec sleep 1000"]}
  - {name: b, image: "busybox:1.37", command: [sleep, "1000"]}
"#;

#[test]
fn logs_and_exec_as_kubectl_asks_for_them() {
    let cluster = Cluster::start();
    cluster.apply(TWO);
    cluster.kubectl(&["wait", "pod/two", "--for=condition=Ready", "--timeout=60s"]);
    assert!(cluster.kubectl(&["logs", "two", "-c", "a", "--tail=1"]).ends_with("three\n"));
    let all = cluster.kubectl(&["logs", "two"]);
    assert!(all.contains("Defaulted container \"a\" out of: a, b"), "{all}");
    assert!(all.contains("one\ntwo\n"), "{all}");
    assert_eq!(cluster.kubectl(&["exec", "two", "-c", "b", "--", "hostname"]), "two\n");
    let (code, text) =
        cluster.try_kubectl(&["exec", "two", "-c", "b", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!(code, 42, "{text}");
    assert!(text.contains("out\n") && text.contains("err\n"), "{text}");
    let (code, text) = cluster.kubectl_with(&["exec", "-i", "two", "-c", "b", "--", "cat"], "through standard input");
    assert_eq!((code, text.as_str()), (0, "through standard input"));
}

#[test]
fn files_are_copied_in_and_out() {
    let cluster = Cluster::start();
    cluster.apply(TWO);
    cluster.kubectl(&["wait", "pod/two", "--for=condition=Ready", "--timeout=60s"]);
    let (here, back) = (cluster.path("here"), cluster.path("back"));
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&here, &content).unwrap();
    cluster.kubectl(&["cp", here.to_str().unwrap(), "two:/tmp/file", "-c", "a"]);
    cluster.kubectl(&["cp", "two:/tmp/file", back.to_str().unwrap(), "-c", "a"]);
    assert_eq!(std::fs::read(&back).unwrap(), content);
}
