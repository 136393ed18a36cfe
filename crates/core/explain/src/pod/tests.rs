//! The table of cases.
#![allow(clippy::unwrap_used)]

use super::{explain, unheeded};
use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

fn check(spec: &Value, status: &Value, events: &Value, expected: &Expect) {
    let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
    let events = events.as_array().unwrap().iter().map(|event| {
        let mut event = event.clone();
        event["metadata"] = json!({});
        event["involvedObject"] = json!({});
        serde_json::from_value::<Event>(event).unwrap()
    });
    let events: Vec<Event> = events.collect();
    let text = match explain(&serde_json::from_value(pod).unwrap(), &events) {
        Some(cause) => format!("{}\n{}\nFix: {}\n", cause.what, cause.evidence.join("\n"), cause.fix),
        None => "nothing is wrong\n".to_owned(),
    };
    expected.assert_eq(&text);
}

fn container(name: &str, ready: bool, restarts: i32, state: &Value, last: &Value) -> Value {
    json!({"name": name, "image": "app:1", "imageID": "", "ready": ready, "restartCount": restarts, "state": state, "lastState": last})
}

fn one(policy: &str, status: &Value, expected: &Expect) {
    let spec = json!({"containers": [{"name": "web"}], "restartPolicy": policy});
    check(&spec, &json!({"phase": "Running", "containerStatuses": [status]}), &json!([]), expected);
}

#[test]
fn a_container_that_exits_zero_under_always() {
    let ended = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
    let status = container("web", false, 4, &ended, &ended);
    one(
        "Always",
        &status,
        &expect![[r#"
        container `web` ends by itself (exit code 0), and restartPolicy Always starts it again each time, so it is not ready in between
        web: Completed, exit code 0, restarted 4 times
        Fix: let its program run for ever; for work that ends use restartPolicy OnFailure or Never, or a Job
    "#]],
    );
    one(
        "Never",
        &container("web", false, 0, &ended, &json!({})),
        &expect![[r#"
        nothing is wrong
    "#]],
    );
}

#[test]
fn failures_and_memory() {
    let waits = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
    let crashed = json!({"terminated": {"exitCode": 139, "reason": "Error"}});
    one(
        "Always",
        &container("web", false, 2, &waits, &crashed),
        &expect![[r#"
        container `web` fails with exit code 139 (it accessed memory it may not: a crash)
        web: Error, exit code 139, restarted 2 times
        Fix: read what it said: kubectl logs p -c web --previous
    "#]],
    );
    let oom = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    one(
        "Never",
        &container("web", false, 0, &oom, &json!({})),
        &expect![[r#"
        container `web` used more memory than its limit and was killed
        web: OOMKilled, exit code 137, restarted 0 times
        Fix: raise resources.limits.memory, or make the program use less
    "#]],
    );
    let runs = json!({"running": {}});
    one(
        "Always",
        &container("web", true, 2, &runs, &crashed),
        &expect![[r#"
        nothing is wrong
    "#]],
    );
}

#[test]
fn images_configuration_and_start() {
    let waits = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
    let none = json!({});
    let pull = waits("ImagePullBackOff", "Back-off pulling image \"app:1\": ErrImagePull: app:1: not found");
    one(
        "Always",
        &container("web", false, 0, &pull, &none),
        &expect![[r#"
        container `web`: the registry has no image `app:1`
        web: ImagePullBackOff: Back-off pulling image "app:1": ErrImagePull: app:1: not found
        Fix: correct the image's name or tag
    "#]],
    );
    let missing = waits("CreateContainerConfigError", "secret \"s\" not found");
    one(
        "Always",
        &container("web", false, 0, &missing, &none),
        &expect![[r#"
        container `web` cannot be configured: secret "s" not found
        web: CreateContainerConfigError
        Fix: create it in the Pod's namespace, or mark the reference `optional: true`
    "#]],
    );
    let message = "exec: \"nope\": executable file not found in $PATH";
    let end = json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": message}});
    one(
        "Never",
        &container("web", false, 0, &end, &none),
        &expect![[r#"
        container `web` cannot start its program: exec: "nope": executable file not found in $PATH
        web: StartError, exit code 128
        Fix: correct `command` (it replaces the image's ENTRYPOINT), or use an image that holds the program
    "#]],
    );
}

#[test]
fn nodes_and_volumes() {
    let spec = json!({"containers": [{"name": "web"}]});
    let message = "0/1 nodes are available: 1 Insufficient cpu.";
    let refused = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
    check(
        &spec,
        &json!({"phase": "Pending", "conditions": [refused]}),
        &json!([]),
        &expect![[r#"
        no node takes this Pod
        0/1 nodes are available: 1 Insufficient cpu.
        Fix: lower resources.requests, or free what other Pods request (kubectl describe node)
    "#]],
    );
    let event = json!({"reason": "FailedMount", "message": "MountVolume.SetUp failed for volume \"v\" : configmap \"m\" not found"});
    check(
        &spec,
        &json!({"phase": "Pending"}),
        &json!([event]),
        &expect![[r#"
        a volume cannot be prepared, so no container starts
        MountVolume.SetUp failed for volume "v" : configmap "m" not found
        Fix: create it in the Pod's namespace, or mark the volume `optional: true`
    "#]],
    );
}

#[test]
fn fields_without_effect_are_told_and_defaults_are_not() {
    let pod = |spec: Value| serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
    let claims = json!([{"name": "c", "resourceClaimName": "d"}]);
    let defaults = json!([
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
    ]);
    let claiming = json!({"containers": [{"name": "a"}], "resourceClaims": claims, "tolerations": defaults});
    let cause = unheeded(&pod(claiming)).unwrap();
    assert_eq!(cause.what, "minke does not act on `spec.resourceClaims`");
    assert_eq!(unheeded(&pod(json!({"containers": [{"name": "a"}], "tolerations": defaults}))), None);
}
