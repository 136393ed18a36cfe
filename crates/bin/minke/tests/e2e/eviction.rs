//! Pods that have to go: the node is short of something, or they take more than they may.

use crate::cluster::{Cluster, succeed};
use std::process::Command;

/// A Pod bound to the node by hand (no scheduler looks at taints) whose container runs `shell`.
fn pod(name: &str, shell: &str, resources: &str, volume: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}"}}, "spec": {{
            "nodeName": "node-1", "terminationGracePeriodSeconds": 1, "volumes": [{{"name": "v", "emptyDir": {volume}}}],
            "containers": [{{"name": "c", "image": "busybox:1.37", "command": ["sh", "-c", "{shell}"],
            "resources": {resources}, "volumeMounts": [{{"name": "v", "mountPath": "/v"}}]}}]}}}}"#
    )
}

fn fill(path: &str, megabytes: u32) -> String {
    format!("dd if=/dev/zero of={path} bs=1M count={megabytes}; exec sleep 1000")
}

impl Cluster {
    fn evicted(&self, pod: &str) -> String {
        self.wait(pod, ".status.phase", "Failed");
        assert_eq!(self.get(pod, ".status.reason"), "Evicted");
        self.get(pod, ".status.message")
    }

    fn condition(&self, kind: &str, field: &str) -> String {
        self.get("node/node-1", &format!(".status.conditions[?(@.type==\"{kind}\")].{field}"))
    }
}

#[test]
fn who_takes_more_of_the_disk_than_it_may() {
    let cluster = Cluster::start();
    let limit = r#"{"limits": {"ephemeral-storage": "2Mi"}}"#;
    cluster.apply(&pod("volume", &fill("/v/file", 3), "{}", r#"{"sizeLimit": "1Mi"}"#));
    cluster.apply(&pod("layer", &fill("/file", 4), limit, "{}"));
    cluster.apply(&pod("modest", &fill("/v/file", 1), limit, r#"{"sizeLimit": "2Mi"}"#));
    assert_eq!(cluster.evicted("pod/volume"), "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ");
    let said = cluster.evicted("pod/layer");
    assert_eq!(said, "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ");
    let events = cluster.kubectl(&["get", "events", "--field-selector", "reason=Evicted"]);
    assert!(events.contains("pod/volume") && events.contains("pod/layer"), "{events}");
    assert_eq!(cluster.get("pod/modest", ".status.phase"), "Running");
}

#[test]
fn a_full_disk_costs_the_pod_that_fills_it() {
    let mount = tempfile::tempdir().unwrap();
    succeed(Command::new("mount").args(["-t", "tmpfs", "-o", "size=600m", "minke-test"]).arg(mount.path()));
    let flags = ["--eviction-hard", "nodefs.available<300Mi", "--eviction-pressure-transition-period", "1s"];
    let cluster = Cluster::start_in(mount.path(), &flags, &["busybox"]);
    cluster.apply(&pod("small", "exec sleep 1000", "{}", "{}"));
    cluster.kubectl(&["wait", "pod/small", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(cluster.condition("DiskPressure", "status"), "False");
    cluster.apply(&pod("big", &fill("/v/file", 350), "{}", "{}"));
    let said = cluster.evicted("pod/big");
    let begin = "The node was low on resource: ephemeral-storage. Threshold quantity: 300Mi, available: ";
    assert!(said.starts_with(begin), "{said}");
    let target = cluster.get("pod/big", ".status.conditions[?(@.type==\"DisruptionTarget\")].reason");
    assert_eq!(target, "TerminationByKubelet");
    let events = cluster.kubectl(&["get", "events"]);
    assert!(
        events.contains("EvictionThresholdMet") && events.contains("Attempting to reclaim ephemeral-storage"),
        "{events}"
    );
    assert_eq!(cluster.get("pod/small", ".status.phase"), "Running");
    // Its volume is gone, and so is the pressure.
    let calm = "--for=condition=DiskPressure=False";
    cluster.kubectl(&["wait", "node/node-1", calm, "--timeout=60s"]);
    assert_eq!(cluster.condition("DiskPressure", "reason"), "KubeletHasNoDiskPressure");
    drop(cluster);
    succeed(Command::new("umount").arg(mount.path()));
}

#[test]
fn under_memory_pressure_best_effort_stays_outside() {
    // No machine has so much.
    let cluster = Cluster::start_with(&["--eviction-hard", "memory.available<1000Ti"]);
    cluster.kubectl(&["wait", "node/node-1", "--for=condition=MemoryPressure", "--timeout=60s"]);
    assert_eq!(cluster.condition("MemoryPressure", "message"), "kubelet has insufficient memory available");
    cluster.until(&["get", "node", "node-1", "-o", "jsonpath={.spec.taints}"], "node.kubernetes.io/memory-pressure");
    cluster.apply(&pod("best-effort", "exec sleep 1000", "{}", "{}"));
    let said = cluster.evicted("pod/best-effort");
    assert_eq!(said, "Pod was rejected: The node had condition: [MemoryPressure]. ");
    // One with requests is let in, and goes when its turn comes; a static Pod does not.
    std::fs::write(cluster.path("manifests/static.json"), pod("static", "exec sleep 1000", "{}", "{}")).unwrap();
    cluster.kubectl(&["wait", "--for=create", "pod/static-node-1", "--timeout=60s"]);
    cluster.apply(&pod("burstable", "exec sleep 1000", r#"{"requests": {"memory": "1Mi"}}"#, "{}"));
    let said = cluster.evicted("pod/burstable");
    let begin = "The node was low on resource: memory. Threshold quantity: 1000Ti, available: ";
    assert!(said.starts_with(begin), "{said}");
    cluster.kubectl(&["wait", "pod/static-node-1", "--for=condition=Ready", "--timeout=60s"]);
    let counted = cluster.kubectl(&["get", "--raw", "/api/v1/nodes/node-1/proxy/metrics"]);
    assert!(counted.contains("kubelet_evictions{eviction_signal=\"memory.available\"} 1"), "{counted}");
}
