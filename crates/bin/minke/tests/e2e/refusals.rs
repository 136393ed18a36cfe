//! What is wrong is said in upstream's words, and nothing is stored.

use crate::cluster::Cluster;

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
