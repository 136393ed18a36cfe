//! The two ends of the queue: [`Embedded`], which anybody may call, and [`Writer`], which one thread drives.

use super::Options;
use super::engine::{Answer, Engine, Flushed, SharedState, Ticket};
use super::open::OpenError;
use super::state::Stored;
use super::watch::Watchers;
use crate::clock::Now;
use crate::disk::Disk;
use crate::kv::{Kv, Op, Range, RangeResult, Revision, StoreError, Txn, TxnResult, WatchStream};
use futures::future::{BoxFuture, FutureExt, ready};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// One batch holds about as much at most.
const BATCH_BYTES: usize = 4 << 20;

/// The store, to be shared and cloned. When the last clone is gone or [`Embedded::close`] was called, the writer ends.
#[derive(Clone)]
pub struct Embedded {
    state: SharedState,
    watchers: Arc<Watchers>,
    queue: Arc<QueueHandle>,
}

/// Carries out what is asked of [`Embedded`]: [`Writer::run`] on a thread of its own, or [`Writer::flush_once`] from the
/// caller's own loop.
pub struct Writer<D: Disk> {
    engine: Engine<D>,
    watchers: Arc<Watchers>,
    queue: Arc<Queue>,
    replies: HashMap<Ticket, Reply>,
}

/// What a [`Writer`] waits for after a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// There is more to do at once.
    Nothing,
    /// For a request, or until a lease ends at this time in monotonic milliseconds.
    Request { until_ms: Option<u64> },
    /// The store is closed, or it has failed and must be opened anew; everything is answered.
    Closed,
}

enum Reply {
    Txn(oneshot::Sender<Result<TxnResult, StoreError>>),
    Compact(oneshot::Sender<Result<(), StoreError>>),
}

enum Request {
    Txn(Txn, oneshot::Sender<Result<TxnResult, StoreError>>),
    Compact(Revision, oneshot::Sender<Result<(), StoreError>>),
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// The same for a caller's own loop.
    requested: Notify,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    is_closed: bool,
}

/// Closes the queue when the last front is gone.
struct QueueHandle(Arc<Queue>);

