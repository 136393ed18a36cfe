//! The instance's context in somebody's kubeconfig: put there by `up`, taken out by `down`, remembered in
//! `DIR/kubeconfig.json` in between.

use crate::instance::{self, Record};
use anyhow::{Context, Result};
use cli::kubeconfig::{self, Merged};
use std::path::{Path, PathBuf};

type Place = (PathBuf, Option<(u32, u32)>);

/// Where the context goes, and whom a new file belongs to: the file that was asked for, or for the default instance the
/// caller's own.
fn place(directory: &Path, asked: Option<&PathBuf>) -> Option<Place> {
    let of_caller = kubeconfig::of_caller();
    match asked {
        Some(path) => Some((path.clone(), of_caller.and_then(|(_, owner)| owner))),
        None if instance::is_default(directory) => of_caller,
        None => None,
    }
}

/// Nothing is started where the context could not be put afterwards.
pub(crate) fn check(directory: &Path, asked: Option<&PathBuf>) -> Result<()> {
    place(directory, asked).map_or(Ok(()), |(path, _)| kubeconfig::check(&path))
}

/// Merges `DIR/admin.kubeconfig`; returns the file it went into.
pub(crate) fn put(directory: &Path, record: &Record) -> Result<Option<PathBuf>> {
    let Some((path, owner)) = place(directory, record.kubeconfig.as_ref()) else { return Ok(None) };
    let ours = directory.join("admin.kubeconfig");
    let text = std::fs::read_to_string(&ours).with_context(|| format!("cannot read {}", ours.display()))?;
    let mut merged = kubeconfig::merge(&path, &text, owner)?;
    // After a crash our context is still there; what was before it is known from the first time.
    match remembered(directory)? {
        Some(first) if first.path == merged.path => merged = first,
        Some(other) => kubeconfig::remove(&other)?,
        None => {}
    }
    let path = directory.join("kubeconfig.json");
    std::fs::write(&path, serde_json::to_vec(&merged)?).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Some(merged.path))
}

/// Takes it out again.
pub(crate) fn take(directory: &Path) -> Result<()> {
    if let Some(merged) = remembered(directory)? {
        kubeconfig::remove(&merged)?;
        std::fs::remove_file(directory.join("kubeconfig.json"))?;
    }
    Ok(())
}

fn remembered(directory: &Path) -> Result<Option<Merged>> {
    match std::fs::read(directory.join("kubeconfig.json")) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
