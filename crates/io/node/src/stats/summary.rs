//! `/stats/summary` (upstream `k8s.io/kubelet/pkg/apis/stats/v1alpha1`, `pkg/kubelet/stats/cri_stats_provider.go`).

use super::{PodSample, Sample};
use crate::disk::{Room, Used};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use runtime::stats::{ContainerStats, InterfaceUsage, NetworkUsage, Pressure, Stall, Usage};
use serde_json::{Map, Value, json};

/// When the container's present run began.
pub(crate) fn started<'a>(status: &'a PodStatus, name: &str) -> Option<&'a Time> {
    let status = of_container(status, name)?;
    status.state.as_ref()?.running.as_ref()?.started_at.as_ref()
}

fn of_container<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == name)
}

/// The whole answer. `only_cpu_and_memory` as the query asks.
pub(crate) fn summary(sample: &Sample, node: &str, only_cpu_and_memory: bool) -> Value {
    let pods: Vec<_> = sample.pods.iter().map(|pod| of_pod(sample, pod, only_cpu_and_memory)).collect();
    json!({"node": of_node(sample, node, only_cpu_and_memory), "pods": pods})
}

fn of_node(sample: &Sample, name: &str, short: bool) -> Value {
    let (host, at) = (&sample.host, time(sample.at_ns));
    let mut node = json!({
        "nodeName": name,
        "startTime": time(host.boot_s.saturating_mul(1_000_000_000)),
        "cpu": {"time": at, "usageNanoCores": sample.rates.get(""), "usageCoreNanoSeconds": host.cpu_ns},
        "memory": {
            "time": at,
            "availableBytes": host.memory.available_bytes(),
            "usageBytes": host.memory.usage_bytes,
            "workingSetBytes": host.memory.working_set_bytes,
            "rssBytes": host.memory.rss_bytes,
            "pageFaults": host.page_faults,
            "majorPageFaults": host.major_page_faults,
        },
    });
    let psi = |node: &mut Value, part: &str, pressure: &Option<Pressure>| {
        if let Some(pressure) = pressure {
            node[part]["time"] = json!(at);
            node[part]["psi"] = of_pressure(pressure);
        }
    };
    psi(&mut node, "cpu", &host.cpu_pressure);
    psi(&mut node, "memory", &host.memory_pressure);
    psi(&mut node, "io", &host.io_pressure);
    node["systemContainers"] = system_containers(sample);
    if short {
        return node;
    }
    node["network"] = network(&NetworkUsage { at_ns: sample.at_ns, interfaces: host.interfaces.clone() });
    let used = sample.node_fs.capacity_bytes.saturating_sub(sample.node_fs.available_bytes);
    let inodes = sample.node_fs.inodes.saturating_sub(sample.node_fs.inodes_free);
    node["fs"] = fs(sample.at_ns, &sample.node_fs, Used { bytes: used, inodes });
    if let Some((image_fs, room)) = &sample.image_fs {
        let part = |usage: &runtime::stats::FilesystemUsage| {
            fs(usage.at_ns, room, Used { bytes: usage.used_bytes, inodes: usage.inodes_used })
        };
        node["runtime"] = json!({"imageFs": part(&image_fs.images), "containerFs": part(&image_fs.containers)});
    }
    node["rlimit"] = json!({"time": at, "maxpid": host.max_processes, "curproc": host.processes});
    let available = host.swap_free_bytes;
    let usage = host.swap_total_bytes.saturating_sub(host.swap_free_bytes);
    node["swap"] = json!({"time": at, "swapAvailableBytes": available, "swapUsageBytes": usage});
    node
}

