//! The segments on disk and where the next frame goes.

use super::frame::{self, OVERHEAD_BYTES};
use super::state::Reader;
use super::{OpenError, Options};
use crate::disk::{Disk, DiskFile};
use crate::kv::Revision;
use rustix::io::Errno;
use std::io;
use std::sync::Arc;

pub(super) const RESERVE: &str = "reserve";
const NEW_SEGMENT: &str = "log.tmp";
pub(super) const FORMAT_VERSION: u32 = 1;
pub(super) const FILE_HEADER_BYTES: usize = 64;
const LOG_MAGIC: &[u8; 8] = b"MINKELOG";
const SNAPSHOT_MAGIC: &[u8; 8] = b"MINKESNP";

pub(super) fn segment_name(number: u64) -> String {
    format!("log-{number:016x}")
}

pub(super) fn snapshot_name(revision: Revision) -> String {
    format!("snapshot-{revision:016x}")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Segment,
    /// A segment for deletes, made of the reserve.
    Reserve,
    Snapshot,
}

/// What stands at the beginning of each file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) kind: FileKind,
    /// The segment's; of a snapshot, the first segment that goes on from it.
    pub(super) number: u64,
    /// Of the first frame.
    pub(super) sequence: u64,
    /// Of a segment: before its first frame. Of a snapshot: what it shows.
    pub(super) revision: Revision,
    /// Checksum of the frame before the first.
    pub(super) chain: u32,
}

impl FileHeader {
    pub(super) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        let snapshot = self.kind == FileKind::Snapshot;
        bytes[..8].copy_from_slice(if snapshot { SNAPSHOT_MAGIC } else { LOG_MAGIC });
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12] = u8::from(self.kind == FileKind::Reserve);
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.revision.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.chain.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Files get their names only when their header is durable, so one that cannot be read has been damaged.
    pub(super) fn decode(file: &str, bytes: &[u8]) -> Result<Self, OpenError> {
        let damaged = |what| OpenError::Corrupt { file: file.to_owned(), offset: 0, what };
        let header = bytes.get(..FILE_HEADER_BYTES).ok_or_else(|| damaged("the file is shorter than its header"))?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if word(60) != crc32fast::hash(&header[..60]) {
            return Err(damaged("the file's header does not match its checksum"));
        }
        let kind = match (&header[..8], header[12]) {
            (magic, 0) if magic == LOG_MAGIC => FileKind::Segment,
            (magic, 1) if magic == LOG_MAGIC => FileKind::Reserve,
            (magic, 0) if magic == SNAPSHOT_MAGIC => FileKind::Snapshot,
            _ => return Err(damaged("this is not a file of this store")),
        };
        if word(8) != FORMAT_VERSION {
            return Err(OpenError::Version { file: file.to_owned(), found: word(8), known: FORMAT_VERSION });
        }
        Ok(Self { kind, number: long(16), sequence: long(24), revision: long(32), chain: word(40) })
    }
}

/// A segment that frames are no longer appended to.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) number: u64,
    /// Key into the state's files.
    pub(super) file: u32,
    /// After its last frame.
    pub(super) last_revision: Revision,
    pub(super) len_bytes: u64,
}

/// The snapshot that the log goes on from.
#[derive(Debug)]
pub(super) struct SnapshotFile {
    pub(super) revision: Revision,
    /// Key into the state's files.
    pub(super) file: u32,
    pub(super) len_bytes: u64,
}

/// The segment that frames are appended to.
#[derive(Debug)]
pub(super) struct Tail<F> {
    pub(super) segment: Sealed,
    pub(super) writer: F,
    pub(super) position: u64,
    pub(super) is_reserve: bool,
}

pub(super) struct Log<D: Disk> {
    pub(super) disk: D,
    pub(super) options: Options,
    pub(super) sealed: Vec<Sealed>,
    pub(super) tail: Option<Tail<D::File>>,
    pub(super) next_number: u64,
    pub(super) next_file: u32,
    /// Of the next frame.
    pub(super) sequence: u64,
    /// Checksum of the last frame.
    pub(super) chain: u32,
    pub(super) has_reserve: bool,
    pub(super) snapshot: Option<SnapshotFile>,
    pub(super) buffer: Vec<u8>,
}

/// Where a frame's payload went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Appended {
    pub(super) file: u32,
    pub(super) payload_offset: u64,
    pub(super) mask: u8,
}

#[derive(Debug)]
pub(super) enum AppendError {
    NoSpace,
    /// What is on the disk is no longer known.
    Failed(String),
}

pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

fn classify(what: &str, error: &io::Error) -> AppendError {
    if is_no_space(error) { AppendError::NoSpace } else { AppendError::Failed(format!("{what}: {error}")) }
}

impl<D: Disk> Log<D> {
    /// Sees to it that a frame of `payload_bytes` can be appended. `is_urgent`: the reserve may be used. Returns a
    /// segment newly opened for it, to be registered for reading.
    pub(super) fn room(
        &mut self,
        payload_bytes: usize,
        revision: Revision,
        is_urgent: bool,
    ) -> Result<Option<(u32, Reader)>, AppendError> {
        let frame_bytes = (payload_bytes + OVERHEAD_BYTES) as u64;
        if let Some(tail) = &self.tail
            && tail.position + frame_bytes <= tail.segment.len_bytes
            && (is_urgent || !tail.is_reserve)
        {
            return Ok(None);
        }
        let needed_bytes = frame_bytes + FILE_HEADER_BYTES as u64;
        let len_bytes = needed_bytes.max(self.options.segment_bytes);
        match self.open_segment(FileKind::Segment, len_bytes, revision) {
            Err(AppendError::NoSpace)
                if is_urgent && self.has_reserve && needed_bytes <= self.options.reserve_bytes =>
            {
                let opened = self.open_segment(FileKind::Reserve, self.options.reserve_bytes, revision)?;
                self.has_reserve = false;
                Ok(Some(opened))
            }
            Err(error) => Err(error),
            Ok(opened) => {
                self.restore_reserve();
                Ok(Some(opened))
            }
        }
    }