impl Drop for QueueHandle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.wake.notify_all();
        self.requested.notify_one();
    }

    fn push(&self, request: Request) {
        let mut waiting = self.lock();
        // The reply's sender is dropped with the request, which its receiver reads as closed.
        if !waiting.is_closed {
            waiting.requests.push_back(request);
            drop(waiting);
            self.wake.notify_one();
            self.requested.notify_one();
        }
    }

    /// Takes one batch.
    fn take(&self) -> (Vec<Request>, bool) {
        let mut waiting = self.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(request) = waiting.requests.pop_front()
        {
            bytes += request.bytes();
            batch.push(request);
        }
        (batch, waiting.is_closed && waiting.requests.is_empty())
    }

    /// Blocks until there is a request, the queue is closed, or the time is up.
    fn wait(&self, timeout: Option<Duration>) {
        let waiting = self.lock();
        let idle = |waiting: &mut Waiting| waiting.requests.is_empty() && !waiting.is_closed;
        // A poisoned lock was poisoned by a panic elsewhere; the queue itself is whole.
        match timeout {
            Some(timeout) => {
                drop(self.wake.wait_timeout_while(waiting, timeout, idle).unwrap_or_else(PoisonError::into_inner));
            }
            None => drop(self.wake.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

impl Request {
    fn bytes(&self) -> usize {
        let Self::Txn(txn, _) = self else { return 0 };
        let op_bytes = |op: &Op| match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key } => key.len(),
        };
        txn.ops.iter().map(op_bytes).sum()
    }
}

impl Embedded {
    /// Opens the store in `disk`'s directory, creating it if there is none. Blocks until it is read.
    pub fn open<D: Disk>(disk: D, now: Now) -> Result<(Self, Writer<D>), OpenError> {
        Self::open_with(disk, Options::default(), now)
    }

    pub fn open_with<D: Disk>(disk: D, options: Options, now: Now) -> Result<(Self, Writer<D>), OpenError> {
        let engine = Engine::open(disk, options, now)?;
        let state = engine.state.clone();
        let (watchers, queue) = (Arc::new(Watchers::default()), Arc::new(Queue::default()));
        let writer =
            Writer { engine, watchers: Arc::clone(&watchers), queue: Arc::clone(&queue), replies: HashMap::new() };
        Ok((Self { state, watchers, queue: Arc::new(QueueHandle(queue)) }, writer))
    }

    /// What is queued is still carried out; later requests fail with `Closed`.
    pub fn close(&self) {
        self.queue.0.close();
    }

    fn range_now_or_at(&self, range: &Range) -> Result<RangeResult, StoreError> {
        let (entries, remaining, revision) = {
            let state = self.state.read();
            if range.revision == 0 || range.revision == state.revision {
                return Ok(state.range_now(range));
            }
            state.range_at(range)?
        };
        let entries = entries.into_iter().map(Stored::load).collect::<Result<_, _>>()?;
        Ok(RangeResult { entries, remaining, revision })
    }
}

impl Kv for Embedded {
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
        let (sender, receiver) = oneshot::channel();
        self.queue.0.push(Request::Txn(txn, sender));
        async move { receiver.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeResult, StoreError>> {
        async move { self.range_now_or_at(&range) }.boxed()
    }

    fn watch(&self, prefix: &str, start: Revision) -> BoxFuture<'_, Result<WatchStream, StoreError>> {
        ready(self.watchers.open(&self.state, prefix, start)).boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        let (sender, receiver) = oneshot::channel();
        self.queue.0.push(Request::Compact(revision, sender));
        async move { receiver.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        async move {
            let revision = self.state.read().revision;
            self.watchers.ask_progress(revision);
            Ok(revision)
        }
        .boxed()
    }
}

impl<D: Disk> Writer<D> {
    /// Blocks until the store is closed, or until it has failed: then it must be opened anew. `clock` is asked once per
    /// batch.
    pub fn run(mut self, clock: impl Fn() -> Now) {
        loop {
            match self.flush_once(clock()) {
                Wait::Nothing => {}
                Wait::Request { until_ms } => {
                    let left_ms = until_ms.map(|until_ms| until_ms.saturating_sub(clock().monotonic_ms));
                    self.queue.wait(left_ms.map(Duration::from_millis));
                }
                Wait::Closed => return,
            }
        }
    }

    /// Carries out one batch of what is queued, what has expired, and a piece of a snapshot under way.
    pub fn flush_once(&mut self, now: Now) -> Wait {
        let (requests, is_closed) = self.queue.take();
        let is_idle = requests.is_empty();
        for request in requests {
            match request {
                Request::Txn(txn, reply) => {
                    self.replies.insert(self.engine.submit(txn), Reply::Txn(reply));
                }
                Request::Compact(revision, reply) => {
                    self.replies.insert(self.engine.submit_compact(revision), Reply::Compact(reply));
                }
            }
        }
        let flushed = self.engine.flush(now);
        let was_idle = is_idle && flushed.events.is_empty() && flushed.answers.is_empty();
        self.tell(flushed);
        if self.engine.has_failed() {
            self.watchers.close();
            return Wait::Closed;
        }
        let is_snapshotting = self.engine.is_snapshotting();
        if is_snapshotting {
            self.engine.step_snapshot();
        } else if is_closed {
            self.watchers.close();
            return Wait::Closed;
        }
        if is_snapshotting || !was_idle {
            Wait::Nothing
        } else {
            Wait::Request { until_ms: self.engine.next_expiry_ms() }
        }
    }

    /// Waits until there is a request or the store is closed; for callers of [`Writer::flush_once`].
    pub async fn requested(&self) {
        self.queue.requested.notified().await;
    }

    fn tell(&mut self, flushed: Flushed) {
        self.watchers.tell(&flushed.events);
        for (ticket, answer) in flushed.answers {
            // Who has gone away is not told; the transaction stands.
            match (self.replies.remove(&ticket), answer) {
                (Some(Reply::Txn(reply)), Answer::Txn(result)) => drop(reply.send(result)),
                (Some(Reply::Compact(reply)), Answer::Compact(result)) => drop(reply.send(result)),
                _ => {}
            }
        }
    }
}

impl<D: Disk> Drop for Writer<D> {
    fn drop(&mut self) {
        self.queue.close();
        self.queue.lock().requests.clear();
        self.watchers.close();
    }
}
