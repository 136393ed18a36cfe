//! The figures of the design, each beside its floor or a peer of the same run. Called by `cargo xtask bench`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

mod api;
mod cluster;
mod floor;
mod peers;
mod processes;
mod report;
mod rows;

use anyhow::{Context, Result};
use clap::Parser;
use cluster::Cluster;
use report::{Report, Row};
use std::path::PathBuf;

/// Measures minke and prints a table.
#[derive(Parser)]
struct Arguments {
    /// Only rows whose name contains one of these words.
    rows: Vec<String>,
    /// Also writes the figures here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Another cluster to measure in the same run, as NAME=KUBECONFIG. Its node has `--peer-image`.
    #[arg(long, value_parser = peer)]
    peer: Vec<(String, PathBuf)>,
    /// A busybox image that the peers' nodes have.
    #[arg(long, default_value = "docker.io/library/busybox:latest")]
    peer_image: String,
    /// The program to measure.
    #[arg(long, env = "MINKE_BENCH_PROGRAM")]
    minke: PathBuf,
    #[arg(long, env = "MINKE_TEST_KUBECTL")]
    kubectl: PathBuf,
    /// The directory of `busybox.tar`.
    #[arg(long, env = "MINKE_TEST_IMAGES")]
    images: PathBuf,
    /// Where the instances and the floors put their files: floors are only floors on the same disk.
    #[arg(long, default_value = "/var/tmp")]
    directory: PathBuf,
}

fn peer(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("NAME=KUBECONFIG is wanted")?;
    Ok((name.to_owned(), path.into()))
}

fn main() -> Result<()> {
    if let Some(request) = floor::hold::request() {
        return floor::hold::run(&request);
    }
    // Fails only when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("minke-bench-").tempdir_in(&arguments.directory)?;
    let mut report = Report::default();
    let mut peers = Vec::new();
    for (name, kubeconfig) in &arguments.peer {
        peers.push((name.as_str(), Cluster::of(kubeconfig, &arguments.kubectl, &arguments.peer_image)?));
    }
    let bench = rows::Bench { arguments, directory: directory.path(), peers: &peers };
    let wanted =
        |name: &str| arguments.rows.is_empty() || arguments.rows.iter().any(|word| name.contains(word.as_str()));
    for (names, measure) in rows::ALL {
        if names.iter().any(|name| wanted(name)) {
            let together = names.join("; ");
            eprintln!("measuring: {together}");
            let mut rows: Vec<_> = names.iter().map(|name| Row::named(name)).collect();
            measure(&bench, &mut rows).await.with_context(|| format!("measuring {together}"))?;
            report.extend(rows);
        }
    }
    println!("{}", report.table());
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report.json())?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
