//! A store on a [`SimDisk`] in one thread: every call runs the writer until it has nothing left to do.

use super::{EPOCH, SMALL, only, op_delete, op_put, range};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use store::clock::Now;
use store::disk::faulty::SimDisk;
use store::embedded::{Embedded, OpenError, Options, Wait, Writer};
use store::kv::{Kv, Revision, StoreError, Txn, TxnResult};

pub(crate) struct Driver {
    pub(crate) store: Embedded,
    pub(crate) writer: Writer<SimDisk>,
    pub(crate) now: Now,
}

pub(crate) type Content = BTreeMap<String, Vec<u8>>;

impl Driver {
    pub(crate) fn open(disk: &SimDisk) -> Result<Self, OpenError> {
        Self::open_with(disk, SMALL, EPOCH)
    }

    pub(crate) fn open_with(disk: &SimDisk, options: Options, now: Now) -> Result<Self, OpenError> {
        let (store, writer) = Embedded::open_with(disk.clone(), options, now)?;
        Ok(Self { store, writer, now })
    }

    /// Flushes until the writer waits for a request.
    pub(crate) fn settle(&mut self) {
        while self.writer.flush_once(self.now) == Wait::Nothing {}
    }

    fn done<T>(&mut self, ask: impl Fn(&Embedded) -> BoxFuture<'_, T>) -> T {
        let store = self.store.clone();
        let future = ask(&store);
        self.settle();
        future.now_or_never().expect("unanswered after the writer has settled")
    }

    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<TxnResult, StoreError> {
        self.done(|store| store.txn(txn.clone()))
    }

    pub(crate) fn put(&mut self, key: &str, value: &[u8]) -> Result<Revision, StoreError> {
        self.txn(&only(op_put(key, value.to_vec()))).map(revision)
    }

    pub(crate) fn delete(&mut self, key: &str) -> Result<Revision, StoreError> {
        self.txn(&only(op_delete(key))).map(revision)
    }

    pub(crate) fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        self.done(|store| store.compact(revision))
    }

    pub(crate) fn revision(&mut self) -> Revision {
        self.done(|store| store.revision()).unwrap()
    }

    /// All keys, at a revision or (0) now.
    pub(crate) fn content(&mut self, revision: Revision) -> Result<Content, StoreError> {
        let result = self.done(|store| store.range(range("/", revision)))?;
        Ok(result.entries.into_iter().map(|entry| (entry.key.to_string(), entry.value.to_vec())).collect())
    }

    /// Several transactions in one batch, hence one frame.
    pub(crate) fn batch(&mut self, txns: &[Txn]) -> Vec<Result<TxnResult, StoreError>> {
        let store = self.store.clone();
        let futures: Vec<_> = txns.iter().map(|txn| store.txn(txn.clone())).collect();
        self.settle();
        futures.into_iter().map(|future| future.now_or_never().expect("unanswered")).collect()
    }
}

fn revision(result: TxnResult) -> Revision {
    match result {
        TxnResult::Committed { revision } => revision,
        conflict @ TxnResult::Conflict { .. } => panic!("{conflict:?}"),
    }
}

/// Deterministic numbers (xorshift64*).
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}
