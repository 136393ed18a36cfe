//! What is visible: the present in memory, where older versions stand in the log, and the order of changes.

use super::record::StoredLease;
use crate::clock::Now;
use crate::disk::DiskFile;
use crate::kv::{Entry, Event, Range, RangeResult, Revision, StoreError};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// A file as readers hold it; it outlives its name.
pub(super) type Reader = Arc<dyn DiskFile>;

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    /// Key into [`State::files`].
    pub(super) file: u32,
    pub(super) len_bytes: u32,
    pub(super) offset: u64,
    /// Of the value, unmasked.
    pub(super) checksum: u32,
    pub(super) mask: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) ttl_ms: u64,
    pub(super) deadline_wall_ms: u64,
    pub(super) deadline_monotonic_ms: u64,
}

impl Lease {
    pub(super) fn begin(ttl_s: u64, now: Now) -> Self {
        let ttl_ms = ttl_s.saturating_mul(1000);
        Self {
            ttl_ms,
            deadline_wall_ms: now.wall_ms.saturating_add(ttl_ms),
            deadline_monotonic_ms: now.monotonic_ms.saturating_add(ttl_ms),
        }
    }

    /// After a restart: what the wall clock leaves of it, at most all of it.
    pub(super) fn resume(stored: StoredLease, now: Now) -> Self {
        let left_ms = stored.deadline_wall_ms.saturating_sub(now.wall_ms).min(stored.ttl_ms);
        let deadline_monotonic_ms = now.monotonic_ms.saturating_add(left_ms);
        Self { ttl_ms: stored.ttl_ms, deadline_wall_ms: stored.deadline_wall_ms, deadline_monotonic_ms }
    }

    pub(super) fn stored(&self) -> StoredLease {
        StoredLease { ttl_ms: self.ttl_ms, deadline_wall_ms: self.deadline_wall_ms }
    }
}

/// A key's present version.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) value: Bytes,
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
    pub(super) location: Location,
    pub(super) lease: Option<Box<Lease>>,
}

impl Live {
    pub(super) fn entry(&self, key: &Arc<str>) -> Entry {
        let (create_revision, mod_revision) = (self.create_revision, self.mod_revision);
        Entry { key: Arc::clone(key), value: self.value.clone(), create_revision, mod_revision }
    }
}

/// A version that is no longer present.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
    /// `None`: deleted.
    pub(super) location: Option<Location>,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) live: Option<Live>,
    /// Ascending, all before `live`.
    pub(super) older: Vec<Version>,
}

/// A value, or where to read it without holding the lock.
#[derive(Clone)]
pub(super) enum Source {
    Memory(Bytes),
    Disk(Reader, Location),
}

/// An entry whose value may have to be read first.
pub(super) struct Stored {
    pub(super) key: Arc<str>,
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
    pub(super) source: Source,
    pub(super) lease: Option<Lease>,
}

/// An event whose values may have to be read first.
pub(super) struct StoredEvent {
    pub(super) revision: Revision,
    pub(super) key: Arc<str>,
    pub(super) value: Option<Source>,
    pub(super) previous: Option<Stored>,
}

/// One change of a key.
pub(super) struct Change {
    pub(super) revision: Revision,
    pub(super) key: Arc<str>,
    /// `None`: deleted.
    pub(super) live: Option<Live>,
}

