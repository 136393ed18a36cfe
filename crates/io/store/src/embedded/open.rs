//! Reads a directory: the newest snapshot, then the log after it. Cuts what a crash left unfinished; refuses what has been
//! damaged, naming file and offset.

use super::Options;
use super::frame::{self, Parsed};
use super::log::{FILE_HEADER_BYTES, FileHeader, FileKind, Log, RESERVE, Sealed, SnapshotFile, Tail, segment_name};
use super::record::{Decoder, Record, StoredLease};
use super::state::{Change, Lease, Live, Location, Reader, State};
use crate::clock::Now;
use crate::disk::{Disk, DiskFile};
use crate::kv::Revision;
use bytes::Bytes;
use std::io;
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot read the database file {file}")]
    Io {
        file: String,
        #[source]
        source: io::Error,
    },
    #[error("the database file {file} is damaged at offset {offset}: {what}")]
    Corrupt { file: String, offset: u64, what: &'static str },
    #[error("the database file {file} has format version {found}; this program knows {known}")]
    Version { file: String, found: u32, known: u32 },
}

/// Snapshots by revision, the newest last.
fn snapshots(names: &[String]) -> Vec<(Revision, String)> {
    numbered(names, "snapshot-")
}

fn numbered(names: &[String], prefix: &str) -> Vec<(u64, String)> {
    let number = |name: &String| {
        let digits = name.strip_prefix(prefix).filter(|digits| digits.len() == 16)?;
        Some((u64::from_str_radix(digits, 16).ok()?, name.clone()))
    };
    let mut found: Vec<_> = names.iter().filter_map(number).collect();
    found.sort();
    found
}

fn io_error(file: &str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { file: file.to_owned(), source }
}

fn corrupt(file: &str, offset: u64, what: &'static str) -> OpenError {
    OpenError::Corrupt { file: file.to_owned(), offset, what }
}

struct Opening<D: Disk> {
    log: Log<D>,
    state: State,
    now: Now,
    compact: Revision,
    /// The last segment said to be the first needed.
    start: u64,
}

pub(super) fn open<D: Disk>(disk: D, options: Options, now: Now) -> Result<(Log<D>, State), OpenError> {
    let names = disk.list().map_err(io_error("."))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        disk.remove(name).map_err(io_error(name))?;
    }
    let log = Log {
        disk,
        options,
        sealed: Vec::new(),
        tail: None,
        next_number: 1,
        next_file: 0,
        sequence: 1,
        chain: 0,
        has_reserve: false,
        snapshot: None,
        buffer: Vec::new(),
    };
    let mut opening = Opening { log, state: State::new(), now, compact: 0, start: 1 };
    let mut snapshots = snapshots(&names);
    let newest = snapshots.pop();
    if let Some((_, name)) = &newest {
        opening.read_snapshot(name)?;
    }
    opening.read_segments(numbered(&names, "log-"), newest.is_some())?;
    for (_, name) in snapshots {
        opening.log.disk.remove(&name).map_err(io_error(&name))?;
    }
    opening.check_reserve(&names)?;
    if opening.compact > opening.state.compacted {
        opening.state.compact(opening.compact);
    }
    Ok((opening.log, opening.state))
}

impl<D: Disk> Opening<D> {
    fn check_reserve(&mut self, names: &[String]) -> Result<(), OpenError> {
        if names.iter().any(|name| name == RESERVE) {
            let reserve = self.log.disk.open(RESERVE).map_err(io_error(RESERVE))?;
            let len_bytes = reserve.len_bytes().map_err(io_error(RESERVE))?;
            self.log.has_reserve = len_bytes == self.log.options.reserve_bytes;
        }
        self.log.restore_reserve();
        Ok(())
    }

    fn register(&mut self, name: &str) -> Result<(u32, Reader), OpenError> {
        let reader: Reader = Arc::new(self.log.disk.open(name).map_err(io_error(name))?);
        let file = self.log.next_file;
        self.log.next_file += 1;
        self.state.files.insert(file, Arc::clone(&reader));
        Ok((file, reader))
    }

    fn read_snapshot(&mut self, name: &str) -> Result<(), OpenError> {
        let (file, reader) = self.register(name)?;
        let len_bytes = reader.len_bytes().map_err(io_error(name))?;
        let header = FileHeader::decode(name, &read(&reader, name, 0, FILE_HEADER_BYTES)?)?;
        if header.kind != FileKind::Snapshot {
            return Err(corrupt(name, 0, "this is not a snapshot"));
        }
        let (mut offset, mut chain, mut count) = (FILE_HEADER_BYTES as u64, header.chain, 0);
        for sequence in header.sequence.. {
            let head = read(&reader, name, offset, frame::HEADER_BYTES)?;
            let payload_bytes = frame::payload_bytes(&head)
                .filter(|bytes| offset + *bytes as u64 <= len_bytes)
                .ok_or_else(|| corrupt(name, offset, "the frame's header does not match its checksum"))?;
            let bytes = read(&reader, name, offset, payload_bytes + frame::OVERHEAD_BYTES)?;
            let (payload, mask, frame_bytes) = match frame::parse(&bytes, offset, sequence, chain) {
                Parsed::Frame { payload, mask, checksum, len_bytes } => {
                    chain = checksum;
                    (payload, mask, len_bytes)
                }
                Parsed::Missing => return Err(corrupt(name, offset, "a frame is missing")),
                Parsed::Corrupt(what) => return Err(corrupt(name, offset, what)),
            };
            let place = Location { file, len_bytes: 0, offset: offset + frame::HEADER_BYTES as u64, checksum: 0, mask };
            let end = self.restore(&payload, place, &mut count).map_err(|what| corrupt(name, offset, what))?;
            offset += frame_bytes as u64;
            if end {
                break;
            }
        }
        self.log.snapshot = Some(SnapshotFile { revision: header.revision, file, len_bytes });
        self.log.next_number = header.number;
        self.state.revision = header.revision;
        self.state.compacted = header.revision;
        Ok(())
    }

