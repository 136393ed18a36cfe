//! An image archive as a set of named files: the tar is indexed once, its files are read in place.

use crate::layer::{self, DecompressError};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tar::EntryType;

/// Links of links are followed so far.
const MAX_LINKS: usize = 16;
const MAX_ENTRIES: usize = 1_000_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("not an image archive: {0}")]
    NotTar(std::io::Error),
    #[error("not an image archive: {0}")]
    Compression(String),
    #[error("not an image archive: more than {MAX_ENTRIES} entries")]
    TooMany,
    #[error("write the archive to {path}: {source}")]
    Spool { path: PathBuf, source: std::io::Error },
    #[error("{0} is not in the archive")]
    Missing(String),
    #[error("{name} is larger than {limit} bytes")]
    TooLarge { name: String, limit: u64 },
    #[error("read {name} of the archive: {source}")]
    Read { name: String, source: std::io::Error },
}

/// A tar, uncompressed, in a file.
pub(crate) struct Archive {
    file: Arc<File>,
    entries: HashMap<PathBuf, Place>,
}

#[derive(Debug)]
enum Place {
    File {
        offset: u64,
        bytes: u64,
    },
    /// Docker's older archives link equal layers to each other.
    Link(PathBuf),
}

/// One file of an archive.
#[derive(Clone)]
pub(crate) struct Section {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Section {
    pub(crate) fn length_bytes(&self) -> u64 {
        self.end - self.offset
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = usize::try_from(self.length_bytes()).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read_at(&mut buffer[..n], self.offset)?;
        if n == 0 && self.length_bytes() > 0 && !buffer.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += n as u64;
        Ok(n)
    }
}

impl Archive {
    /// Indexes `file`; a compressed one is first unpacked into `spool`. Blocks.
    pub(crate) fn open(file: File, spool: &Path) -> Result<Archive, ArchiveError> {
        let file = plain(file, spool)?;
        let file = Arc::new(file);
        let whole = file.metadata().map_err(ArchiveError::NotTar)?.len();
        let mut entries = HashMap::new();
        let section = Section { file: file.clone(), offset: 0, end: whole };
        let mut tar = tar::Archive::new(SeekSection { section, at: 0 });
        for entry in tar.entries_with_seek().map_err(ArchiveError::NotTar)? {
            let entry = entry.map_err(ArchiveError::NotTar)?;
            if entries.len() >= MAX_ENTRIES {
                return Err(ArchiveError::TooMany);
            }
            let Some(path) = crate::root::normalise(&entry.path_bytes()) else { continue };
            let place = match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    Place::File { offset: entry.raw_file_position(), bytes: entry.size() }
                }
                EntryType::Symlink => {
                    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                    let parent = path.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
                    let target = [parent.as_bytes(), b"/", &target].concat();
                    let Some(target) = crate::root::normalise(&target) else { continue };
                    Place::Link(target)
                }
                EntryType::Link => {
                    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                    let Some(target) = crate::root::normalise(&target) else { continue };
                    Place::Link(target)
                }
                _ => continue,
            };
            entries.insert(path, place);
        }
        Ok(Archive { file, entries })
    }

    pub(crate) fn section(&self, name: &str) -> Option<Section> {
        let mut path = &crate::root::normalise(name.as_bytes())?;
        for _ in 0..MAX_LINKS {
            match self.entries.get(path)? {
                Place::File { offset, bytes } => {
                    return Some(Section { file: self.file.clone(), offset: *offset, end: offset + bytes });
                }
                Place::Link(target) => path = target,
            }
        }
        None
    }

    /// A small file whole.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        let mut section = self.section(name).ok_or_else(|| ArchiveError::Missing(name.to_owned()))?;
        if section.length_bytes() > limit {
            return Err(ArchiveError::TooLarge { name: name.to_owned(), limit });
        }
        let mut bytes = Vec::new();
        let read = section.read_to_end(&mut bytes);
        read.map_err(|source| ArchiveError::Read { name: name.to_owned(), source })?;
        Ok(bytes)
    }
}

fn plain(mut file: File, spool: &Path) -> Result<File, ArchiveError> {
    let mut head = [0; 6];
    let n = file.read_at(&mut head, 0).map_err(ArchiveError::NotTar)?;
    let compressed =
        matches!(&head[..n], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    if n == 0 {
        return Err(ArchiveError::Compression("it is empty".to_owned()));
    }
    file.seek(SeekFrom::Start(0)).map_err(ArchiveError::NotTar)?;
    if !compressed {
        // Names what it is where it is compressed otherwise.
        if let Err(error @ DecompressError::Unsupported(_)) = layer::decompress(&file) {
            return Err(ArchiveError::Compression(error.to_string()));
        }
        return Ok(file);
    }
    let spooled = |source| ArchiveError::Spool { path: spool.to_owned(), source };
    let mut out = File::options().read(true).write(true).create_new(true).open(spool).map_err(spooled)?;
    let mut plain = layer::decompress(file).map_err(|e| ArchiveError::Compression(e.to_string()))?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = plain.read(&mut buffer).map_err(ArchiveError::NotTar)?;
        if n == 0 {
            break;
        }
        out.write_all(&buffer[..n]).map_err(spooled)?;
    }
    Ok(out)
}

/// `Section` with a position, as the tar reader wants it to skip over files.
struct SeekSection {
    section: Section,
    at: u64,
}

impl Read for SeekSection {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.section.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for SeekSection {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.section.end.checked_add_signed(by),
        };
        self.at = at.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
