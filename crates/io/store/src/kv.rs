//! The contract that the embedded engine and etcd both fill.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::sync::Arc;

/// The store's global clock; counts committed transactions, starts at 1 for the empty store.
pub type Revision = u64;

/// One key at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: Arc<str>,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
}

/// What must hold for a transaction to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key's `mod_revision`; 0 says the key does not exist.
    ModRevision { key: Arc<str>, revision: Revision },
}

/// One change of a transaction; a key may stand in one change only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// `ttl_s`: the key is deleted so many seconds after this put (a lease of its own).
    Put {
        key: Arc<str>,
        value: Bytes,
        ttl_s: Option<u64>,
    },
    Delete {
        key: Arc<str>,
    },
}

/// All or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
}

/// How a transaction ended; it is durable when this is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnResult {
    Committed {
        revision: Revision,
    },
    /// A compare failed; the present entries of the compared keys, in their order.
    Conflict {
        current: Vec<Option<Entry>>,
        revision: Revision,
    },
}

/// Keys in `[start, end)`, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub start: Arc<str>,
    pub end: Arc<str>,
    /// 0: the present.
    pub revision: Revision,
    /// 0: no limit.
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeResult {
    pub entries: Vec<Entry>,
    /// Keys left beyond `limit`.
    pub remaining: usize,
    /// The store's revision when the range was read.
    pub revision: Revision,
}

/// One change as watchers see it; those of one transaction share its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub revision: Revision,
    pub key: Arc<str>,
    /// `None`: deleted.
    pub value: Option<Bytes>,
    /// The entry before, if there was one and it has not been compacted.
    pub previous: Option<Entry>,
}

/// What a watch yields. `Progress` comes once when the watch has first caught up with the present, and after that when
/// somebody has asked for [`Kv::revision`] and nothing that the watch would show has happened up to there. So a cache is
/// known to be as new as the store when it has seen the revision that `revision` returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    /// All events of one or more whole transactions, in order.
    Events(Vec<Event>),
    /// Everything up to this revision has been seen.
    Progress(Revision),
}

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    #[error("required revision has been compacted; the oldest is {oldest}")]
    Compacted { oldest: Revision },
    #[error("revision {wanted} is in the future; the present is {current}")]
    FutureRevision { wanted: Revision, current: Revision },
    /// Deletes are still accepted.
    #[error("no space left in the database directory")]
    NoSpace,
    #[error("the transaction is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("the watcher was too slow and was dropped")]
    Slow,
    /// The caller's mistake, e.g. one key in two changes of a transaction.
    #[error("invalid request: {0}")]
    Invalid(String),
    #[error("the store failed: {0}")]
    Failed(String),
    #[error("the store is closed")]
    Closed,
}

pub type WatchStream = BoxStream<'static, Result<WatchItem, StoreError>>;

/// A store. Reads see everything committed before they were asked (linearizable).
///
/// A transaction that changes nothing (no changes, or only deletes of keys that do not exist) makes no revision; its
/// result names the present one.
pub trait Kv: Send + Sync + 'static {
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>>;
    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeResult, StoreError>>;
    /// Events of keys that begin with `prefix`, from `start` on (inclusive); `start` may lie in the future. Fails with
    /// `Compacted` when `start` lies before the oldest revision, also later, when a slow reader is overtaken.
    fn watch(&self, prefix: &str, start: Revision) -> BoxFuture<'_, Result<WatchStream, StoreError>>;
    /// Forgets what was before `revision`: what was current then stays readable there. Fails with `Compacted` when that
    /// or a later one has been done.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>>;
    /// The last committed revision.
    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;
}
