//! From a layer's bytes to a directory: decompressing, hashing on both sides, unpacking.

use crate::Options;
use crate::digest::{Digest, HashingReader};
use crate::unpack::{self, Limits, UnpackError, Unpacked};
use std::io::Read;
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    /// The bytes are not those that were asked for; containerd's words.
    #[error(
        "failed commit on ref \"layer-{expected}\": unexpected commit digest {actual}, expected {expected}: failed precondition"
    )]
    Blob { expected: Digest, actual: Digest },
    #[error("failed to extract layer {expected}: wrong diff id calculated on extraction {actual}")]
    DiffId { expected: Digest, actual: Digest },
    #[error("failed to extract layer {diff_id}: compression {kind} is not supported")]
    Compression { diff_id: Digest, kind: &'static str },
    #[error("failed to extract layer {diff_id}: {source}")]
    Unpack { diff_id: Digest, source: UnpackError },
    #[error("{0}")]
    Read(std::io::Error),
    #[error("cannot make {path}: {source}")]
    Directory { path: String, source: std::io::Error },
}

/// What a layer must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// Of the bytes as transferred; `None` where an archive does not say.
    pub(crate) blob: Option<Digest>,
    /// Of the uncompressed tar.
    pub(crate) diff_id: Digest,
}

/// Unpacks a layer into `into`, which is made; verifies both digests. Blocks.
pub(crate) fn unpack(
    reader: impl Read,
    expected: Expected,
    into: &Path,
    options: &Options,
) -> Result<Unpacked, LayerError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().mode(0o755).create(into);
    made.map_err(|source| LayerError::Directory { path: into.display().to_string(), source })?;
    let mut blob = HashingReader::new(reader);
    let result = unpack_stream(&mut blob, expected.diff_id, into, options);
    // What follows the archive belongs to the digest, too.
    let drained = std::io::copy(&mut blob, &mut std::io::sink());
    let (actual, _) = blob.finish();
    if let (Some(wanted), Ok(_)) = (expected.blob, &drained)
        && wanted != actual
        && !matches!(&result, Err(LayerError::Read(_)))
    {
        // Also when unpacking failed: damaged bytes are the cause.
        return Err(LayerError::Blob { expected: wanted, actual });
    }
    let (unpacked, diff_id) = result?;
    drained.map_err(LayerError::Read)?;
    if diff_id != expected.diff_id {
        return Err(LayerError::DiffId { expected: expected.diff_id, actual: diff_id });
    }
    Ok(unpacked)
}

fn unpack_stream(
    blob: &mut impl Read,
    diff_id: Digest,
    into: &Path,
    options: &Options,
) -> Result<(Unpacked, Digest), LayerError> {
    let limits = Limits { bytes: options.max_layer_bytes, entries: options.max_layer_entries };
    let mut tar = HashingReader::new(decompress(blob).map_err(|error| match error {
        DecompressError::Read(error) => LayerError::Read(error),
        DecompressError::Unsupported(kind) => LayerError::Compression { diff_id, kind },
    })?);
    let unpacked = unpack::unpack(&mut tar, into, limits).map_err(|source| match source {
        UnpackError::Archive(error) if is_transport(&error) => LayerError::Read(error),
        UnpackError::Entry { source, .. } if is_transport(&source) => LayerError::Read(source),
        source => LayerError::Unpack { diff_id, source },
    })?;
    // A tar may be padded without end: the same bound holds.
    let rest = std::io::copy(&mut tar.by_ref().take(limits.bytes), &mut std::io::sink()).map_err(LayerError::Read)?;
    if rest >= limits.bytes {
        return Err(LayerError::Unpack { diff_id, source: UnpackError::TooLarge(limits.bytes) });
    }
    let (digest, _) = tar.finish();
    Ok((unpacked, digest))
}

/// The bytes did not arrive; what was unpacked so far says nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TransportError(pub(crate) String);

fn is_transport(error: &std::io::Error) -> bool {
    let mut source = error.get_ref().map(|e| e as &(dyn std::error::Error + 'static));
    while let Some(error) = source {
        if error.is::<TransportError>() {
            return true;
        }
        // tar wraps an io::Error in an io::Error.
        source = match error.downcast_ref::<std::io::Error>() {
            Some(inner) => inner.get_ref().map(|e| e as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    false
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DecompressError {
    #[error(transparent)]
    Read(#[from] std::io::Error),
    #[error("compression {0} is not supported")]
    Unsupported(&'static str),
}

/// The plain bytes of a gzip, zstd or uncompressed stream, told by how it begins: media types lie.
pub(crate) fn decompress<'a>(mut reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>, DecompressError> {
    let mut head = Vec::with_capacity(6);
    reader.by_ref().take(6).read_to_end(&mut head)?;
    let start = head.clone();
    let whole = std::io::BufReader::with_capacity(256 << 10, std::io::Cursor::new(head).chain(reader));
    Ok(match &start[..] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(whole)?)
        }
        [b'B', b'Z', b'h', ..] => return Err(DecompressError::Unsupported("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(DecompressError::Unsupported("xz")),
        _ => Box::new(whole),
    })
}
