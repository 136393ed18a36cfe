//! Writes the state at a compacted revision into one file, a piece per step, so that the log before it can go.

use super::engine::Engine;
use super::frame;
use super::log::{
    AppendError, FILE_HEADER_BYTES, FileHeader, FileKind, Sealed, SnapshotFile, is_no_space, segment_name,
    snapshot_name,
};
use super::record::Encoder;
use super::state::{Lease, Location, Reader, Stored};
use crate::disk::{Disk, DiskFile};
use crate::kv::Revision;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

const NEW_SNAPSHOT: &str = "snapshot.tmp";
/// Values per step; what a commit may have to wait for.
const STEP_BYTES: usize = 256 << 10;
const STEP_KEYS: usize = 2000;
/// Written between syncs, so that no commit waits for the disk to take in all of it.
const SYNC_BYTES: u64 = 4 << 20;

pub(super) struct SnapshotJob<F> {
    revision: Revision,
    first_segment: u64,
    writer: F,
    position: u64,
    synced: u64,
    sequence: u64,
    chain: u32,
    /// The last key looked at.
    cursor: Option<Arc<str>>,
    moved: Vec<Moved>,
}

/// An entry's place in the snapshot.
pub(super) struct Moved {
    pub(super) key: Arc<str>,
    pub(super) mod_revision: Revision,
    pub(super) location: Location,
}

impl<D: Disk> Engine<D> {
    /// Begins a snapshot of the just compacted revision if the log has grown enough for it to be worth it.
    pub(super) fn begin_snapshot(&mut self, revision: Revision) {
        let live_bytes = self.state.read().live_bytes;
        if self.log.used_bytes() < 2 * live_bytes + self.log.options.garbage_bytes {
            return;
        }
        let Some(first_segment) = self.log.first_after(revision) else { return };
        let header = FileHeader { kind: FileKind::Snapshot, number: first_segment, sequence: 1, revision, chain: 0 };
        let created = self.log.disk.create(NEW_SNAPSHOT, 0).and_then(|mut writer| {
            writer.write_all_at(0, &header.encode())?;
            Ok(writer)
        });
        match created {
            Ok(writer) => {
                self.snapshot = Some(SnapshotJob {
                    revision,
                    first_segment,
                    writer,
                    position: FILE_HEADER_BYTES as u64,
                    synced: 0,
                    sequence: 1,
                    chain: 0,
                    cursor: None,
                    moved: Vec::new(),
                });
            }
            Err(error) => self.abandon_snapshot(&error),
        }
    }

    /// Writes the next piece. A snapshot that fails is given up; the log still holds everything.
    pub fn step_snapshot(&mut self) {
        let Some(mut job) = self.snapshot.take() else { return };
        match self.write_piece(&mut job) {
            Ok(false) => self.snapshot = Some(job),
            Ok(true) => {
                if let Err(error) = self.finish(job) {
                    self.abandon_snapshot(&error);
                }
            }
            Err(error) => self.abandon_snapshot(&error),
        }
    }

    fn abandon_snapshot(&mut self, error: &io::Error) {
        let no_space = is_no_space(error);
        tracing::warn!(%error, no_space, "a snapshot of the store was given up; the next compaction tries again");
        self.snapshot = None;
        // If that fails, too, the next opening removes it.
        let _ = self.log.disk.remove(NEW_SNAPSHOT);
        if no_space && let Err(AppendError::Failed(why)) = self.clean() {
            self.fail(why);
        }
    }

