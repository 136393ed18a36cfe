//! The network of the Pods of this node: addresses, a link and host ports for each, written down before they are used, so
//! that a restart takes up what runs and `purge` works without a daemon.
//!
//! ```text
//! DIR/network.json     ranges, who has which address, who claims which host ports
//! /run/minke-sysctl-NETNS.json   kernel switches as they were before the first instance of this network namespace
//! ```

mod firewall;
mod listeners;
mod record;
mod switches;

use firewall::Firewall;
use listeners::Listeners;
use netlink::{InstanceLink, NetlinkError, PodLink, Remover};
use network::cidr::{Cidr, CidrError};
use network::host_ports::{self, Claim, Facts, HostPort, Protocol};
use network::pool::PoolError;
use record::Record;
use runtime::types::{PodNetwork, PortMapping, SandboxConfig};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the network of a node must be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The instance's id; marks every link and the table.
    pub instance: String,
    /// Its state stands here.
    pub directory: PathBuf,
    /// The node's own address of each family, the primary first: the API's for Pods, and what Pods see when the node
    /// speaks to them.
    pub node_addresses: Vec<IpAddr>,
    /// The Pods' ranges on this node, one per family.
    pub pod_cidrs: Vec<String>,
    /// All that is the instance's, one range per family: traffic to it keeps its source.
    pub own_cidrs: Vec<String>,
    /// False: Pods have an address of each range, but only the first counts as the Pod's in the API, as in a cluster of
    /// one family whose network happens to know another.
    pub dual_stack: bool,
}

/// Why a node has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error(transparent)]
    Cidr(#[from] CidrError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("no name is free for the instance's link")]
    Names,
    #[error("hostPort {port}/{protocol} on {address} is not supported: on the host's loopback only TCP is answered")]
    LoopbackPort { port: u16, protocol: String, address: IpAddr },
    #[error("hostPort is not supported: nftables does not work on this host: {0}")]
    NoNftables(Arc<NetlinkError>),
    #[error("the network's thread panicked")]
    Panic,
}

/// The Pods' network. Cheap to clone.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    options: Options,
    record: Mutex<Record>,
    remover: Remover,
    /// The error: why there is none.
    firewall: Result<Firewall, Arc<NetlinkError>>,
    listeners: Listeners,
}

const LINK_PREFIX: &str = "minke";
const POD_LINK_PREFIX: &str = "mk";

impl Network {
    /// Makes the instance's link and table and lets the kernel route; takes up the Pods' links that are there and removes
    /// those that nobody owns.
    pub async fn open(options: Options) -> Result<Network, NetworkError> {
        let network = blocking(move || Network::open_here(options)).await?;
        network.0.listen().await;
        Ok(network)
    }

    fn open_here(options: Options) -> Result<Network, NetworkError> {
        let ranges = |texts: &[String]| texts.iter().map(|text| text.parse()).collect::<Result<Vec<Cidr>, _>>();
        let (pods, own) = (ranges(&options.pod_cidrs)?, ranges(&options.own_cidrs)?);
        let mut record = Record::load(&options.directory, &pods)?;
        let lock = switches::lock()?;
        let mut addresses: Vec<_> =
            options.node_addresses.iter().map(|address| (*address, Cidr::single(*address).prefix())).collect();
        addresses.extend(record.pools.iter().map(|pool| pool.node_address()));
        let name = link_name(&options.instance)?;
        let link = InstanceLink { name, instance: options.instance.clone(), addresses, mtu: 0 };
        netlink::ensure_instance_link(&link)?;
        switches::set(&lock, pods.iter().any(|range| !range.is_ipv4()))?;
        drop(lock);
        reconcile(&options, &mut record)?;
        let facts = Facts {
            instance: options.instance.clone(),
            node: options.node_addresses.clone(),
            pods,
            own,
            pod_links: POD_LINK_PREFIX.to_owned(),
        };
        let firewall = Firewall::install(&facts, record.claims()).map_err(Arc::new);
        if let Err(error) = &firewall {
            tracing::error!(%error, "no nftables: Pods reach nothing outside of this machine and have no host ports");
        }
        let (record, remover, listeners) = (Mutex::new(record), Remover::default(), Listeners::default());
        Ok(Network(Arc::new(Inner { options, record, remover, firewall, listeners })))
    }

    /// Waits until every link that was given back is gone. Blocks.
    pub fn settle(&self) {
        self.0.remover.settle();
    }
}

/// Removes every link of the instance and its table, sets the kernel's switches back if no other instance needs them, and forgets all
/// addresses. Needs no daemon. Blocks. Idempotent.
pub fn purge(directory: &Path, instance: &str) -> Result<(), NetworkError> {
    let lock = switches::lock()?;
    let owners = Record::load(directory, &[])?.owners();
    netlink::remove_named(&owners.iter().map(|id| pod_link_name(id)).collect::<Vec<_>>())?;
    netlink::purge(instance)?;
    remove_table(&host_ports::table_name(instance))?;
    let others = netlink::all_links()?.iter().any(|link| is_instance_link(&link.name) && !link.alias.is_empty());
    if !others {
        switches::restore(lock)?;
    }
    Record::remove(directory)
}

/// A kernel that knows no nftables has no table either.
fn remove_table(name: &str) -> Result<(), NetworkError> {
    match netlink::nftables::remove_table(name) {
        Err(NetlinkError::Socket(_)) => Ok(()),
        result => Ok(result?),
    }
}

