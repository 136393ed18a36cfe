//! One thread's part: evaluates transactions, writes a batch of them with one sync, and only then shows it.

use super::log::{AppendError, Appended, Log};
use super::open::OpenError;
use super::record::Encoder;
use super::snapshot::SnapshotJob;
use super::state::{Change, Lease, Live, Location, State};
use super::{MAX_TXN_BYTES, Options};
use crate::clock::Now;
use crate::disk::Disk;
use crate::kv::{Compare, Entry, Event, Op, Revision, StoreError, Txn, TxnResult};
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Names a request until its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Txn(Result<TxnResult, StoreError>),
    Compact(Result<(), StoreError>),
}

/// What a flush did; all of it is durable and visible.
#[derive(Debug, Default)]
pub struct Flushed {
    pub answers: Vec<(Ticket, Answer)>,
    /// In order, whole transactions.
    pub events: Vec<Event>,
}

/// The state that readers share with the engine. The lock is never held over I/O.
#[derive(Clone)]
pub(super) struct SharedState(Arc<RwLock<State>>);

impl SharedState {
    pub(super) fn new(state: State) -> Self {
        Self(Arc::new(RwLock::new(state)))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store without its front: submit, flush, tell.
pub struct Engine<D: Disk> {
    pub(super) log: Log<D>,
    pub(super) state: SharedState,
    pub(super) snapshot: Option<SnapshotJob<D::File>>,
    pending: Vec<(Ticket, Txn)>,
    compactions: Vec<(Ticket, Revision)>,
    next_ticket: u64,
    /// Why nothing can be written any more: after a failed sync nobody knows what is on the disk.
    failed: Option<String>,
    /// The last write found no room; leases wait until one does.
    is_full: bool,
}

/// A put or delete whose place in the log is not known yet.
struct Planned {
    revision: Revision,
    key: Arc<str>,
    put: Option<PlannedPut>,
}

struct PlannedPut {
    value: Bytes,
    create_revision: Revision,
    lease: Option<Lease>,
    /// In the payload.
    offset: usize,
}

/// What the pending transactions come to.
struct Batch {
    encoder: Encoder,
    changes: Vec<Planned>,
    answers: Vec<(Ticket, Answer)>,
    revision: Revision,
    compact: Option<Revision>,
    has_puts: bool,
    is_empty: bool,
}

/// A key as it stands after the transactions of the batch before.
type Overlay = HashMap<Arc<str>, Option<(Revision, Revision, Bytes)>>;

impl<D: Disk> Engine<D> {
    /// Reads what is in the directory. Leases go on with what the wall clock leaves of them.
    pub fn open(disk: D, options: Options, now: Now) -> Result<Self, OpenError> {
        let (log, state) = super::open::open(disk, options, now)?;
        Ok(Self {
            log,
            state: SharedState::new(state),
            snapshot: None,
            pending: Vec::new(),
            compactions: Vec::new(),
            next_ticket: 0,
            failed: None,
            is_full: false,
        })
    }

    /// Queues a transaction for the next flush.
    pub fn submit(&mut self, txn: Txn) -> Ticket {
        let ticket = self.ticket();
        self.pending.push((ticket, txn));
        ticket
    }

    /// Queues a compaction; it is answered when a snapshot under way is done.
    pub fn submit_compact(&mut self, revision: Revision) -> Ticket {
        let ticket = self.ticket();
        self.compactions.push((ticket, revision));
        ticket
    }

    /// When the next lease ends, in monotonic milliseconds.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        if self.failed.is_some() || self.is_full {
            return None;
        }
        self.state.read().leases.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Nothing can be written any more; the store must be opened anew.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Whether [`Engine::step_snapshot`] has something to do.
    pub fn is_snapshotting(&self) -> bool {
        self.snapshot.is_some()
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Carries out everything queued and deletes what has expired: one write and one sync, or none if nothing changes.
    pub fn flush(&mut self, now: Now) -> Flushed {
        let pending = std::mem::take(&mut self.pending);
        let compactions = if self.snapshot.is_some() { Vec::new() } else { std::mem::take(&mut self.compactions) };
        if let Some(why) = &self.failed {
            return refuse(&pending, &compactions, &StoreError::Failed(why.clone()));
        }
        for accept_puts in [true, false] {
            let batch = self.evaluate(&pending, &compactions, now, accept_puts);
            let is_urgent = !batch.has_puts;
            match self.commit(batch, is_urgent) {
                Ok(flushed) => return flushed,
                Err(AppendError::NoSpace) if accept_puts && !is_urgent => {}
                Err(AppendError::NoSpace) => {
                    self.is_full = true;
                    return refuse(&pending, &compactions, &StoreError::NoSpace);
                }
                Err(AppendError::Failed(why)) => {
                    self.fail(why.clone());
                    return refuse(&pending, &compactions, &StoreError::Failed(why));
                }
            }
        }
        unreachable!("the second round accepts no puts and so is urgent")
    }

    fn evaluate(
        &self,
        pending: &[(Ticket, Txn)],
        compactions: &[(Ticket, Revision)],
        now: Now,
        accept_puts: bool,
    ) -> Batch {
        let state = self.state.read();
        let mut batch = Batch {
            encoder: Encoder::log(state.revision),
            changes: Vec::new(),
            answers: Vec::with_capacity(pending.len() + compactions.len()),
            revision: state.revision,
            compact: None,
            has_puts: false,
            is_empty: true,
        };
        let mut overlay = Overlay::new();
        for (_, key) in state.leases.iter().take_while(|(deadline_ms, _)| *deadline_ms <= now.monotonic_ms) {
            let delete = Op::Delete { key: Arc::clone(key) };
            batch.add_ops(&state, &mut overlay, &[delete], now);
        }
        for (ticket, txn) in pending {
            let result = batch.add_txn(&state, &mut overlay, txn, now, accept_puts);
            batch.answers.push((*ticket, Answer::Txn(result)));
        }
        for (ticket, revision) in compactions {
            let result = batch.add_compaction(&state, *revision);
            batch.answers.push((*ticket, Answer::Compact(result)));
        }
        batch
    }

    fn commit(&mut self, batch: Batch, is_urgent: bool) -> Result<Flushed, AppendError> {
        let Batch { encoder, changes, answers, revision, compact, is_empty, .. } = batch;
        if is_empty {
            return Ok(Flushed { answers, events: Vec::new() });
        }
        let payload = encoder.0;
        let appended = self.write_frame(&payload, revision, is_urgent)?;
        let events = self.publish(changes, appended);
        if let Some(revision) = compact {
            self.state.write().compact(revision);
            self.begin_snapshot(revision);
        }
        Ok(Flushed { answers, events })
    }

    /// Writes one durable frame, opening a segment for it if need be.
    pub(super) fn write_frame(
        &mut self,
        payload: &[u8],
        last_revision: Revision,
        is_urgent: bool,
    ) -> Result<Appended, AppendError> {
        let base_revision = self.state.read().revision;
        // A segment that is opened and then not written to must be readable, too.
        if let Some((file, reader)) = self.log.room(payload.len(), base_revision, is_urgent)? {
            self.state.write().files.insert(file, reader);
        }
        let appended = self.log.append(payload, last_revision)?;
        self.is_full = false;
        Ok(appended)
    }

    pub(super) fn fail(&mut self, why: String) {
        tracing::error!(error = %why, "the store cannot write any more");
        self.failed = Some(why);
    }

    fn publish(&self, changes: Vec<Planned>, appended: Appended) -> Vec<Event> {
        let mut state = self.state.write();
        let mut events = Vec::with_capacity(changes.len());
        for planned in changes {
            let Planned { revision, key, put } = planned;
            let value = put.as_ref().map(|put| put.value.clone());
            let live = put.map(|put| put.live(revision, appended));
            let (key, previous) = state.apply(Change { revision, key, live });
            events.push(Event { revision, key, value, previous });
        }
        state.remember(&events, self.log.options.recent_bytes);
        events
    }
}

impl PlannedPut {
    fn live(self, mod_revision: Revision, appended: Appended) -> Live {
        let location = Location {
            file: appended.file,
            len_bytes: u32::try_from(self.value.len()).unwrap_or(u32::MAX),
            offset: appended.payload_offset + self.offset as u64,
            checksum: crc32fast::hash(&self.value),
            mask: appended.mask,
        };
        let Self { value, create_revision, lease, .. } = self;
        Live { value, create_revision, mod_revision, location, lease: lease.map(Box::new) }
    }
}

impl Batch {
    fn add_txn(
        &mut self,
        state: &State,
        overlay: &mut Overlay,
        txn: &Txn,
        now: Now,
        accept_puts: bool,
    ) -> Result<TxnResult, StoreError> {
        check(txn)?;
        let holds = txn
            .compares
            .iter()
            .all(|Compare::ModRevision { key, revision }| mod_revision(state, overlay, key) == *revision);
        if !holds {
            let current =
                txn.compares.iter().map(|Compare::ModRevision { key, .. }| entry(state, overlay, key)).collect();
            return Ok(TxnResult::Conflict { current, revision: self.revision });
        }
        if !accept_puts && txn.ops.iter().any(|op| matches!(op, Op::Put { .. })) {
            return Err(StoreError::NoSpace);
        }
        self.add_ops(state, overlay, &txn.ops, now);
        Ok(TxnResult::Committed { revision: self.revision })
    }

    fn add_ops(&mut self, state: &State, overlay: &mut Overlay, ops: &[Op], now: Now) {
        let is_change = |op: &Op| match op {
            Op::Put { .. } => true,
            Op::Delete { key } => mod_revision(state, overlay, key) != 0,
        };
        let ops: Vec<&Op> = ops.iter().filter(|op| is_change(op)).collect();
        if ops.is_empty() {
            return;
        }
        self.revision += 1;
        self.is_empty = false;
        self.encoder.txn();
        let revision = self.revision;
        for op in ops {
            let (key, put) = match op {
                Op::Put { key, value, ttl_s } => {
                    self.has_puts = true;
                    let create_revision = create_revision(state, overlay, key).unwrap_or(revision);
                    let lease = ttl_s.map(|ttl_s| Lease::begin(ttl_s, now));
                    let stored = lease.as_ref().map(Lease::stored);
                    let offset = self.encoder.put(key, create_revision, stored, value);
                    overlay.insert(Arc::clone(key), Some((create_revision, revision, value.clone())));
                    (key, Some(PlannedPut { value: value.clone(), create_revision, lease, offset }))
                }
                Op::Delete { key } => {
                    self.encoder.delete(key);
                    overlay.insert(Arc::clone(key), None);
                    (key, None)
                }
            };
            self.changes.push(Planned { revision, key: Arc::clone(key), put });
        }
    }

    fn add_compaction(&mut self, state: &State, revision: Revision) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::FutureRevision { wanted: revision, current: self.revision });
        }
        let oldest = self.compact.unwrap_or(state.compacted);
        if revision <= oldest {
            return Err(StoreError::Compacted { oldest });
        }
        self.encoder.compact(revision);
        self.compact = Some(revision);
        self.is_empty = false;
        Ok(())
    }
}

