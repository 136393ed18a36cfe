//! The API server and the store, without a Pod.

use super::Bench;
use crate::cluster::Cluster;
use crate::floor;
use crate::report::{Figures, Row};
use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use store::clock::SystemClock;
use store::disk::file::FileDisk;
use store::embedded::Embedded;
use store::kv::{Kv, Op, Txn};

const CLIENTS: usize = 64;
const OBJECTS: usize = 5000;
const WATCHERS: usize = 100;
const UPDATES: usize = 100;
const KIB: usize = 1024;

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

fn config_map(name: &str, bytes: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"minke": "bench"}},
        "data": {"content": "x".repeat(bytes)},
    })
}

/// So many ConfigMaps by so many clients at once; objects per second.
async fn fill(cluster: &Cluster, count: usize, prefix: &str) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let path = cluster.path("configmaps");
    let (next, path) = (&next, &path);
    let began = Instant::now();
    try_join_all((0..CLIENTS).map(|_| async move {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return anyhow::Ok(());
            }
            cluster.client.post(path, &config_map(&format!("{prefix}-{number}"), KIB)).await?;
        }
    }))
    .await?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

async fn clear(cluster: &Cluster) -> Result<()> {
    let path = format!("{}?labelSelector=minke%3Dbench", cluster.path("configmaps"));
    cluster.client.delete(&path).await.map(drop)
}

pub(super) async fn creates(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    (row.unit, row.goal) = ("/s", "≥ 5 × upstream");
    let (_instance, cluster) = bench.instance()?;
    row.minke = Some(Figures::of(rates(&cluster).await?));
    for (name, cluster) in bench.peers {
        row.peer(name, rates(cluster).await.map(Figures::of));
    }
    Ok(())
}

async fn rates(cluster: &Cluster) -> Result<Vec<f64>> {
    let mut rates = Vec::new();
    for round in 0..3 {
        rates.push(fill(cluster, OBJECTS, &format!("bench-{round}")).await?);
        clear(cluster).await?;
    }
    Ok(rates)
}

/// Its floor is one thread that writes and syncs.
pub(super) async fn store(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    const TIME: Duration = Duration::from_secs(3);
    (row.unit, row.goal) = ("/s", "> etcd alone (13,000)");
    let clock = SystemClock::new();
    let directory = tempfile::tempdir_in(bench.directory)?;
    let (store, writer) = Embedded::open(FileDisk::open(directory.path())?, clock.now())?;
    let thread = std::thread::spawn(move || writer.run(move || clock.now()));
    let value = bytes::Bytes::from(vec![b'x'; 2 * KIB]);
    let began = Instant::now();
    let written = try_join_all((0..CLIENTS).map(|client| {
        let (store, value) = (store.clone(), value.clone());
        async move {
            let mut count = 0_usize;
            while began.elapsed() < TIME {
                let put = Op::Put { key: format!("/bench/{client}/{count}").into(), value: value.clone(), ttl_s: None };
                store.txn(Txn { compares: Vec::new(), ops: vec![put] }).await?;
                count += 1;
            }
            anyhow::Ok(count)
        }
    }))
    .await?;
    row.minke = Some(Figures::one(written.iter().sum::<usize>() as f64 / began.elapsed().as_secs_f64()));
    drop(store);
    thread.join().map_err(|_| anyhow::anyhow!("the store's thread panicked"))?;
    row.floor = Some(Figures::one(1000.0 / floor::fdatasync(bench.directory, 1000)?.median()));
    Ok(())
}

pub(super) async fn create(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    row.goal = "p50 < 0.5";
    let (_instance, cluster) = bench.instance()?;
    row.minke = Some(serial_creates(&cluster).await?);
    row.floor = Some(floor::fdatasync(bench.directory, 500)?);
    for (name, cluster) in bench.peers {
        row.peer(name, serial_creates(cluster).await);
    }
    Ok(())
}

async fn serial_creates(cluster: &Cluster) -> Result<Figures> {
    let mut times = Vec::new();
    for number in 0..500 {
        let object = config_map(&format!("serial-{number}"), KIB);
        let began = Instant::now();
        cluster.client.post(&cluster.path("configmaps"), &object).await?;
        times.push(ms(began.elapsed()));
    }
    clear(cluster).await?;
    Ok(Figures::of(times))
}

pub(super) async fn list(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    row.goal = "≤ 2 × floor";
    let (_instance, cluster) = bench.instance()?;
    let (figures, bytes) = lists(&cluster).await?;
    row.minke = Some(figures);
    row.floor = Some(floor::copy_to_socket(bytes, 15)?);
    for (name, cluster) in bench.peers {
        row.peer(name, lists(cluster).await.map(|(figures, _)| figures));
    }
    Ok(())
}

async fn lists(cluster: &Cluster) -> Result<(Figures, usize)> {
    fill(cluster, OBJECTS, "list").await?;
    let path = cluster.path("configmaps");
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..15 {
        let began = Instant::now();
        bytes = cluster.client.get(&path).await?.len();
        times.push(ms(began.elapsed()));
    }
    clear(cluster).await?;
    Ok((Figures::of(times), bytes))
}

pub(super) async fn watch(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    row.goal = "p50 < 1";
    let (_instance, cluster) = bench.instance()?;
    row.minke = Some(watches(&cluster).await?);
    row.floor = Some(floor::fan_out(bench.directory, WATCHERS, KIB, UPDATES).await?);
    for (name, cluster) in bench.peers {
        row.peer(name, watches(cluster).await);
    }
    Ok(())
}

/// From each of a row of updates sent until each watcher has it. Watchers note the time and read nothing until the end:
/// what a client makes of an event is its own business.
async fn watches(cluster: &Cluster) -> Result<Figures> {
    let path = cluster.path("configmaps");
    let mut object = config_map("watched", KIB);
    cluster.client.post(&path, &object).await?;
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..WATCHERS {
        let mut watch = cluster.client.watch(&path).await?;
        watchers.spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < UPDATES {
                let line = watch.line().await?;
                seen.push((Instant::now(), line));
            }
            anyhow::Ok(seen)
        });
    }
    let mut sent = Vec::new();
    for number in 0..UPDATES {
        object["data"]["number"] = json!(number.to_string());
        sent.push(Instant::now());
        cluster.client.put(&format!("{path}/watched"), &object).await?;
    }
    let mut times = Vec::new();
    while let Some(seen) = watchers.join_next().await {
        for (number, (at, line)) in seen??.into_iter().enumerate() {
            let event: Value = serde_json::from_slice(&line)?;
            ensure!(
                event["object"]["data"]["number"].as_str() == Some(&number.to_string()),
                "another event came: {event}"
            );
            times.push(ms(at - sent[number]));
        }
    }
    clear(cluster).await?;
    Ok(Figures::of(times))
}
