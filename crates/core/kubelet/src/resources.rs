//! From requests and limits to cgroup numbers (upstream `pkg/kubelet/cm/helpers_linux.go`, `kuberuntime_container_linux.go`,
//! `qos/policy.go`).

use crate::allocated::{self, Sizes};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use schema::quantity::Quantity;
use std::collections::BTreeMap;

/// CFS period, upstream's default.
pub const CPU_PERIOD_US: u64 = 100_000;
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
/// CFS refuses less.
const MIN_QUOTA_US: i64 = 1_000;

/// A Pod's quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn of(pod: &Pod) -> Self {
        match pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
            Some("Guaranteed") => Self::Guaranteed,
            Some("Burstable") => Self::Burstable,
            _ => Self::BestEffort,
        }
    }

    /// The Pod's cgroup below the instance's root: guaranteed Pods stand at the top.
    pub fn cgroup_parent(self, uid: &str) -> String {
        match self {
            Self::Guaranteed => format!("pod{uid}"),
            Self::Burstable => format!("burstable/pod{uid}"),
            Self::BestEffort => format!("besteffort/pod{uid}"),
        }
    }
}

/// Zero and negative: not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu_shares: u64,
    pub cpu_quota_us: i64,
    pub memory_limit_bytes: i64,
}

type List = BTreeMap<String, Text>;

fn amount(list: Option<&List>, resource: &str) -> Option<Quantity> {
    Quantity::parse(&list?.get(resource)?.0).ok()
}

fn shares(milli_cpu: i64) -> u64 {
    let shares = u64::try_from(milli_cpu).unwrap_or_default() * 1024 / 1000;
    shares.clamp(MIN_SHARES, MAX_SHARES)
}

fn quota(milli_cpu: i64) -> i64 {
    if milli_cpu <= 0 {
        return 0;
    }
    (milli_cpu * CPU_PERIOD_US.cast_signed() / 1000).max(MIN_QUOTA_US)
}

/// The value of a quantity, rounded up; `None`: it is none.
pub fn value(quantity: &Text) -> Option<i64> {
    Quantity::parse(&quantity.0).ok().map(|quantity| quantity.value())
}

/// What one container's cgroup gets.
pub fn container(sizes: Sizes) -> Limits {
    let cpu = if sizes.cpu_request_milli > 0 { sizes.cpu_request_milli } else { sizes.cpu_limit_milli };
    Limits {
        cpu_shares: shares(cpu),
        cpu_quota_us: quota(sizes.cpu_limit_milli),
        memory_limit_bytes: sizes.memory_limit_bytes,
    }
}

/// What the Pod's cgroup gets: what the Pod asks for in all, and limits where all of it is limited (upstream
/// `ResourceConfigForPod`).
pub fn pod(pod: &Pod) -> Limits {
    let Some(spec) = &pod.spec else { return Limits::default() };
    let limits = allocated::limited(pod);
    let limit = |name: &str| limits.get(name).filter(|_| allocated::is_limited(spec, name));
    Limits {
        cpu_shares: shares(allocated::requested(pod).get("cpu").map_or(0, |amount| amount.milli_value())),
        cpu_quota_us: quota(limit("cpu").map_or(0, |amount| amount.milli_value())),
        memory_limit_bytes: limit("memory").map_or(0, |amount| amount.value()),
    }
}

/// The kernel's preference for killing it when the node runs out of memory (upstream `GetContainerOOMScoreAdjust`): the less
/// a container asked for the sooner; a sidecar never before the main containers; what the Pod asks for beyond its
/// containers counts for each of them.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: i64) -> i32 {
    let spec = pod.spec.clone().unwrap_or_default();
    if spec.priority_class_name.as_deref() == Some("system-node-critical") {
        return -997;
    }
    match Qos::of(pod) {
        Qos::Guaranteed => return -997,
        Qos::BestEffort => return 1000,
        Qos::Burstable => {}
    }
    let init = || spec.init_containers.iter().flatten();
    let is_sidecar = |container: &Container| container.restart_policy.as_deref() == Some("Always");
    let beyond = amount(spec.resources.as_ref().and_then(|r| r.requests.as_ref()), "memory").map_or(0, |whole| {
        let count = i64::try_from(spec.containers.len() + init().count()).unwrap_or(i64::MAX).max(1);
        let own = allocated::of_containers(&spec).get("memory").map_or(0, |amount| amount.value());
        (whole.value() - own).max(0) / count
    });
    let score = |request: i64| {
        let share = 1000i128 * i128::from(request + beyond) / i128::from(node_memory_bytes.max(1));
        i32::try_from(1000 - share).unwrap_or(1000)
    };
    let mut adjust = score(memory_request(container));
    if init().any(|c| c.name == container.name && is_sidecar(c)) {
        adjust = adjust.min(score(spec.containers.iter().map(memory_request).min().unwrap_or_default()));
    }
    match adjust {
        ..3 => 3,
        1000.. => 999,
        adjust => adjust,
    }
}

