//! Keeps the Node object and its Lease true.

use crate::config::Config;
use crate::{NodeError, Shared};
use api::write::{Target, Verb, Write};
use client::transport::CallError;
use client::typed::target;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kubelet::node::{self, Facts};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

const RETRY: Duration = Duration::from_millis(200);

/// Registers, then renews the Lease by its period (the protocol's heartbeat) and the status by its own.
pub(crate) async fn run(shared: Arc<Shared>) -> Result<(), NodeError> {
    let uid = loop {
        match register(&shared, &facts(&shared).await).await {
            Ok(uid) => break uid,
            Err(error @ CallError::Unreachable(_)) => {
                tracing::info!(%error, "waiting for the API server");
                tokio::time::sleep(RETRY).await;
            }
            Err(source) => return Err(NodeError::Register { name: shared.config.name.clone(), source }),
        }
    };
    shared.ready.notify_one();
    let every = |seconds: u64| {
        let period = Duration::from_secs(seconds);
        let mut interval = interval_at(Instant::now() + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    };
    let mut renew = every(node::LEASE_RENEW_S);
    let mut report = every(node::STATUS_REPORT_S);
    heartbeat(&shared, &uid).await;
    loop {
        let written = tokio::select! {
            biased;
            _ = renew.tick() => {
                heartbeat(&shared, &uid).await;
                continue;
            }
            _ = report.tick() => write_status(&shared, &facts(&shared).await).await.map(drop),
            () = shared.node_changed.notified() => follow(&shared).await,
        };
        if let Err(error) = written {
            tracing::warn!(%error, "node status not written");
        }
    }
}

/// Somebody has changed the Node: what they put into its capacity becomes allocatable.
async fn follow(shared: &Shared) -> Result<(), CallError> {
    let node = shared.client.get::<Node>("", &shared.config.name).await?;
    let old = serde_json::to_value(&node.status).unwrap_or_default();
    let facts = facts(shared).await;
    if node::is_outdated(&facts, &old, Timestamp::now()) {
        write_status(shared, &facts).await?;
    }
    Ok(())
}

/// Creates the Node, or brings the existing one up to date; returns its UID.
async fn register(shared: &Shared, facts: &Facts) -> Result<String, CallError> {
    let body = node::object(facts, Timestamp::now()).to_string().into();
    let create = Write { verb: Verb::Create, target: target::<Node>("", ""), body };
    match shared.client.transport().write(create).await {
        Err(error) if error.is_conflict() => {
            let patch = json!({"metadata": {"labels": node::labels(facts)}});
            shared.client.patch::<Node>("", &facts.name, "", &patch).await?;
        }
        created => drop(created?),
    }
    write_status(shared, facts).await
}

async fn write_status(shared: &Shared, facts: &Facts) -> Result<String, CallError> {
    let node = shared.client.get::<Node>("", &facts.name).await?;
    let old = serde_json::to_value(&node.status).unwrap_or_default();
    let mut status = node::status(facts, &old, Timestamp::now());
    if let Some(addresses) = status["addresses"].as_array_mut() {
        // Their merge key is the type, which two families share (upstream `fixupPatchForNodeStatusAddresses`).
        addresses.push(json!({"$patch": "replace"}));
    }
    let patch = json!({"status": status});
    shared.client.patch::<Node>("", &facts.name, "status", &patch).await?;
    Ok(node.metadata.uid.clone().unwrap_or_default())
}

/// A missed renewal is made up by the next.
async fn heartbeat(shared: &Shared, node_uid: &str) {
    let name = &shared.config.name;
    let lease = node::lease(name, node_uid, Timestamp::now());
    let patch = json!({"spec": lease["spec"]});
    let target: Target = target::<Lease>("kube-node-lease", name);
    let write = |verb, target, body: &Value| Write { verb, target, body: body.to_string().into() };
    let transport = shared.client.transport();
    let renewed = match transport.write(write(Verb::MergePatch, target.clone(), &patch)).await {
        Err(error) if error.is_not_found() => {
            transport.write(write(Verb::Create, Target { name: String::new(), ..target }, &lease)).await
        }
        renewed => renewed,
    };
    if let Err(error) = renewed {
        tracing::warn!(%error, "node lease not renewed");
    }
}

/// The machine, and what changes on it.
async fn facts(shared: &Shared) -> Facts {
    let images = shared.runtime.list_images().await.unwrap_or_default();
    let named = images.into_iter().map(|image| {
        let names = image.repo_digests.into_iter().chain(image.repo_tags).collect();
        node::Image { names, size_bytes: image.size_bytes }
    });
    Facts { images: named.collect(), pressure: shared.pressure.now(), ..observe(&shared.config) }
}

fn observe(config: &Config) -> Facts {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = read("/etc/os-release");
    let os_image = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let uname = rustix::system::uname();
    let storage = rustix::fs::statvfs(&config.data_dir).map(|stat| stat.f_blocks * stat.f_frsize).unwrap_or_default();
    Facts {
        name: config.name.clone(),
        hostname: config.name.clone(),
        addresses: config.addresses.clone(),
        cpus: std::thread::available_parallelism().map(|n| n.get() as u64).unwrap_or(1),
        memory_bytes: memory_bytes().unsigned_abs(),
        ephemeral_storage_bytes: storage,
        max_pods: config.max_pods,
        kubelet_port: config.kubelet_port,
        machine_id: read("/etc/machine-id"),
        system_uuid: read("/sys/class/dmi/id/product_uuid"),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        os_image: os_image.unwrap_or("Linux").trim_matches('"').to_owned(),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        },
        version: config.version.clone(),
        pod_cidrs: config.pod_cidrs.clone(),
        huge_pages: huge_pages(),
        user_namespaces: has_user_namespaces(&uname.release().to_string_lossy()),
        ..Facts::default()
    }
}

/// As the runtime asks of the kernel: overlayfs on idmapped mounts, since Linux 5.19.
fn has_user_namespaces(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(19))
}

/// Bytes of huge pages by the size of one, which the kernel set aside.
fn huge_pages() -> BTreeMap<u64, u64> {
    let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let amount = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let bytes = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()? * 1024;
        let pages = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
        Some((bytes, bytes * pages.trim().parse::<u64>().ok()?))
    };
    sizes.filter_map(amount).collect()
}

/// `MemTotal`
pub(crate) fn memory_bytes() -> i64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|total| total.trim().trim_end_matches(" kB").parse::<i64>().ok()).unwrap_or(0) * 1024
}

/// What the downward API gives for containers without limits.
pub(crate) fn allocatable(config: &Config) -> BTreeMap<String, String> {
    serde_json::from_value(node::resources(&observe(config)).into()).unwrap_or_default()
}
