//! What a node says of itself: the Node object at registration, its conditions, its Lease (upstream
//! `pkg/kubelet/nodestatus/setters.go`, KEP-589).

use crate::eviction::Condition;
use jiff::Timestamp;
use schema::quantity::{Quantity, Suffix};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// How often the Lease is renewed (upstream: a quarter of 40 s), and how long it counts.
pub const LEASE_RENEW_S: u64 = 10;
pub const LEASE_DURATION_S: i64 = 40;
/// How often an unchanged status is written again (`nodeStatusReportFrequency`).
pub const STATUS_REPORT_S: u64 = 300;

/// What was observed of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub name: String,
    pub hostname: String,
    pub addresses: Vec<IpAddr>,
    pub cpus: u64,
    pub memory_bytes: u64,
    pub ephemeral_storage_bytes: u64,
    pub max_pods: u32,
    pub kubelet_port: u16,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
    pub architecture: String,
    pub version: String,
    pub pod_cidrs: Vec<String>,
    /// Bytes of huge pages by the size of one.
    pub huge_pages: BTreeMap<u64, u64>,
    pub images: Vec<Image>,
    /// Whether the kernel gives Pods user namespaces of their own.
    pub user_namespaces: bool,
    pub pressure: BTreeSet<Condition>,
}

/// An image that the node has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Digests, then tags.
    pub names: Vec<String>,
    pub size_bytes: u64,
}

/// As many images are shown, and as many names of each (upstream `nodeStatusMaxImages`, `MaxNamesPerImageInNodeStatus`).
const MAX_IMAGES: usize = 50;
const MAX_NAMES: usize = 5;

/// The Node as first written.
pub fn object(facts: &Facts, now: Timestamp) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": facts.name,
            "labels": labels(facts),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": {"podCIDR": facts.pod_cidrs.first(), "podCIDRs": facts.pod_cidrs},
        "status": status(facts, &Value::Null, now),
    })
}

/// Labels that the node keeps up to date itself.
pub fn labels(facts: &Facts) -> Value {
    json!({
        "beta.kubernetes.io/arch": facts.architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": facts.architecture,
        "kubernetes.io/hostname": facts.hostname,
        "kubernetes.io/os": "linux",
    })
}

/// The whole status; `old` keeps transition times of conditions that did not change.
pub fn status(facts: &Facts, old: &Value, now: Timestamp) -> Value {
    let mut addresses: Vec<Value> =
        facts.addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()})).collect();
    addresses.push(json!({"type": "Hostname", "address": facts.hostname}));
    let condition = |of: &str, status: &str, reason: &str, message: &str| {
        let before = old["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == of);
        let since = before.filter(|condition| condition["status"] == status);
        let since = since.map_or_else(|| json!(time(now)), |condition| condition["lastTransitionTime"].clone());
        json!({"type": of, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": time(now), "lastTransitionTime": since})
    };
    let pressure = |of: Condition, [with, without]: [(&str, &str); 2]| {
        let (status, (reason, message)) =
            if facts.pressure.contains(&of) { ("True", with) } else { ("False", without) };
        condition(&format!("{of:?}"), status, reason, message)
    };
    // Extended resources are advertised by others; like everything here they are allocatable as far as there are any.
    let mut capacity = old["capacity"].as_object().cloned().unwrap_or_default();
    capacity.extend(resources(facts));
    json!({
        "addresses": addresses,
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [
            pressure(Condition::MemoryPressure, [
                ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ]),
            pressure(Condition::DiskPressure, [
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ]),
            pressure(Condition::PIDPressure, [
                ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ]),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.kubelet_port}},
        "nodeInfo": {
            "machineID": facts.machine_id,
            "systemUUID": facts.system_uuid,
            "bootID": facts.boot_id,
            "kernelVersion": facts.kernel_version,
            "osImage": facts.os_image,
            "containerRuntimeVersion": format!("minke://{}", facts.version.split('+').nth(1).unwrap_or("embedded")),
            "kubeletVersion": facts.version,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": facts.architecture,
        },
        "images": images(&facts.images),
        "features": {"supplementalGroupsPolicy": true},
        "runtimeHandlers": [{"name": "", "features": {
            "recursiveReadOnlyMounts": true, "userNamespaces": facts.user_namespaces,
        }}],
    })
}

/// The largest images first.
fn images(all: &[Image]) -> Value {
    let mut all: Vec<&Image> = all.iter().collect();
    all.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.names.cmp(&b.names)));
    let shown = all.into_iter().take(MAX_IMAGES).map(|image| {
        let names: Vec<_> = image.names.iter().take(MAX_NAMES).collect();
        json!({"names": names, "sizeBytes": image.size_bytes})
    });
    shown.collect()
}

