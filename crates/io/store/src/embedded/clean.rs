//! Makes room on a disk too full for a snapshot: the few entries that keep the oldest files alive are written to the end of
//! the log, from the reserve if need be, and the files go.

use super::engine::Engine;
use super::log::{AppendError, snapshot_name};
use super::record::Encoder;
use super::snapshot::Moved;
use super::state::{Lease, Location, State};
use crate::disk::Disk;
use crate::kv::{Entry, Revision};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// What may go.
struct Plan {
    files: BTreeSet<u32>,
    /// The first one kept.
    first_segment: u64,
}

/// What keeps files alive.
struct Uses {
    /// Bytes of entries that can be moved, by file.
    movable: BTreeMap<u32, u64>,
    /// Files with history that must be found where it is.
    pinned: BTreeSet<u32>,
}

impl<D: Disk> Engine<D> {
    /// Does nothing if there is nothing to gain, or no room even for that.
    pub(super) fn clean(&mut self) -> Result<(), AppendError> {
        let Some(plan) = self.plan_cleaning() else { return Ok(()) };
        let mut placed = Vec::new();
        let (mut encoder, revision) = {
            let state = self.state.read();
            let mut encoder = Encoder::log(state.revision);
            for (entry, lease) in entries_in(&state, &plan.files) {
                let stored = lease.as_ref().map(Lease::stored);
                let revisions = (entry.create_revision, entry.mod_revision);
                let offset = encoder.entry(&entry.key, revisions, stored, &entry.value);
                placed.push((entry, offset));
            }
            (encoder, state.revision)
        };
        // The log itself must say first that it begins later.
        encoder.start(plan.first_segment);
        let appended = self.write_frame(&encoder.0, revision, true)?;
        let moved: Vec<Moved> = placed
            .into_iter()
            .map(|(entry, offset)| Moved {
                location: Location {
                    file: appended.file,
                    len_bytes: u32::try_from(entry.value.len()).unwrap_or(u32::MAX),
                    offset: appended.payload_offset + offset as u64,
                    checksum: crc32fast::hash(&entry.value),
                    mask: appended.mask,
                },
                key: entry.key,
                mod_revision: entry.mod_revision,
            })
            .collect();
        self.relocate(&moved, appended.file);
        let failed = |error: io::Error| AppendError::Failed(error.to_string());
        if let Some(old) = self.log.snapshot.take() {
            self.log.disk.remove(&snapshot_name(old.revision)).map_err(failed)?;
        }
        self.remove_before(plan.first_segment).map_err(failed)
    }

    fn plan_cleaning(&self) -> Option<Plan> {
        let (uses, compacted) = {
            let state = self.state.read();
            (uses(&state), state.compacted)
        };
        let mut budget_bytes = self.log.options.reserve_bytes / 4;
        let mut affordable = |file: u32| {
            let bytes = uses.movable.get(&file).copied().unwrap_or(0);
            let fits = !uses.pinned.contains(&file) && bytes <= budget_bytes;
            budget_bytes = if fits { budget_bytes - bytes } else { budget_bytes };
            fits
        };
        let mut files = BTreeSet::new();
        if let Some(snapshot) = &self.log.snapshot {
            if !affordable(snapshot.file) {
                return None;
            }
            files.insert(snapshot.file);
        }
        let tail = self.log.tail.as_ref().map(|tail| &tail.segment);
        for segment in self.log.sealed.iter().chain(tail) {
            let is_tail = tail.is_some_and(|tail| tail.number == segment.number);
            // Deletes leave no entry; those that can still be watched keep their segment.
            if is_tail || segment.last_revision >= compacted || !affordable(segment.file) {
                return (!files.is_empty()).then_some(Plan { files, first_segment: segment.number });
            }
            files.insert(segment.file);
        }
        None
    }
}

fn uses(state: &State) -> Uses {
    let mut uses = Uses { movable: BTreeMap::new(), pinned: BTreeSet::new() };
    for (key, slot) in &state.keys {
        uses.pinned.extend(slot.older.iter().filter_map(|version| version.location).map(|location| location.file));
        let Some(live) = &slot.live else { continue };
        if is_movable(live.mod_revision, state) {
            *uses.movable.entry(live.location.file).or_default() += (key.len() + live.value.len()) as u64;
        } else {
            uses.pinned.insert(live.location.file);
        }
    }
    uses
}

/// A change that can still be watched must stay where its revision is.
fn is_movable(mod_revision: Revision, state: &State) -> bool {
    mod_revision < state.compacted
}

fn entries_in(state: &State, files: &BTreeSet<u32>) -> Vec<(Entry, Option<Lease>)> {
    let live = state.keys.iter().filter_map(|(key, slot)| Some((key, slot.live.as_ref()?)));
    let there = live.filter(|(_, live)| files.contains(&live.location.file));
    there.map(|(key, live)| (live.entry(key), live.lease.as_deref().copied())).collect()
}
