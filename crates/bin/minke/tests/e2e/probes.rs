//! Probes, hooks and volumes that follow their ConfigMap.

use crate::cluster::Cluster;

#[test]
fn readiness_follows_a_command_and_post_start_runs_first() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: flips}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:1.37
    command: [sleep, "1000"]
    lifecycle: {postStart: {exec: {command: [sh, -c, "echo hooked > /hooked"]}}}
    readinessProbe: {exec: {command: [sh, -c, "test -e /hooked && ! test -e /stop || { echo not now; exit 1; }"]}, periodSeconds: 1, failureThreshold: 1}
"#,
    );
    cluster.kubectl(&["wait", "pod/flips", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(cluster.kubectl(&["exec", "flips", "--", "cat", "/hooked"]), "hooked\n");
    cluster.kubectl(&["exec", "flips", "--", "touch", "/stop"]);
    cluster.kubectl(&["wait", "pod/flips", "--for=condition=Ready=false", "--timeout=60s"]);
    cluster.kubectl(&["exec", "flips", "--", "rm", "/stop"]);
    cluster.kubectl(&["wait", "pod/flips", "--for=condition=Ready", "--timeout=60s"]);
    let messages = cluster.kubectl(&["get", "events", "-o", "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}"]);
    assert!(messages.contains("Readiness probe failed: not now"), "{messages}");
}

#[test]
fn a_liveness_probe_over_http_restarts() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: sick}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: nginx:1.27
    ports: [{name: web, containerPort: 80}]
    livenessProbe: {httpGet: {path: /nope, port: web}, periodSeconds: 1, failureThreshold: 2}
"#,
    );
    cluster.wait("pod/sick", ".status.containerStatuses[0].restartCount", "1");
    let messages = cluster.kubectl(&["get", "events", "-o", "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}"]);
    assert!(messages.contains("Liveness probe failed: HTTP probe failed with statuscode: 404"), "{messages}");
    assert!(messages.contains("Container c failed liveness probe, will be restarted"), "{messages}");
}

#[test]
fn pre_stop_runs_before_the_end() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: leaves, finalizers: [example.com/stay]}
spec:
  terminationGracePeriodSeconds: 30
  containers:
  - name: c
    image: busybox:1.37
    command: [sh, -c, "until [ -e /bye ]; do sleep 0.1; done; sleep 1; echo told to leave; exit 4"]
    lifecycle: {preStop: {exec: {command: [sh, -c, "touch /bye; sleep 10"]}}}
"#,
    );
    cluster.kubectl(&["wait", "pod/leaves", "--for=condition=Ready", "--timeout=60s"]);
    cluster.kubectl(&["delete", "pod", "leaves", "--wait=false"]);
    cluster.wait("pod/leaves", ".status.containerStatuses[0].state.terminated.exitCode", "4");
    cluster.kubectl(&["patch", "pod", "leaves", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
}

#[test]
fn a_changed_config_map_reaches_the_file() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "configmap", "settings", "--from-literal=colour=blue"]);
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: follows}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: settings, configMap: {name: settings}}]
  containers:
  - name: c
    image: busybox:1.37
    command: [sh, -c, "cat /s/colour; until grep -q red /s/colour; do sleep 0.1; done; cat /s/colour"]
    volumeMounts: [{name: settings, mountPath: /s}]
"#,
    );
    cluster.kubectl(&["wait", "pod/follows", "--for=condition=Ready", "--timeout=60s"]);
    cluster.kubectl(&["patch", "configmap", "settings", "--type=merge", "-p", r#"{"data":{"colour":"red"}}"#]);
    cluster.wait("pod/follows", ".status.phase", "Succeeded");
    // Neither value ends with a newline, so the log does not either.
    assert_eq!(cluster.kubectl(&["logs", "follows"]), "bluered");
}
