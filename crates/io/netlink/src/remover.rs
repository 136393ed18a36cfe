//! Deleting a veth takes the kernel 20 ms, however many go at once, and holds up everybody meanwhile. So they go in the
//! background, and all that wait go together.

use crate::NetlinkError;
use crate::message::{Message, link_body};
use crate::socket::Socket;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The link group that is deleted as a whole. Whoever is put into it is to go.
const DOOMED: u32 = 0x6d6b_0001;

/// Deletes links in the background. A clone is the same remover.
#[derive(Clone, Default)]
pub struct Remover(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    idle: Condvar,
}

#[derive(Default)]
struct Queue {
    pending: Vec<u32>,
    running: bool,
}

impl Remover {
    pub(crate) fn remove(&self, index: u32) {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pending.push(index);
        if queue.running {
            return;
        }
        queue.running = true;
        let shared = self.0.clone();
        let spawned = std::thread::Builder::new().name("links".to_owned()).spawn(move || shared.work());
        if spawned.is_err() {
            // No thread to be had: what is pending goes with the next, or with `purge`.
            queue.running = false;
        }
    }

    /// Waits until everything that was to be deleted is gone. Blocks.
    pub fn settle(&self) {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while queue.running {
            queue = self.0.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut socket = None;
        loop {
            let indices = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                if queue.pending.is_empty() {
                    queue.running = false;
                    self.idle.notify_all();
                    return;
                }
                std::mem::take(&mut queue.pending)
            };
            if socket.is_none() {
                socket = Socket::route().ok();
            }
            if let Some(socket) = &mut socket {
                // A link that stays is found by its alias when the instance starts or goes.
                let _ = group_removal(socket, &indices);
            }
        }
    }
}

/// Deletes links together; those that are gone already do not matter. Blocks until they are gone.
pub(crate) fn group_removal(socket: &mut Socket, indices: &[u32]) -> Result<(), NetlinkError> {
    if indices.is_empty() {
        return Ok(());
    }
    let doom = |index: &u32| {
        let body = link_body(*index, 0, 0);
        Message::new(libc::RTM_SETLINK, 0, &body, "mark a link for deletion")
            .u32(libc::IFLA_GROUP, DOOMED)
            .tolerate(&[libc::ENODEV])
    };
    socket.call(indices.iter().map(doom).collect())?;
    let body = link_body(0, 0, 0);
    let delete = Message::new(libc::RTM_DELLINK, 0, &body, "delete links").u32(libc::IFLA_GROUP, DOOMED);
    socket.call(vec![delete.tolerate(&[libc::ENODEV])])
}
