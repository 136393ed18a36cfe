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

    pub(super) fn apply_v2(&self, dir: &Path) -> Result<()> {
        if self.cpu_shares != 0 {
            write(dir, "cpu.weight", &weight_of_shares(self.cpu_shares).to_string())?;
        }
        if self.cpu_quota_us != 0 || self.cpu_period_us != 0 {
            let quota = if self.cpu_quota_us > 0 { self.cpu_quota_us.to_string() } else { "max".into() };
            let period = if self.cpu_period_us == 0 { 100_000 } else { self.cpu_period_us };
            write(dir, "cpu.max", &format!("{quota} {period}"))?;
        }
        if self.memory_bytes != 0 {
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

fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

fn write(dir: &Path, file: &str, value: &str) -> Result<()> {
    let path = dir.join(file);
    std::fs::write(&path, value).map_err(|e| Error::new(e.kind(), format!("{}: {value}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        for (shares, weight) in [(0, 0), (2, 1), (102, 17), (1024, 100), (2048, 174), (262_144, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }
}
