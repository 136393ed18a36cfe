//! Frames: what the log and snapshots are made of. One batch is one frame is one write, and at most one frame is on its
//! way to the disk at a time.
//!
//! ```text
//! 0 mark | 1 mask | 2 payload length u32 | 6 sequence u64 | 14 checksum u32 | 18 header checksum u32 | 22 mark | payload | mark
//! ```
//!
//! Integers are little-endian. The checksum covers the one of the frame before, so frames cannot be exchanged or left out. The
//! space after the last frame is zero, and disks write whole sectors: so a frame that was torn by a crash has a zero mark
//! or a sector of zeros, and a frame with a wrong checksum and neither of these was whole once and has been damaged since.
//! (Payloads are masked so that they never contain as many zeros by themselves.)

use std::borrow::Cow;

pub(super) const HEADER_BYTES: usize = 23;
/// What a frame adds to its payload.
pub(super) const OVERHEAD_BYTES: usize = HEADER_BYTES + 1;
const MARK: u8 = 0xA5;
const SECTOR: usize = 512;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    Frame {
        /// Unmasked.
        payload: Cow<'a, [u8]>,
        mask: u8,
        checksum: u32,
        /// Header and marks included.
        len_bytes: usize,
    },
    /// Never written, or not completely.
    Missing,
    /// Written once, and damaged since.
    Corrupt(&'static str),
}

/// A frame's header fields.
struct Header {
    mask: u8,
    payload_bytes: usize,
    sequence: u64,
    checksum: u32,
}

/// Appends the frame of `payload` to `out`; returns the mask and the checksum for the next frame's chain.
pub(super) fn encode(out: &mut Vec<u8>, payload: &[u8], sequence: u64, chain: u32) -> (u8, u32) {
    let mask = choose_mask(payload);
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    if mask == 0 {
        out.extend_from_slice(payload);
    } else {
        out.extend(payload.iter().map(|byte| byte ^ mask));
    }
    out.push(MARK);
    let checksum = chained(chain, &out[start + HEADER_BYTES..out.len() - 1]);
    let header = &mut out[start..start + HEADER_BYTES];
    header[0] = MARK;
    header[1] = mask;
    let payload_bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    header[2..6].copy_from_slice(&payload_bytes.to_le_bytes());
    header[6..14].copy_from_slice(&sequence.to_le_bytes());
    header[14..18].copy_from_slice(&checksum.to_le_bytes());
    let header_checksum = crc32fast::hash(&header[..18]);
    header[18..22].copy_from_slice(&header_checksum.to_le_bytes());
    header[22] = MARK;
    (mask, checksum)
}

/// Reads the frame that should begin at `offset` of a file, `bytes` being the file from there on.
pub(super) fn parse(bytes: &[u8], offset: u64, sequence: u64, chain: u32) -> Parsed<'_> {
    if bytes.len() < HEADER_BYTES || bytes[0] == 0 || bytes[HEADER_BYTES - 1] == 0 {
        return Parsed::Missing;
    }
    let Some(header) = read_header(bytes) else {
        return Parsed::Corrupt("the frame's header does not match its checksum");
    };
    if header.sequence != sequence {
        return Parsed::Corrupt("the frame is out of sequence");
    }
    let len_bytes = header.payload_bytes + OVERHEAD_BYTES;
    if bytes.len() < len_bytes {
        return Parsed::Missing;
    }
    let masked = &bytes[HEADER_BYTES..len_bytes - 1];
    let end_mark = bytes[len_bytes - 1];
    if end_mark == MARK && chained(chain, masked) == header.checksum {
        let unmask = || masked.iter().map(|byte| byte ^ header.mask).collect();
        let payload = if header.mask == 0 { Cow::Borrowed(masked) } else { Cow::Owned(unmask()) };
        return Parsed::Frame { payload, mask: header.mask, checksum: header.checksum, len_bytes };
    }
    if end_mark == 0 || has_empty_sector(&bytes[..len_bytes], offset) {
        Parsed::Missing
    } else {
        Parsed::Corrupt("the frame does not match its checksum")
    }
}

/// The payload length that stands in a frame's header, for readers that do not have the whole frame yet.
pub(super) fn payload_bytes(header: &[u8]) -> Option<usize> {
    read_header(header).map(|header| header.payload_bytes)
}

/// Where in `bytes` a frame begins that is later than `sequence`, if there is one.
pub(super) fn find_later(bytes: &[u8], sequence: u64) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = bytes[from..].iter().position(|byte| *byte == MARK) {
        let start = from + found;
        let later = read_header(&bytes[start..]).is_some_and(|header| header.sequence > sequence);
        if later {
            return Some(start);
        }
        from = start + 1;
    }
    None
}

fn read_header(bytes: &[u8]) -> Option<Header> {
    let header = bytes.get(..HEADER_BYTES)?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[0] != MARK || header[22] != MARK || crc32fast::hash(&header[..18]) != word(18) {
        return None;
    }
    Some(Header {
        mask: header[1],
        payload_bytes: usize::try_from(word(2)).ok()?,
        sequence: u64::from(word(6)) | u64::from(word(10)) << 32,
        checksum: word(14),
    })
}

fn chained(chain: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&chain.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Whether a whole sector of the frame, which begins at `offset` of its file, is zero.
fn has_empty_sector(frame: &[u8], offset: u64) -> bool {
    let into_sector = usize::try_from(offset % SECTOR as u64).unwrap_or(0);
    let first = (SECTOR - into_sector) % SECTOR;
    frame.get(first..).unwrap_or_default().chunks_exact(SECTOR).any(|sector| sector.iter().all(|byte| *byte == 0))
}

/// A byte of which `payload` has no run as long as a sector, so that it has no such run of zeros when masked with it.
fn choose_mask(payload: &[u8]) -> u8 {
    let mut runs = [false; 256];
    // A run as long as a sector covers one of these half-sectors whole.
    for half in payload.chunks_exact(SECTOR / 2) {
        if half.iter().all(|byte| *byte == half[0]) {
            runs[usize::from(half[0])] = true;
        }
    }
    (0..=u8::MAX).find(|mask| !runs[usize::from(*mask)]).unwrap_or(0)
}
