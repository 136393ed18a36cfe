//! Unpacks a layer's tar into a directory that overlayfs takes as a lower layer: whiteouts become its own marks, owners,
//! modes, times, extended attributes, hard links and devices are as in the archive. Layers are hostile until proved
//! otherwise: no name and no link leads outside the directory.

use crate::root::{self, Root};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tar::{Entry, EntryType};

const OPAQUE: &str = "trusted.overlay.opaque";
const BUFFER_BYTES: usize = 128 << 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("read the archive: {0}")]
    Archive(#[source] std::io::Error),
    #[error("entry {0:?} leads out of its layer")]
    Escape(String),
    #[error("entry {name:?}: {source}")]
    Entry { name: String, source: std::io::Error },
    #[error("entry {name:?} is of type {kind:?}, which layers do not have")]
    Type { name: String, kind: EntryType },
    #[error("it unpacks to more than {0} bytes")]
    TooLarge(u64),
    #[error("it holds more than {0} entries")]
    TooMany(u64),
}

/// The bounds of one layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

/// What only the layers below can complete.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Directories that the layer uses and does not describe: theirs are the attributes from below.
    pub(crate) implied: Vec<PathBuf>,
    /// Hard links to files of a layer below: link, target.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
}

/// Unpacks `tar` into the existing directory `into`. Reads to the archive's end, not to the reader's. Blocks.
pub(crate) fn unpack(tar: &mut dyn Read, into: &Path, limits: Limits) -> Result<Unpacked, UnpackError> {
    let root = Root::open(into).map_err(|e| UnpackError::Archive(e.into()))?;
    let mut unpacker = Unpacker {
        root,
        limits,
        bytes: 0,
        unpacked: Unpacked::default(),
        times: Vec::new(),
        buffer: vec![0; BUFFER_BYTES],
    };
    let mut archive = tar::Archive::new(tar);
    let mut count = 0;
    for entry in archive.entries().map_err(UnpackError::Archive)? {
        let mut entry = entry.map_err(UnpackError::Archive)?;
        count += 1;
        if count > limits.entries {
            return Err(UnpackError::TooMany(limits.entries));
        }
        unpacker.entry(&mut entry)?;
    }
    unpacker.finish()
}

struct Unpacker {
    root: Root,
    limits: Limits,
    bytes: u64,
    unpacked: Unpacked,
    /// Directories' times, set when nothing is put into them any more.
    times: Vec<(PathBuf, Timestamps)>,
    buffer: Vec<u8>,
}

/// An entry's attributes.
struct Attributes {
    mode: Mode,
    uid: Uid,
    gid: Gid,
    times: Timestamps,
    xattrs: Vec<(String, Vec<u8>)>,
}

type Tar<'a, 'b> = Entry<'a, &'b mut dyn Read>;

impl Unpacker {
    fn entry(&mut self, entry: &mut Tar<'_, '_>) -> Result<(), UnpackError> {
        let bytes = entry.path_bytes().into_owned();
        let name = String::from_utf8_lossy(&bytes).into_owned();
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = root::normalise(&bytes).ok_or_else(|| UnpackError::Escape(name.clone()))?;
        let file_name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
        let result = match file_name.strip_prefix(b".wh.") {
            Some(b".wh..opq") => self.opaque(&path).map_err(Some),
            // aufs' own bookkeeping (`.wh..wh.plnk`, `.wh..wh.orph`); below such a directory, too.
            _ if is_aufs(&path) => Ok(()),
            Some(hidden) => self.whiteout(&path, OsStr::from_bytes(hidden)).map_err(Some),
            None => self.make(entry, &path, kind),
        };
        result.map_err(|error| match error {
            Some(source) if source.get_ref().is_some_and(|e| e.is::<OverLimit>()) => {
                UnpackError::TooLarge(self.limits.bytes)
            }
            Some(source) => UnpackError::Entry { name, source },
            None => UnpackError::Type { name, kind },
        })
    }