fn memory_request(container: &Container) -> i64 {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    amount(requests, "memory").map_or(0, |amount| amount.value())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn pod_limits(spec: &Value) -> Limits {
        pod(&serde_json::from_value(json!({"spec": spec})).unwrap())
    }

    fn with(name: &str, cpu: &str, memory: &str) -> Value {
        json!({"name": name, "resources": {"limits": {"cpu": cpu, "memory": memory}, "requests": {"cpu": cpu}}})
    }

    #[test]
    fn pod_sums_containers_and_lets_a_large_init_container_win() {
        let two = json!({"containers": [with("a", "500m", "64Mi"), with("b", "250m", "32Mi")]});
        assert_eq!(pod_limits(&two), Limits { cpu_shares: 768, cpu_quota_us: 75_000, memory_limit_bytes: 96 << 20 });
        let init = json!({"initContainers": [with("i", "2", "16Mi")], "containers": [with("a", "1", "64Mi")]});
        assert_eq!(pod_limits(&init), Limits { cpu_shares: 2048, cpu_quota_us: 200_000, memory_limit_bytes: 64 << 20 });
    }

    #[test]
    fn one_unlimited_container_lifts_the_pods_limit() {
        let spec = json!({"containers": [with("a", "1", "64Mi"), {"name": "b"}]});
        assert_eq!(pod_limits(&spec), Limits { cpu_shares: 1024, cpu_quota_us: 0, memory_limit_bytes: 0 });
    }

    #[test]
    fn bounds_of_shares_and_quota() {
        assert_eq!((shares(0), shares(1), shares(1_000_000)), (2, 2, 262_144));
        assert_eq!((quota(0), quota(1), quota(1500)), (0, 1_000, 150_000));
    }

    #[test]
    fn burstable_oom_score_follows_the_share_of_memory() {
        let of = |memory: &str| -> i32 {
            oom_of(&json!({"containers": [{"name": "c", "resources": {"requests": {"memory": memory}}}]}), "c")
        };
        assert_eq!((of("0"), of("512Mi"), of("1Gi")), (999, 500, 3));
    }

    /// Of a gibibyte.
    fn oom_of(spec: &Value, name: &str) -> i32 {
        let pod: Pod = serde_json::from_value(json!({"spec": spec, "status": {"qosClass": "Burstable"}})).unwrap();
        let spec = pod.spec.clone().unwrap();
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        oom_score_adj(&pod, all.find(|container| container.name == name).unwrap(), 1 << 30)
    }

    #[test]
    fn sidecars_and_what_the_whole_pod_asks_for_count_in_the_oom_score() {
        let asks = |name: &str, memory: &str| json!({"name": name, "resources": {"requests": {"memory": memory}}});
        let mut sidecar = asks("s", "0");
        sidecar["restartPolicy"] = json!("Always");
        let mut spec = json!({"containers": [asks("a", "512Mi"), asks("b", "256Mi")], "initContainers": [sidecar]});
        assert_eq!((oom_of(&spec, "a"), oom_of(&spec, "b"), oom_of(&spec, "s")), (500, 750, 750));
        spec["resources"] = json!({"requests": {"memory": "960Mi"}});
        assert_eq!((oom_of(&spec, "a"), oom_of(&spec, "b"), oom_of(&spec, "s")), (438, 688, 688));
        spec["priorityClassName"] = json!("system-node-critical");
        assert_eq!(oom_of(&spec, "b"), -997);
    }
}
