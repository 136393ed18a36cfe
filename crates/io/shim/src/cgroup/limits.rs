//! A group's limits, and the files of v1 and v2 they are written to.

use super::{Hierarchies, below};
use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::path::Path;

/// Limits of a group; 0 and empty: unset. Negative quota or memory: unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu_shares: u64,
    pub cpu_quota_us: i64,
    pub cpu_period_us: u64,
    pub memory_bytes: i64,
    pub pids: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// Page size as in the file's name (`2MB`) and bytes.
    pub hugepages: BTreeMap<String, u64>,
    /// Out of memory, all processes die and not one of them (v2 only).
    pub oom_group: bool,
    /// v2 files and their contents.
    pub unified: BTreeMap<String, String>,
    /// Lines of `devices.allow`; all else is denied. `None`: everything is allowed.
    pub devices: Option<Vec<String>>,
}

/// v2's weight for v1's shares, as runc 1.3.2 and crun 1.23 compute it: 1024 shares are weight 100.
pub fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

impl Limits {
    pub(super) fn apply_v1(&self, hierarchies: &Hierarchies, path: &str) -> Result<()> {
        let set = |controller: &str, file: &str, value: &str| match hierarchies.v1_of(controller) {
            Some(mount) => write(&below(mount, path), file, value),
            None => Ok(()),
        };
        if self.cpu_shares != 0 {
            set("cpu", "cpu.shares", &self.cpu_shares.to_string())?;
        }
        if self.cpu_period_us != 0 {
            // A shorter period with the old quota may exceed the parent's share; then the quota goes first.
            let period = self.cpu_period_us.to_string();
            if set("cpu", "cpu.cfs_period_us", &period).is_err() && self.cpu_quota_us != 0 {
                set("cpu", "cpu.cfs_quota_us", &self.cpu_quota_us.to_string())?;
                set("cpu", "cpu.cfs_period_us", &period)?;
            }
        }
        if self.cpu_quota_us != 0 {
            set("cpu", "cpu.cfs_quota_us", &self.cpu_quota_us.to_string())?;
        }
        if self.memory_bytes != 0 {
            let value = self.memory_bytes.max(-1).to_string();
            // Swap counts within: without swap accounting, or growing, the order differs.
            let swap = set("memory", "memory.memsw.limit_in_bytes", &value);
            set("memory", "memory.limit_in_bytes", &value)?;
            if swap.is_err() {
                let _ = set("memory", "memory.memsw.limit_in_bytes", &value);
            }
        }
        if self.pids != 0 {
            set("pids", "pids.max", &or_max(self.pids))?;
        }
        if !self.cpuset_cpus.is_empty() {
            set("cpuset", "cpuset.cpus", &self.cpuset_cpus)?;
        }
        if !self.cpuset_mems.is_empty() {
            set("cpuset", "cpuset.mems", &self.cpuset_mems)?;
        }
        for (size, bytes) in &self.hugepages {
            set("hugetlb", &format!("hugetlb.{size}.limit_in_bytes"), &bytes.to_string())?;
        }
        if let Some(devices) = &self.devices {
            set("devices", "devices.deny", "a")?;
            for device in devices {
                set("devices", "devices.allow", device)?;
            }
        }
        Ok(())
    }

    /// The line for `cpu.max`; a quota alone keeps the period, and the other way round, as v1's two files do.
    fn cpu_max(&self, dir: &Path) -> Result<Option<String>> {
        let quota = match self.cpu_quota_us {
            0 if self.cpu_period_us == 0 => return Ok(None),
            0 => std::fs::read_to_string(dir.join("cpu.max"))?.split(' ').next().unwrap_or("max").to_owned(),
            quota => or_max(quota),
        };
        Ok(Some(if self.cpu_period_us == 0 { quota } else { format!("{quota} {}", self.cpu_period_us) }))
    }

