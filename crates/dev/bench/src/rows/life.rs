//! A Pod's everyday life: exits, probes, files that change; and what is left when it is over.

use super::Bench;
use crate::cluster::{Cluster, Instance};
use crate::report::{Figures, Row};
use crate::{floor, processes};
use anyhow::{Context, Result, ensure};
use inotify::{Inotify, WatchMask};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// As many as a node takes.
const PODS: usize = 110;
const PERIOD: Duration = Duration::from_secs(30);

/// From the signal that ends a container's process until a watcher sees it terminated.
pub(super) async fn exits(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    row.goal = "p50 < 1, p99 < 5";
    let (_instance, cluster) = bench.instance()?;
    let mark = "minkebenchexit";
    let pods = (0..PODS).map(|number| {
        let mut pod = cluster.pod(&format!("{mark}-{number}"), 1, mark);
        pod["spec"]["restartPolicy"] = "Never".into();
        pod
    });
    cluster.start(pods.collect()).await?;
    let mut watch = cluster.client.watch(&cluster.path("pods")).await?;
    let mut ended = std::collections::BTreeSet::new();
    let mut times = Vec::new();
    for pid in processes::with(mark)? {
        let pid = rustix::process::Pid::from_raw(pid).context("no pid")?;
        let began = Instant::now();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        loop {
            let (_, pod) = watch.next().await?;
            let over = pod["status"]["containerStatuses"][0]["state"]["terminated"].is_object();
            if over && ended.insert(pod["metadata"]["name"].to_string()) {
                break;
            }
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    row.minke = Some(Figures::of(times));
    Ok(())
}

/// Pods with these containers, all of them Ready.
async fn ready(instance: &Instance, cluster: &Cluster, mark: &str, containers: &Value) -> Result<()> {
    let pods = (0..PODS).map(|number| {
        let mut pod = cluster.pod(&format!("{mark}-{number}"), containers.as_array().map_or(0, Vec::len), mark);
        for (container, more) in pod["spec"]["containers"]
            .as_array_mut()
            .into_iter()
            .flatten()
            .zip(containers.as_array().into_iter().flatten())
        {
            for (field, value) in more.as_object().into_iter().flatten() {
                container[field] = value.clone();
            }
        }
        pod
    });
    cluster.start(pods.collect()).await?;
    instance.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s"]).map(drop)
}

/// Each Pod asks a server of its own three times a second.
pub(super) async fn probes(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    (row.unit, row.goal) = ("% of a core", "< 3");
    let (instance, cluster) = bench.instance()?;
    let http = json!({"httpGet": {"port": 8080, "path": "/etc/hostname"}, "periodSeconds": 1});
    let tcp = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
    let server =
        json!({"command": ["httpd", "-f", "-p", "8080", "-h", "/"], "readinessProbe": http, "livenessProbe": http});
    ready(&instance, &cluster, "minkebenchprobe", &json!([server, {"readinessProbe": tcp}])).await?;
    let servers = instance.servers()?;
    let used = || servers.iter().map(|pid| processes::cpu_seconds(*pid)).sum::<Result<f64>>();
    let before = used()?;
    tokio::time::sleep(PERIOD).await;
    row.minke = Some(Figures::one((used()? - before) / PERIOD.as_secs_f64() * 100.0));
    Ok(())
}

/// With what the shims do and the processes that they start; beside a bare start of the same program.
pub(super) async fn exec_probes(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    (row.unit, row.goal) = ("ms", "≤ 1.6 × floor");
    let (instance, cluster) = bench.instance()?;
    let mark = "minkebenchexec";
    let probe = json!({"exec": {"command": ["/bin/busybox", "true"]}, "periodSeconds": 1});
    ready(&instance, &cluster, mark, &json!([{"readinessProbe": probe}])).await?;
    let mut all = instance.servers()?;
    all.extend(processes::shims(mark)?);
    let used = || all.iter().map(|pid| processes::cpu_seconds_with_children(*pid)).sum::<Result<f64>>();
    let before = used()?;
    tokio::time::sleep(PERIOD).await;
    row.minke = Some(Figures::one((used()? - before) * 1e3 / (PODS as f64 * PERIOD.as_secs_f64())));
    row.floor = Some(floor::fork_and_exec(2000)?);
    Ok(())
}

/// From the request until the file in the Pod's volume is another one.
pub(super) async fn config_map(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    row.goal = "< 100";
    let (instance, cluster) = bench.instance()?;
    let maps = cluster.path("configmaps");
    let map = |text: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "live"}, "data": {"key": text}});
    cluster.client.post(&maps, &map("first")).await?;
    let mark = "minkebenchlive";
    let mut pod = cluster.pod(mark, 1, mark);
    pod["spec"]["volumes"] = json!([{"name": "live", "configMap": {"name": "live"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "live", "mountPath": "/live"}]);
    cluster.start(vec![pod]).await?;
    let pod: Value = serde_json::from_slice(&cluster.client.get(&format!("{}/{mark}", cluster.path("pods"))).await?)?;
    let uid = pod["metadata"]["uid"].as_str().context("a Pod without uid")?;
    let volume = instance.directory.join("pods").join(uid).join("volumes/kubernetes.io~configmap/live");
    let mut inotify = Inotify::init()?;
    inotify.watches().add(&volume, WatchMask::MOVED_TO)?;
    let mut times = Vec::new();
    for number in 0..30 {
        let text = number.to_string();
        let began = Instant::now();
        cluster.client.put(&format!("{maps}/live"), &map(&text)).await?;
        while std::fs::read_to_string(volume.join("key"))? != text {
            inotify.read_events_blocking(&mut [0; 4096])?;
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    row.minke = Some(Figures::of(times));
    Ok(())
}

/// What still goes within this time is not left.
const PATIENCE: Duration = Duration::from_secs(5);

/// Processes, mounts, links, control groups, files and open descriptors that were not there before.
pub(super) async fn left_behind(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    (row.unit, row.goal) = ("things", "0");
    let (instance, cluster) = bench.instance()?;
    let mark = "minkebenchleft";
    // What is made once, the client's connections among it, is there after the first.
    cluster.burst(100, mark).await?;
    let before = things(&instance)?;
    for _ in 0..9 {
        cluster.burst(100, mark).await?;
    }
    let began = Instant::now();
    let left = loop {
        let mut left = things(&instance)?;
        left.retain(|what, count| *count > before.get(what).copied().unwrap_or(0));
        if left.is_empty() || began.elapsed() > PATIENCE {
            break left;
        }
        tokio::time::sleep(PATIENCE / 50).await;
    };
    for (what, count) in &left {
        eprintln!("left behind: {what}: {count}, were {}", before.get(what).copied().unwrap_or(0));
    }
    let count = left.iter().map(|(what, count)| count - before.get(what).copied().unwrap_or(0)).sum::<usize>();
    row.minke = Some(Figures::one(count as f64));
    Ok(())
}

fn things(instance: &Instance) -> Result<BTreeMap<&'static str, usize>> {
    let status: Value = serde_json::from_str(&instance.minke(&["status", "-o", "json"])?)?;
    let id = status["id"].as_str().context("status names no id")?;
    ensure!(!id.is_empty(), "an instance without an id");
    let server = status["pid"].as_i64().context("status names no pid")?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let files = ["pods", "runtime", "logs", "network", "run"].map(|name| below(&instance.directory.join(name)));
    Ok(BTreeMap::from([
        ("shims", processes::named(shim::NAME)?),
        ("mounts", mounts.lines().count()),
        ("links", std::fs::read_dir("/sys/class/net")?.count()),
        ("control groups", groups(Path::new("/sys/fs/cgroup"), id)),
        ("files", files.iter().sum()),
        ("open descriptors", std::fs::read_dir(format!("/proc/{server}/fd"))?.count()),
    ]))
}

/// How many control groups have `id` in their paths.
fn groups(path: &Path, id: &str) -> usize {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let directories =
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    directories.map(|path| usize::from(path.to_string_lossy().contains(id)) + groups(&path, id)).sum()
}

/// How many files and directories lie below a path.
fn below(path: &Path) -> usize {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| 1 + if entry.file_type().is_ok_and(|kind| kind.is_dir()) { below(&entry.path()) } else { 0 })
        .sum()
}
