//! `minke up`: a server in the background, under a supervisor.
#![allow(clippy::print_stdout)]

use crate::instance::{self, Flags};
use crate::supervisor::{self, DETACHED};
use crate::{contexts, down, places, version};
use anyhow::{Context, Result, bail};
use cli::admin::Admin;
use cli::arguments::Settings;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Starts it, or says that it runs; prints the time it took.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let directory = std::path::absolute(&settings.instance.data_dir)?;
    let flags = Flags::of(settings)?;
    let record = instance::read(&directory)?;
    if let Some(record) = &record {
        instance::agree(record, &flags)?;
    }
    instance::check(&directory, &flags)?;
    let asked = flags.kubeconfig.as_ref().or(record.as_ref().and_then(|record| record.kubeconfig.as_ref()));
    contexts::check(&directory, asked)?;
    if let Ok(answer) = Admin::new(&directory).get("/status").await {
        let running: serde_json::Value = serde_json::from_slice(&answer)?;
        let running = running["version"].as_str().unwrap_or_default();
        match version::compare(running, version::OWN) {
            Ordering::Equal => {
                println!("minke is already running on {}", directory.display());
                return Ok(());
            }
            Ordering::Greater => {
                bail!("a newer minke ({running}) runs on {}; this one is {}", directory.display(), version::OWN)
            }
            Ordering::Less => println!("replacing minke {running} by {}; its Pods go on", version::OWN),
        }
        if supervisor::find(&directory)?.is_none() {
            bail!("minke {running} runs in the foreground here; whoever started it must start the new one");
        }
    }
    // One that waits to start a failed server again is in the way, too.
    if let Some(old) = supervisor::find(&directory)? {
        supervisor::end(&old)?;
    }
    let began = Instant::now();
    let before = names_in(&directory);
    if let Err(error) = start(&directory, &flags) {
        if record.is_none() {
            undo(&directory, before).with_context(|| format!("{error}; and not all of it could be undone"))?;
        }
        return Err(error);
    }
    let took_ms = began.elapsed().as_secs_f64() * 1e3;
    let record = instance::read(&directory)?.context("the instance has no record")?;
    let kubeconfig = contexts::put(&directory, &record)?;
    let kubeconfig = kubeconfig.unwrap_or_else(|| directory.join("admin.kubeconfig"));
    println!("minke is up in {took_ms:.0} ms; kubeconfig: {}", kubeconfig.display());
    Ok(())
}

/// `None` without a directory.
fn names_in(directory: &Path) -> Option<BTreeSet<OsString>> {
    let entries = std::fs::read_dir(directory).ok()?;
    Some(entries.flatten().map(|entry| entry.file_name()).collect())
}

/// A first start that failed leaves nothing: everything made for it goes, and only that.
fn undo(directory: &Path, before: Option<BTreeSet<OsString>>) -> Result<()> {
    if let Some(record) = instance::read(directory)? {
        down::sweep(directory, &record)?;
        places::release(&record)?;
    }
    let Some(before) = before else { return Ok(std::fs::remove_dir_all(directory)?) };
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if before.contains(&entry.file_name()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Returns when the server says that it is ready; the error is what it said instead.
pub(crate) fn start(directory: &Path, flags: &Flags) -> Result<()> {
    instance::make_private(directory)?;
    let log_path = directory.join("minke.log");
    let mut log = File::options().create(true).append(true).open(&log_path);
    let log = log.as_mut().map_err(|error| anyhow::anyhow!("cannot write {}: {error}", log_path.display()))?;
    let said_before = log.seek(SeekFrom::End(0))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find my own program")?);
    command.arg("server").arg("--data-dir").arg(directory).args(flags.arguments());
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

/// The server's own error; its supervisor's comes after it.
fn last_words(log: &Path, from: u64) -> String {
    let mut text = String::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.take(64 * 1024).read_to_string(&mut text)
    });
    let error = text.lines().find_map(|line| line.strip_prefix("Error: ")).map(str::to_owned);
    match (read, error) {
        (Ok(_), Some(error)) => error,
        _ => format!("the server did not start; see {}", log.display()),
    }
}