    /// Takes in a snapshot's frame; returns whether it was the last.
    fn restore(&mut self, payload: &[u8], place: Location, count: &mut u64) -> Result<bool, &'static str> {
        let mut decoder = Decoder::new(payload);
        while !decoder.is_at_end() {
            match decoder.record() {
                Some(Record::Entry { key, create_revision, mod_revision, lease, value }) => {
                    let (value, location) = located(payload, value, place);
                    let lease = self.lease(lease);
                    self.state.restore(key.into(), Live { value, create_revision, mod_revision, location, lease });
                    *count += 1;
                }
                Some(Record::End { count: expected }) if expected == *count => return Ok(true),
                Some(Record::End { .. }) => return Err("the snapshot does not have as many entries as it says"),
                _ => return Err("a record cannot be read"),
            }
        }
        Ok(false)
    }

    fn lease(&self, stored: Option<StoredLease>) -> Option<Box<Lease>> {
        stored.map(|stored| Box::new(Lease::resume(stored, self.now)))
    }

    fn read_segments(&mut self, found: Vec<(u64, String)>, has_snapshot: bool) -> Result<(), OpenError> {
        let first = self.log.next_number;
        let (old, needed): (Vec<_>, Vec<_>) = found.into_iter().partition(|(number, _)| *number < first);
        for (_, name) in old {
            self.log.disk.remove(&name).map_err(io_error(&name))?;
        }
        if has_snapshot && needed.is_empty() {
            return Err(corrupt(&segment_name(first), 0, "the file is missing"));
        }
        let found_first = needed.first().map_or(first, |(number, _)| *number);
        if !has_snapshot {
            // Allowed if the log says so further on.
            self.log.next_number = found_first;
        }
        // Where the segment before stopped, and why.
        let mut stopped: Option<(String, u64, &'static str)> = None;
        let count = needed.len();
        let mut bytes = Vec::new();
        for (index, (number, name)) in needed.into_iter().enumerate() {
            if number != self.log.next_number {
                return Err(corrupt(&segment_name(self.log.next_number), 0, "the file is missing"));
            }
            let (file, reader) = self.register(&name)?;
            let len_bytes = reader.len_bytes().map_err(io_error(&name))?;
            read_into(&mut bytes, &reader, &name, 0, usize::try_from(len_bytes).unwrap_or(usize::MAX))?;
            let header = FileHeader::decode(&name, &bytes)?;
            if header.kind == FileKind::Snapshot || header.number != number {
                return Err(corrupt(&name, 0, "the file does not have its own number"));
            }
            self.check_link(&name, &header, stopped.take())?;
            let (position, why) = self.replay(&name, file, &bytes)?;
            let mut segment = Sealed { number, file, last_revision: self.state.revision, len_bytes };
            self.log.next_number += 1;
            if index + 1 < count {
                // Segments that only hold what the snapshot shows have counted no revision of their own.
                segment.len_bytes = position as u64;
                self.log.sealed.push(segment);
                stopped = Some((name, position as u64, why.unwrap_or("frames are missing")));
            } else {
                self.end_at(segment, &bytes, position, why, header.kind == FileKind::Reserve)?;
            }
        }
        if !has_snapshot && self.start < found_first {
            return Err(corrupt(&segment_name(first), 0, "the file is missing"));
        }
        Ok(())
    }

    /// Whether a segment goes on where the one before stopped.
    fn check_link(
        &mut self,
        name: &str,
        header: &FileHeader,
        before: Option<(String, u64, &'static str)>,
    ) -> Result<(), OpenError> {
        let Some((before, offset, why)) = before else {
            if self.log.snapshot.is_none() {
                self.state.revision = header.revision;
            }
            if header.revision > self.state.revision {
                return Err(corrupt(name, 0, "the log before this file is missing"));
            }
            self.log.sequence = header.sequence;
            self.log.chain = header.chain;
            return Ok(());
        };
        if header.sequence == self.log.sequence && header.chain == self.log.chain {
            return Ok(());
        }
        Err(corrupt(&before, offset, why))
    }

    /// Takes in a segment's frames; returns where they end, and what is wrong there.
    fn replay(&mut self, name: &str, file: u32, bytes: &[u8]) -> Result<(usize, Option<&'static str>), OpenError> {
        let mut position = FILE_HEADER_BYTES;
        loop {
            let offset = position as u64;
            match frame::parse(&bytes[position..], offset, self.log.sequence, self.log.chain) {
                Parsed::Frame { payload, mask, checksum, len_bytes } => {
                    let payload_offset = offset + frame::HEADER_BYTES as u64;
                    let place = Location { file, len_bytes: 0, offset: payload_offset, checksum: 0, mask };
                    self.take_in(&payload, place).map_err(|what| corrupt(name, offset, what))?;
                    self.log.sequence += 1;
                    self.log.chain = checksum;
                    position += len_bytes;
                }
                Parsed::Missing => return Ok((position, None)),
                Parsed::Corrupt(what) => return Ok((position, Some(what))),
            }
        }
    }

    fn take_in(&mut self, payload: &[u8], place: Location) -> Result<(), &'static str> {
        const UNREADABLE: &str = "a record cannot be read";
        let (mut decoder, mut revision) = Decoder::log(payload).ok_or(UNREADABLE)?;
        if revision > self.state.revision {
            return Err("revisions are missing");
        }
        while !decoder.is_at_end() {
            // What the snapshot shows already is read, and left out.
            let is_new = revision > self.state.compacted;
            match decoder.record().ok_or(UNREADABLE)? {
                Record::Txn => revision += 1,
                Record::Put { key, create_revision, lease, value } if is_new => {
                    let (value, location) = located(payload, value, place);
                    let live =
                        Live { value, create_revision, mod_revision: revision, location, lease: self.lease(lease) };
                    self.state.apply(Change { revision, key: key.into(), live: Some(live) });
                }
                Record::Delete { key } if is_new => {
                    self.state.apply(Change { revision, key: key.into(), live: None });
                }
                Record::Put { .. } | Record::Delete { .. } => {}
                Record::Compact { revision } => self.compact = self.compact.max(revision),
                Record::Start { segment } => self.start = self.start.max(segment),
                Record::Entry { key, create_revision, mod_revision, lease, value } => {
                    let (value, location) = located(payload, value, place);
                    let lease = self.lease(lease);
                    self.move_here(key, Live { value, create_revision, mod_revision, location, lease });
                }
                Record::End { .. } => return Err(UNREADABLE),
            }
        }
        Ok(())
    }

    /// An entry written a second time; the first may be gone.
    fn move_here(&mut self, key: &str, live: Live) {
        match self.state.keys.get_mut(key).and_then(|slot| slot.live.as_mut()) {
            Some(present) if present.mod_revision == live.mod_revision => present.location = live.location,
            Some(_) => {}
            None => self.state.restore(key.into(), live),
        }
    }

    /// The last segment: goes on after its last frame, or is cut there.
    fn end_at(
        &mut self,
        mut segment: Sealed,
        bytes: &[u8],
        position: usize,
        why: Option<&'static str>,
        is_reserve: bool,
    ) -> Result<(), OpenError> {
        let name = segment_name(segment.number);
        let rest = &bytes[position..];
        let later = frame::find_later(rest, self.log.sequence).map(|_| "a frame is missing before later ones");
        if let Some(what) = why.or(later) {
            return Err(corrupt(&name, position as u64, what));
        }
        let mut writer = self.log.disk.open(&name).map_err(io_error(&name))?;
        if rest.iter().all(|byte| *byte == 0) {
            self.log.tail = Some(Tail { segment, writer, position: position as u64, is_reserve });
            return Ok(());
        }
        tracing::info!(file = name, offset = position, "cut an unfinished write");
        writer.set_len(position as u64).and_then(|()| writer.sync_data()).map_err(io_error(&name))?;
        segment.len_bytes = position as u64;
        self.log.sealed.push(segment);
        Ok(())
    }
}

/// A value of a payload and where it stands.
fn located(payload: &[u8], value: std::ops::Range<usize>, place: Location) -> (Bytes, Location) {
    let offset = place.offset + value.start as u64;
    let value = Bytes::copy_from_slice(&payload[value]);
    let len_bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
    let location = Location { len_bytes, offset, checksum: crc32fast::hash(&value), ..place };
    (value, location)
}

/// Up to `len_bytes` from `offset` on; fewer at the end of the file.
fn read(reader: &Reader, name: &str, offset: u64, len_bytes: usize) -> Result<Vec<u8>, OpenError> {
    let mut bytes = Vec::new();
    read_into(&mut bytes, reader, name, offset, len_bytes)?;
    Ok(bytes)
}

/// The same into a buffer that has been used before.
fn read_into(bytes: &mut Vec<u8>, reader: &Reader, name: &str, offset: u64, len_bytes: usize) -> Result<(), OpenError> {
    bytes.resize(len_bytes, 0);
    let count = reader.read_at(offset, bytes).map_err(io_error(name))?;
    bytes.truncate(count);
    Ok(())
}
