//! What is wrong is said in upstream's words, and nothing is stored.

use crate::cluster::{Cluster, MINKE, said, succeed};
use std::path::Path;
use std::process::Command;

fn pod(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: wrong}}\n{spec}\n")
}

#[test]
fn bad_manifests() {
    let cluster = Cluster::start();
    for (manifest, message) in [
        (pod("spce: {containers: []}"), "strict decoding error: unknown field \"spce\""),
        (
            pod("spec: {containers: [{name: c, image: one}, {name: c, image: two}]}"),
            "The Pod \"wrong\" is invalid: spec.containers[1].name: Duplicate value: \"c\"",
        ),
        (
            pod("spec: {containers: [{name: c, image: one, volumeMounts: [{name: v, mountPath: /v}]}]}"),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
    ] {
        let (code, text) = cluster.kubectl_with(&["create", "-f", "-"], &manifest);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(message), "{text}");
        assert_eq!(cluster.kubectl(&["get", "pods", "-o", "name"]), "");
    }
}

#[test]
fn an_immutable_field_and_an_unknown_image() {
    let cluster = Cluster::start();
    cluster.apply(&pod(
        "spec: {containers: [{name: c, image: 'localhost:1/no/such:image'}], terminationGracePeriodSeconds: 1}",
    ));
    cluster.wait("pod/wrong", ".status.containerStatuses[0].state.waiting.reason", "ErrImagePull");
    let (code, text) = cluster.try_kubectl(&["patch", "pod", "wrong", "-p", r#"{"spec":{"hostNetwork":true}}"#]);
    assert_eq!(code, 1);
    assert!(text.contains("Forbidden: pod updates may not change fields other than"), "{text}");
}

#[test]
fn a_command_that_is_not_in_the_image() {
    let cluster = Cluster::start();
    cluster
        .apply(&pod("spec: {restartPolicy: Never, containers: [{name: c, image: 'busybox:1.37', command: [nosuch]}]}"));
    cluster.wait("pod/wrong", ".status.phase", "Failed");
    let state = ".status.containerStatuses[0].state.terminated";
    assert_eq!(cluster.get("pod/wrong", &format!("{state}.reason")), "StartError");
    assert_eq!(cluster.get("pod/wrong", &format!("{state}.exitCode")), "128");
    let message = cluster.get("pod/wrong", &format!("{state}.message"));
    assert!(message.contains("exec: \"nosuch\": executable file not found in $PATH"), "{message}");
}

/// `up` on a directory; it must fail, say the text, and leave the directory as it was.
fn refused(mut command: Command, directory: &Path, text: &str) {
    let names = || {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect::<Vec<_>>()
    };
    let (before, there) = (names(), directory.exists());
    let output = command.arg("--data-dir").arg(directory).output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
    assert!(said.contains(text), "{said}");
    assert_eq!((names(), directory.exists()), (before, there), "something is left: {said}");
}

fn minke(arguments: &[&str]) -> Command {
    let mut command = Command::new(MINKE);
    command.args(arguments);
    command
}

#[test]
fn a_machine_that_cannot_carry_a_node() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("data");
    let without = |flags: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(flags).args([MINKE, "up"]);
        command
    };
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    refused(without(&nobody), &directory, "a node needs root; run as root, or start the control plane alone with");
    let bounded = ["--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    refused(without(&bounded), &directory, "a node needs CAP_NET_ADMIN, which this process does not hold");

    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refused(minke(&["up", "--port", &port]), &directory, &format!("port {port} is in use (--port)"));

    std::fs::create_dir(&directory).unwrap();
    refused(minke(&["up", "--no-node", "--port", &port]), &directory, "is in use");
    std::fs::write(directory.join("thesis.txt"), "mine").unwrap();
    refused(minke(&["up"]), &directory, "holds something that is not minke's (thesis.txt); choose another --data-dir");
    let purged = minke(&["down", "--purge", "--data-dir"]).arg(&directory).output().unwrap();
    assert_eq!(purged.status.code(), Some(1));
    assert!(directory.join("thesis.txt").exists());

    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused(minke(&["up"]), &file, "Not a directory");
}

/// A small disk of its own at a place.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        succeed(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at));
        Self(at)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        succeed(Command::new("umount").arg("--lazy").arg(self.0));
    }
}

#[test]
fn a_full_disk_is_said_and_outlived() {
    let scratch = tempfile::tempdir().unwrap();
    let (tiny, small) = (scratch.path().join("tiny"), scratch.path().join("small"));
    let _tiny = SmallDisk::mount(&tiny, "1m");
    refused(minke(&["up", "--no-node"]), &tiny.join("data"), "no space left");

    let _small = SmallDisk::mount(&small, "64m");
    let data = small.join("data");
    succeed(minke(&["up", "--no-node", "--data-dir"]).arg(&data));
    let kubectl = |arguments: &[&str]| {
        let mut command = Command::new(std::env::var_os("MINKE_TEST_KUBECTL").unwrap());
        command.args(arguments).env("KUBECONFIG", data.join("admin.kubeconfig")).env("HOME", scratch.path());
        let output = command.output().unwrap();
        (output.status.success(), said(&output))
    };
    assert!(kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).0);
    // All that is left of the disk goes to somebody else.
    let fill = format!("of={}", small.join("fill").display());
    let filled = Command::new("dd").args(["if=/dev/zero", "bs=64k", &fill]).output().unwrap();
    assert!(said(&filled).contains("No space left on device"), "{}", said(&filled));
    let big = scratch.path().join("big");
    std::fs::write(&big, "x".repeat(900_000)).unwrap();
    let from = format!("--from-file={}", big.display());
    let refusal = (0..100).find_map(|number| {
        let (fine, text) = kubectl(&["create", "configmap", &format!("big-{number}"), &from]);
        (!fine).then_some(text)
    });
    let refusal = refusal.expect("a full disk takes a hundred megabytes");
    assert!(refusal.contains("no space left"), "{refusal}");
    let (fine, text) = kubectl(&["delete", "configmap", "kept"]);
    assert!(fine, "{text}");
    std::fs::remove_file(small.join("fill")).unwrap();
    let (fine, text) = kubectl(&["create", "configmap", "again", "--from-literal=a=b"]);
    assert!(fine, "{text}");
    succeed(minke(&["down", "--purge", "--data-dir"]).arg(&data));
}
