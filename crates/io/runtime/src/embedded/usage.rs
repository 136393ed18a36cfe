//! What Pods and containers use, read from cgroups (v2 or v1), from the Pod's network and from the writable layers.

use super::container::Container;
use super::sandbox::Sandbox;
use super::{Inner, failed, lock, now_ns};
use crate::stats::{
    ContainerStats, CpuUsage, FilesystemUsage, ImageFs, InterfaceUsage, LAYER_AGE_NS, MemoryUsage, NetworkUsage,
    Pressure, SandboxStats, Stall, SwapUsage, Usage,
};
use crate::types::{NamespaceMode, RuntimeError};
use images::DiskUsage;
use shim::cgroup::Hierarchies;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Result<T> = std::result::Result<T, RuntimeError>;

/// Of one container. Blocks.
pub(super) fn container(inner: &Inner, sandbox: &Sandbox, container: &Container) -> Result<ContainerStats> {
    Ok(ContainerStats {
        id: container.id.clone(),
        usage: group(&inner.hierarchies, &container.cgroup(sandbox))?,
        writable_layer: layer(container)?,
    })
}

/// Of a Pod with its containers. Blocks.
pub(super) fn sandbox(inner: &Inner, sandbox: &Sandbox) -> Result<SandboxStats> {
    let containers: Result<_> = sandbox.containers().iter().map(|c| container(inner, sandbox, c)).collect();
    Ok(SandboxStats {
        id: sandbox.id.clone(),
        usage: group(&inner.hierarchies, &sandbox.cgroup)?,
        network: network(sandbox)?,
        containers: containers?,
    })
}

/// Of all images, and of what all containers wrote. Blocks.
pub(super) fn image_fs(inner: &Inner) -> Result<ImageFs> {
    let images = inner.images.disk_usage().map_err(failed("images"))?;
    let images = usage_of(inner.images.dir().to_owned(), images);
    let mut containers = usage_of(inner.dir.join("sandboxes"), DiskUsage::default());
    let sandboxes: Vec<Arc<Sandbox>> = lock(&inner.sandboxes).values().cloned().collect();
    for container in sandboxes.iter().flat_map(|sandbox| sandbox.containers()) {
        if let Some(layer) = layer(&container)? {
            containers.used_bytes += layer.used_bytes;
            containers.inodes_used += layer.inodes_used;
        }
    }
    Ok(ImageFs { images, containers })
}

fn usage_of(mountpoint: PathBuf, used: DiskUsage) -> FilesystemUsage {
    FilesystemUsage { at_ns: now_ns(), mountpoint, used_bytes: used.bytes, inodes_used: used.inodes }
}

/// `None`: the container is being removed.
fn layer(container: &Container) -> Result<Option<FilesystemUsage>> {
    let mut counted = lock(&container.layer);
    if let Some(layer) = &*counted
        && (0..LAYER_AGE_NS).contains(&(now_ns() - layer.at_ns))
    {
        return Ok(Some(layer.clone()));
    }
    let upper = container.dir.join("upper");
    match DiskUsage::of(&upper) {
        Ok(used) => *counted = Some(usage_of(upper, used)),
        Err(e) if e.kind() == ErrorKind::NotFound => *counted = None,
        Err(e) => return Err(failed(upper.display())(e)),
    }
    Ok(counted.clone())
}

/// `None`: there is no such group.
fn group(hierarchies: &Hierarchies, path: &str) -> Result<Option<Usage>> {
    let read = if hierarchies.is_v2() { group_v2 } else { group_v1 };
    match read(hierarchies, path) {
        Ok(usage) => Ok(Some(usage)),
        // ENODEV: removed between the opening of a file and its reading.
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(e) => Err(failed(format_args!("cgroup {path}"))(e)),
    }
}

fn group_v2(hierarchies: &Hierarchies, path: &str) -> std::io::Result<Usage> {
    let dir = hierarchies.unified.iter().map(|unified| unified.join(path)).next().ok_or(ErrorKind::NotFound)?;
    let read = |file: &str| std::fs::read_to_string(dir.join(file));
    // A controller or a part of the kernel may be absent: its file is, while the group is there.
    let optional = |file: &str| read(file).ok();
    let stat = read("cpu.stat")?;
    let memory = optional("memory.stat").unwrap_or_default();
    let usage_bytes = optional("memory.current").as_deref().and_then(number).unwrap_or(0);
    let swap = optional("memory.swap.current").as_deref().and_then(number);
    let swap_max = optional("memory.swap.max").as_deref().and_then(number);
    let pressure = |file: &str| optional(file).as_deref().map(pressure);
    Ok(Usage {
        at_ns: now_ns(),
        cpu: CpuUsage { core_ns: field(&stat, "usage_usec") * 1000, pressure: pressure("cpu.pressure") },
        memory: MemoryUsage {
            usage_bytes,
            working_set_bytes: usage_bytes.saturating_sub(field(&memory, "inactive_file")),
            rss_bytes: field(&memory, "anon"),
            page_faults: field(&memory, "pgfault"),
            major_page_faults: field(&memory, "pgmajfault"),
            limit_bytes: optional("memory.max").as_deref().and_then(number),
            pressure: pressure("memory.pressure"),
        },
        swap: swap.map(|usage_bytes| SwapUsage {
            usage_bytes,
            available_bytes: swap_max.map(|max| max.saturating_sub(usage_bytes)),
        }),
        pids: optional("pids.current").as_deref().and_then(number).unwrap_or(0),
        io_pressure: pressure("io.pressure"),
    })
}

