//! A disk in memory that fails as real ones do, for tests and the simulation: what was not synced is lost or torn by a
//! [`SimDisk::crash`], bytes flip, space runs out, calls fail.

use super::{Disk, DiskFile};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes as a whole or not at all.
const SECTOR: usize = 512;

/// Shared by all its clones; each sees the same files.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<u64, Content>,
    next_inode: u64,
    /// Names as the process sees them, and as a crash would leave them.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// The names after each change since they were synced.
    unsynced_names: Vec<BTreeMap<String, u64>>,
    /// `None`: no limit.
    capacity_bytes: Option<u64>,
    faults: Faults,
    /// Counts crashes; handles from before one are dead.
    epoch: u64,
    syncs: u64,
}

#[derive(Debug, Default)]
struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: BTreeSet<usize>,
    handles: usize,
}

/// Errors to come: each counts down by one per call, and the call that finds 1 fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// `EIO` in the n-th write from now; half of it is written.
    pub fail_write: u64,
    /// `EIO` in the n-th sync from now; nothing of it is durable.
    pub fail_sync: u64,
    /// `EIO` in the n-th read from now.
    pub fail_read: u64,
}

impl SimDisk {
    pub fn new() -> Self {
        Self::default()
    }

    /// `None`: no limit. Space counts whole files.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.lock().capacity_bytes = capacity_bytes;
    }

    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// Calls of `sync_data` so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// The power goes: of each sector that was not synced, `keep` says whether it reached the disk; of the changes to
    /// names a prefix has. Handles opened before fail from now on.
    pub fn crash(&self, mut keep: impl FnMut() -> bool) {
        let mut inner = self.lock();
        inner.epoch += 1;
        inner.faults = Faults::default();
        for names in std::mem::take(&mut inner.unsynced_names) {
            if !keep() {
                break;
            }
            inner.durable_names = names;
        }
        inner.names = inner.durable_names.clone();
        for content in inner.files.values_mut() {
            content.lose_unsynced(&mut keep);
            content.handles = 0;
        }
        inner.collect();
    }

    /// The bytes of a file as the process sees them.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.lock();
        inner.names.get(name).map(|inode| inner.files[inode].current.clone())
    }

    /// Replaces a file's bytes behind the engine's back, durably.
    pub fn overwrite(&self, name: &str, bytes: Vec<u8>) {
        let mut inner = self.lock();
        let inode = inner.inode_for(name);
        inner.durable_names.insert(name.to_owned(), inode);
        inner.unsynced_names.clear();
        let content = inner.files.entry(inode).or_default();
        content.durable.clone_from(&bytes);
        content.current = bytes;
        content.dirty.clear();
    }

    /// A copy that shares nothing, as synced or not.
    pub fn fork(&self) -> Self {
        let inner = self.lock();
        let files = inner.files.iter().map(|(inode, content)| {
            let (current, durable, dirty) = (content.current.clone(), content.durable.clone(), content.dirty.clone());
            (*inode, Content { current, durable, dirty, handles: 0 })
        });
        Self(Arc::new(Mutex::new(Inner {
            files: files.collect(),
            next_inode: inner.next_inode,
            names: inner.names.clone(),
            durable_names: inner.durable_names.clone(),
            unsynced_names: inner.unsynced_names.clone(),
            capacity_bytes: inner.capacity_bytes,
            ..Inner::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn lose_unsynced(&mut self, keep: &mut impl FnMut() -> bool) {
        // A length that was not synced may have reached the disk.
        if self.current.len() != self.durable.len() && keep() {
            self.durable.resize(self.current.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            let end = (sector + SECTOR).min(self.current.len()).min(self.durable.len());
            if sector < end && keep() {
                self.durable[sector..end].copy_from_slice(&self.current[sector..end]);
            }
        }
        self.current.clone_from(&self.durable);
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if self.current.len() < end {
            self.current.resize(end, 0);
        }
        self.current[offset..end].copy_from_slice(data);
        let mut sector = offset / SECTOR * SECTOR;
        while sector < end {
            self.dirty.insert(sector);
            sector += SECTOR;
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.current.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let end = (sector + SECTOR).min(self.current.len());
            if sector < end {
                self.durable[sector..end].copy_from_slice(&self.current[sector..end]);
            }
        }
    }
}

impl Inner {
    /// What only a crash could bring back does not count.
    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        let files = self.files.iter().filter(|(inode, content)| content.handles > 0 || named.contains(inode));
        files.map(|(_, content)| content.current.len() as u64).sum()
    }

    fn has_room(&self, more_bytes: u64) -> bool {
        self.capacity_bytes.is_none_or(|capacity| self.used_bytes() + more_bytes <= capacity)
    }

    fn inode_for(&mut self, name: &str) -> u64 {
        if let Some(inode) = self.names.get(name) {
            return *inode;
        }
        self.next_inode += 1;
        self.names.insert(name.to_owned(), self.next_inode);
        self.next_inode
    }

    /// Frees files that have no handle and no name left, nor can get one back by a crash.
    fn collect(&mut self) {
        let maps = || [&self.names, &self.durable_names].into_iter().chain(&self.unsynced_names);
        let named: BTreeSet<u64> = maps().flat_map(|names| names.values().copied()).collect();
        self.files.retain(|inode, content| content.handles > 0 || named.contains(inode));
    }

    fn names_changed(&mut self) {
        let names = self.names.clone();
        self.unsynced_names.push(names);
        self.collect();
    }

    fn handle(&mut self, inode: u64, disk: &SimDisk) -> SimFile {
        self.files.entry(inode).or_default().handles += 1;
        SimFile { disk: disk.clone(), inode, epoch: self.epoch }
    }
}

/// Whether this call is the one that fails.
fn due(countdown: &mut u64) -> bool {
    let due = *countdown == 1;
    *countdown = countdown.saturating_sub(1);
    due
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let mut inner = self.lock();
        let inode = *inner.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(inner.handle(inode, self))
    }

    fn create(&self, name: &str, len_bytes: u64) -> io::Result<SimFile> {
        let mut inner = self.lock();
        if inner.names.remove(name).is_some() {
            inner.names_changed();
        }
        if !inner.has_room(len_bytes) {
            return Err(Errno::NOSPC.into());
        }
        let inode = inner.inode_for(name);
        let content = inner.files.entry(inode).or_default();
        content.current = vec![0; usize::try_from(len_bytes).unwrap_or(usize::MAX)];
        inner.names_changed();
        Ok(inner.handle(inode, self))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        let inode = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.to_owned(), inode);
        inner.names_changed();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        inner.names_changed();
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = self.lock();
        if due(&mut inner.faults.fail_sync) {
            return Err(Errno::IO.into());
        }
        inner.durable_names = inner.names.clone();
        inner.unsynced_names.clear();
        inner.collect();
        Ok(())
    }
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    inode: u64,
    epoch: u64,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut Inner, u64) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.disk.lock();
        if inner.epoch == self.epoch { act(&mut inner, self.inode) } else { Err(Errno::BADF.into()) }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut inner = self.disk.lock();
        if inner.epoch == self.epoch {
            if let Some(content) = inner.files.get_mut(&self.inode) {
                content.handles -= 1;
            }
            inner.collect();
        }
    }
}

