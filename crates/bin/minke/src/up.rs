//! `minke up`: a server in the background.
#![allow(clippy::print_stdout)]

use crate::instance::{self, Flags};
use anyhow::{Context, Result, bail};
use cli::admin::Admin;
use cli::arguments::Settings;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Tells a server that it was started by `up`: it leaves the terminal, and says `ready` on its standard output.
pub(crate) const DETACHED: &str = "MINKE_DETACHED";

/// Starts it, or says that it runs; prints the time it took.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let directory = std::path::absolute(&settings.instance.data_dir)?;
    if Admin::new(&directory).is_running().await {
        if let Some(record) = instance::read(&directory)? {
            instance::agree(&record, &Flags::from(settings))?;
        }
        println!("minke is already running on {}", directory.display());
        return Ok(());
    }
    let began = Instant::now();
    start(settings)?;
    println!(
        "minke is up in {:.0} ms; kubeconfig: {}",
        began.elapsed().as_secs_f64() * 1e3,
        directory.join("admin.kubeconfig").display()
    );
    Ok(())
}

/// Returns when the server says that it is ready; the error is what it said instead.
pub(crate) fn start(settings: &Settings) -> Result<()> {
    let directory = std::path::absolute(&settings.instance.data_dir)?;
    instance::make_private(&directory)?;
    let log_path = directory.join("minke.log");
    let mut log = File::options().create(true).append(true).open(&log_path);
    let log = log.as_mut().map_err(|error| anyhow::anyhow!("cannot write {}: {error}", log_path.display()))?;
    let said_before = log.seek(SeekFrom::End(0))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find my own program")?);
    command.arg("server").arg("--data-dir").arg(&directory);
    for (flag, value) in [
        ("--port", settings.port.map(|port| port.to_string())),
        ("--node-name", settings.node_name.clone()),
        ("--ip-family", settings.ip_family.clone()),
        ("--kubeconfig", settings.kubeconfig.as_ref().map(|path| path.display().to_string())),
    ] {
        if let Some(value) = value {
            command.arg(flag).arg(value);
        }
    }
    if settings.no_node {
        command.arg("--no-node");
    }
    command.env(DETACHED, "1").current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.try_clone()?);
    let mut child = command.spawn().context("cannot start the server")?;
    if wait_until_ready(&mut child)? {
        return Ok(());
    }
    child.wait()?;
    bail!("{}", last_words(&log_path, said_before))
}

fn wait_until_ready(child: &mut Child) -> Result<bool> {
    let output = child.stdout.take().context("the server has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok(line.trim() == "ready")
}

fn last_words(log: &Path, from: u64) -> String {
    let mut text = String::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.take(64 * 1024).read_to_string(&mut text)
    });
    let error = text.lines().rev().find_map(|line| line.strip_prefix("Error: ")).map(str::to_owned);
    match (read, error) {
        (Ok(_), Some(error)) => error,
        _ => format!("the server did not start; see {}", log.display()),
    }
}