/// v1's word for no limit is the largest number of pages, in bytes.
const UNLIMITED_V1: u64 = 1 << 62;

fn group_v1(hierarchies: &Hierarchies, path: &str) -> std::io::Result<Usage> {
    let read = |controller: &str, file: &str| {
        let mount = hierarchies.v1_of(controller).ok_or(ErrorKind::NotFound)?;
        std::fs::read_to_string(mount.join(path).join(file))
    };
    let count = |controller: &str, file: &str| read(controller, file).ok().as_deref().and_then(number);
    let limit = |file: &str| count("memory", file).filter(|bytes| *bytes < UNLIMITED_V1);
    let core_ns = number(&read("cpuacct", "cpuacct.usage")?).unwrap_or(0);
    let memory = read("memory", "memory.stat").unwrap_or_default();
    let usage_bytes = count("memory", "memory.usage_in_bytes").unwrap_or(0);
    let limit_bytes = limit("memory.limit_in_bytes");
    let swap = memory.contains("total_swap ").then(|| {
        let usage_bytes = field(&memory, "total_swap");
        let both = limit_bytes.zip(limit("memory.memsw.limit_in_bytes"));
        let available_bytes = both.map(|(memory, both)| both.saturating_sub(memory).saturating_sub(usage_bytes));
        SwapUsage { usage_bytes, available_bytes }
    });
    Ok(Usage {
        at_ns: now_ns(),
        cpu: CpuUsage { core_ns, pressure: None },
        memory: MemoryUsage {
            usage_bytes,
            working_set_bytes: usage_bytes.saturating_sub(field(&memory, "total_inactive_file")),
            rss_bytes: field(&memory, "total_rss"),
            page_faults: field(&memory, "total_pgfault"),
            major_page_faults: field(&memory, "total_pgmajfault"),
            limit_bytes,
            pressure: None,
        },
        swap,
        pids: count("pids", "pids.current").unwrap_or(0),
        io_pressure: None,
    })
}

/// A file that holds one number; `None` for `max`.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number behind a name of a file of lines `name number`; 0 where it is not.
fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| number(line.strip_prefix(name)?.strip_prefix(' ')?)).unwrap_or(0)
}

/// `some avg10=0.12 avg60=0.00 avg300=0.00 total=1234`; the processor of the root has no second line.
fn pressure(text: &str) -> Pressure {
    let stall = |kind: &str| {
        let mut stall = Stall::default();
        let line = text.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or_default();
        for (name, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            // Always two digits behind the point.
            let digits = || value.replace('.', "").parse().unwrap_or(0);
            match name {
                "avg10" => stall.averages[0] = digits(),
                "avg60" => stall.averages[1] = digits(),
                "avg300" => stall.averages[2] = digits(),
                "total" => stall.total_us = number(value).unwrap_or(0),
                _ => {}
            }
        }
        stall
    };
    Pressure { some: stall("some "), full: stall("full ") }
}

/// As the shim's own `/proc` shows it: the shim lives in the Pod's network.
fn network(sandbox: &Sandbox) -> Result<Option<NetworkUsage>> {
    let (NamespaceMode::Pod | NamespaceMode::Container, Ok(link)) = (sandbox.config.network, sandbox.link()) else {
        return Ok(None);
    };
    let path = format!("/proc/{}/net/dev", link.pid);
    match std::fs::read_to_string(Path::new(&path)) {
        Ok(text) => Ok(Some(NetworkUsage { at_ns: now_ns(), interfaces: interfaces(&text) })),
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(e) => Err(failed(path)(e)),
    }
}

