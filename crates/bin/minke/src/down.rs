//! `minke down`: ends an instance and its Pods; with `--purge`, everything it ever made.

use crate::instance::{self, Record};
use crate::places::{self, Places};
use crate::{contexts, crictl, supervisor};
use anyhow::{Context, Result};
use cli::admin::Admin;
use cli::arguments::Down;
use rustix::fs::{FlockOperation, flock};
use rustix::mount::UnmountFlags;
use std::fs::File;
use std::path::Path;

/// Does it, and says so.
pub(crate) async fn run(arguments: &Down) -> Result<()> {
    end(arguments).await?;
    let directory = arguments.instance.data_dir.display();
    println(&if arguments.purge {
        format!("{directory} and all it made are gone")
    } else {
        "minke is down".to_owned()
    });
    Ok(())
}

pub(crate) async fn end(arguments: &Down) -> Result<()> {
    let directory = std::path::absolute(&arguments.instance.data_dir)?;
    let Some(record) = instance::read(&directory)? else {
        anyhow::bail!("no minke was ever started on {}", directory.display());
    };
    let supervisor = supervisor::find(&directory)?;
    let admin = Admin::new(&directory);
    if admin.is_running().await {
        admin.post("/stop").await.context("minke runs but cannot be stopped")?;
        if let Some(supervisor) = &supervisor {
            supervisor::wait(supervisor)?;
        }
    } else if let Some(supervisor) = &supervisor {
        supervisor::end(supervisor)?;
    }
    // Held until the server's process is gone.
    let lock = File::options().write(true).open(directory.join("lock"));
    let lock = lock.with_context(|| format!("cannot open the lock of {}", directory.display()))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    sweep(&directory, &record)?;
    contexts::take(&directory)?;
    if arguments.purge {
        places::release(&record)?;
        crictl::take(&directory)?;
        remove_all(&directory)?;
    }
    Ok(())
}

/// What a killed server left on the machine: processes, cgroups, links, mounts. After an orderly end it finds nothing.
pub(crate) fn sweep(directory: &Path, record: &Record) -> Result<()> {
    if record.no_node {
        return Ok(());
    }
    runtime::embedded::purge(&record.id, &directory.join("runtime")).context("cannot end what still runs")?;
    node::network::purge(&directory.join("network"), &record.id).context("cannot remove the network")?;
    let root = Places::of(directory, record).kubelet_root;
    for mount in mounts_below(directory).into_iter().chain(mounts_below(&root)).rev() {
        match rustix::mount::unmount(&mount, UnmountFlags::DETACH) {
            // The second time, where one directory is the other.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot unmount {mount}")),
        }
    }
    Ok(())
}

/// In the order they were mounted.
fn mounts_below(directory: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let prefix = format!("{}/", directory.display());
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    places.filter(|at| at.starts_with(&prefix)).map(str::to_owned).collect()
}

/// A directory that is still a mount point is an error, not something to empty.
fn remove_all(directory: &Path) -> Result<()> {
    if let Some(left) = mounts_below(directory).first() {
        anyhow::bail!("{left} is still mounted; nothing was removed");
    }
    std::fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))
}

#[allow(clippy::print_stdout)]
fn println(text: &str) {
    println!("{text}");
}