/// All Pods together, as upstream's `/kubepods` group.
fn system_containers(sample: &Sample) -> Value {
    let usages: Vec<&Usage> = sample.pods.iter().filter_map(|pod| pod.stats.usage.as_ref()).collect();
    let sum = |of: &dyn Fn(&Usage) -> u64| usages.iter().map(|usage| of(usage)).sum::<u64>();
    let uids = sample.pods.iter().filter_map(|pod| pod.entry.pod.metadata.uid.as_ref());
    let rate: u64 = uids.filter_map(|uid| sample.rates.get(uid)).sum();
    let working_set = sum(&|usage| usage.memory.working_set_bytes);
    let at = time(sample.at_ns);
    json!([{
        "name": "pods",
        "startTime": time(sample.host.boot_s.saturating_mul(1_000_000_000)),
        "cpu": {"time": at, "usageNanoCores": rate, "usageCoreNanoSeconds": sum(&|usage| usage.cpu.core_ns)},
        "memory": {
            "time": at,
            "availableBytes": sample.host.memory.total_bytes.saturating_sub(working_set),
            "usageBytes": sum(&|usage| usage.memory.usage_bytes),
            "workingSetBytes": working_set,
            "rssBytes": sum(&|usage| usage.memory.rss_bytes),
            "pageFaults": sum(&|usage| usage.memory.page_faults),
            "majorPageFaults": sum(&|usage| usage.memory.major_page_faults),
        },
    }])
}

fn of_pod(sample: &Sample, pod: &PodSample, short: bool) -> Value {
    let meta = &pod.entry.pod.metadata;
    let uid = meta.uid.clone().unwrap_or_default();
    let status = pod.entry.status.as_deref();
    let mut value = json!({
        "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": uid},
        "startTime": status.and_then(|status| status.start_time.clone()),
        "containers": containers(sample, pod, short),
    });
    if let Some(usage) = &pod.stats.usage {
        put_usage(&mut value, usage, sample.rates.get(&uid));
        if !short {
            value["process_stats"] = json!({"process_count": usage.pids});
        }
    }
    if short {
        return value;
    }
    if let Some(usage) = &pod.stats.network {
        value["network"] = network(usage);
    }
    let volumes = pod.disk.volumes.iter().map(|(name, (used, room))| {
        let mut volume = fs(sample.at_ns, room, *used);
        volume["name"] = json!(name);
        if let Some(claim) = claim(pod, name) {
            volume["pvcRef"] = json!({"name": claim, "namespace": meta.namespace});
        }
        volume
    });
    let volumes: Vec<_> = volumes.collect();
    if !volumes.is_empty() {
        value["volume"] = volumes.into();
    }
    value["ephemeral-storage"] = fs(sample.at_ns, &sample.node_fs, ephemeral(sample, pod));
    value
}

fn claim<'a>(pod: &'a PodSample, volume: &str) -> Option<&'a str> {
    let spec = pod.entry.pod.spec.as_ref()?;
    let volume = spec.volumes.iter().flatten().find(|one| one.name == volume)?;
    Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str())
}

/// What the Pod takes of the node's own disk: logs, writable layers, local volumes that are no file systems of their own.
pub(crate) fn ephemeral(sample: &Sample, pod: &PodSample) -> Used {
    let mut used = Used::default();
    pod.disk.logs.values().for_each(|logs| used += *logs);
    for (of_volume, room) in pod.disk.volumes.values() {
        if room.device == sample.node_fs.device {
            used += *of_volume;
        }
    }
    for layer in pod.stats.containers.iter().filter_map(|container| container.writable_layer.as_ref()) {
        used += Used { bytes: layer.used_bytes, inodes: layer.inodes_used };
    }
    used
}

fn containers(sample: &Sample, pod: &PodSample, short: bool) -> Vec<Value> {
    let status = pod.entry.status.as_deref();
    let named = pod.entry.containers.iter();
    let found = named.filter_map(|(name, id)| {
        let stats = pod.stats.containers.iter().find(|stats| stats.id == *id)?;
        // What has ended uses nothing.
        stats.usage.as_ref()?;
        Some((name, stats))
    });
    let value = |(name, stats): (&String, &ContainerStats)| {
        let mut value = json!({
            "name": name,
            "startTime": status.and_then(|status| started(status, name)),
        });
        if let Some(usage) = &stats.usage {
            put_usage(&mut value, usage, sample.rates.get(&stats.id));
        }
        if !short {
            let room = sample.image_fs.as_ref().map(|(_, room)| *room).unwrap_or_default();
            if let Some(layer) = &stats.writable_layer {
                let used = Used { bytes: layer.used_bytes, inodes: layer.inodes_used };
                value["rootfs"] = fs(layer.at_ns, &room, used);
            }
            let logs = pod.disk.logs.get(name).copied().unwrap_or_default();
            value["logs"] = fs(sample.at_ns, &sample.node_fs, logs);
        }
        value
    };
    found.map(value).collect()
}

