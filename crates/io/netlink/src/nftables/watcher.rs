//! Tells when somebody else changed a table.

use super::{SUBSYSTEM, is_about};
use crate::NetlinkError;
use crate::socket::Socket;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

/// `NFNLGRP_NFTABLES`
const GROUP: u32 = 7;

/// Watches as long as it lives.
pub struct Watcher {
    end: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Calls `touched`, on a thread of its own, whenever another netlink port than `own_port` changed the table or
    /// something in it, and when notifications were lost. Blocks only until the watch stands.
    pub fn start(table: &str, own_port: u32, touched: impl Fn() + Send + 'static) -> Result<Watcher, NetlinkError> {
        let mut socket = Socket::netfilter()?;
        socket.join(GROUP)?;
        let end = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| NetlinkError::Socket(e.into()))?);
        let (table, ends) = (table.to_owned(), end.clone());
        let work = move || {
            loop {
                let mut ready = [PollFd::new(&*ends, PollFlags::IN), PollFd::new(&socket, PollFlags::IN)];
                if poll(&mut ready, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
                    return;
                }
                if !ready[0].revents().is_empty() {
                    return;
                }
                if ready[1].revents().is_empty() {
                    continue;
                }
                let ours = |kind: u16, port: u32, body: &[u8]| {
                    kind >> 8 == SUBSYSTEM && port != own_port && is_about(body, &table)
                };
                if socket
                    .notifications()
                    .is_none_or(|all| all.iter().any(|(kind, port, body)| ours(*kind, *port, body)))
                {
                    touched();
                }
            }
        };
        let thread = std::thread::Builder::new().name("nftables".to_owned()).spawn(work);
        Ok(Watcher { end, thread: Some(thread.map_err(NetlinkError::Socket)?) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Cannot fail: nobody else writes to it.
        let _ = rustix::io::write(&*self.end, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