/// The link's own name if there is one already, else a free one. To be called under the lock.
fn link_name(instance: &str) -> Result<String, NetworkError> {
    let links = netlink::all_links()?;
    if let Some(link) = links.iter().find(|link| link.alias == instance) {
        return Ok(link.name.clone());
    }
    let mut names = (0..1000).map(|n| format!("{LINK_PREFIX}{n}"));
    names.find(|name| links.iter().all(|link| link.name != *name)).ok_or(NetworkError::Names)
}

fn is_instance_link(name: &str) -> bool {
    name.strip_prefix(LINK_PREFIX).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_digit()))
}

/// The node's end of a Pod's link: at most 15 characters, the sandbox's own.
fn pod_link_name(sandbox: &str) -> String {
    let plain: String = sandbox.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    format!("{POD_LINK_PREFIX}{plain}")
}

fn alias(instance: &str, sandbox: &str) -> String {
    format!("{instance}/{sandbox}")
}

/// A Pod's link lives as long as its namespace. An owner without a link has none, a link without an owner is nobody's.
fn reconcile(options: &Options, record: &mut Record) -> Result<(), NetworkError> {
    let prefix = alias(&options.instance, "");
    let links = netlink::links(&options.instance)?;
    let found: BTreeSet<&str> = links.iter().filter_map(|link| link.alias.strip_prefix(&prefix)).collect();
    let owners = record.owners();
    let unowned = links.iter().filter(|link| link.alias.strip_prefix(&prefix).is_some_and(|id| !owners.contains(id)));
    let mut stale: Vec<String> = unowned.map(|link| link.name.clone()).collect();
    let mut changed = false;
    for owner in owners.iter().filter(|owner| !found.contains(owner.as_str())) {
        stale.push(pod_link_name(owner));
        changed = true;
        record.release(owner);
    }
    netlink::remove_named(&stale)?;
    if changed { record.save(&options.directory) } else { Ok(()) }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| NetworkError::Panic)?
}

impl Inner {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(&self, id: &str, ports: Vec<HostPort>, netns: &OwnedFd) -> Result<Vec<IpAddr>, NetworkError> {
        if let (false, Err(error)) = (ports.is_empty(), &self.firewall) {
            return Err(NetworkError::NoNftables(error.clone()));
        }
        let claims = !ports.is_empty();
        let addresses = {
            let mut record = self.record();
            let before = record.clone();
            let written = record.allocate(id).and_then(|pod| {
                record.claim(id, Claim { pod: pod.clone(), ports });
                record.save(&self.options.directory)?;
                Ok(pod)
            });
            if written.is_err() {
                *record = before;
            }
            written?
        };
        netlink::attach(&self.link(id, addresses.clone()), netns.as_fd())?;
        if claims {
            self.lead_ports()?;
        }
        let told = if self.options.dual_stack { addresses.len() } else { 1 };
        Ok(addresses.into_iter().take(told).collect())
    }

    fn detach(&self, id: &str) -> Result<(), NetworkError> {
        let claimed = self.record().unclaim(id);
        if claimed {
            self.lead_ports()?;
        }
        let addresses = self.record().addresses(id);
        netlink::detach(&self.link(id, addresses), &self.remover)?;
        let mut record = self.record();
        if record.release(id) || claimed { record.save(&self.options.directory) } else { Ok(()) }
    }

    /// Makes the table lead to who claims host ports now.
    fn lead_ports(&self) -> Result<(), NetworkError> {
        match &self.firewall {
            Ok(firewall) => Ok(firewall.lead(|| host_ports::elements(self.record().claims()))?),
            Err(_) => Ok(()),
        }
    }

    /// Listens on the host's loopback for who claims host ports now.
    async fn listen(&self) {
        self.listeners.set(|| host_ports::listeners(self.record().claims())).await;
    }

    fn link(&self, id: &str, addresses: Vec<IpAddr>) -> PodLink {
        let node_addresses = self.options.node_addresses.clone();
        PodLink { name: pod_link_name(id), alias: alias(&self.options.instance, id), addresses, node_addresses, mtu: 0 }
    }
}

/// An error with its causes, for an event.
fn words(error: &NetworkError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[async_trait::async_trait]
impl PodNetwork for Network {
    async fn attach(&self, sandbox: &SandboxConfig, id: &str, netns: OwnedFd) -> Result<Vec<IpAddr>, String> {
        let ports = host_ports(&sandbox.port_mappings).map_err(|e| words(&e))?;
        let (inner, id) = (self.0.clone(), id.to_owned());
        let claims = !ports.is_empty();
        let attached = blocking(move || inner.attach(&id, ports, &netns)).await.map_err(|e| words(&e))?;
        if claims {
            self.0.listen().await;
        }
        Ok(attached)
    }

    async fn detach(&self, id: &str) -> Result<(), String> {
        let (inner, id) = (self.0.clone(), id.to_owned());
        blocking(move || inner.detach(&id)).await.map_err(|e| words(&e))?;
        self.0.listen().await;
        Ok(())
    }
}

fn host_ports(mappings: &[PortMapping]) -> Result<Vec<HostPort>, NetworkError> {
    let port = |mapping: &PortMapping| {
        let protocol = match mapping.protocol.as_str() {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        let loopback = mapping.host_ip.filter(|address| address.is_loopback() && protocol != Protocol::Tcp);
        match loopback {
            Some(address) => {
                let protocol = mapping.protocol.clone();
                Err(NetworkError::LoopbackPort { port: mapping.host_port, protocol, address })
            }
            None => Ok(HostPort {
                protocol,
                host_ip: mapping.host_ip,
                host_port: mapping.host_port,
                container_port: mapping.container_port,
            }),
        }
    };
    mappings.iter().filter(|mapping| mapping.host_port != 0).map(port).collect()
}

#[cfg(test)]
mod tests;