pub(super) struct State {
    pub(super) keys: BTreeMap<Arc<str>, Slot>,
    /// Every change since `compacted`, in order.
    changes: VecDeque<(Revision, Arc<str>)>,
    /// The newest events, for watchers, whole transactions only.
    recent: VecDeque<Event>,
    recent_bytes: usize,
    pub(super) files: BTreeMap<u32, Reader>,
    /// By monotonic deadline.
    pub(super) leases: BTreeSet<(u64, Arc<str>)>,
    pub(super) revision: Revision,
    /// The oldest revision that can be read; 0 before the first compaction.
    pub(super) compacted: Revision,
    /// Keys and values of the present.
    pub(super) live_bytes: u64,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            changes: VecDeque::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            files: BTreeMap::new(),
            leases: BTreeSet::new(),
            revision: 1,
            compacted: 0,
            live_bytes: 0,
        }
    }

    /// Carries out one change; returns the key as the store holds it and the version it replaced.
    pub(super) fn apply(&mut self, change: Change) -> (Arc<str>, Option<Entry>) {
        let Change { revision, key, live } = change;
        let key = self.keys.get_key_value(&key).map_or(key, |(held, _)| Arc::clone(held));
        let slot = self.keys.entry(Arc::clone(&key)).or_default();
        let mut previous = None;
        if let Some(old) = slot.live.take() {
            previous = Some(old.entry(&key));
            self.live_bytes -= (key.len() + old.value.len()) as u64;
            if let Some(lease) = &old.lease {
                self.leases.remove(&(lease.deadline_monotonic_ms, Arc::clone(&key)));
            }
            let Live { create_revision, mod_revision, location, .. } = old;
            slot.older.push(Version { create_revision, mod_revision, location: Some(location) });
        }
        match live {
            Some(live) => {
                self.live_bytes += (key.len() + live.value.len()) as u64;
                if let Some(lease) = &live.lease {
                    self.leases.insert((lease.deadline_monotonic_ms, Arc::clone(&key)));
                }
                slot.live = Some(live);
            }
            None => slot.older.push(Version { create_revision: 0, mod_revision: revision, location: None }),
        }
        self.changes.push_back((revision, Arc::clone(&key)));
        self.revision = revision;
        (key, previous)
    }

    /// Closes files that nothing points into any more.
    pub(super) fn retain_files(&mut self, is_needed: impl Fn(u32) -> bool) {
        self.files.retain(|number, _| is_needed(*number));
    }

    /// An entry from before the log's beginning: present, and not a change.
    pub(super) fn restore(&mut self, key: Arc<str>, live: Live) {
        self.live_bytes += (key.len() + live.value.len()) as u64;
        if let Some(lease) = &live.lease {
            self.leases.insert((lease.deadline_monotonic_ms, Arc::clone(&key)));
        }
        self.keys.insert(key, Slot { live: Some(live), older: Vec::new() });
    }

    /// Remembers events for watchers, and forgets the oldest beyond `limit_bytes`.
    pub(super) fn remember(&mut self, events: &[Event], limit_bytes: usize) {
        for event in events {
            self.recent_bytes += event_bytes(event);
            self.recent.push_back(event.clone());
        }
        while self.recent_bytes > limit_bytes {
            let Some(oldest) = self.recent.front().map(|event| event.revision) else { break };
            while let Some(event) = self.recent.pop_front_if(|event| event.revision == oldest) {
                self.recent_bytes -= event_bytes(&event);
            }
        }
    }

    /// Forgets versions that were no longer current at `revision`.
    pub(super) fn compact(&mut self, revision: Revision) {
        self.compacted = revision;
        while let Some((_, key)) = self.changes.pop_front_if(|(changed, _)| *changed < revision) {
            self.prune(&key);
        }
        // Changes at `revision` itself stay watchable, but what they replaced goes.
        let at: Vec<Arc<str>> = self
            .changes
            .iter()
            .take_while(|(changed, _)| *changed == revision)
            .map(|(_, key)| Arc::clone(key))
            .collect();
        for key in at {
            self.prune(&key);
        }
    }

    fn prune(&mut self, key: &Arc<str>) {
        let Some(slot) = self.keys.get_mut(key) else { return };
        let newest = slot.live.as_ref().map_or(Revision::MAX, |live| live.mod_revision);
        let next =
            |index: usize, older: &[Version]| older.get(index + 1).map_or(newest, |version| version.mod_revision);
        let mut gone = 0;
        while gone < slot.older.len() {
            let is_old_tombstone =
                slot.older[gone].location.is_none() && slot.older[gone].mod_revision < self.compacted;
            if !is_old_tombstone && next(gone, &slot.older) > self.compacted {
                break;
            }
            gone += 1;
        }
        slot.older.drain(..gone);
        slot.older.shrink_to_fit();
        if slot.live.is_none() && slot.older.is_empty() {
            self.keys.remove(key);
        }
    }

    fn check_revision(&self, wanted: Revision) -> Result<(), StoreError> {
        if wanted > self.revision {
            return Err(StoreError::FutureRevision { wanted, current: self.revision });
        }
        if wanted < self.compacted {
            return Err(StoreError::Compacted { oldest: self.compacted });
        }
        Ok(())
    }

    pub(super) fn range_now(&self, range: &Range) -> RangeResult {
        let mut result = RangeResult { entries: Vec::new(), remaining: 0, revision: self.revision };
        for (key, slot) in self.between(&range.start, &range.end) {
            let Some(live) = &slot.live else { continue };
            if range.limit == 0 || result.entries.len() < range.limit {
                result.entries.push(live.entry(key));
            } else {
                result.remaining += 1;
            }
        }
        result
    }

    /// The same at an older revision: entries, keys remaining, the present revision.
    pub(super) fn range_at(&self, range: &Range) -> Result<(Vec<Stored>, usize, Revision), StoreError> {
        self.check_revision(range.revision)?;
        let (mut entries, mut remaining) = (Vec::new(), 0);
        for (key, slot) in self.between(&range.start, &range.end) {
            let Some(stored) = self.version_at(key, slot, range.revision)? else { continue };
            if range.limit == 0 || entries.len() < range.limit {
                entries.push(stored);
            } else {
                remaining += 1;
            }
        }
        Ok((entries, remaining, self.revision))
    }

    fn between(&self, start: &Arc<str>, end: &Arc<str>) -> impl Iterator<Item = (&Arc<str>, &Slot)> {
        // A range whose end lies before its start is empty; BTreeMap would panic.
        let end = end.max(start);
        self.keys.range::<Arc<str>, _>((Bound::Included(start), Bound::Excluded(end)))
    }

    /// The version that was current at `revision`.
    pub(super) fn version_at(
        &self,
        key: &Arc<str>,
        slot: &Slot,
        revision: Revision,
    ) -> Result<Option<Stored>, StoreError> {
        if let Some(live) = slot.live.as_ref().filter(|live| live.mod_revision <= revision) {
            return Ok(Some(stored_live(key, live)));
        }
        let count = slot.older.partition_point(|version| version.mod_revision <= revision);
        match count.checked_sub(1).map(|index| &slot.older[index]) {
            Some(version) => self.stored_version(key, version),
            None => Ok(None),
        }
    }

    fn stored_version(&self, key: &Arc<str>, version: &Version) -> Result<Option<Stored>, StoreError> {
        let Some(location) = version.location else { return Ok(None) };
        let (create_revision, mod_revision) = (version.create_revision, version.mod_revision);
        let source = Source::Disk(self.reader(location)?, location);
        Ok(Some(Stored { key: Arc::clone(key), create_revision, mod_revision, source, lease: None }))
    }

    fn reader(&self, location: Location) -> Result<Reader, StoreError> {
        let reader = self.files.get(&location.file).cloned();
        reader.ok_or_else(|| StoreError::Failed(format!("log file {} is not open", location.file)))
    }

    /// Events of keys under `prefix` from `start` on, some whole transactions of them, and the revision up to which
    /// that is all. No events: there are none up to the present.
    pub(super) fn events(
        &self,
        prefix: &str,
        start: Revision,
        limit: usize,
    ) -> Result<(Vec<StoredEvent>, Revision), StoreError> {
        if start < self.compacted {
            return Err(StoreError::Compacted { oldest: self.compacted });
        }
        if self.recent.front().is_some_and(|event| event.revision <= start) {
            return Ok(self.recent_events(prefix, start, limit));
        }
        let first = self.changes.partition_point(|(revision, _)| *revision < start);
        let mut events: Vec<StoredEvent> = Vec::new();
        for (revision, key) in self.changes.range(first..) {
            if events.len() >= limit && events.last().is_some_and(|event| event.revision != *revision) {
                return Ok((events, revision - 1));
            }
            if key.starts_with(prefix) {
                events.push(self.past_event(*revision, key)?);
            }
        }
        Ok((events, self.revision))
    }

    fn recent_events(&self, prefix: &str, start: Revision, limit: usize) -> (Vec<StoredEvent>, Revision) {
        let first = self.recent.partition_point(|event| event.revision < start);
        let mut events: Vec<StoredEvent> = Vec::new();
        for event in self.recent.range(first..) {
            if events.len() >= limit && events.last().is_some_and(|last| last.revision != event.revision) {
                return (events, event.revision - 1);
            }
            if event.key.starts_with(prefix) {
                events.push(StoredEvent {
                    revision: event.revision,
                    key: Arc::clone(&event.key),
                    value: event.value.clone().map(Source::Memory),
                    previous: event.previous.as_ref().map(|entry| Stored {
                        key: Arc::clone(&entry.key),
                        create_revision: entry.create_revision,
                        mod_revision: entry.mod_revision,
                        source: Source::Memory(entry.value.clone()),
                        lease: None,
                    }),
                });
            }
        }
        (events, self.revision)
    }

    fn past_event(&self, revision: Revision, key: &Arc<str>) -> Result<StoredEvent, StoreError> {
        let lost = || StoreError::Failed(format!("the change of {key} at revision {revision} is not indexed"));
        let slot = self.keys.get(key).ok_or_else(lost)?;
        let index = slot.older.partition_point(|version| version.mod_revision < revision);
        let value = match (slot.older.get(index), &slot.live) {
            (Some(version), _) if version.mod_revision == revision => {
                self.stored_version(key, version)?.map(|stored| stored.source)
            }
            (None, Some(live)) if live.mod_revision == revision => Some(Source::Memory(live.value.clone())),
            _ => return Err(lost()),
        };
        let previous = match index.checked_sub(1).map(|index| &slot.older[index]) {
            Some(version) => self.stored_version(key, version)?,
            None => None,
        };
        Ok(StoredEvent { revision, key: Arc::clone(key), value, previous })
    }
}