fn mod_revision(state: &State, overlay: &Overlay, key: &Arc<str>) -> Revision {
    match overlay.get(key) {
        Some(changed) => changed.as_ref().map_or(0, |(_, mod_revision, _)| *mod_revision),
        None => live(state, key).map_or(0, |live| live.mod_revision),
    }
}

fn create_revision(state: &State, overlay: &Overlay, key: &Arc<str>) -> Option<Revision> {
    match overlay.get(key) {
        Some(changed) => changed.as_ref().map(|(create_revision, ..)| *create_revision),
        None => live(state, key).map(|live| live.create_revision),
    }
}

fn entry(state: &State, overlay: &Overlay, key: &Arc<str>) -> Option<Entry> {
    match overlay.get(key) {
        Some(changed) => changed.as_ref().map(|(create_revision, mod_revision, value)| Entry {
            key: Arc::clone(key),
            value: value.clone(),
            create_revision: *create_revision,
            mod_revision: *mod_revision,
        }),
        None => live(state, key).map(|live| live.entry(key)),
    }
}

fn live<'a>(state: &'a State, key: &Arc<str>) -> Option<&'a Live> {
    state.keys.get(key)?.live.as_ref()
}

/// What is wrong with a transaction whatever the store holds.
fn check(txn: &Txn) -> Result<(), StoreError> {
    let (mut keys, mut size_bytes) = (BTreeSet::new(), 0);
    for op in &txn.ops {
        let (key, value_bytes) = match op {
            Op::Put { key, value, .. } => (key, value.len()),
            Op::Delete { key } => (key, 0),
        };
        if key.is_empty() {
            return Err(StoreError::Invalid("a key is empty".to_owned()));
        }
        if !keys.insert(key) {
            return Err(StoreError::Invalid(format!("key {key} stands in two changes of one transaction")));
        }
        size_bytes += key.len() + value_bytes;
    }
    if size_bytes > MAX_TXN_BYTES {
        return Err(StoreError::TooLarge { limit_bytes: MAX_TXN_BYTES });
    }
    Ok(())
}

fn refuse(pending: &[(Ticket, Txn)], compactions: &[(Ticket, Revision)], error: &StoreError) -> Flushed {
    let txns = pending.iter().map(|(ticket, _)| (*ticket, Answer::Txn(Err(error.clone()))));
    let compactions = compactions.iter().map(|(ticket, _)| (*ticket, Answer::Compact(Err(error.clone()))));
    Flushed { answers: txns.chain(compactions).collect(), events: Vec::new() }
}
