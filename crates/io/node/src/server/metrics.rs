//! `/metrics`, `/metrics/resource`, `/metrics/cadvisor`, `/metrics/probes`: upstream's names, labels and help, for what is
//! measured here (upstream `pkg/kubelet/metrics`).

pub(super) mod cadvisor;

use super::exposition::{Exposition, Of};
use crate::Shared;
use crate::counters::Counted;
use crate::stats::host::TICKS_PER_SECOND;
use crate::stats::{PodSample, Sample, summary};
use k8s_openapi::api::core::v1::PodStatus;
use kubelet::static_pods;
use runtime::stats::{ContainerStats, Usage};

const NS: f64 = 1e9;

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// A container that runs, with its labels `container`, `pod`, `namespace`.
struct Running<'a> {
    name: &'a str,
    pod: &'a PodSample,
    stats: &'a ContainerStats,
    usage: &'a Usage,
}

impl<'a> Running<'a> {
    fn all(sample: &'a Sample) -> Vec<Self> {
        let of_pod = |pod: &'a PodSample| {
            pod.entry.containers.iter().filter_map(move |(name, id)| {
                let stats = pod.stats.containers.iter().find(|stats| stats.id == *id)?;
                Some(Self { name, pod, stats, usage: stats.usage.as_ref()? })
            })
        };
        sample.pods.iter().flat_map(of_pod).collect()
    }

    fn pod_name(&self) -> &'a str {
        text(&self.pod.entry.pod.metadata.name)
    }

    fn namespace(&self) -> &'a str {
        text(&self.pod.entry.pod.metadata.namespace)
    }

    fn started_s(&self) -> Option<f64> {
        let started = summary::started(self.pod.entry.status.as_deref()?, self.name)?;
        Some(started.0.as_millisecond() as f64 / 1000.0)
    }
}

/// `/metrics/resource`
pub(super) fn resource(sample: &Sample) -> String {
    let mut out = Exposition::default();
    let (at, host) = (Some(sample.at_ns / 1_000_000), &sample.host);
    let running = Running::all(sample);
    let of_container = |out: &mut Exposition, of, name, help, value: &dyn Fn(&Running<'_>) -> Option<f64>| {
        let mut family = out.family(of, name, help);
        for one in &running {
            if let Some(value) = value(one) {
                let labels = [("container", one.name), ("namespace", one.namespace()), ("pod", one.pod_name())];
                family.sample(&labels, value, Some(one.usage.at_ns / 1_000_000));
            }
        }
    };
    of_container(
        &mut out,
        Of::Counter,
        "container_cpu_usage_seconds_total",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        &|one| Some(one.usage.cpu.core_ns as f64 / NS),
    );
    of_container(
        &mut out,
        Of::Gauge,
        "container_memory_working_set_bytes",
        "[STABLE] Current working set of the container in bytes",
        &|one| Some(one.usage.memory.working_set_bytes as f64),
    );
    let mut family = out.family(
        Of::Gauge,
        "container_start_time_seconds",
        "[STABLE] Start time of the container since unix epoch in seconds",
    );
    for one in &running {
        if let Some(started) = one.started_s() {
            let labels = [("container", one.name), ("namespace", one.namespace()), ("pod", one.pod_name())];
            family.sample(&labels, started, None);
        }
    }
    of_container(
        &mut out,
        Of::Gauge,
        "container_swap_usage_bytes",
        "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems",
        &|one| Some(one.usage.swap.as_ref()?.usage_bytes as f64),
    );
    out.family(
        Of::Counter,
        "node_cpu_usage_seconds_total",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
    )
    .sample(&[], host.cpu_ns as f64 / NS, at);
    out.family(Of::Gauge, "node_memory_working_set_bytes", "[STABLE] Current working set of the node in bytes").sample(
        &[],
        host.memory.working_set_bytes as f64,
        at,
    );
    let swap = host.swap_total_bytes.saturating_sub(host.swap_free_bytes);
    out.family(
        Of::Gauge,
        "node_swap_usage_bytes",
        "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems",
    )
    .sample(&[], swap as f64, at);
    resource_of_pods(&mut out, sample);
    out.family(
        Of::Gauge,
        "resource_scrape_error",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
    )
    .sample(&[], 0.0, None);
    out.finish()
}

fn resource_of_pods(out: &mut Exposition, sample: &Sample) {
    let mut of_pod = |of, name, help, value: &dyn Fn(&Usage) -> Option<f64>| {
        let mut family = out.family(of, name, help);
        for pod in &sample.pods {
            let meta = &pod.entry.pod.metadata;
            if let Some(usage) = &pod.stats.usage
                && let Some(value) = value(usage)
            {
                let labels = [("namespace", text(&meta.namespace)), ("pod", text(&meta.name))];
                family.sample(&labels, value, Some(usage.at_ns / 1_000_000));
            }
        }
    };
    of_pod(
        Of::Counter,
        "pod_cpu_usage_seconds_total",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        &|usage| Some(usage.cpu.core_ns as f64 / NS),
    );
    of_pod(Of::Gauge, "pod_memory_working_set_bytes", "[STABLE] Current working set of the pod in bytes", &|usage| {
        Some(usage.memory.working_set_bytes as f64)
    });
    of_pod(
        Of::Gauge,
        "pod_swap_usage_bytes",
        "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems",
        &|usage| Some(usage.swap.as_ref()?.usage_bytes as f64),
    );
}

