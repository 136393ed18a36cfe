//! What the tests of the store share.

pub(crate) mod contract;
pub(crate) mod driver;

use bytes::Bytes;
use futures::StreamExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use store::clock::{Now, SystemClock};
use store::disk::Disk;
use store::embedded::{Embedded, OpenError, Options};
use store::kv::{Entry, Event, Kv, Op, Range, Revision, StoreError, Txn, TxnResult, WatchItem, WatchStream};

/// Small files, so that a test passes through many of them.
pub(crate) const SMALL: Options =
    Options { segment_bytes: 16 << 10, reserve_bytes: 4 << 10, garbage_bytes: 8 << 10, recent_bytes: 4 << 10 };

pub(crate) const EPOCH: Now = Now { monotonic_ms: 0, wall_ms: 1_700_000_000_000 };

/// A store with its writer on a thread. The thread ends when the last clone of the store is gone.
pub(crate) fn start<D: Disk>(disk: D, options: Options) -> Result<(Embedded, JoinHandle<()>), OpenError> {
    let clock = SystemClock::new();
    let (store, writer) = Embedded::open_with(disk, options, clock.now())?;
    Ok((store, std::thread::spawn(move || writer.run(move || clock.now()))))
}

pub(crate) fn op_put(key: &str, value: impl Into<Bytes>) -> Op {
    Op::Put { key: key.into(), value: value.into(), ttl_s: None }
}

pub(crate) fn op_delete(key: &str) -> Op {
    Op::Delete { key: key.into() }
}

pub(crate) fn only(op: Op) -> Txn {
    Txn { compares: vec![], ops: vec![op] }
}

pub(crate) fn committed(result: Result<TxnResult, StoreError>) -> Revision {
    match result.unwrap() {
        TxnResult::Committed { revision } => revision,
        conflict @ TxnResult::Conflict { .. } => panic!("{conflict:?}"),
    }
}

pub(crate) async fn put(kv: &dyn Kv, key: &str, value: &str) -> Revision {
    committed(kv.txn(only(op_put(key, value.to_owned()))).await)
}

pub(crate) async fn delete(kv: &dyn Kv, key: &str) -> Revision {
    committed(kv.txn(only(op_delete(key))).await)
}

/// All keys that begin with `prefix`.
pub(crate) fn range(prefix: &str, revision: Revision) -> Range {
    let end = format!("{prefix}\u{10ffff}");
    Range { start: prefix.into(), end: end.into(), revision, limit: 0 }
}

pub(crate) async fn list(kv: &dyn Kv, prefix: &str, revision: Revision) -> Vec<Entry> {
    kv.range(range(prefix, revision)).await.unwrap().entries
}

pub(crate) async fn get(kv: &dyn Kv, key: &str) -> Option<Entry> {
    let end = format!("{key}\0");
    let result = kv.range(Range { start: key.into(), end: end.into(), revision: 0, limit: 0 }).await.unwrap();
    result.entries.into_iter().next()
}

pub(crate) fn entry(key: &str, value: &str, create_revision: Revision, mod_revision: Revision) -> Entry {
    Entry { key: Arc::from(key), value: value.to_owned().into(), create_revision, mod_revision }
}

pub(crate) async fn watch(kv: &dyn Kv, prefix: &str, start: Revision) -> WatchStream {
    kv.watch(prefix, start).await.unwrap()
}

pub(crate) async fn next(stream: &mut WatchStream) -> Result<WatchItem, StoreError> {
    stream.next().await.expect("the stream ended")
}

/// The next `count` events.
pub(crate) async fn expect_events(stream: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        if let WatchItem::Events(more) = next(stream).await.unwrap() {
            events.extend(more);
        }
    }
    assert_eq!(events.len(), count, "{events:?}");
    events
}
