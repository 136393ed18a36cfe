//! All I/O of the embedded engine; `dev/sim` brings a faulty one.

pub mod faulty;
pub mod file;

use std::io;

/// A directory of append-only and atomically replaced files. Calls may block.
pub trait Disk: Send + 'static {
    type File: DiskFile;

    /// Names in the directory, in any order.
    fn list(&self) -> io::Result<Vec<String>>;
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// A new, empty (zeros) file with `len_bytes` preallocated; one of that name is replaced. `ENOSPC` when there is no
    /// room, and then no file is left.
    fn create(&self, name: &str, len_bytes: u64) -> io::Result<Self::File>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// A handle opened before still reads the file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// One file of a [`Disk`].
pub trait DiskFile: Send + Sync + 'static {
    fn len_bytes(&self) -> io::Result<u64>;
    /// May read less than asked only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    fn write_all_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// `fdatasync`.
    fn sync_data(&mut self) -> io::Result<()>;
    fn set_len(&mut self, len_bytes: u64) -> io::Result<()>;
}