fn stored_live(key: &Arc<str>, live: &Live) -> Stored {
    Stored {
        key: Arc::clone(key),
        create_revision: live.create_revision,
        mod_revision: live.mod_revision,
        source: Source::Memory(live.value.clone()),
        lease: live.lease.as_deref().copied(),
    }
}

fn event_bytes(event: &Event) -> usize {
    let previous = event.previous.as_ref().map_or(0, |entry| entry.value.len());
    size_of::<Event>() + event.value.as_ref().map_or(0, Bytes::len) + previous
}

impl Source {
    pub(super) fn len_bytes(&self) -> usize {
        match self {
            Self::Memory(value) => value.len(),
            Self::Disk(_, location) => location.len_bytes as usize,
        }
    }

    /// Reads the value; may block on the disk.
    pub(super) fn load(self) -> Result<Bytes, StoreError> {
        let (reader, location) = match self {
            Self::Memory(value) => return Ok(value),
            Self::Disk(reader, location) => (reader, location),
        };
        let damaged = |what: &str| {
            StoreError::Failed(format!(
                "an older value, {} bytes at offset {}, {what}",
                location.len_bytes, location.offset
            ))
        };
        let mut value = vec![0; location.len_bytes as usize];
        let count = reader.read_at(location.offset, &mut value).map_err(|error| damaged(&error.to_string()))?;
        if location.mask != 0 {
            value.iter_mut().for_each(|byte| *byte ^= location.mask);
        }
        if count < value.len() || crc32fast::hash(&value) != location.checksum {
            return Err(damaged("does not match its checksum"));
        }
        Ok(value.into())
    }
}

impl Stored {
    pub(super) fn load(self) -> Result<Entry, StoreError> {
        let Self { key, create_revision, mod_revision, source, .. } = self;
        Ok(Entry { key, value: source.load()?, create_revision, mod_revision })
    }
}

impl StoredEvent {
    pub(super) fn load(self) -> Result<Event, StoreError> {
        Ok(Event {
            revision: self.revision,
            key: self.key,
            value: self.value.map(Source::load).transpose()?,
            previous: self.previous.map(Stored::load).transpose()?,
        })
    }
}