    /// `Err(None)`: there is no such type.
    fn make(&mut self, entry: &mut Tar<'_, '_>, path: &Path, kind: EntryType) -> Result<(), Option<std::io::Error>> {
        let attributes = attributes(entry)?;
        match kind {
            EntryType::Directory => self.directory(path, &attributes)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(entry, path, &attributes)?,
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.symlink(path, OsStr::from_bytes(&target), &attributes)?;
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = root::normalise(&target).ok_or_else(|| invalid("its target leads out of the layer"))?;
                self.link(path, target)?;
            }
            EntryType::Char => self.device(entry, path, FileType::CharacterDevice, &attributes)?,
            EntryType::Block => self.device(entry, path, FileType::BlockDevice, &attributes)?,
            EntryType::Fifo => self.device(entry, path, FileType::Fifo, &attributes)?,
            _ => return Err(None),
        }
        Ok(())
    }

    fn directory(&mut self, path: &Path, attributes: &Attributes) -> std::io::Result<()> {
        if let Some(name) = path.file_name() {
            let dir = self.root.parent(path, &mut self.unpacked.implied)?;
            let old = root::stat(dir, name)?;
            let mut hides = false;
            if let Some(old) = old.filter(|old| !root::is_directory(old)) {
                // The layer deletes what is below and makes a new directory: nothing shines through.
                hides = root::is_whiteout(&old);
                root::remove(dir, name)?;
                rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))?;
            } else if old.is_none() {
                rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))?;
            }
            let fd = open_directory(dir, name)?;
            if hides {
                rustix::fs::fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty())?;
            }
            set_attributes(&fd, attributes)?;
            // A link may have stood there, or the directory was thought implied.
            self.root.forget_last();
            self.unpacked.implied.retain(|implied| implied != path);
        } else {
            let fd = self.root.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            set_attributes(&fd, attributes)?;
        }
        self.times.push((path.to_owned(), attributes.times.clone()));
        Ok(())
    }

    fn file(&mut self, entry: &mut Tar<'_, '_>, path: &Path, attributes: &Attributes) -> std::io::Result<()> {
        let (dir, name) = self.free_name(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?);
        loop {
            let n = entry.read(&mut self.buffer)?;
            if n == 0 {
                break;
            }
            self.bytes += n as u64;
            if self.bytes > self.limits.bytes {
                return Err(std::io::Error::other(OverLimit));
            }
            file.write_all(&self.buffer[..n])?;
        }
        set_attributes(&file, attributes)?;
        rustix::fs::futimens(&file, &attributes.times)?;
        Ok(())
    }

    fn symlink(&mut self, path: &Path, target: &OsStr, attributes: &Attributes) -> std::io::Result<()> {
        let (dir, name) = self.free_name(path)?;
        rustix::fs::symlinkat(target, dir, name)?;
        set_attributes_by_name(dir, name, attributes)?;
        // Names on the way may mean something else now.
        self.root.forget_last();
        Ok(())
    }

    fn link(&mut self, path: &Path, target: PathBuf) -> std::io::Result<()> {
        let Some(target_name) = target.file_name() else { return Err(invalid("its target is no file")) };
        let parent = target.parent().unwrap_or(Path::new(""));
        let found = match self.root.open_at(parent, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(from) => root::stat(from.as_fd(), target_name)?.filter(|s| !root::is_whiteout(s)).map(|_| from),
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(error) => return Err(error.into()),
        };
        if path == target {
            return Ok(());
        }
        let (dir, name) = self.free_name(path)?;
        match found {
            // Without AT_SYMLINK_FOLLOW: a link to a link is a link.
            Some(from) => rustix::fs::linkat(&from, target_name, dir, name, AtFlags::empty())?,
            None => self.unpacked.links.push((path.to_owned(), target)),
        }
        Ok(())
    }

    fn device(
        &mut self,
        entry: &Tar<'_, '_>,
        path: &Path,
        kind: FileType,
        attributes: &Attributes,
    ) -> std::io::Result<()> {
        let device = match kind {
            FileType::Fifo => 0,
            _ => rustix::fs::makedev(
                entry.header().device_major()?.unwrap_or_default(),
                entry.header().device_minor()?.unwrap_or_default(),
            ),
        };
        let (dir, name) = self.free_name(path)?;
        rustix::fs::mknodat(dir, name, kind, attributes.mode, device)?;
        set_attributes_by_name(dir, name, attributes)
    }

    /// Everything of the layers below in this directory is hidden.
    fn opaque(&mut self, path: &Path) -> std::io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        self.root.parent(path, &mut self.unpacked.implied)?;
        let fd = self.root.open_at(&directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(rustix::fs::fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty())?)
    }

    /// The name is deleted from the layers below; what this layer itself puts there stays.
    fn whiteout(&mut self, path: &Path, hidden: &OsStr) -> std::io::Result<()> {
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(invalid("it hides no name"));
        }
        let dir = self.root.parent(path, &mut self.unpacked.implied)?;
        match root::stat(dir, hidden)? {
            None => Ok(rustix::fs::mknodat(dir, hidden, FileType::CharacterDevice, Mode::empty(), 0)?),
            Some(old) if root::is_directory(&old) => {
                Ok(rustix::fs::fsetxattr(open_directory(dir, hidden)?, OPAQUE, b"y", XattrFlags::empty())?)
            }
            Some(_) => Ok(()),
        }
    }

    /// The directory and the last name of `path`, with nothing standing there.
    fn free_name<'a>(&'a mut self, path: &'a Path) -> std::io::Result<(BorrowedFd<'a>, &'a OsStr)> {
        let name = path.file_name().ok_or_else(|| invalid("it replaces the root"))?;
        let dir = self.root.parent(path, &mut self.unpacked.implied)?;
        let old = root::stat(dir, name)?;
        if old.is_some_and(|old| !root::is_directory(&old)) {
            root::remove(dir, name)?;
        } else if old.is_some() {
            root::remove(dir, name)?;
            self.unpacked.implied.retain(|implied| !implied.starts_with(path));
            self.unpacked.links.retain(|(link, _)| !link.starts_with(path));
            self.root.forget_last();
        }
        self.unpacked.links.retain(|(link, _)| link != path);
        Ok((self.root.parent(path, &mut self.unpacked.implied)?, name))
    }

    fn finish(self) -> Result<Unpacked, UnpackError> {
        for (path, times) in self.times.iter().rev() {
            // Gone or replaced by a later entry: nothing to set.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            if let Ok(fd) = self.root.open_at(path, flags) {
                let set = rustix::fs::futimens(&fd, times);
                set.map_err(|e| UnpackError::Entry { name: path.display().to_string(), source: e.into() })?;
            }
        }
        Ok(self.unpacked)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("too large")]
