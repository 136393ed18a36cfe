//! What stands in a frame's payload.
//!
//! A log frame is the revision before it (u64) and then records: `TXN`, which begins the next revision, each followed by
//! its `PUT`s and `DELETE`s; `COMPACT`; `ENTRY` for what stood in files that are gone; `START`, which says that files before
//! a segment may be missing. A snapshot's frames are `ENTRY` records, and `END` with their number in the last.
//! Lengths are u32, revisions and times u64, all little-endian.

use crate::kv::Revision;
use std::ops::Range;

const TXN: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;
const COMPACT: u8 = 4;
const ENTRY: u8 = 5;
const END: u8 = 6;
const START: u8 = 7;

/// A lease as it is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredLease {
    pub(super) ttl_ms: u64,
    /// Since 1970.
    pub(super) deadline_wall_ms: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Txn,
    Put {
        key: &'a str,
        create_revision: Revision,
        lease: Option<StoredLease>,
        value: Range<usize>,
    },
    Delete {
        key: &'a str,
    },
    Compact {
        revision: Revision,
    },
    Entry {
        key: &'a str,
        create_revision: Revision,
        mod_revision: Revision,
        lease: Option<StoredLease>,
        value: Range<usize>,
    },
    End {
        count: u64,
    },
    Start {
        segment: u64,
    },
}

/// Builds a payload.
#[derive(Debug, Default)]
pub(super) struct Encoder(pub(super) Vec<u8>);

impl Encoder {
    pub(super) fn log(base_revision: Revision) -> Self {
        Self(base_revision.to_le_bytes().to_vec())
    }

    pub(super) fn txn(&mut self) {
        self.0.push(TXN);
    }

    /// Returns where the value stands in the payload.
    pub(super) fn put(
        &mut self,
        key: &str,
        create_revision: Revision,
        lease: Option<StoredLease>,
        value: &[u8],
    ) -> usize {
        self.0.push(PUT);
        self.text(key);
        self.number(create_revision);
        self.lease_and_value(lease, value)
    }

    pub(super) fn delete(&mut self, key: &str) {
        self.0.push(DELETE);
        self.text(key);
    }

    pub(super) fn compact(&mut self, revision: Revision) {
        self.0.push(COMPACT);
        self.number(revision);
    }

    /// Returns where the value stands in the payload.
    pub(super) fn entry(
        &mut self,
        key: &str,
        (create_revision, mod_revision): (Revision, Revision),
        lease: Option<StoredLease>,
        value: &[u8],
    ) -> usize {
        self.0.push(ENTRY);
        self.text(key);
        self.number(create_revision);
        self.number(mod_revision);
        self.lease_and_value(lease, value)
    }

    pub(super) fn start(&mut self, segment: u64) {
        self.0.push(START);
        self.number(segment);
    }

    pub(super) fn end(&mut self, count: u64) {
        self.0.push(END);
        self.number(count);
    }

    fn lease_and_value(&mut self, lease: Option<StoredLease>, value: &[u8]) -> usize {
        self.0.push(u8::from(lease.is_some()));
        if let Some(lease) = lease {
            self.number(lease.ttl_ms);
            self.number(lease.deadline_wall_ms);
        }
        self.length(value.len());
        let offset = self.0.len();
        self.0.extend_from_slice(value);
        offset
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Transactions are limited to far less than 4 GiB.
    fn length(&mut self, length: usize) {
        self.0.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }
}

/// Reads a payload; `None` from any call says that it is not one of ours.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    payload: &'a [u8],
    position: usize,
}

impl<'a> Decoder<'a> {
    /// Of a snapshot's frame.
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { payload, position: 0 }
    }

    /// Of a log's frame; with the revision before it.
    pub(super) fn log(payload: &'a [u8]) -> Option<(Self, Revision)> {
        let mut decoder = Self::new(payload);
        let base_revision = decoder.number()?;
        Some((decoder, base_revision))
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.position == self.payload.len()
    }

    pub(super) fn record(&mut self) -> Option<Record<'a>> {
        Some(match self.take(1)?[0] {
            TXN => Record::Txn,
            PUT => {
                let (key, create_revision) = (self.text()?, self.number()?);
                let (lease, value) = (self.lease()?, self.value()?);
                Record::Put { key, create_revision, lease, value }
            }
            DELETE => Record::Delete { key: self.text()? },
            COMPACT => Record::Compact { revision: self.number()? },
            ENTRY => {
                let (key, create_revision, mod_revision) = (self.text()?, self.number()?, self.number()?);
                let (lease, value) = (self.lease()?, self.value()?);
                Record::Entry { key, create_revision, mod_revision, lease, value }
            }
            END => Record::End { count: self.number()? },
            START => Record::Start { segment: self.number()? },
            _ => return None,
        })
    }

    fn lease(&mut self) -> Option<Option<StoredLease>> {
        match self.take(1)?[0] {
            0 => Some(None),
            1 => Some(Some(StoredLease { ttl_ms: self.number()?, deadline_wall_ms: self.number()? })),
            _ => None,
        }
    }

    fn value(&mut self) -> Option<Range<usize>> {
        let length = self.length()?;
        let start = self.position;
        self.take(length)?;
        Some(start..start + length)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn length(&mut self) -> Option<usize> {
        let bytes = self.take(4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.position.checked_add(count)?;
        let bytes = self.payload.get(self.position..end)?;
        self.position = end;
        Some(bytes)
    }
}
