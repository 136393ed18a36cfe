//! Processor and memory changed in place, down to the kernel's numbers.

use crate::cluster::Cluster;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sized}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: calm
    image: busybox:1.37
    command: [sh, -c, "trap 'exit 0' TERM; sleep 1000 & wait"]
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
  - name: restarting
    image: busybox:1.37
    command: [sh, -c, "trap 'exit 0' TERM; sleep 1000 & wait"]
    resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
    resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: 100m, memory: 64Mi}}
"#;

const FILLER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: filler}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:1.37
    command: [sh, -c, "trap 'exit 0' TERM; sleep 1000 & wait"]
    resources: {requests: {cpu: CPU}}
"#;

struct Sized {
    cluster: Cluster,
}

impl Sized {
    fn resize(&self, container: &str, resources: &str) {
        let patch = format!(r#"{{"spec":{{"containers":[{{"name":"{container}","resources":{resources}}}]}}}}"#);
        self.cluster.kubectl(&["patch", "pod", "sized", "--subresource", "resize", "--patch", &patch]);
    }

    /// `memory.max` and the quota, by the names of either version.
    fn limits(&self, container: &str) -> String {
        let script = "cd /sys/fs/cgroup; cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes; \
            cut -d' ' -f1 cpu.max 2>/dev/null || cat cpu/cpu.cfs_quota_us";
        let text = self.cluster.kubectl(&["exec", "sized", "-c", container, "--", "sh", "-c", script]);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn shown(&self, container: usize, what: &str) -> String {
        self.cluster.get("pod/sized", &format!(".status.containerStatuses[{container}].{what}"))
    }

    fn ends(&self, condition: &str) {
        let reason = format!(r#"jsonpath=[{{.status.conditions[?(@.type=="{condition}")].reason}}]"#);
        self.cluster.until(&["get", "pod", "sized", "-o", &reason], "[]");
    }

    fn told(&self, reason: &str, words: &str) {
        let field = format!("reason={reason},involvedObject.name=sized");
        self.cluster.until(&["get", "events", "--field-selector", &field, "-o", "jsonpath={.items[*].message}"], words);
    }
}

#[test]
fn a_pod_is_resized_in_place() {
    let sized = Sized { cluster: Cluster::start() };
    let cluster = &sized.cluster;
    cluster.apply(POD);
    cluster.kubectl(&["wait", "pod/sized", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(sized.limits("calm"), "67108864 20000");
    let pid = sized.shown(0, "containerID");

    // It goes on, with other limits.
    sized.resize("calm", r#"{"requests":{"cpu":"150m"},"limits":{"cpu":"400m","memory":"96Mi"}}"#);
    cluster.wait("pod/sized", ".status.containerStatuses[0].resources.limits.memory", "96Mi");
    assert_eq!(sized.limits("calm"), "100663296 40000");
    assert_eq!((sized.shown(0, "containerID"), sized.shown(0, "restartCount").as_str()), (pid, "0"));
    assert_eq!(sized.shown(0, "allocatedResources.cpu"), "150m");
    sized.told("ResizeStarted", r#""generation":2"#);
    sized.told("ResizeCompleted", "Pod resize completed: ");
    assert_eq!(cluster.get("pod/sized", ".status.resources.limits.memory"), "160Mi");

    // One whose policy says so is started anew, and only it.
    sized.resize("restarting", r#"{"limits":{"memory":"48Mi"}}"#);
    cluster.wait("pod/sized", ".status.containerStatuses[1].restartCount", "1");
    cluster.kubectl(&["wait", "pod/sized", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(sized.limits("restarting"), "50331648 10000");
    assert_eq!(sized.shown(0, "restartCount"), "0");
    sized.told("Killing", "Container restarting resize requires restart");

    // Below what is in use nothing is changed.
    let fill = "head -c 50m /dev/zero > /dev/shm/fill";
    cluster.kubectl(&["exec", "sized", "-c", "calm", "--", "sh", "-c", fill]);
    sized.resize("calm", r#"{"limits":{"memory":"40Mi"}}"#);
    cluster.wait("pod/sized", r#".status.conditions[?(@.type=="PodResizeInProgress")].reason"#, "Error");
    assert_eq!(sized.limits("calm"), "100663296 40000");
    sized.told(
        "ResizeError",
        r#"cannot decrease memory limits: attempting to set container \"calm\" memory limit (41943040) below"#,
    );
    sized.resize("calm", r#"{"limits":{"memory":"96Mi"}}"#);
    sized.ends("PodResizeInProgress");

    // More than the node has left waits until there is room.
    let cores: u32 = cluster.get("node", ".items[0].status.allocatable.cpu").parse().unwrap();
    cluster.apply(&FILLER.replace("CPU", &format!("{}m", cores * 1000 - 500)));
    cluster.kubectl(&["wait", "pod/filler", "--for=condition=Ready", "--timeout=60s"]);
    sized.resize("calm", r#"{"requests":{"cpu":"300m"},"limits":{"cpu":"500m"}}"#);
    sized.ends("PodResizePending");
    sized.resize("calm", r#"{"requests":{"cpu":"460m"},"limits":{"cpu":"600m"}}"#);
    cluster.wait("pod/sized", r#".status.conditions[?(@.type=="PodResizePending")].reason"#, "Deferred");
    assert_eq!(sized.shown(0, "allocatedResources.cpu"), "300m");
    sized.told("ResizeDeferred", "Node didn't have enough resource: cpu, requested: 510, used: ");
    cluster.kubectl(&["delete", "pod", "filler"]);
    sized.ends("PodResizePending");
    cluster.wait("pod/sized", ".status.containerStatuses[0].resources.limits.cpu", "600m");
    assert_eq!(sized.limits("calm"), "100663296 60000");
}
