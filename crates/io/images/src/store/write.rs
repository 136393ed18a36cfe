//! Writing so that a crash at any moment leaves the old or the new, and throwing away.

use super::{OpenError, StoreError, open_directory};
use rustix::fs::{Mode, OFlags};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A path below `tmp`; what is there when this is dropped is deleted.
pub(crate) struct TempPath(PathBuf);

impl TempPath {
    pub(super) fn new(path: PathBuf) -> TempPath {
        TempPath(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        let result = match std::fs::symlink_metadata(&self.0) {
            Err(_) => return,
            Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(&self.0),
            Ok(_) => std::fs::remove_file(&self.0),
        };
        if let Err(error) = result {
            tracing::warn!(path = %self.0.display(), %error, "cannot delete; tried again when the store is opened next");
        }
    }
}

/// Makes the store's directories; returns its lock file.
pub(super) fn make_directories(dir: &Path) -> Result<OwnedFd, OpenError> {
    let io = |what, path: &Path, source: std::io::Error| OpenError::Io { what, path: path.to_owned(), source };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    for path in [dir.to_owned(), dir.join("blobs/sha256"), dir.join("layers"), dir.join("tmp")] {
        builder.create(&path).map_err(|e| io("make", &path, e))?;
    }
    let path = dir.join("lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(|e| io("open", &path, e.into()))
}

pub(super) fn empty_temp(dir: &Path) -> Result<(), OpenError> {
    let left =
        entries(&dir.join("tmp")).map_err(|StoreError { what, path, source }| OpenError::Io { what, path, source })?;
    left.into_iter().map(TempPath::new).for_each(drop);
    Ok(())
}

pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let list = || std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    list().map_err(|e| StoreError::new("list", dir, e))
}

/// Writes a file whole and durably, or not at all.
pub(super) fn write_file(temp: &TempPath, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let write = || {
        let mut file = std::fs::File::create_new(temp.path())?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(temp.path(), path)
    };
    write().map_err(|e| StoreError::new("write", path, e))?;
    let parent = path.parent().unwrap_or(path);
    rustix::fs::fsync(open_directory(parent)?).map_err(|e| StoreError::new("sync", parent, e))
}

/// Brings the whole file system of the store to the disk: layers are many small files.
pub(super) fn sync_all(dir: &Path) -> Result<(), StoreError> {
    rustix::fs::syncfs(open_directory(dir)?).map_err(|e| StoreError::new("sync", dir, e))
}

/// Does blocking work elsewhere where there is an elsewhere.
pub(super) fn in_background(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(handle) => drop(handle.spawn_blocking(work)),
        Err(_) => work(),
    }
}
