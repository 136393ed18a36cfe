//! Pods made and taken away.

use super::Bench;
use crate::cluster::{Cluster, runs};
use crate::report::{Figures, Row};
use crate::{floor, peers, processes};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::time::Instant;

const ROUNDS: usize = 100;
const PEER_ROUNDS: usize = 11;

/// Of Pods made and deleted one after the other.
struct Lives {
    starts: Figures,
    ends: Figures,
    /// Versions of the Pod that were stored until it ran.
    commits: usize,
}

/// The clock of a start runs from the first byte of the request until a watcher sees all containers running; that of an
/// end from the request until a watcher sees it deleted, when no process of its is left.
async fn live(cluster: &Cluster, containers: usize, rounds: usize) -> Result<Lives> {
    let mark = "minkebenchlife";
    let path = cluster.path("pods");
    let mut watch = cluster.client.watch(&path).await?;
    let (mut starts, mut ends, mut commits) = (Vec::new(), Vec::new(), 0);
    // The first round warms up the connections and the image.
    for round in 0..=rounds {
        let name = format!("{mark}-{round}");
        let pod = cluster.pod(&name, containers, mark);
        commits = 0;
        let began = Instant::now();
        let created = cluster.client.post(&path, &pod);
        let running = async {
            loop {
                let (_, pod) = watch.next().await?;
                commits += usize::from(pod["metadata"]["name"] == name.as_str());
                if pod["metadata"]["name"] == name.as_str() && runs(&pod) {
                    return anyhow::Ok(began.elapsed());
                }
            }
        };
        let (_, started) = tokio::try_join!(created, running)?;
        cluster.hears(&name, containers).await?;
        let own = format!("{path}/{name}");
        let began = Instant::now();
        let deleted = cluster.client.delete(&own);
        let gone = async {
            loop {
                let (kind, pod) = watch.next().await?;
                if kind == "DELETED" && pod["metadata"]["name"] == name.as_str() {
                    return anyhow::Ok(began.elapsed());
                }
            }
        };
        let (_, ended) = tokio::try_join!(deleted, gone)?;
        ensure!(!processes::any_with(mark)?, "a Pod is gone and a process of it is not");
        if round > 0 {
            starts.push(started.as_secs_f64() * 1e3);
            ends.push(ended.as_secs_f64() * 1e3);
        }
    }
    Ok(Lives { starts: Figures::of(starts), ends: Figures::of(ends), commits })
}

/// The rows of starts and of ends.
pub(super) async fn lives(bench: &Bench<'_>, rows: &mut [Row]) -> Result<()> {
    let [start, gone] = rows else { bail!("two rows are wanted") };
    (start.goal, gone.goal) = ("p50 ≤ 3 × floor, p99 < 50", "< 50");
    let (_instance, cluster) = bench.instance()?;
    let ours = live(&cluster, 2, ROUNDS).await?;
    (start.minke, gone.minke) = (Some(ours.starts), Some(ours.ends));
    start.floor = Some(floor::pod(bench.directory, 2, ours.commits, ROUNDS)?);
    for program in ["crun", "runc"] {
        start.peer(&format!("{program} run, twice"), peers::oci(program, bench.directory, 20));
    }
    let podman = peers::podman(bench.directory, &bench.arguments.images, PEER_ROUNDS);
    beside(start, gone, ["podman kube play", "podman kube down"], podman);
    for (name, cluster) in bench.peers {
        let theirs = live(cluster, 2, PEER_ROUNDS).await.map(|lives| (lives.starts, lives.ends));
        beside(start, gone, [name, name], theirs);
    }
    Ok(())
}

/// What each of many containers costs, beside what each of two does.
pub(super) async fn many_containers(bench: &Bench<'_>, row: &mut Row) -> Result<()> {
    const ROUNDS: usize = 20;
    row.goal = "≤ 2 × that of 2";
    let (_instance, cluster) = bench.instance()?;
    let each = async |containers: usize| {
        let lives = live(&cluster, containers, ROUNDS).await?;
        anyhow::Ok(lives.starts.map(|start| start / containers as f64))
    };
    row.minke = Some(each(20).await?);
    row.floor = Some(each(2).await?);
    Ok(())
}

/// A peer of both rows.
fn beside(start: &mut Row, gone: &mut Row, names: [&str; 2], figures: Result<(Figures, Figures)>) {
    let (starts, ends) = match figures {
        Ok((starts, ends)) => (Ok(starts), Ok(ends)),
        Err(error) => (Err(anyhow!("{error:#}")), Err(error)),
    };
    start.peer(names[0], starts);
    gone.peer(names[1], ends);
}

async fn bursts(cluster: &Cluster, count: usize, rounds: usize) -> Result<Figures> {
    let mut rates = Vec::new();
    for round in 0..rounds {
        let (started, _) = cluster.burst(count, &format!("minkebenchburst{round}")).await?;
        rates.push(count as f64 / started.as_secs_f64());
    }
    Ok(Figures::of(rates))
}

pub(super) async fn burst(bench: &Bench<'_>, row: &mut Row, count: usize) -> Result<()> {
    (row.unit, row.goal) = ("/s", "> 100");
    let (_instance, cluster) = bench.instance()?;
    row.minke = Some(bursts(&cluster, count, 5).await.context("minke")?);
    for (name, cluster) in bench.peers {
        row.peer(name, bursts(cluster, count, 1).await);
    }
    Ok(())
}