/// The machine's own capacity, which is also allocatable: nothing is reserved.
pub fn resources(facts: &Facts) -> Map<String, Value> {
    let amounts = [
        ("cpu", facts.cpus.to_string()),
        ("memory", format!("{}Ki", facts.memory_bytes / 1024)),
        ("ephemeral-storage", format!("{}Ki", facts.ephemeral_storage_bytes / 1024)),
        ("pods", facts.max_pods.to_string()),
    ];
    let mut amounts: Map<String, Value> =
        amounts.into_iter().map(|(name, amount)| (name.to_owned(), amount.into())).collect();
    let binary =
        |bytes: u64| Quantity::from_value(i64::try_from(bytes).unwrap_or(i64::MAX), Suffix::Binary).canonical();
    amounts.extend(
        facts.huge_pages.iter().map(|(size, bytes)| (format!("hugepages-{}", binary(*size)), binary(*bytes).into())),
    );
    amounts
}

/// Whether the Node is not what the kubelet would write: somebody has changed its capacity, or the node is short of something.
pub fn is_outdated(facts: &Facts, old: &Value, now: Timestamp) -> bool {
    let wanted = status(facts, old, now);
    let conditions = |status: &Value| -> Vec<(Value, Value)> {
        let all = status["conditions"].as_array().into_iter().flatten();
        all.map(|condition| (condition["type"].clone(), condition["status"].clone())).collect()
    };
    let told = conditions(old);
    let amounts = ["capacity", "allocatable"].iter().any(|amounts| wanted[*amounts] != old[*amounts]);
    amounts || conditions(&wanted).iter().any(|condition| !told.contains(condition))
}

/// The node's heartbeat in `kube-node-lease`.
pub fn lease(name: &str, node_uid: &str, now: Timestamp) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": "kube-node-lease",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid}],
        },
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_DURATION_S, "renewTime": micro_time(now)},
    })
}

/// `metav1.Time`
pub fn time(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// `metav1.MicroTime`
pub fn micro_time(at: Timestamp) -> String {
    format!("{at:.6}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn transition_times_stay_while_nothing_changes() {
        let facts = Facts { name: "n".into(), ..Facts::default() };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = status(&facts, &Value::Null, at("2026-01-01T00:00:00.5Z"));
        let second = status(&facts, &first, at("2026-01-01T00:05:00Z"));
        let ready = &second["conditions"][3];
        assert_eq!(ready["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(ready["lastHeartbeatTime"], "2026-01-01T00:05:00Z");
    }

    #[test]
    fn pressure_is_a_condition_and_its_end_too() {
        let condition = |facts: &Facts, old: &Value, at: usize| {
            let status = status(facts, old, Timestamp::UNIX_EPOCH);
            let one = &status["conditions"][at];
            format!("{} {} {}: {}", one["type"], one["status"], one["reason"], one["message"]).replace('"', "")
        };
        let calm = Facts::default();
        let short = Facts { pressure: BTreeSet::from([Condition::DiskPressure]), ..Facts::default() };
        assert_eq!(
            condition(&calm, &Value::Null, 1),
            "DiskPressure False KubeletHasNoDiskPressure: kubelet has no disk pressure"
        );
        assert_eq!(
            condition(&short, &Value::Null, 1),
            "DiskPressure True KubeletHasDiskPressure: kubelet has disk pressure"
        );
        let before = status(&calm, &Value::Null, Timestamp::UNIX_EPOCH);
        assert!(!is_outdated(&calm, &before, Timestamp::UNIX_EPOCH));
        assert!(is_outdated(&short, &before, Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn the_largest_images_and_huge_pages_are_shown() {
        let image = |size_bytes: u64, names: &[&str]| Image {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            size_bytes,
        };
        let mut images = vec![image(1, &["small"]), image(9, &["a", "b", "c", "d", "e", "f"])];
        images.extend((2..60).map(|size| image(size % 9, &["x"])));
        let facts =
            Facts { images, huge_pages: BTreeMap::from([(2 << 20, 4 << 20), (1 << 30, 0)]), ..Facts::default() };
        let status = status(&facts, &Value::Null, Timestamp::UNIX_EPOCH);
        assert_eq!(status["images"].as_array().unwrap().len(), 50);
        assert_eq!(status["images"][0], json!({"names": ["a", "b", "c", "d", "e"], "sizeBytes": 9}));
        assert_eq!(
            (&status["capacity"]["hugepages-2Mi"], &status["allocatable"]["hugepages-1Gi"]),
            (&json!("4Mi"), &json!("0"))
        );
    }

    #[test]
    fn extended_resources_become_allocatable() {
        let facts = Facts { cpus: 2, ..Facts::default() };
        let now = Timestamp::UNIX_EPOCH;
        let mut old = status(&facts, &Value::Null, now);
        assert!(!is_outdated(&facts, &old, now));
        old["capacity"]["example.com/gpu"] = json!("3");
        assert!(is_outdated(&facts, &old, now));
        let new = status(&facts, &old, now);
        assert_eq!((&new["allocatable"]["example.com/gpu"], &new["allocatable"]["cpu"]), (&json!("3"), &json!("2")));
        assert!(!is_outdated(&facts, &new, now));
    }

    #[test]
    fn times_have_upstreams_precision() {
        let at = "2026-01-01T00:00:00.123456789Z".parse().unwrap();
        assert_eq!(
            (time(at).as_str(), micro_time(at).as_str()),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456Z")
        );
    }
}
