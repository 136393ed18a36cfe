//! From requests and limits to cgroup numbers (upstream `pkg/kubelet/cm/helpers_linux.go`, `kuberuntime_container_linux.go`,
//! `qos/policy.go`).

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
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

fn limits(requirements: Option<&ResourceRequirements>) -> Limits {
    let requests = requirements.and_then(|r| r.requests.as_ref());
    let limits = requirements.and_then(|r| r.limits.as_ref());
    let cpu_limit = amount(limits, "cpu").map(|q| q.milli_value());
    let cpu_request = amount(requests, "cpu").map(|q| q.milli_value()).or(cpu_limit).unwrap_or_default();
    Limits {
        cpu_shares: shares(cpu_request),
        cpu_quota_us: quota(cpu_limit.unwrap_or_default()),
        memory_limit_bytes: amount(limits, "memory").map(|q| q.value()).unwrap_or_default(),
    }
}

/// The value of a quantity, rounded up; `None`: it is none.
pub fn value(quantity: &Text) -> Option<i64> {
    Quantity::parse(&quantity.0).ok().map(|quantity| quantity.value())
}

/// What one container's cgroup gets.
pub fn container(container: &Container) -> Limits {
    limits(container.resources.as_ref())
}

/// What the Pod's cgroup gets: the sum of the containers that run together, or the largest init container with the
/// sidecars started before it (KEP-753); a limit only where every container has one. Pod-level resources win (KEP-2837).
pub fn pod(pod: &Pod) -> Limits {
    let Some(spec) = &pod.spec else { return Limits::default() };
    let of = |container: &Container, wanted: fn(&Container) -> Option<i64>| wanted(container);
    let total = |wanted: fn(&Container) -> Option<i64>| -> Option<i64> {
        let mut sum: Option<i64> = Some(0);
        for container in &spec.containers {
            sum = sum.zip(of(container, wanted)).map(|(a, b)| a + b);
        }
        let (mut sidecars, mut largest) = (Some(0i64), Some(0i64));
        for container in spec.init_containers.iter().flatten() {
            let own = of(container, wanted);
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars = sidecars.zip(own).map(|(a, b)| a + b);
                largest = largest.zip(sidecars).map(|(a, b)| a.max(b));
            } else {
                let together = sidecars.zip(own).map(|(a, b)| a + b);
                largest = largest.zip(together).map(|(a, b)| a.max(b));
            }
        }
        sum.zip(sidecars).map(|(a, b)| a + b).zip(largest).map(|(a, b)| a.max(b))
    };
    let own = spec.resources.as_ref();
    let own_limits = own.and_then(|r| r.limits.as_ref());
    let own_requests = own.and_then(|r| r.requests.as_ref());
    let cpu_limit = amount(own_limits, "cpu").map(|q| q.milli_value()).or_else(|| total(cpu_limit));
    let memory = amount(own_limits, "memory").map(|q| q.value()).or_else(|| total(memory_limit));
    let cpu = amount(own_requests, "cpu").map(|q| q.milli_value()).or_else(|| total(cpu_request));
    Limits {
        cpu_shares: shares(cpu.unwrap_or_default()),
        cpu_quota_us: quota(cpu_limit.unwrap_or_default()),
        memory_limit_bytes: memory.unwrap_or_default(),
    }
}

fn cpu_request(container: &Container) -> Option<i64> {
    let requirements = container.resources.as_ref();
    let request = amount(requirements.and_then(|r| r.requests.as_ref()), "cpu").map(|q| q.milli_value());
    request.or_else(|| cpu_limit(container)).or(Some(0))
}

fn cpu_limit(container: &Container) -> Option<i64> {
    amount(container.resources.as_ref()?.limits.as_ref(), "cpu").map(|q| q.milli_value()).filter(|v| *v > 0)
}

fn memory_limit(container: &Container) -> Option<i64> {
    amount(container.resources.as_ref()?.limits.as_ref(), "memory").map(|q| q.value()).filter(|v| *v > 0)
}

/// The kernel's preference for killing it when the node runs out of memory.
pub fn oom_score_adj(qos: Qos, container: &Container, node_memory_bytes: i64) -> i32 {
    match qos {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
            let request = amount(requests, "memory").map(|q| q.value()).unwrap_or_default();
            let share = 1000i128 * i128::from(request) / i128::from(node_memory_bytes.max(1));
            let adjust = i32::try_from(1000 - share).unwrap_or(1000);
            if adjust < 3 {
                3
            } else if adjust == 1000 {
                999
            } else {
                adjust
            }
        }
    }
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
            let container = json!({"name": "c", "resources": {"requests": {"memory": memory}}});
            oom_score_adj(Qos::Burstable, &serde_json::from_value(container).unwrap(), 1 << 30)
        };
        assert_eq!((of("0"), of("512Mi"), of("1Gi")), (999, 500, 3));
    }
}