/// `/metrics/probes`
pub(super) fn probes(shared: &Shared) -> String {
    let mut out = Exposition::default();
    let mut family = out.family(
        Of::Counter,
        "prober_probe_total",
        "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
    );
    for (values, count) in shared.counters.of(Counted::Probes) {
        let [kind, result, container, pod, namespace, uid] = values.as_slice() else { continue };
        let labels = [
            ("container", container.as_str()),
            ("namespace", namespace),
            ("pod", pod),
            ("pod_uid", uid),
            ("probe_type", kind),
            ("result", result),
        ];
        family.sample(&labels, count as f64, None);
    }
    out.finish()
}

/// `/metrics`
pub(super) fn kubelet(shared: &Shared, sample: &Sample) -> String {
    let mut out = Exposition::default();
    let (entries, name) = (shared.pods.all(), shared.config.name.as_str());
    out.family(Of::Gauge, "kubelet_node_name", "[ALPHA] The node's name. The count is always 1.").sample(
        &[("node", name)],
        1.0,
        None,
    );
    let is_static = |wanted: bool| entries.iter().filter(move |entry| static_pods::is_static(&entry.pod) == wanted);
    let mut desired = out.family(Of::Gauge, "kubelet_desired_pods", "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.");
    for (label, wanted) in [("", false), ("true", true)] {
        desired.sample(&[("static", label)], is_static(wanted).count() as f64, None);
    }
    let over = |status: &Option<std::sync::Arc<PodStatus>>| {
        matches!(status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
    };
    let mut active = out.family(Of::Gauge, "kubelet_active_pods", "[ALPHA] The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.");
    for (label, wanted) in [("", false), ("true", true)] {
        active.sample(
            &[("static", label)],
            is_static(wanted).filter(|entry| !over(&entry.status)).count() as f64,
            None,
        );
    }
    out.family(
        Of::Gauge,
        "kubelet_mirror_pods",
        "[ALPHA] The number of mirror pods the kubelet will try to create (one per admitted static pod)",
    )
    .sample(&[], is_static(true).count() as f64, None);
    let running = sample.pods.iter().filter(|pod| pod.stats.usage.is_some()).count();
    out.family(Of::Gauge, "kubelet_running_pods", "[ALPHA] Number of pods that have a running pod sandbox").sample(
        &[],
        running as f64,
        None,
    );
    let containers = sample.pods.iter().flat_map(|pod| &pod.stats.containers);
    let (live, dead): (Vec<_>, Vec<_>) = containers.partition(|container| container.usage.is_some());
    let mut family =
        out.family(Of::Gauge, "kubelet_running_containers", "[ALPHA] Number of containers currently running");
    family.sample(&[("container_state", "running")], live.len() as f64, None);
    family.sample(&[("container_state", "exited")], dead.len() as f64, None);
    counted(&mut out, shared);
    logs(&mut out, sample);
    process(&mut out, shared);
    out.finish()
}

fn counted(out: &mut Exposition, shared: &Shared) {
    for (counted, name, help, label) in [
        (Counted::StartedPods, "kubelet_started_pods_total", "[ALPHA] Cumulative number of pods started", ""),
        (
            Counted::StartedContainers,
            "kubelet_started_containers_total",
            "[ALPHA] Cumulative number of containers started",
            "container_type",
        ),
        (
            Counted::Evictions,
            "kubelet_evictions",
            "[ALPHA] Cumulative number of pod evictions by eviction signal",
            "eviction_signal",
        ),
        (
            Counted::ImagesCollected,
            "kubelet_image_garbage_collected_total",
            "[ALPHA] Total number of images garbage collected by the kubelet, whether through disk usage or image age.",
            "reason",
        ),
    ] {
        let mut family = out.family(Of::Counter, name, help);
        for (values, count) in shared.counters.of(counted) {
            let labels: Vec<_> = values.iter().map(|value| (label, value.as_str())).collect();
            family.sample(&labels, count as f64, None);
        }
    }
}

fn logs(out: &mut Exposition, sample: &Sample) {
    let mut family = out.family(
        Of::Gauge,
        "kubelet_container_log_filesystem_used_bytes",
        "[ALPHA] Bytes used by the container's logs on the filesystem.",
    );
    for pod in &sample.pods {
        let meta = &pod.entry.pod.metadata;
        for (container, used) in &pod.disk.logs {
            let labels = [
                ("container", container.as_str()),
                ("namespace", text(&meta.namespace)),
                ("pod", text(&meta.name)),
                ("uid", text(&meta.uid)),
            ];
            family.sample(&labels, used.bytes as f64, None);
        }
    }
}

/// What every Go program tells of its process.
fn process(out: &mut Exposition, shared: &Shared) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    let words: Vec<u64> = stat
        .rsplit_once(") ")
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .map(|word| word.parse().unwrap_or_default())
        .collect();
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let ticks = TICKS_PER_SECOND as f64;
    let boot: f64 =
        read("/proc/stat").lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok()).unwrap_or_default();
    let status = read("/proc/self/status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident =
        resident.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default();
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count());
    for (of, name, help, value) in [
        (
            Of::Counter,
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            (word(11) + word(12)) as f64 / ticks,
        ),
        (Of::Gauge, "process_open_fds", "Number of open file descriptors.", open as f64),
        (Of::Gauge, "process_resident_memory_bytes", "Resident memory size in bytes.", (resident * 1024) as f64),
        (
            Of::Gauge,
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            boot + word(19) as f64 / ticks,
        ),
        (Of::Gauge, "process_virtual_memory_bytes", "Virtual memory size in bytes.", word(20) as f64),
    ] {
        out.family(of, name, help).sample(&[], value, None);
    }
    let version = shared.config.version.as_str();
    let labels = [("git_version", version), ("major", "1"), ("minor", "37")];
    out.family(Of::Gauge, "kubernetes_build_info", "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.").sample(&labels, 1.0, None);
}
