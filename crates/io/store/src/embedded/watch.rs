//! Watches: each reads from the recent events or the log at its own pace, so none is ever dropped for being slow and none
//! holds up the writer; it is woken only when there is something for it.

use super::engine::SharedState;
use crate::kv::{Event, Revision, StoreError, WatchItem, WatchStream};
use futures::stream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Notify;

/// Events per item, rounded up to whole transactions.
const ITEM_EVENTS: usize = 512;

/// All watchers of a store.
#[derive(Default)]
pub(super) struct Watchers {
    list: Mutex<Vec<Weak<Watcher>>>,
    /// The highest revision anybody was told is the present.
    asked: AtomicU64,
    closed: AtomicBool,
}

struct Watcher {
    prefix: String,
    notify: Notify,
    /// The revision up to which its reader knows everything.
    told: AtomicU64,
}

struct Watching {
    state: SharedState,
    watchers: Arc<Watchers>,
    watcher: Arc<Watcher>,
    next: Revision,
    /// Whether the reader knows that it has caught up.
    caught_up: bool,
}

impl Watchers {
    pub(super) fn open(
        self: &Arc<Self>,
        state: &SharedState,
        prefix: &str,
        start: Revision,
    ) -> Result<WatchStream, StoreError> {
        let told = start.saturating_sub(1);
        let watcher =
            Arc::new(Watcher { prefix: prefix.to_owned(), notify: Notify::new(), told: AtomicU64::new(told) });
        // Registered before the first look, so that nothing falls between.
        self.with(|list| list.push(Arc::downgrade(&watcher)));
        let compacted = state.read().compacted;
        if start < compacted {
            return Err(StoreError::Compacted { oldest: compacted });
        }
        let (state, watchers) = (state.clone(), Arc::clone(self));
        let watching = Watching { state, watchers, watcher, next: start, caught_up: false };
        // An error ends the stream.
        Ok(Box::pin(stream::unfold(Some(watching), |watching| async {
            let mut watching = watching?;
            match watching.item().await {
                Ok(item) => Some((Ok(item), Some(watching))),
                Err(error) => Some((Err(error), None)),
            }
        })))
    }

    /// Wakes those that have something to see.
    pub(super) fn tell(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        self.each(|watcher| {
            if events.iter().any(|event| event.key.starts_with(&watcher.prefix)) {
                watcher.notify.notify_one();
            }
        });
    }

    /// Somebody was told that `revision` is the present: watchers are to say when they are there.
    pub(super) fn ask_progress(&self, revision: Revision) {
        if self.asked.fetch_max(revision, Ordering::SeqCst) < revision {
            self.each(|watcher| {
                if watcher.told.load(Ordering::SeqCst) < revision {
                    watcher.notify.notify_one();
                }
            });
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.each(|watcher| watcher.notify.notify_one());
    }

    fn each(&self, mut act: impl FnMut(&Watcher)) {
        self.with(|list| {
            list.retain(|watcher| match watcher.upgrade() {
                Some(watcher) => {
                    act(&watcher);
                    true
                }
                None => false,
            });
        });
    }

    fn with(&self, act: impl FnOnce(&mut Vec<Weak<Watcher>>)) {
        act(&mut self.list.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Watching {
    async fn item(&mut self) -> Result<WatchItem, StoreError> {
        loop {
            // Read before looking: what is asked for later wakes this watch again.
            let asked = self.watchers.asked.load(Ordering::SeqCst);
            let is_closed = self.watchers.closed.load(Ordering::SeqCst);
            let (events, up_to) = self.state.read().events(&self.watcher.prefix, self.next, ITEM_EVENTS)?;
            self.next = self.next.max(up_to + 1);
            if let Some(last) = events.last() {
                self.watcher.told.store(last.revision, Ordering::SeqCst);
                let events = events.into_iter().map(super::state::StoredEvent::load);
                return Ok(WatchItem::Events(events.collect::<Result<_, _>>()?));
            }
            let told = self.watcher.told.load(Ordering::SeqCst);
            if !self.caught_up || (told < asked && told < up_to) {
                self.caught_up = true;
                self.watcher.told.fetch_max(up_to, Ordering::SeqCst);
                return Ok(WatchItem::Progress(up_to));
            }
            if is_closed {
                return Err(StoreError::Closed);
            }
            self.watcher.notify.notified().await;
        }
    }
}
