//! What Pods, containers and images use, in CRI v1's terms. All times are Unix time in nanoseconds; counters count from
//! the beginning of what they belong to.

use std::path::PathBuf;

/// CRI `ContainerStats`; what the container is called stands in its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStats {
    pub id: String,
    /// `None`: it does not run.
    pub usage: Option<Usage>,
    /// What it wrote into its root file system; at most [`LAYER_AGE_NS`] old.
    pub writable_layer: Option<FilesystemUsage>,
}

/// How old a count of a writable layer may be: walking it takes time, and nothing tells of its growth.
pub const LAYER_AGE_NS: i64 = 10_000_000_000;

/// CRI `PodSandboxStats`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxStats {
    pub id: String,
    /// Of the Pod's group, all its containers together. `None`: it is gone.
    pub usage: Option<Usage>,
    /// `None`: it has no network of its own, or none any more.
    pub network: Option<NetworkUsage>,
    pub containers: Vec<ContainerStats>,
}

/// What a group of processes uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    pub at_ns: i64,
    pub cpu: CpuUsage,
    pub memory: MemoryUsage,
    /// `None`: the kernel does not count it.
    pub swap: Option<SwapUsage>,
    /// Processes and threads.
    pub pids: u64,
    pub io_pressure: Option<Pressure>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// Nanoseconds, summed over the cores.
    pub core_ns: u64,
    pub pressure: Option<Pressure>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    pub usage_bytes: u64,
    /// Without file pages that were not used lately.
    pub working_set_bytes: u64,
    /// Anonymous memory.
    pub rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// `None`: unlimited.
    pub limit_bytes: Option<u64>,
    pub pressure: Option<Pressure>,
}

impl MemoryUsage {
    /// What may be used still; `None`: there is no limit.
    pub fn available_bytes(&self) -> Option<u64> {
        self.limit_bytes.map(|limit| limit.saturating_sub(self.working_set_bytes))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwapUsage {
    pub usage_bytes: u64,
    /// `None`: there is no limit.
    pub available_bytes: Option<u64>,
}

/// Pressure stall information (cgroup v2 only).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pressure {
    pub some: Stall,
    pub full: Stall,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stall {
    /// Microseconds.
    pub total_us: u64,
    /// Hundredths of a percent over 10 s, 60 s and 300 s.
    pub averages: [u32; 3],
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkUsage {
    pub at_ns: i64,
    /// The Pod's own interface first, loopback not at all.
    pub interfaces: Vec<InterfaceUsage>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
}

/// CRI `FilesystemUsage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesystemUsage {
    pub at_ns: i64,
    /// A directory of the file system it lies in.
    pub mountpoint: PathBuf,
    pub used_bytes: u64,
    pub inodes_used: u64,
}

/// CRI `ImageFsInfoResponse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFs {
    pub images: FilesystemUsage,
    /// The writable layers of all containers.
    pub containers: FilesystemUsage,
}