fn put_usage(value: &mut Value, usage: &Usage, rate: Option<&u64>) {
    let at = time(usage.at_ns);
    let mut cpu =
        Map::from_iter([("time".to_owned(), json!(at)), ("usageCoreNanoSeconds".to_owned(), json!(usage.cpu.core_ns))]);
    cpu.extend(rate.map(|rate| ("usageNanoCores".to_owned(), json!(rate))));
    let memory = &usage.memory;
    let mut of_memory = json!({
        "time": at,
        "usageBytes": memory.usage_bytes,
        "workingSetBytes": memory.working_set_bytes,
        "rssBytes": memory.rss_bytes,
        "pageFaults": memory.page_faults,
        "majorPageFaults": memory.major_page_faults,
    });
    if let Some(available) = memory.available_bytes() {
        of_memory["availableBytes"] = json!(available);
    }
    if let Some(pressure) = &usage.cpu.pressure {
        cpu.insert("psi".to_owned(), of_pressure(pressure));
    }
    if let Some(pressure) = &memory.pressure {
        of_memory["psi"] = of_pressure(pressure);
    }
    value["cpu"] = cpu.into();
    value["memory"] = of_memory;
    if let Some(swap) = &usage.swap {
        value["swap"] = json!({"time": at, "swapUsageBytes": swap.usage_bytes});
        if let Some(available) = swap.available_bytes {
            value["swap"]["swapAvailableBytes"] = json!(available);
        }
    }
    if let Some(pressure) = &usage.io_pressure {
        value["io"] = json!({"time": at, "psi": of_pressure(pressure)});
    }
}

fn of_pressure(pressure: &Pressure) -> Value {
    let of = |stall: &Stall| {
        let [avg10, avg60, avg300] = stall.averages.map(|hundredths| f64::from(hundredths) / 100.0);
        json!({"total": stall.total_us * 1000, "avg10": avg10, "avg60": avg60, "avg300": avg300})
    };
    json!({"some": of(&pressure.some), "full": of(&pressure.full)})
}

fn network(usage: &NetworkUsage) -> Value {
    let of = |interface: &InterfaceUsage| {
        json!({
            "name": interface.name,
            "rxBytes": interface.rx_bytes,
            "rxErrors": interface.rx_errors,
            "txBytes": interface.tx_bytes,
            "txErrors": interface.tx_errors,
        })
    };
    let interfaces: Vec<_> = usage.interfaces.iter().map(of).collect();
    // Upstream's default is eth0; a host that has none has a first one.
    let default = usage.interfaces.iter().position(|interface| interface.name == "eth0").unwrap_or_default();
    let mut value = interfaces.get(default).cloned().unwrap_or_else(|| json!({"name": ""}));
    value["time"] = json!(time(usage.at_ns));
    value["interfaces"] = interfaces.into();
    value
}

fn fs(at_ns: i64, room: &Room, used: Used) -> Value {
    json!({
        "time": time(at_ns),
        "availableBytes": room.available_bytes,
        "capacityBytes": room.capacity_bytes,
        "usedBytes": used.bytes,
        "inodesFree": room.inodes_free,
        "inodes": room.inodes,
        "inodesUsed": used.inodes,
    })
}

/// `metav1.Time`
fn time(ns: i64) -> String {
    kubelet::node::time(Timestamp::from_nanosecond(i128::from(ns)).unwrap_or_default())
}
