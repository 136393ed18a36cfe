//! The instance's table in the kernel, kept as it should be.

use netlink::NetlinkError;
use netlink::nftables::{Nftables, Watcher};
use network::host_ports::{Claim, Facts, elements, table, udp_ports};
use network::nft::{Change, Elements};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) struct Firewall {
    held: Arc<Mutex<Held>>,
    /// Only of a table that others can change.
    _watcher: Option<Watcher>,
}

struct Held {
    nftables: Nftables,
    elements: Elements,
}

impl Firewall {
    /// Puts the table in the place of whatever an earlier life left. Blocks.
    pub(super) fn install<'a>(
        facts: &Facts,
        claims: impl Iterator<Item = &'a Claim>,
    ) -> Result<Firewall, NetlinkError> {
        let (table, elements) = (table(facts), elements(claims));
        let name = table.name.clone();
        let nftables = Nftables::install(table, &elements)?;
        Firewall::keep(&name, nftables, elements)
    }

    /// Repairs what others do to the table as long as it lives, where they can.
    pub(super) fn keep(name: &str, nftables: Nftables, elements: Elements) -> Result<Firewall, NetlinkError> {
        let (owned, port) = (nftables.is_owned(), nftables.port()?);
        let held = Arc::new(Mutex::new(Held { nftables, elements }));
        let watcher = if owned {
            None
        } else {
            let held = held.clone();
            Some(Watcher::start(name, port, move || lock(&held).repair())?)
        };
        Ok(Firewall { held, _watcher: watcher })
    }

    /// Makes the table hold what `wanted` says once nobody else changes it. Blocks.
    pub(super) fn lead(&self, wanted: impl FnOnce() -> Elements) -> Result<(), NetlinkError> {
        let mut held = lock(&self.held);
        let elements = wanted();
        let change = Change::between(&held.elements, &elements);
        if change.is_empty() {
            return Ok(());
        }
        held.elements = elements;
        let Held { nftables, elements } = &mut *held;
        // Somebody may have changed it before the watcher could tell.
        nftables.change(&change).or_else(|_| nftables.restore(elements))?;
        let stale = udp_ports(&change);
        if !stale.is_empty()
            && let Err(error) = netlink::forget_udp(&stale)
        {
            tracing::warn!(%error, "clients that keep sending to a host port may be led to where it was");
        }
        Ok(())
    }
}

impl Held {
    fn repair(&mut self) {
        match self.nftables.restore(&self.elements) {
            Ok(()) => tracing::warn!("somebody changed this instance's nftables table; it is as it was again"),
            Err(error) => tracing::error!(%error, "somebody changed this instance's nftables table"),
        }
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
