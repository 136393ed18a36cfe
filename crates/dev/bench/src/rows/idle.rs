//! What it costs while nothing happens.

use super::Bench;
use crate::cluster::Instance;
use crate::processes;
use crate::report::{Figures, Row};
use anyhow::Result;
use std::time::Duration;

const REST: Duration = Duration::from_secs(60);

/// An instance that has been used, a minute later.
async fn rested(bench: &Bench<'_>) -> Result<Instance> {
    let (instance, cluster) = bench.instance()?;
    for number in 0..200 {
        let commands: [&[&str]; 4] = [
            &["get", "pods", "-A"],
            &["get", "nodes", "-o", "wide"],
            &["get", "events", "-o", "yaml"],
            &["api-resources"],
        ];
        instance.kubectl(commands[number % commands.len()])?;
    }
    for round in 0..2 {
        cluster.burst(50, &format!("minkebenchidle{round}")).await?;
    }
    tokio::time::sleep(REST).await;
    Ok(instance)
}

pub(super) async fn memory(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    (row.unit, row.goal) = ("MB PSS", "< 60");
    let instance = rested(bench).await?;
    let all = instance.servers()?.into_iter().map(processes::pss_mb).collect::<Result<Vec<_>>>()?;
    row.minke = Some(Figures::one(all.iter().sum()));
    Ok(())
}

pub(super) async fn cpu(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    (row.unit, row.goal) = ("%", "< 0.5");
    let instance = rested(bench).await?;
    let servers = instance.servers()?;
    let used = || servers.iter().map(|pid| processes::cpu_seconds(*pid)).sum::<Result<f64>>();
    let before = used()?;
    tokio::time::sleep(REST).await;
    row.minke = Some(Figures::one((used()? - before) / REST.as_secs_f64() * 100.0));
    Ok(())
}

/// The shims' memory, and what the server grew by.
pub(super) async fn per_pod(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    const PODS: usize = 50;
    (row.unit, row.goal) = ("MB PSS", "< 1");
    let (instance, cluster) = bench.instance()?;
    let servers = instance.servers()?;
    let memory = || servers.iter().map(|pid| processes::pss_mb(*pid)).sum::<Result<f64>>();
    let before = memory()?;
    let mark = "minkebenchmemory";
    cluster.start_pods(PODS, mark).await?;
    let mut shims = 0.0;
    for process in processes::with(mark)? {
        let parent = processes::parent(process)?;
        let name = std::fs::read_to_string(format!("/proc/{parent}/comm"))?;
        if name.trim() == shim::NAME {
            shims += processes::pss_mb(parent)?;
        }
    }
    row.minke = Some(Figures::one((shims + memory()? - before) / PODS as f64));
    Ok(())
}