struct OverLimit;

fn invalid(why: &'static str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, why)
}

fn is_aufs(path: &Path) -> bool {
    path.iter().any(|part| part.as_bytes().starts_with(b".wh..wh."))
}

fn open_directory(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn attributes(entry: &mut Tar<'_, '_>) -> std::io::Result<Attributes> {
    let id = |id: u64| {
        u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| invalid("its owner is out of range"))
    };
    let header = entry.header();
    let (uid, gid, mode) = (id(header.uid()?)?, id(header.gid()?)?, header.mode()? & 0o7777);
    let mut mtime = Timespec { tv_sec: i64::try_from(header.mtime()?).unwrap_or_default(), tv_nsec: 0 };
    let mut xattrs = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let Ok(key) = extension.key() else { continue };
        if key == "mtime" {
            mtime = extension.value().ok().and_then(parse_time).unwrap_or(mtime);
        } else if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            // overlayfs would obey these: a layer must not steer it.
            if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
                tracing::warn!(name, "an overlayfs attribute in an image layer is left out");
                continue;
            }
            xattrs.push((name.to_owned(), extension.value_bytes().to_owned()));
        }
    }
    Ok(Attributes {
        mode: Mode::from_raw_mode(mode),
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        times: Timestamps { last_access: mtime, last_modification: mtime },
        xattrs,
    })
}

/// PAX time: seconds with a fraction, possibly negative.
fn parse_time(text: &str) -> Option<Timespec> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: i64 = digits.parse().ok()?;
    if negative && nanos > 0 {
        return Some(Timespec { tv_sec: seconds - 1, tv_nsec: 1_000_000_000 - nanos });
    }
    Some(Timespec { tv_sec: seconds, tv_nsec: nanos })
}

/// The owner first: changing it clears set-id bits and capabilities.
fn set_attributes(fd: &impl AsFd, attributes: &Attributes) -> std::io::Result<()> {
    rustix::fs::fchown(fd, Some(attributes.uid), Some(attributes.gid))?;
    rustix::fs::fchmod(fd, attributes.mode)?;
    for (name, value) in &attributes.xattrs {
        supported(rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty()), name)?;
    }
    Ok(())
}

/// For what cannot be opened: links, devices.
fn set_attributes_by_name(dir: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes) -> std::io::Result<()> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(dir, name, Some(attributes.uid), Some(attributes.gid), nofollow)?;
    let path = root::name_path(dir, name);
    let link = root::stat(dir, name)?.is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Symlink);
    if !link {
        // Not a link: nothing is followed.
        rustix::fs::chmodat(dir, name, attributes.mode, AtFlags::empty())?;
    }
    for (key, value) in &attributes.xattrs {
        supported(rustix::fs::lsetxattr(&path, key.as_str(), value, XattrFlags::empty()), key)?;
    }
    Ok(rustix::fs::utimensat(dir, name, &attributes.times, nofollow)?)
}

/// A file system without such attributes still takes the layer, as containerd does.
fn supported(result: rustix::io::Result<()>, name: &str) -> std::io::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) => {
            tracing::warn!(name, "the file system of the image store has no such extended attribute");
            Ok(())
        }
        result => Ok(result?),
    }
}
