//! One instance: its data directory, what was decided for it, and the lock that keeps a second server out.

use crate::places;
use anyhow::{Context, Result, bail, ensure};
use cli::arguments::{Kubelet, Settings};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

/// The instance that owns the machine's well-known ports and paths.
const DEFAULT_DIR: &str = "/var/lib/minke";
const API_PORT: u16 = 6443;
const KUBELET_PORT: u16 = 10250;

/// What was decided at the first start and holds for the life of the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Marks every link, cgroup and table of this instance: eight hexadecimal digits.
    pub(crate) id: String,
    /// Which block of addresses is its own: node 10.N.0.1, Pods 10.N.64.0/18, Services 10.N.128.0/20.
    pub(crate) block: u8,
    /// The first address of its IPv6 /48, made from the id: node …::1, Pods …:1::/64. `None`: it was set up on a host
    /// without IPv6.
    #[serde(default)]
    pub(crate) ipv6_block: Option<Ipv6Addr>,
    /// Whether the API shows IPv6, too, as a dual-stack cluster does.
    #[serde(default)]
    pub(crate) dual_stack: bool,
    pub(crate) api_port: u16,
    pub(crate) kubelet_port: u16,
    pub(crate) node_name: String,
    pub(crate) no_node: bool,
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The API server that an agent's node belongs to; whoever has one serves no API (`api_port` is 0).
    #[serde(default)]
    pub(crate) server: Option<String>,
    /// The kubelet's root and the logs' directory, where they are not the data directory's.
    #[serde(default)]
    pub(crate) kubelet_root: Option<PathBuf>,
    #[serde(default)]
    pub(crate) log_dir: Option<PathBuf>,
    #[serde(default)]
    pub(crate) kubelet: Kubelet,
}

/// What was asked for on the command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    pub(crate) port: Option<u16>,
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) node_name: Option<String>,
    pub(crate) no_node: bool,
    pub(crate) ip_family: Option<String>,
    pub(crate) server: Option<String>,
    pub(crate) kubelet_root: Option<PathBuf>,
    pub(crate) log_dir: Option<PathBuf>,
    pub(crate) kubelet: Kubelet,
}

impl Flags {
    pub(crate) fn of(settings: &Settings) -> Result<Self> {
        let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
        Ok(Self {
            port: settings.port,
            kubeconfig: absolute(&settings.kubeconfig)?,
            node_name: settings.node_name.clone(),
            no_node: settings.no_node,
            ip_family: settings.ip_family.clone(),
            server: None,
            kubelet_root: absolute(&settings.kubelet_root)?,
            log_dir: absolute(&settings.log_dir)?,
            kubelet: settings.kubelet.clone(),
        })
    }

    /// The same flags for a server's command line.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        for (flag, value) in [
            ("--port", self.port.map(|port| port.to_string().into())),
            ("--node-name", self.node_name.clone().map(OsString::from)),
            ("--ip-family", self.ip_family.clone().map(OsString::from)),
            ("--kubeconfig", self.kubeconfig.clone().map(PathBuf::into_os_string)),
            ("--kubelet-root", self.kubelet_root.clone().map(PathBuf::into_os_string)),
            ("--log-dir", self.log_dir.clone().map(PathBuf::into_os_string)),
        ] {
            if let Some(value) = value {
                arguments.extend([flag.into(), value]);
            }
        }
        for (flag, values) in self.kubelet.flags() {
            for value in values {
                arguments.extend([flag.into(), value.into()]);
            }
        }
        if self.no_node {
            arguments.push("--no-node".into());
        }
        arguments
    }
}

/// Whether the machine's well-known ports and paths are this instance's.
pub(crate) fn is_default(directory: &Path) -> bool {
    directory == Path::new(DEFAULT_DIR)
}

impl Record {
    /// The node's own address, and the API's for Pods.
    pub(crate) fn node_address(&self) -> IpAddr {
        Ipv4Addr::new(10, self.block, 0, 1).into()
    }