    fn open_segment(
        &mut self,
        kind: FileKind,
        len_bytes: u64,
        revision: Revision,
    ) -> Result<(u32, Reader), AppendError> {
        let number = self.next_number;
        let name = segment_name(number);
        let temporary = if kind == FileKind::Reserve { RESERVE } else { NEW_SEGMENT };
        let failed = |error: io::Error| classify(&name, &error);
        let mut writer = match kind {
            FileKind::Reserve => self.disk.open(RESERVE).map_err(failed)?,
            FileKind::Segment | FileKind::Snapshot => self.disk.create(NEW_SEGMENT, len_bytes).map_err(failed)?,
        };
        let header = FileHeader { kind, number, sequence: self.sequence, revision, chain: self.chain };
        let written = writer
            .write_all_at(0, &header.encode())
            .and_then(|()| writer.sync_data())
            .and_then(|()| self.disk.rename(temporary, &name))
            .map_err(failed);
        if let Err(error) = written {
            if kind == FileKind::Segment {
                // Unfinished: the next opening would remove it, too.
                let _ = self.disk.remove(NEW_SEGMENT);
            }
            return Err(error);
        }
        // From here on the segment is there, and an error leaves open whether it will be after a crash.
        let certain = |error: io::Error| AppendError::Failed(format!("{name}: {error}"));
        self.disk.sync_dir().map_err(certain)?;
        let reader: Reader = Arc::new(self.disk.open(&name).map_err(certain)?);
        let file = self.next_file;
        self.next_file += 1;
        self.next_number += 1;
        if let Some(tail) = self.tail.take() {
            self.sealed.push(tail.segment);
        }
        self.tail = Some(Tail {
            segment: Sealed { number, file, last_revision: revision, len_bytes },
            writer,
            position: FILE_HEADER_BYTES as u64,
            is_reserve: kind == FileKind::Reserve,
        });
        Ok((file, reader))
    }

    /// Sets space aside for deletes if there is none; without success where the disk is full.
    pub(super) fn restore_reserve(&mut self) {
        if !self.has_reserve && self.disk.create(RESERVE, self.options.reserve_bytes).is_ok() {
            self.has_reserve = true;
        }
    }

    /// Writes and syncs one frame. There must be [`Log::room`] for it. On `NoSpace` nothing has happened.
    pub(super) fn append(&mut self, payload: &[u8], last_revision: Revision) -> Result<Appended, AppendError> {
        let Some(tail) = &mut self.tail else {
            return Err(AppendError::Failed("no segment is open".to_owned()));
        };
        self.buffer.clear();
        let (mask, checksum) = frame::encode(&mut self.buffer, payload, self.sequence, self.chain);
        let name = segment_name(tail.segment.number);
        if let Err(error) = tail.writer.write_all_at(tail.position, &self.buffer) {
            if !is_no_space(&error) {
                return Err(AppendError::Failed(format!("write to {name}: {error}")));
            }
            // A file system that gives no promise for preallocated space. What got there must not stay.
            self.seal()?;
            return Err(AppendError::NoSpace);
        }
        tail.writer.sync_data().map_err(|error| AppendError::Failed(format!("sync of {name}: {error}")))?;
        let payload_offset = tail.position + frame::HEADER_BYTES as u64;
        tail.position += self.buffer.len() as u64;
        tail.segment.last_revision = last_revision;
        self.sequence += 1;
        self.chain = checksum;
        // One large batch must not keep its memory for ever.
        self.buffer.shrink_to(1 << 20);
        Ok(Appended { file: tail.segment.file, payload_offset, mask })
    }

    /// Ends the present segment at its last frame.
    fn seal(&mut self) -> Result<(), AppendError> {
        let Some(mut tail) = self.tail.take() else { return Ok(()) };
        let name = segment_name(tail.segment.number);
        let cut = tail.writer.set_len(tail.position).and_then(|()| tail.writer.sync_data());
        cut.map_err(|error| AppendError::Failed(format!("cut of {name}: {error}")))?;
        tail.segment.len_bytes = tail.position;
        self.sealed.push(tail.segment);
        Ok(())
    }

    /// Whether the snapshot or one of the segments has this number among the state's files.
    pub(super) fn holds(&self, file: u32) -> bool {
        let tail = self.tail.iter().map(|tail| &tail.segment);
        let mut segments = self.sealed.iter().chain(tail).map(|segment| segment.file);
        let snapshot = self.snapshot.as_ref().map(|snapshot| snapshot.file);
        snapshot == Some(file) || segments.any(|held| held == file)
    }

    /// Of the snapshot and all segments, the unused part of the last one left out.
    pub(super) fn used_bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|segment| segment.len_bytes).sum();
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.len_bytes)
            + sealed
            + self.tail.as_ref().map_or(0, |tail| tail.position)
    }

    /// The first segment needed to go on from `revision`.
    pub(super) fn first_after(&self, revision: Revision) -> Option<u64> {
        let tail = self.tail.as_ref().map(|tail| &tail.segment);
        let mut segments = self.sealed.iter().chain(tail);
        segments
            .find(|segment| segment.last_revision > revision)
            .or_else(|| tail.or(self.sealed.last()))
            .map(|s| s.number)
    }
}
