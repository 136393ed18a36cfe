//! What file systems have and directories take: there is no event for either, so both are asked.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// `statvfs` of a file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) device: u64,
    pub(crate) capacity_bytes: u64,
    /// To whoever is not root, as upstream counts.
    pub(crate) available_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

/// The file system in which `path` lies.
pub(crate) fn room(path: &Path) -> std::io::Result<Room> {
    let stat = rustix::fs::statvfs(path)?;
    let device = std::fs::metadata(path)?.dev();
    Ok(Room {
        device,
        capacity_bytes: stat.f_blocks * stat.f_frsize,
        available_bytes: stat.f_bavail * stat.f_frsize,
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}

/// What a tree takes: blocks, hard links once, nothing of what is mounted in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// Counts a tree. What vanishes meanwhile, or never was, counts nothing.
pub(crate) fn used(path: &Path) -> Used {
    let mut used = Used::default();
    let Ok(root) = std::fs::symlink_metadata(path) else { return used };
    let mut links = BTreeSet::new();
    let mut waiting = vec![path.to_owned()];
    let mut count = |file: &std::fs::Metadata| {
        if file.nlink() == 1 || file.is_dir() || links.insert(file.ino()) {
            used += Used { bytes: file.blocks() * 512, inodes: 1 };
        }
    };
    count(&root);
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(file) = entry.metadata() else { continue };
            if file.dev() != root.dev() {
                continue;
            }
            count(&file);
            if file.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    used
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hard_links_count_once_and_symlinks_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert_eq!(used(&at("none")), Used::default());
        let empty = used(directory.path());
        std::fs::create_dir(at("below")).unwrap();
        std::fs::write(at("below/file"), vec![1; 100_000]).unwrap();
        let one = used(directory.path());
        assert!(one.bytes - empty.bytes >= 100_000 && one.inodes == empty.inodes + 2, "{empty:?} {one:?}");
        std::fs::hard_link(at("below/file"), at("link")).unwrap();
        assert_eq!(used(directory.path()).inodes, one.inodes);
        std::os::unix::fs::symlink("/", at("symlink")).unwrap();
        assert_eq!(used(directory.path()).inodes, one.inodes + 1);
        let room = room(directory.path()).unwrap();
        assert!(room.capacity_bytes >= room.available_bytes && room.available_bytes > 0);
    }
}