    /// What the node uses: of IPv4, and of IPv6 where the host has it.
    pub(crate) fn addressing(&self) -> Addressing {
        let mut addressing = Addressing {
            node: vec![self.node_address()],
            pods: vec![format!("10.{}.64.0/18", self.block)],
            own: vec![format!("10.{}.0.0/16", self.block)],
        };
        if let Some(block) = self.ipv6_block.filter(|_| netlink::sysctl::has_ipv6()) {
            let part = |at: u128| Ipv6Addr::from_bits(block.to_bits() | at);
            addressing.node.push(part(1).into());
            addressing.pods.push(format!("{}/64", part(1 << 64)));
            addressing.own.push(format!("{block}/48"));
        }
        addressing
    }

    pub(crate) fn service_cidr(&self) -> String {
        format!("10.{}.128.0/20", self.block)
    }

    pub(crate) fn service_address(&self) -> IpAddr {
        Ipv4Addr::new(10, self.block, 128, 1).into()
    }
}

/// Addresses and ranges of a node, one of each family, IPv4 first.
pub(crate) struct Addressing {
    pub(crate) node: Vec<IpAddr>,
    pub(crate) pods: Vec<String>,
    /// All that is the instance's.
    pub(crate) own: Vec<String>,
}

impl Addressing {
    /// What the API shows of it.
    pub(crate) fn shown(&self, record: &Record) -> (Vec<IpAddr>, Vec<String>) {
        let families = if record.dual_stack { 2 } else { 1 };
        (self.node.iter().copied().take(families).collect(), self.pods.iter().take(families).cloned().collect())
    }
}

/// An opened data directory; the lock is held as long as this lives.
pub(crate) struct Instance {
    pub(crate) directory: PathBuf,
    pub(crate) record: Record,
    _lock: File,
    _block: Option<UnixListener>,
}

