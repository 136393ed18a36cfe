//! Host ports on the host's loopback: connections are taken here and passed on (as KEP-6032 does for node ports), because
//! the kernel rewrites no loopback address without letting other hosts in on them.

use crate::prober::owned;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// After an error that is the machine's and not a connection's: no more files, no memory.
const RETRY: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Listeners(Mutex<BTreeMap<SocketAddr, Listener>>);

struct Listener {
    target: SocketAddr,
    task: AbortOnDropHandle<()>,
}

impl Listeners {
    /// Listens where `wanted` says, once nobody else changes it, and nowhere else. Connections of a listener that goes
    /// end with it. An address that another program has stays that program's.
    pub(super) async fn set(&self, wanted: impl FnOnce() -> BTreeMap<SocketAddr, SocketAddr>) {
        let mut listeners = self.0.lock().await;
        let wanted = wanted();
        let stale = listeners.iter().filter(|(address, listener)| wanted.get(address) != Some(&listener.target));
        for address in stale.map(|(address, _)| *address).collect::<Vec<_>>() {
            if let Some(listener) = listeners.remove(&address) {
                // Its port is free once it has really ended.
                listener.task.abort();
                let _ = listener.task.await;
            }
        }
        for (address, target) in wanted {
            if listeners.contains_key(&address) {
                continue;
            }
            match TcpListener::bind(address).await {
                Ok(socket) => {
                    listeners.insert(address, Listener { target, task: owned(serve(socket, target)) });
                }
                // A host without IPv6 has no ::1.
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {}
                Err(error) => tracing::warn!(%address, %error, "a host port is not answered on this address"),
            }
        }
    }
}

async fn serve(socket: TcpListener, target: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        match socket.accept().await {
            Ok((connection, _)) => {
                connections.spawn(pass_on(connection, target));
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "a connection to a host port was not taken");
                tokio::time::sleep(RETRY).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Ends when both sides have; a Pod that refuses ends it at once.
async fn pass_on(mut from: TcpStream, target: SocketAddr) {
    if let Ok(mut to) = TcpStream::connect(target).await {
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    }
}