/// Reads `/proc/net/dev`: 8 numbers received, then 8 sent; the first is bytes, the third errors.
fn interfaces(text: &str) -> Vec<InterfaceUsage> {
    let mut found = Vec::new();
    for (name, numbers) in text.lines().filter_map(|line| line.split_once(':')) {
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(number).collect();
        if let ([rx_bytes, _, rx_errors, _, _, _, _, _, tx_bytes, _, tx_errors, ..], true) =
            (numbers.as_slice(), name.trim() != "lo")
        {
            found.push(InterfaceUsage {
                name: name.trim().to_owned(),
                rx_bytes: *rx_bytes,
                rx_errors: *rx_errors,
                tx_bytes: *tx_bytes,
                tx_errors: *tx_errors,
            });
        }
    }
    found.sort_by_key(|interface| interface.name != "eth0");
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use shim::cgroup::V1;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn v2_is_read() {
        let dir = tree(&[
            ("pods/a/cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n"),
            ("pods/a/memory.current", "10000\n"),
            ("pods/a/memory.max", "20000\n"),
            ("pods/a/memory.stat", "anon 3000\nfile 7000\ninactive_file 4000\npgfault 12\npgmajfault 2\n"),
            ("pods/a/memory.swap.current", "100\n"),
            ("pods/a/memory.swap.max", "max\n"),
            ("pods/a/pids.current", "7\n"),
            (
                "pods/a/cpu.pressure",
                "some avg10=1.50 avg60=0.20 avg300=0.00 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
            ),
            ("pods/bare/cpu.stat", "usage_usec 2\n"),
        ]);
        let mut hierarchies = Hierarchies::default();
        hierarchies.unified = Some(dir.path().to_owned());
        let usage = group(&hierarchies, "pods/a").unwrap().unwrap();
        assert_eq!(usage.cpu.core_ns, 1_500_000);
        let stall = Stall { total_us: 99, averages: [150, 20, 0] };
        assert_eq!(usage.cpu.pressure, Some(Pressure { some: stall, full: Stall { total_us: 3, averages: [0; 3] } }));
        let memory = usage.memory;
        assert_eq!((memory.usage_bytes, memory.working_set_bytes, memory.rss_bytes), (10_000, 6000, 3000));
        assert_eq!((memory.page_faults, memory.major_page_faults), (12, 2));
        assert_eq!((memory.limit_bytes, memory.available_bytes()), (Some(20_000), Some(14_000)));
        assert_eq!(usage.swap, Some(SwapUsage { usage_bytes: 100, available_bytes: None }));
        assert_eq!(usage.pids, 7);
        let bare = group(&hierarchies, "pods/bare").unwrap().unwrap();
        assert_eq!((bare.cpu.core_ns, bare.swap, bare.memory.limit_bytes), (2000, None, None));
        assert_eq!(group(&hierarchies, "pods/none").unwrap(), None);
    }

    #[test]
    fn v1_is_read() {
        let dir = tree(&[
            ("cpuacct/pods/a/cpuacct.usage", "1500000\n"),
            ("memory/pods/a/memory.usage_in_bytes", "10000\n"),
            ("memory/pods/a/memory.limit_in_bytes", "20000\n"),
            ("memory/pods/a/memory.memsw.limit_in_bytes", "25000\n"),
            (
                "memory/pods/a/memory.stat",
                "rss 1\ntotal_rss 3000\ntotal_swap 100\ntotal_inactive_file 4000\ntotal_pgfault 12\ntotal_pgmajfault 2\n",
            ),
            ("memory/pods/free/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cpuacct/pods/free/cpuacct.usage", "1\n"),
            ("pids/pods/a/pids.current", "7\n"),
        ]);
        let mut hierarchies = Hierarchies::default();
        for controller in ["cpuacct", "memory", "pids"] {
            let mount = dir.path().join(controller);
            hierarchies.v1.push(V1 { mount, controllers: vec![controller.to_owned()] });
        }
        let usage = group(&hierarchies, "pods/a").unwrap().unwrap();
        assert_eq!((usage.cpu.core_ns, usage.pids), (1_500_000, 7));
        let memory = usage.memory;
        assert_eq!((memory.usage_bytes, memory.working_set_bytes, memory.rss_bytes), (10_000, 6000, 3000));
        assert_eq!((memory.page_faults, memory.major_page_faults, memory.limit_bytes), (12, 2, Some(20_000)));
        assert_eq!(usage.swap, Some(SwapUsage { usage_bytes: 100, available_bytes: Some(4900) }));
        assert_eq!(group(&hierarchies, "pods/free").unwrap().unwrap().memory.limit_bytes, None);
        assert_eq!(group(&hierarchies, "pods/none").unwrap(), None);
    }

    #[test]
    fn the_pods_interface_comes_first_and_loopback_not_at_all() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n    \
            lo:     500       5    0    0    0     0          0         0      500       5    0    0    0     0 0 0\n  \
            dummy:     1       1    0    0    0     0          0         0        2       1    0    0    0     0 0 0\n  \
            eth0:   1006      13    4    0    0     0          0         0     2006      13    5    0    0     0 0 0\n";
        let found = interfaces(text);
        assert_eq!(found.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["eth0", "dummy"]);
        let eth0 = &found[0];
        assert_eq!((eth0.rx_bytes, eth0.rx_errors, eth0.tx_bytes, eth0.tx_errors), (1006, 4, 2006, 5));
    }
}