impl Instance {
    /// Opens or makes the data directory for a server. Flags given now must agree with those remembered.
    pub(crate) fn open(directory: &Path, flags: &Flags) -> Result<Self> {
        let directory = std::path::absolute(directory)?;
        make_private(&directory)?;
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(directory.join("lock"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another minke runs on {}", directory.display());
        }
        let (record, block) = match read(&directory)? {
            Some(record) => {
                agree(&record, flags)?;
                (record, None)
            }
            None => {
                let (record, block) = decide(&directory, flags)?;
                write(&directory, &record)?;
                (record, Some(block))
            }
        };
        Ok(Self { directory, record, _lock: lock, _block: block })
    }
}

/// What can be in a new instance's directory: what administrators put there before, what `up` has begun.
const BEFOREHAND: [&str; 6] = ["lock", "lost+found", "manifests", "minke.log", "registries.d", "supervisor.lock"];

/// Whether a server or an agent can run here at all. Makes nothing.
///
/// # Errors
/// What is missing, and what to do about it.
pub(crate) fn check(directory: &Path, flags: &Flags) -> Result<()> {
    let directory = &std::path::absolute(directory)?;
    let no_node = match read(directory)? {
        Some(record) => {
            places::check(record.kubelet_root.as_deref(), record.log_dir.as_deref(), Some(&record.id))?;
            record.no_node
        }
        None => {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let foreign = entries.map(|entry| entry.file_name()).find(|name| BEFOREHAND.iter().all(|own| name != own));
            if let Some(foreign) = foreign {
                let name = foreign.display();
                bail!(
                    "{} holds something that is not minke's ({name}); choose another --data-dir",
                    directory.display()
                );
            }
            places::check(usual_root(directory, flags).as_deref(), usual_logs(directory, flags).as_deref(), None)?;
            flags.no_node
        }
    };
    if no_node {
        return Ok(());
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "a node needs root; run as root, or start the control plane alone with --no-node"
    );
    crate::preflight::check()
}

/// What is remembered in `directory`, if an instance was ever started there.
pub(crate) fn read(directory: &Path) -> Result<Option<Record>> {
    let path = directory.join("instance.json");
    match std::fs::read(&path) {
        Ok(bytes) => {
            let record = serde_json::from_slice(&bytes);
            Ok(Some(
                record
                    .with_context(|| format!("{} cannot be read; restore it or purge the instance", path.display()))?,
            ))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn write(directory: &Path, record: &Record) -> Result<()> {
    let (path, new) = (directory.join("instance.json"), directory.join("instance.json.new"));
    let mut file = File::create(&new).with_context(|| format!("cannot write {}", new.display()))?;
    file.write_all(&serde_json::to_vec_pretty(record)?)?;
    file.sync_all()?;
    std::fs::rename(&new, &path).with_context(|| format!("cannot write {}", path.display()))
}

pub(crate) fn make_private(directory: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("cannot make {}", directory.display()))
}

/// Remembered settings are kept; others must be said by starting anew.
pub(crate) fn agree(record: &Record, flags: &Flags) -> Result<()> {
    let mut different = Vec::new();
    if flags.port.is_some_and(|port| port != record.api_port) {
        different.push(format!("--port (is {})", record.api_port));
    }
    if flags.node_name.as_ref().is_some_and(|name| *name != record.node_name) {
        different.push(format!("--node-name (is {})", record.node_name));
    }
    if flags.ip_family.as_ref().is_some_and(|family| (family == "dual") != record.dual_stack) {
        different.push(format!("--ip-family (is {})", if record.dual_stack { "dual" } else { "ipv4" }));
    }
    if flags.no_node && !record.no_node {
        different.push("--no-node (it has a node)".to_owned());
    }
    for (flag, asked, remembered) in [
        ("--kubeconfig", &flags.kubeconfig, &record.kubeconfig),
        ("--kubelet-root", &flags.kubelet_root, &record.kubelet_root),
        ("--log-dir", &flags.log_dir, &record.log_dir),
    ] {
        if asked.is_some() && asked != remembered {
            let remembered = remembered.as_ref().map_or("not set".into(), |path| format!("is {}", path.display()));
            different.push(format!("{flag} ({remembered})"));
        }
    }
    for ((flag, asked), (_, remembered)) in flags.kubelet.flags().into_iter().zip(record.kubelet.flags()) {
        if !asked.is_empty() && asked != remembered {
            let remembered =
                if remembered.is_empty() { "not set".to_owned() } else { format!("is {}", remembered.join(" ")) };
            different.push(format!("{flag} ({remembered})"));
        }
    }
    match (&flags.server, &record.server) {
        (Some(_), None) => different.push("agent (it has an API server of its own)".to_owned()),
        (None, Some(server)) => different.push(format!("server (it is an agent of {server})")),
        (Some(given), Some(server)) if given != server => different.push(format!("--server (is {server})")),
        _ => {}
    }
    ensure!(
        different.is_empty(),
        "this data directory was set up with other flags: {}; use them, or purge it first",
        different.join(", ")
    );
    Ok(())
}

fn decide(directory: &Path, flags: &Flags) -> Result<(Record, UnixListener)> {
    let is_default = is_default(directory);
    let wanted = flags.port.or(is_default.then_some(API_PORT));
    let node_name = match &flags.node_name {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().to_lowercase(),
    };
    let dual_stack = flags.ip_family.as_deref() == Some("dual");
    let has_ipv6 = netlink::sysctl::has_ipv6();
    ensure!(has_ipv6 || !dual_stack, "IPv6 is disabled on this host; enable it, or leave --ip-family dual out");
    let id = uuid::Uuid::new_v4().as_fields().0;
    let (block, held) = free_block()?;
    let record = Record {
        id: format!("{id:08x}"),
        block,
        ipv6_block: has_ipv6.then(|| ipv6_block(id)),
        dual_stack,
        api_port: if flags.server.is_some() { 0 } else { free_port(wanted, "--port")? },
        kubelet_port: free_port(is_default.then_some(KUBELET_PORT), "the kubelet's port")?,
        node_name,
        no_node: flags.no_node,
        kubeconfig: flags.kubeconfig.clone(),
        server: flags.server.clone(),
        kubelet_root: usual_root(directory, flags),
        log_dir: usual_logs(directory, flags),
        kubelet: flags.kubelet.clone(),
    };
    Ok((record, held))
}

/// Only the default instance takes the machine's own directories without being told to.
fn usual_root(directory: &Path, flags: &Flags) -> Option<PathBuf> {
    let usual = (is_default(directory) && !flags.no_node).then(|| PathBuf::from(places::KUBELET_ROOT));
    flags.kubelet_root.clone().or(usual)
}

fn usual_logs(directory: &Path, flags: &Flags) -> Option<PathBuf> {
    let usual = (is_default(directory) && !flags.no_node).then(|| PathBuf::from(places::LOGS));
    flags.log_dir.clone().or(usual)
}

/// A unique local range (RFC 4193) of the instance's own: fd6d, then its id.
fn ipv6_block(id: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfd6d << 112 | u128::from(id) << 80)
}

/// The wanted port, which must be free, or any free one.
fn free_port(wanted: Option<u16>, what: &str) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, wanted.unwrap_or(0)));
    let listener = listener.with_context(|| format!("port {} is in use ({what})", wanted.unwrap_or(0)))?;
    Ok(listener.local_addr()?.port())
}