fn content(inner: &mut Inner, inode: u64) -> io::Result<&mut Content> {
    inner.files.get_mut(&inode).ok_or_else(|| Errno::BADF.into())
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| Errno::FBIG.into())
}

impl DiskFile for SimFile {
    fn len_bytes(&self) -> io::Result<u64> {
        self.with(|inner, inode| Ok(content(inner, inode)?.current.len() as u64))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|inner, inode| {
            if due(&mut inner.faults.fail_read) {
                return Err(Errno::IO.into());
            }
            let bytes = &content(inner, inode)?.current;
            let start = index(offset)?.min(bytes.len());
            let end = start.saturating_add(buffer.len()).min(bytes.len());
            buffer[..end - start].copy_from_slice(&bytes[start..end]);
            Ok(end - start)
        })
    }

    fn write_all_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|inner, inode| {
            let offset = index(offset)?;
            if due(&mut inner.faults.fail_write) {
                let content = content(inner, inode)?;
                // Within the file only: a failed write must not make it longer than the space there is.
                let end = (offset + data.len() / 2).min(content.current.len());
                if offset < end {
                    content.write(offset, &data[..end - offset]);
                }
                return Err(Errno::IO.into());
            }
            let more = (offset + data.len()).saturating_sub(content(inner, inode)?.current.len());
            if more > 0 && !inner.has_room(more as u64) {
                return Err(Errno::NOSPC.into());
            }
            content(inner, inode)?.write(offset, data);
            Ok(())
        })
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.with(|inner, inode| {
            if due(&mut inner.faults.fail_sync) {
                return Err(Errno::IO.into());
            }
            inner.syncs += 1;
            content(inner, inode)?.sync();
            Ok(())
        })
    }

    fn set_len(&mut self, len_bytes: u64) -> io::Result<()> {
        self.with(|inner, inode| {
            let len = index(len_bytes)?;
            let more = len.saturating_sub(content(inner, inode)?.current.len());
            if more > 0 && !inner.has_room(more as u64) {
                return Err(Errno::NOSPC.into());
            }
            content(inner, inode)?.current.resize(len, 0);
            Ok(())
        })
    }
}
