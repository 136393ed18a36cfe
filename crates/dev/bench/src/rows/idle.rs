//! What it costs while nothing happens.

use super::Bench;
use crate::processes;
use crate::report::{Figures, Row};
use anyhow::{Result, bail};
use std::time::Duration;

const REST: Duration = Duration::from_secs(60);

/// The rows of memory and processor: of an instance that has been used, a minute later.
pub(super) async fn rested(bench: &Bench<'_>, rows: &mut [Row]) -> Result<()> {
    let [memory, cpu] = rows else { bail!("two rows are wanted") };
    (memory.unit, memory.goal) = ("MB PSS", "< 60");
    (cpu.unit, cpu.goal) = ("%", "< 0.5");
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
    let servers = instance.servers()?;
    let all = servers.iter().map(|pid| processes::pss_mb(*pid)).collect::<Result<Vec<_>>>()?;
    memory.minke = Some(Figures::one(all.iter().sum()));
    let used = || servers.iter().map(|pid| processes::cpu_seconds(*pid)).sum::<Result<f64>>();
    let before = used()?;
    tokio::time::sleep(REST).await;
    cpu.minke = Some(Figures::one((used()? - before) / REST.as_secs_f64() * 100.0));
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
    let shims = processes::shims(mark)?.into_iter().map(processes::pss_mb).sum::<Result<f64>>()?;
    row.minke = Some(Figures::one((shims + memory()? - before) / PODS as f64));
    Ok(())
}