    /// Returns whether it was the last.
    fn write_piece(&self, job: &mut SnapshotJob<D::File>) -> io::Result<bool> {
        let (piece, is_last) = self.collect(job)?;
        let mut encoder = Encoder::default();
        let mut placed = Vec::with_capacity(piece.len());
        for stored in piece {
            let lease = stored.lease.as_ref().map(Lease::stored);
            let entry = stored.load().map_err(io::Error::other)?;
            let revisions = (entry.create_revision, entry.mod_revision);
            let offset = encoder.entry(&entry.key, revisions, lease, &entry.value);
            placed.push((entry, offset));
        }
        if is_last {
            encoder.end((job.moved.len() + placed.len()) as u64);
        }
        let mut buffer = Vec::with_capacity(encoder.0.len() + frame::OVERHEAD_BYTES);
        let (mask, checksum) = frame::encode(&mut buffer, &encoder.0, job.sequence, job.chain);
        job.writer.write_all_at(job.position, &buffer)?;
        let payload_offset = job.position + frame::HEADER_BYTES as u64;
        job.moved.extend(placed.into_iter().map(|(entry, offset)| Moved {
            location: Location {
                file: self.log.next_file,
                len_bytes: u32::try_from(entry.value.len()).unwrap_or(u32::MAX),
                offset: payload_offset + offset as u64,
                checksum: crc32fast::hash(&entry.value),
                mask,
            },
            key: entry.key,
            mod_revision: entry.mod_revision,
        }));
        job.position += buffer.len() as u64;
        job.sequence += 1;
        job.chain = checksum;
        if is_last || job.position - job.synced > SYNC_BYTES {
            job.writer.sync_data()?;
            job.synced = job.position;
        }
        Ok(is_last)
    }

    /// The next entries of the snapshot's revision, and whether there are no more.
    fn collect(&self, job: &mut SnapshotJob<D::File>) -> io::Result<(Vec<Stored>, bool)> {
        let state = self.state.read();
        let start = job.cursor.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut piece, mut bytes) = (Vec::new(), 0);
        for (count, (key, slot)) in state.keys.range::<Arc<str>, _>((start, Bound::Unbounded)).enumerate() {
            if bytes >= STEP_BYTES || count >= STEP_KEYS {
                return Ok((piece, false));
            }
            job.cursor = Some(Arc::clone(key));
            if let Some(stored) = state.version_at(key, slot, job.revision).map_err(io::Error::other)? {
                bytes += stored.source.len_bytes();
                piece.push(stored);
            }
        }
        Ok((piece, true))
    }

    /// Gives the snapshot its name and removes what it replaces.
    fn finish(&mut self, job: SnapshotJob<D::File>) -> io::Result<()> {
        let name = snapshot_name(job.revision);
        self.log.disk.rename(NEW_SNAPSHOT, &name)?;
        self.log.disk.sync_dir()?;
        let reader: Reader = Arc::new(self.log.disk.open(&name)?);
        let file = self.log.next_file;
        self.log.next_file += 1;
        self.state.write().files.insert(file, reader);
        for piece in job.moved.chunks(STEP_KEYS) {
            self.relocate(piece, file);
        }
        let len_bytes = job.position;
        let old = self.log.snapshot.replace(SnapshotFile { revision: job.revision, file, len_bytes });
        if let Some(old) = old {
            self.log.disk.remove(&snapshot_name(old.revision))?;
        }
        self.remove_before(job.first_segment)?;
        self.log.restore_reserve();
        Ok(())
    }

    /// Removes segments that are needed no more.
    pub(super) fn remove_before(&mut self, first_segment: u64) -> io::Result<()> {
        let (gone, kept) =
            std::mem::take(&mut self.log.sealed).into_iter().partition(|segment| segment.number < first_segment);
        self.log.sealed = kept;
        self.state.write().retain_files(|file| self.log.holds(file));
        // Oldest first: an interruption leaves a log that begins later, never one with a gap.
        let gone: Vec<Sealed> = gone;
        gone.iter().try_for_each(|segment| self.log.disk.remove(&segment_name(segment.number)))
    }

    pub(super) fn relocate(&self, moved: &[Moved], file: u32) {
        let mut state = self.state.write();
        for Moved { key, mod_revision, location } in moved {
            // Frames were placed before the file had its number.
            let location = Location { file, ..*location };
            let Some(slot) = state.keys.get_mut(key) else { continue };
            match &mut slot.live {
                Some(live) if live.mod_revision == *mod_revision => live.location = location,
                _ => {
                    if let Ok(index) = slot.older.binary_search_by_key(mod_revision, |version| version.mod_revision) {
                        slot.older[index].location = Some(location);
                    }
                }
            }
        }
    }
}
