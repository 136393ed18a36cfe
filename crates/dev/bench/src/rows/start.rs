//! From nothing, and from a crash.

use super::Bench;
use crate::cluster::Instance;
use crate::report::{Figures, Row};
use crate::{floor, processes};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Instant;

pub(super) async fn up(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    row.goal = "< 300";
    let mut times = Vec::new();
    for _ in 0..9 {
        let arguments = bench.arguments;
        let (_instance, took) = Instance::up(&arguments.minke, &arguments.kubectl, &bench.directory.join("instance"))?;
        times.push(took.as_secs_f64() * 1e3);
    }
    row.minke = Some(Figures::of(times));
    row.floor = Some(floor::exec_and_fsync(bench.directory, 50)?);
    Ok(())
}

pub(super) async fn binary(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    (row.unit, row.goal) = ("MB", "< 40");
    row.minke = Some(Figures::one(std::fs::metadata(&bench.arguments.minke)?.len() as f64 / 1e6));
    Ok(())
}

/// The server's processes are killed; the clock runs from `minke up` until its node is Ready and the API shows every
/// Pod as before.
pub(super) async fn crash(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    row.goal = "< 500";
    let (instance, cluster) = bench.instance()?;
    let mark = "minkebenchcrash";
    cluster.start_pods(100, mark).await?;
    let before = (processes::with(mark)?, containers(&cluster.client.get(&cluster.path("pods")).await?)?);
    for pid in instance.servers()?.into_iter().rev() {
        let pid = rustix::process::Pid::from_raw(pid).context("no pid")?;
        let gone = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        rustix::event::poll(&mut [rustix::event::PollFd::new(&gone, rustix::event::PollFlags::IN)], None)?;
    }
    let began = Instant::now();
    instance.start()?;
    let pods = cluster.client.get(&cluster.path("pods")).await?;
    row.minke = Some(Figures::one(began.elapsed().as_secs_f64() * 1e3));
    let after = (processes::with(mark)?, containers(&pods)?);
    ensure!(before == after, "a container was touched");
    Ok(())
}

/// Each container's id and restarts, by Pod.
fn containers(list: &[u8]) -> Result<BTreeMap<String, Value>> {
    let list: Value = serde_json::from_slice(list)?;
    let pods = list["items"].as_array().context("no list")?;
    Ok(pods
        .iter()
        .map(|pod| (pod["metadata"]["name"].to_string(), pod["status"]["containerStatuses"].clone()))
        .collect())
}
