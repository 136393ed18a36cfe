//! What the kernel says of processes.

use anyhow::{Context, Result};
use std::collections::BTreeSet;

fn all() -> Result<impl Iterator<Item = i32>> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// Whether a process has `mark` in its arguments.
pub(crate) fn any_with(mark: &str) -> Result<bool> {
    Ok(!with(mark)?.is_empty())
}

/// The processes with `mark` in their arguments, but for this one.
pub(crate) fn with(mark: &str) -> Result<Vec<i32>> {
    let has = |pid: &i32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.windows(mark.len()).any(|part| part == mark.as_bytes())
    };
    Ok(all()?.filter(|pid| *pid != std::process::id() as i32).filter(has).collect())
}

/// How many processes have this name.
pub(crate) fn named(name: &str) -> Result<usize> {
    let is = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    Ok(all()?.filter(is).count())
}

fn stat(pid: i32) -> Result<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    let after = stat.rsplit_once(')').context("malformed stat")?.1;
    Ok(after.split_whitespace().map(str::to_owned).collect())
}

pub(crate) fn parent(pid: i32) -> Result<i32> {
    Ok(stat(pid)?.get(1).context("malformed stat")?.parse()?)
}

/// Seconds on a processor so far, in user and kernel mode.
pub(crate) fn cpu_seconds(pid: i32) -> Result<f64> {
    seconds(pid, &[11, 12])
}

/// The same with those of its children that have ended and been waited for.
pub(crate) fn cpu_seconds_with_children(pid: i32) -> Result<f64> {
    seconds(pid, &[11, 12, 13, 14])
}

fn seconds(pid: i32, fields: &[usize]) -> Result<f64> {
    let stat = stat(pid)?;
    let ticks = |at: &usize| -> Result<f64> { Ok(stat.get(*at).context("malformed stat")?.parse()?) };
    Ok(fields.iter().map(ticks).sum::<Result<f64>>()? / rustix::param::clock_ticks_per_second() as f64)
}

/// The shims of the Pods whose processes have `mark` in their arguments.
pub(crate) fn shims(mark: &str) -> Result<BTreeSet<i32>> {
    let parents = with(mark)?.into_iter().map(parent).collect::<Result<BTreeSet<_>>>()?;
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Ok(parents.into_iter().filter(|pid| name(pid).trim() == shim::NAME).collect())
}

/// Proportional set size in MB.
pub(crate) fn pss_mb(pid: i32) -> Result<f64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? * 1024.0 / 1e6)
}