    pub(super) fn apply_v2(&self, dir: &Path) -> Result<()> {
        if self.cpu_shares != 0 {
            write(dir, "cpu.weight", &weight_of_shares(self.cpu_shares).to_string())?;
        }
        if let Some(max) = self.cpu_max(dir)? {
            write(dir, "cpu.max", &max)?;
        }
        if self.memory_bytes != 0 {
            check_memory(dir, self.memory_bytes)?;
            write(dir, "memory.max", &or_max(self.memory_bytes))?;
            if self.memory_bytes > 0 && dir.join("memory.swap.max").exists() {
                write(dir, "memory.swap.max", "0")?;
            }
        }
        if self.oom_group && dir.join("memory.oom.group").exists() {
            write(dir, "memory.oom.group", "1")?;
        }
        if self.pids != 0 {
            write(dir, "pids.max", &or_max(self.pids))?;
        }
        if !self.cpuset_cpus.is_empty() {
            write(dir, "cpuset.cpus", &self.cpuset_cpus)?;
        }
        if !self.cpuset_mems.is_empty() {
            write(dir, "cpuset.mems", &self.cpuset_mems)?;
        }
        for (size, bytes) in &self.hugepages {
            write(dir, &format!("hugetlb.{size}.max"), &bytes.to_string())?;
        }
        for (file, value) in &self.unified {
            if file.contains('/') || !file.contains('.') {
                return Err(Error::other(format!("{file:?} is no file of a cgroup")));
            }
            write(dir, file, value)?;
        }
        if let Some(devices) = &self.devices {
            crate::device_filter::attach(dir, devices)?;
        }
        Ok(())
    }
}

/// v1 answers EBUSY to a limit below what is used and cannot be given back; v2 would kill instead. So it is refused
/// here, with v1's number.
fn check_memory(dir: &Path, limit_bytes: i64) -> Result<()> {
    let Ok(limit_bytes) = u64::try_from(limit_bytes) else { return Ok(()) };
    let current = std::fs::read_to_string(dir.join("memory.current")).unwrap_or_default();
    let stat = std::fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let cached = ["inactive_file ", "active_file "].iter().filter_map(|name| {
        stat.lines().find_map(|line| line.strip_prefix(name)).and_then(|bytes| bytes.parse::<u64>().ok())
    });
    let kept = current.trim().parse::<u64>().unwrap_or(0).saturating_sub(cached.sum());
    if kept <= limit_bytes {
        return Ok(());
    }
    let busy = Error::from_raw_os_error(libc::EBUSY);
    Err(Error::new(busy.kind(), format!("{}: {limit_bytes}: {busy}", dir.join("memory.max").display())))
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

fn write(dir: &Path, file: &str, value: &str) -> Result<()> {
    let path = dir.join(file);
    std::fs::write(&path, value).map_err(|e| Error::new(e.kind(), format!("{}: {value}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A directory with files as v2 shows them.
    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn what_is_not_asked_for_stays() {
        // quota, period, before, after
        let cases = [
            (0, 0, "50000 100000\n", "50000 100000\n"),
            (20_000, 0, "50000 100000\n", "20000"),
            (0, 50_000, "50000 100000\n", "50000 50000"),
            (0, 50_000, "max 100000\n", "max 50000"),
            (-1, 0, "50000 100000\n", "max"),
            (-1, 10_000, "50000 100000\n", "max 10000"),
        ];
        for (cpu_quota_us, cpu_period_us, before, after) in cases {
            let dir = group(&[("cpu.max", before)]);
            Limits { cpu_quota_us, cpu_period_us, ..Limits::default() }.apply_v2(dir.path()).unwrap();
            let now = std::fs::read_to_string(dir.path().join("cpu.max")).unwrap();
            assert_eq!(now, after, "{cpu_quota_us} {cpu_period_us} {before}");
        }
    }

    #[test]
    fn memory_is_not_limited_below_what_is_kept() {
        let stat = "anon 900\nfile 100\ninactive_file 60\nactive_file 40\n";
        for (limit, fine) in [(899, false), (900, true), (2000, true), (-1, true)] {
            let dir = group(&[("memory.current", "1000\n"), ("memory.stat", stat)]);
            let result = Limits { memory_bytes: limit, ..Limits::default() }.apply_v2(dir.path());
            assert_eq!(result.is_ok(), fine, "{limit}: {result:?}");
            assert_eq!(dir.path().join("memory.max").exists(), fine, "{limit}");
        }
    }

    #[test]
    fn shares_become_weights() {
        for (shares, weight) in [(0, 0), (2, 1), (102, 17), (1024, 100), (2048, 174), (262_144, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }
}