/// A block 10.N/16 that no route of this machine touches. The socket keeps it from others that start now: a name in this
/// network namespace that goes with the process.
fn free_block() -> Result<(u8, UnixListener)> {
    let taken = |block: u8| {
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        routes.lines().skip(1).any(|line| {
            let mut words = line.split_whitespace().skip(1);
            let hex =
                |word: Option<&str>| word.and_then(|word| u32::from_str_radix(word, 16).ok()).map(u32::swap_bytes);
            let destination = hex(words.next()).unwrap_or_default();
            let mask = hex(words.nth(5)).unwrap_or_default();
            let own = u32::from(Ipv4Addr::new(10, block, 0, 0));
            mask != 0 && (destination ^ own) & mask & 0xffff_0000 == 0
        })
    };
    let hold = |block: u8| {
        let name = SocketAddr::from_abstract_name(format!("minke-block-{block}")).ok()?;
        // Looked at under the name: whoever had it before has made its routes.
        let held = UnixListener::bind_addr(&name).ok()?;
        (!taken(block)).then_some((block, held))
    };
    (96..=250).chain(1..96).find_map(hold).context("no free block of addresses in 10.0.0.0/8")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    fn open(directory: &Path, more: &[&str]) -> Result<Instance> {
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            settings: Settings,
        }
        let settings = Only::parse_from(["minke"].into_iter().chain(more.iter().copied())).settings;
        Instance::open(directory, &Flags::of(&settings)?)
    }

    #[test]
    fn decisions_are_remembered_and_other_flags_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path(), &["--node-name", "n"]).unwrap();
        let record = first.record.clone();
        let second = open(directory.path(), &[]).err().unwrap();
        assert!(second.to_string().starts_with("another minke runs on"), "{second}");
        drop(first);
        assert_eq!(open(directory.path(), &[]).unwrap().record, record);
        let other = open(directory.path(), &["--node-name", "m"]).err().unwrap();
        assert!(other.to_string().contains("--node-name (is n)"), "{other}");
    }

    #[test]
    fn ipv6_addresses_come_from_the_id() {
        let directory = tempfile::tempdir().unwrap();
        let instance = open(directory.path(), &["--node-name", "n"]).unwrap();
        let record = Record {
            id: "0a1b2c3d".into(),
            block: 97,
            ipv6_block: Some(ipv6_block(0x0a1b_2c3d)),
            dual_stack: false,
            ..instance.record.clone()
        };
        assert_eq!(record.ipv6_block, Some("fd6d:a1b:2c3d::".parse().unwrap()));
        let (ipv4, both) = (["10.97.64.0/18"].as_slice(), ["10.97.64.0/18", "fd6d:a1b:2c3d:1::/64"].as_slice());
        let addressing = record.addressing();
        assert_eq!(addressing.pods, if netlink::sysctl::has_ipv6() { both } else { ipv4 });
        assert_eq!(addressing.shown(&record).1, ipv4);
        assert_eq!(addressing.shown(&Record { dual_stack: true, ..record }).1, addressing.pods);
    }

    #[test]
    fn a_used_port_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port().to_string();
        let directory = tempfile::tempdir().unwrap();
        let error = open(directory.path(), &["--port", &port]).err().unwrap();
        assert_eq!(error.to_string(), format!("port {port} is in use (--port)"));
    }
}
