//! The network of the Pods of this node: an address and a link for each, written down before it is used, so that a
//! restart takes up what runs and `purge` works without a daemon.
//!
//! ```text
//! DIR/network.json     ranges, who has which address
//! /run/minke-sysctl-NETNS.json   kernel switches as they were before the first instance of this network namespace
//! ```

mod record;
mod switches;

use netlink::{InstanceLink, NetlinkError, PodLink, Remover};
use network::cidr::{Cidr, CidrError};
use network::pool::PoolError;
use record::Record;
use runtime::types::{PodNetwork, SandboxConfig};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the network of a node must be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The instance's id; marks every link.
    pub instance: String,
    /// Its state stands here.
    pub directory: PathBuf,
    /// The node's own address: the API's for Pods, and what Pods see when the node speaks to them.
    pub node_address: IpAddr,
    /// The Pods' ranges on this node, at most one per family.
    pub pod_cidrs: Vec<String>,
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
}

const LINK_PREFIX: &str = "minke";

impl Network {
    /// Makes the instance's link and lets the kernel route; takes up the Pods' links that are there and removes those
    /// that nobody owns.
    pub async fn open(options: Options) -> Result<Network, NetworkError> {
        blocking(move || Network::open_here(options)).await
    }

    fn open_here(options: Options) -> Result<Network, NetworkError> {
        let ranges = options.pod_cidrs.iter().map(|text| text.parse()).collect::<Result<Vec<Cidr>, _>>()?;
        let mut record = Record::load(&options.directory, &ranges)?;
        let lock = switches::lock()?;
        let mut addresses = vec![(options.node_address, if options.node_address.is_ipv4() { 32 } else { 128 })];
        addresses.extend(record.pools.iter().map(|pool| pool.node_address()));
        let name = link_name(&options.instance)?;
        let link = InstanceLink { name, instance: options.instance.clone(), addresses, mtu: 0 };
        netlink::ensure_instance_link(&link)?;
        switches::set(&lock, ranges.iter().any(|range| !range.is_ipv4()))?;
        drop(lock);
        reconcile(&options, &mut record)?;
        let inner = Inner { options, record: Mutex::new(record), remover: Remover::default() };
        Ok(Network(Arc::new(inner)))
    }

    /// Waits until every link that was given back is gone. Blocks.
    pub fn settle(&self) {
        self.0.remover.settle();
    }
}

/// Removes every link of the instance, sets the kernel's switches back if no other instance needs them, and forgets all
/// addresses. Needs no daemon. Blocks. Idempotent.
pub fn purge(directory: &Path, instance: &str) -> Result<(), NetworkError> {
    let lock = switches::lock()?;
    let owners = Record::load(directory, &[])?.owners();
    netlink::remove_named(&owners.iter().map(|id| pod_link_name(id)).collect::<Vec<_>>())?;
    netlink::purge(instance)?;
    let others = netlink::all_links()?.iter().any(|link| is_instance_link(&link.name) && !link.alias.is_empty());
    if !others {
        switches::restore(lock)?;
    }
    Record::remove(directory)
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
    format!("mk{plain}")
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

    fn attach(&self, id: &str, netns: &OwnedFd) -> Result<Vec<IpAddr>, NetworkError> {
        let addresses = {
            let mut record = self.record();
            let before = record.clone();
            let written = record.allocate(id).and_then(|addresses| {
                record.save(&self.options.directory)?;
                Ok(addresses)
            });
            if written.is_err() {
                *record = before;
            }
            written?
        };
        netlink::attach(&self.link(id, addresses.clone()), netns.as_fd())?;
        Ok(addresses)
    }

    fn detach(&self, id: &str) -> Result<(), NetworkError> {
        let addresses = self.record().addresses(id);
        netlink::detach(&self.link(id, addresses), &self.remover)?;
        let mut record = self.record();
        if record.release(id) { record.save(&self.options.directory) } else { Ok(()) }
    }

    fn link(&self, id: &str, addresses: Vec<IpAddr>) -> PodLink {
        let own = self.options.node_address;
        let record = self.record();
        let node_addresses =
            std::iter::once(own).chain(record.pools.iter().map(|pool| pool.node_address().0)).collect();
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
        if let Some(mapping) = sandbox.port_mappings.iter().find(|mapping| mapping.host_port != 0) {
            return Err(format!("hostPort {} is not supported by minke yet", mapping.host_port));
        }
        let (inner, id) = (self.0.clone(), id.to_owned());
        blocking(move || inner.attach(&id, &netns)).await.map_err(|e| words(&e))
    }

    async fn detach(&self, id: &str) -> Result<(), String> {
        let (inner, id) = (self.0.clone(), id.to_owned());
        blocking(move || inner.detach(&id)).await.map_err(|e| words(&e))
    }
}

#[cfg(test)]
mod tests;
