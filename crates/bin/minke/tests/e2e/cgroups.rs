//! Limits as the kernel has them, under whatever cgroups the machine has.

use crate::cluster::Cluster;
use std::path::{Path, PathBuf};

/// The group of a Pod in the hierarchy of `controller`, or in the only one.
fn group_of(uid: &str, controller: &str) -> PathBuf {
    fn find(dir: &Path, name: &str) -> Option<PathBuf> {
        let entries = std::fs::read_dir(dir).ok()?.flatten().filter(|entry| entry.path().is_dir());
        entries.map(|entry| entry.path()).find_map(|path| match path.file_name() {
            Some(last) if last == name => Some(path),
            _ => find(&path, name),
        })
    }
    let root = Path::new("/sys/fs/cgroup");
    let v1 = root.join(controller);
    let root = if v1.join("cgroup.procs").exists() { v1 } else { root.to_owned() };
    find(&root, &format!("pod{uid}")).unwrap_or_else(|| panic!("no group of Pod {uid} below {}", root.display()))
}

#[test]
fn limits_reach_the_kernel_and_out_of_memory_is_told() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: bounded}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers:
  - name: calm
    image: busybox:1.37
    command: [sleep, "1000"]
    resources: {limits: {memory: 32Mi, cpu: 250m}}
  - name: hungry
    image: busybox:1.37
    command: [sh, -c, "x=$(head -c 64m /dev/zero | tr '\\0' x); echo ${#x}"]
    resources: {limits: {memory: 16Mi, cpu: 500m}, requests: {cpu: 100m}}
---
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: "busybox:1.37", command: [sleep, "1000"]}
"#,
    );
    let hungry = ".status.containerStatuses[1].state.terminated.reason";
    cluster.wait("pod/bounded", hungry, "OOMKilled");
    assert_eq!(cluster.get("pod/bounded", ".status.containerStatuses[1].state.terminated.exitCode"), "137");
    assert_eq!(cluster.get("pod/bounded", ".status.containerStatuses[0].state.running.startedAt").len(), 20);
    // From inside, by the names of whichever version there is.
    let look = |v2: &str, v1: &str| {
        let script = format!("cd /sys/fs/cgroup; cat {v2} 2>/dev/null || cat {v1}");
        cluster.kubectl(&["exec", "bounded", "-c", "calm", "--", "sh", "-c", &script]).trim().to_owned()
    };
    assert_eq!(look("memory.max", "memory/memory.limit_in_bytes"), "33554432");
    assert_eq!(look("cpu.max", "cpu/cpu.cfs_quota_us").split(' ').next(), Some("25000"));
    // From outside: each Pod in the group of its class, with what its containers may have together.
    cluster.kubectl(&["wait", "pod/plain", "--for=condition=Ready", "--timeout=60s"]);
    let uid = |name: &str| cluster.get(&format!("pod/{name}"), ".metadata.uid");
    let bounded = group_of(&uid("bounded"), "memory");
    assert!(bounded.to_string_lossy().contains("/burstable/"), "{}", bounded.display());
    let limit = ["memory.max", "memory.limit_in_bytes"].map(|file| std::fs::read_to_string(bounded.join(file)));
    let limit = limit.into_iter().find_map(Result::ok).unwrap();
    assert_eq!(limit.trim(), (48u64 << 20).to_string());
    assert!(group_of(&uid("plain"), "memory").to_string_lossy().contains("/besteffort/"));
}
