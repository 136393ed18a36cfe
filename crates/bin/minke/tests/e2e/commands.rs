//! minke's own commands.

use crate::cluster::{Cluster, MINKE, image, said};
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn run_ends_with_the_exit_code_of_the_pod_and_leaves_nothing() {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: job}
spec:
  restartPolicy: Never
  containers:
  - {name: says, image: "busybox:1.37", command: [sh, -c, "echo hello from $HOSTNAME"]}
  - {name: fails, image: "busybox:1.37", command: [sh, -c, "exit 5"]}
"#;
    let mut command = Command::new(MINKE);
    command.args(["run", "-f", "-", "--timeout", "90s", "--image-archive"]).arg(image("busybox"));
    let scratch = tempfile::tempdir().unwrap();
    command.env("TMPDIR", scratch.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "job/says hello from job\n");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "something is left");
}

#[test]
fn a_second_up_says_so_and_other_flags_are_refused() {
    let cluster = Cluster::start();
    let up = |more: &[&str]| {
        Command::new(MINKE).args(["up", "--data-dir"]).arg(cluster.directory.path()).args(more).output().unwrap()
    };
    let again = up(&[]);
    assert!(again.status.success() && said(&again).contains("already running"), "{}", said(&again));
    let other = up(&["--node-name", "another"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(said(&other).contains("--node-name (is node-1)"), "{}", said(&other));
}

#[test]
fn two_instances_side_by_side_and_images() {
    let (one, two) = (Cluster::start(), Cluster::start());
    assert!(one.minke(&["image", "ls"]).contains("docker.io/library/nginx:1.27"));
    one.kubectl(&["create", "namespace", "only-here"]);
    assert_eq!(two.try_kubectl(&["get", "namespace", "only-here"]).0, 1);
    two.minke(&["image", "rm", "nginx:1.27"]);
    assert!(!two.minke(&["image", "ls"]).contains("nginx:1.27"));
}
