//! What files take on disk.

use crate::Images;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::io::{ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a tree takes: blocks rather than lengths, a file with several names once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    pub bytes: u64,
    pub inodes: u64,
}

impl DiskUsage {
    /// Counts `dir` and all below it; what vanishes meanwhile does not count. Blocks, long on a large tree.
    ///
    /// # Errors
    /// When `dir` itself, or something in it that stays, cannot be read.
    pub fn of(dir: &Path) -> Result<DiskUsage> {
        let mut used = DiskUsage::default();
        let mut seen = HashSet::new();
        let metadata = std::fs::symlink_metadata(dir)?;
        used.add(&metadata, &mut seen);
        let mut directories = vec![dir.to_owned()];
        while let Some(dir) = directories.pop() {
            for entry in present(std::fs::read_dir(&dir))?.into_iter().flatten() {
                let Some(entry) = present(entry)? else { continue };
                let Some(metadata) = present(entry.metadata())? else { continue };
                used.add(&metadata, &mut seen);
                if metadata.is_dir() {
                    directories.push(entry.path());
                }
            }
        }
        Ok(used)
    }

    fn add(&mut self, metadata: &std::fs::Metadata, seen: &mut HashSet<(u64, u64)>) {
        let linked = !metadata.is_dir() && metadata.nlink() > 1;
        if linked && !seen.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        self.bytes += metadata.blocks() * 512;
        self.inodes += 1;
    }
}

fn present<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

impl Images {
    /// Where the store lies.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// What the store takes on disk: manifests, configs and unpacked layers. A layer never changes and is counted once.
    /// Blocks.
    ///
    /// # Errors
    /// When a part of the store cannot be read.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let mut counted = self.inner.layer_usage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut layers: BTreeMap<OsString, DiskUsage> = BTreeMap::new();
        for entry in std::fs::read_dir(self.inner.dir.join("layers"))? {
            let entry = entry?;
            let usage = match counted.get(&entry.file_name()) {
                Some(usage) => *usage,
                None => present(DiskUsage::of(&entry.path()))?.unwrap_or_default(),
            };
            layers.insert(entry.file_name(), usage);
        }
        let mut used = DiskUsage::of(&self.inner.dir.join("blobs"))?;
        for layer in layers.values() {
            used.bytes += layer.bytes;
            used.inodes += layer.inodes;
        }
        *counted = layers;
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn blocks_count_and_a_file_with_two_names_once() {
        let dir = tempfile::tempdir().unwrap();
        let empty = DiskUsage::of(dir.path()).unwrap();
        assert_eq!(empty.inodes, 1);
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let file = dir.path().join("sub/file");
        std::fs::write(&file, vec![1; 100_000]).unwrap();
        std::fs::hard_link(&file, dir.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let sparse = std::fs::File::create(dir.path().join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        // Some file systems give out blocks only when they are written back.
        std::fs::File::open(&file).unwrap().sync_all().unwrap();
        let used = DiskUsage::of(dir.path()).unwrap();
        assert_eq!(used.inodes, 5);
        assert!((100_000..200_000).contains(&(used.bytes - empty.bytes)), "{used:?}");
        assert_eq!(DiskUsage::of(&dir.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
