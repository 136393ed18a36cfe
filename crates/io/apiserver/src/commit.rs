//! Writes to the store: one object, one transaction, and the cache's having seen it before anybody is told.

use crate::errors::{self, Result};
use crate::server::ApiServer;
use api::object::Object;
use bytes::Bytes;
use std::sync::Arc;
use store::kv::{Compare, Op, Txn, TxnResult};

/// Events live so long (kube-apiserver `--event-ttl`).
const EVENT_TTL_S: u64 = 3600;

/// What came of a conditional write.
pub(crate) enum Committed {
    /// At this revision.
    Done(u64),
    /// The object has another revision, or is there, or is gone.
    Moved,
}

impl ApiServer {
    /// Writes `value` if the key's revision is still `expected` (0: does not exist).
    pub(crate) async fn put(&self, key: &str, expected: u64, value: Bytes) -> Result<Committed> {
        let key: Arc<str> = key.into();
        let ttl_s = key.starts_with("/registry/events/").then_some(EVENT_TTL_S);
        let op = Op::Put { key: key.clone(), value, ttl_s };
        self.commit(key, expected, op).await
    }

    /// Deletes the key if its revision is still `expected`.
    pub(crate) async fn remove(&self, key: &str, expected: u64) -> Result<Committed> {
        let key: Arc<str> = key.into();
        self.commit(key.clone(), expected, Op::Delete { key }).await
    }

    async fn commit(&self, key: Arc<str>, expected: u64, op: Op) -> Result<Committed> {
        let compare = Compare::ModRevision { key, revision: expected };
        let txn = Txn { compares: vec![compare], ops: vec![op] };
        let (committed, revision) = match self.kv.txn(txn).await.map_err(|e| errors::store(&e))? {
            TxnResult::Committed { revision } => (Committed::Done(revision), revision),
            TxnResult::Conflict { revision, .. } => (Committed::Moved, revision),
        };
        self.caches.wait_for(revision).await;
        Ok(committed)
    }

    /// The object of bytes that were just written.
    pub(crate) fn written(namespace: &str, name: &str, revision: u64, stored: Bytes) -> Arc<Object> {
        Arc::new(crate::stored::object(namespace.to_owned(), name.to_owned(), revision, stored))
    }
}
