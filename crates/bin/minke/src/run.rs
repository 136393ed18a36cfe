//! `minke run`: boots a throw-away cluster, hands it to [`cli::run`], and takes everything away again.

use crate::instance::Flags;
use crate::{down, up};
use anyhow::{Context, Result};
use cli::admin::Admin;
use cli::arguments::{Down, Instance, Run, Until};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// As `timeout(1)` and shells have them.
const TIMED_OUT: u8 = 124;
const INTERRUPTED: u8 = 130;

pub(crate) async fn run(arguments: &Run) -> Result<ExitCode> {
    // Read before anything is started: a manifest that cannot be read costs nothing.
    let objects = cli::manifests::read(&arguments.filename).await?;
    let usual = if arguments.command.is_empty() { Until::Done } else { Until::Ready };
    let until = arguments.until.clone().unwrap_or(usual);
    let directory = std::env::temp_dir().join(format!("minke-run-{}", uuid::Uuid::new_v4().simple()));
    let instance = Instance { data_dir: directory.clone() };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let at = directory.clone();
    let started = tokio::task::spawn_blocking(move || up::start(&at, &Flags::default())).await?;
    let work = async {
        started?;
        for archive in &arguments.image_archive {
            cli::image::import(&Admin::new(&directory), archive).await?;
        }
        cli::run::follow(&directory.join("admin.kubeconfig"), objects, &until, &arguments.command).await
    };
    let result = tokio::select! {
        code = work => code,
        () = after(arguments.timeout) => Ok(TIMED_OUT),
        _ = interrupt.recv() => Ok(INTERRUPTED),
        _ = terminate.recv() => Ok(INTERRUPTED),
    };
    let removed = remove(&directory, instance).await;
    let code = result?;
    removed
        .with_context(|| format!("not all was removed; try `minke down --purge --data-dir {}`", directory.display()))?;
    Ok(ExitCode::from(code))
}

async fn after(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

async fn remove(directory: &Path, instance: Instance) -> Result<()> {
    if !directory.join("instance.json").exists() {
        return std::fs::remove_dir_all(directory).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error.into()),
        });
    }
    down::end(&Down { instance, purge: true }).await
}
