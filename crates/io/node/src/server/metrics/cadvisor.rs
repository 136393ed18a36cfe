//! `/metrics/cadvisor`: containers and Pods in the names that dashboards know (cAdvisor `metrics/prometheus.go`).

use super::{NS, Running, text};
use crate::server::exposition::{Exposition, Of};
use crate::stats::Sample;
use k8s_openapi::api::core::v1::PodStatus;
use runtime::stats::{InterfaceUsage, MemoryUsage, Usage};

/// One line of cAdvisor's: a container, or a Pod (its `container` is empty).
struct Row<'a> {
    /// `container`, `id`, `image`, `name`, `namespace`, `pod`
    labels: [(&'static str, &'a str); 6],
    usage: &'a Usage,
}

/// `/metrics/cadvisor`
pub(in crate::server) fn cadvisor(sample: &Sample) -> String {
    let mut out = Exposition::default();
    let running = Running::all(sample);
    let images: Vec<String> = running.iter().map(|one| image(one.pod.entry.status.as_deref(), one.name)).collect();
    let mut rows: Vec<Row<'_>> = Vec::new();
    for pod in &sample.pods {
        let meta = &pod.entry.pod.metadata;
        if let Some(usage) = &pod.stats.usage {
            let labels = [
                ("container", ""),
                ("id", pod.stats.id.as_str()),
                ("image", ""),
                ("name", ""),
                ("namespace", text(&meta.namespace)),
                ("pod", text(&meta.name)),
            ];
            rows.push(Row { labels, usage });
        }
    }
    for (one, image) in running.iter().zip(&images) {
        let id = one.stats.id.as_str();
        let labels = [
            ("container", one.name),
            ("id", id),
            ("image", image.as_str()),
            ("name", id),
            ("namespace", one.namespace()),
            ("pod", one.pod_name()),
        ];
        rows.push(Row { labels, usage: one.usage });
    }
    of_rows(&mut out, &rows);
    of_layers(&mut out, &running);
    of_interfaces(&mut out, sample);
    out.family(Of::Gauge, "machine_cpu_cores", "Number of logical CPU cores.").sample(
        &[],
        std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64),
        None,
    );
    out.family(Of::Gauge, "machine_memory_bytes", "Amount of memory installed on the machine.").sample(
        &[],
        sample.host.memory.total_bytes as f64,
        None,
    );
    out.finish()
}

fn image(status: Option<&PodStatus>, container: &str) -> String {
    let Some(status) = status else { return String::new() };
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let mut all = lists.into_iter().flatten().flatten();
    all.find(|status| status.name == container).map(|status| status.image.clone()).unwrap_or_default()
}

fn of_rows(out: &mut Exposition, rows: &[Row<'_>]) {
    let mut cpu =
        out.family(Of::Counter, "container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.");
    for row in rows {
        let mut labels = vec![("container", row.labels[0].1), ("cpu", "total")];
        labels.extend(&row.labels[1..]);
        cpu.sample(&labels, row.usage.cpu.core_ns as f64 / NS, Some(row.usage.at_ns / 1_000_000));
    }
    let mut memory = |name, help, value: &dyn Fn(&MemoryUsage) -> u64| {
        let mut family = out.family(Of::Gauge, name, help);
        for row in rows {
            family.sample(&row.labels, value(&row.usage.memory) as f64, Some(row.usage.at_ns / 1_000_000));
        }
    };
    memory(
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        &|memory| memory.usage_bytes,
    );
    memory("container_memory_working_set_bytes", "Current working set in bytes.", &|memory| memory.working_set_bytes);
    memory("container_memory_rss", "Size of RSS in bytes.", &|memory| memory.rss_bytes);
    memory("container_spec_memory_limit_bytes", "Memory limit for the container.", &|memory| {
        memory.limit_bytes.unwrap_or_default()
    });
    let mut failures =
        out.family(Of::Counter, "container_memory_failures_total", "Cumulative count of memory allocation failures.");
    for row in rows {
        for (kind, value) in
            [("pgfault", row.usage.memory.page_faults), ("pgmajfault", row.usage.memory.major_page_faults)]
        {
            let mut labels = vec![row.labels[0], ("failure_type", kind)];
            labels.extend(&row.labels[1..]);
            labels.push(("scope", "hierarchy"));
            failures.sample(&labels, value as f64, Some(row.usage.at_ns / 1_000_000));
        }
    }
    let mut swap = out.family(Of::Gauge, "container_memory_swap", "Container swap usage in bytes.");
    for row in rows {
        if let Some(usage) = &row.usage.swap {
            swap.sample(&row.labels, usage.usage_bytes as f64, Some(row.usage.at_ns / 1_000_000));
        }
    }
    let mut threads = out.family(Of::Gauge, "container_threads", "Number of threads running inside the container");
    for row in rows {
        threads.sample(&row.labels, row.usage.pids as f64, Some(row.usage.at_ns / 1_000_000));
    }
    let mut seen = out.family(Of::Gauge, "container_last_seen", "Last time a container was seen by the exporter");
    for row in rows {
        seen.sample(&row.labels, (row.usage.at_ns / 1_000_000_000) as f64, Some(row.usage.at_ns / 1_000_000));
    }
}

fn of_layers(out: &mut Exposition, running: &[Running<'_>]) {
    let mut family = out.family(
        Of::Gauge,
        "container_fs_usage_bytes",
        "Number of bytes that are consumed by the container on this filesystem.",
    );
    for one in running {
        if let Some(layer) = &one.stats.writable_layer {
            let labels = [
                ("container", one.name),
                ("id", one.stats.id.as_str()),
                ("name", one.stats.id.as_str()),
                ("namespace", one.namespace()),
                ("pod", one.pod_name()),
            ];
            family.sample(&labels, layer.used_bytes as f64, Some(layer.at_ns / 1_000_000));
        }
    }
    let mut family = out.family(
        Of::Gauge,
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds.",
    );
    for one in running {
        if let Some(started) = one.started_s() {
            let labels = [
                ("container", one.name),
                ("id", one.stats.id.as_str()),
                ("name", one.stats.id.as_str()),
                ("namespace", one.namespace()),
                ("pod", one.pod_name()),
            ];
            family.sample(&labels, started, None);
        }
    }
}

fn of_interfaces(out: &mut Exposition, sample: &Sample) {
    let mut network = |name, help, value: &dyn Fn(&InterfaceUsage) -> u64| {
        let mut family = out.family(Of::Counter, name, help);
        for pod in &sample.pods {
            let meta = &pod.entry.pod.metadata;
            let Some(usage) = &pod.stats.network else { continue };
            for interface in &usage.interfaces {
                let labels = [
                    ("container", ""),
                    ("id", pod.stats.id.as_str()),
                    ("image", ""),
                    ("interface", interface.name.as_str()),
                    ("name", ""),
                    ("namespace", text(&meta.namespace)),
                    ("pod", text(&meta.name)),
                ];
                family.sample(&labels, value(interface) as f64, Some(usage.at_ns / 1_000_000));
            }
        }
    };
    network("container_network_receive_bytes_total", "Cumulative count of bytes received", &|interface| {
        interface.rx_bytes
    });
    network(
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving",
        &|interface| interface.rx_errors,
    );
    network("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", &|interface| {
        interface.tx_bytes
    });
    network(
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting",
        &|interface| interface.tx_errors,
    );
}
