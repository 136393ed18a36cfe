//! A real directory.

use super::{Disk, DiskFile};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const LOCK_NAME: &str = "lock";
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Files in one directory, readable by the owner only. Holds the directory's lock for as long as it lives.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    directory: OwnedFd,
    _lock: OwnedFd,
}

#[derive(Debug, thiserror::Error)]
pub enum FileDiskError {
    #[error("{} is in use by another process", .path.display())]
    InUse { path: PathBuf },
    #[error("cannot open the database directory {}", .path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl FileDisk {
    /// Opens the directory, creating it if it is not there. Fails with `InUse` while another [`FileDisk`] has it.
    pub fn open(path: &Path) -> Result<Self, FileDiskError> {
        let failed = |source: io::Error| FileDiskError::Open { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let lock = rustix::fs::openat(&directory, LOCK_NAME, flags, mode).map_err(|error| failed(error.into()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), directory, _lock: lock }),
            Err(Errno::WOULDBLOCK) => Err(FileDiskError::InUse { path: path.to_owned() }),
            Err(error) => Err(failed(error.into())),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open_at(&self, name: &str, flags: OFlags) -> io::Result<OpenFile> {
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(OpenFile(rustix::fs::openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)?))
    }
}

impl Disk for FileDisk {
    type File = OpenFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if !matches!(name.as_ref(), "." | ".." | LOCK_NAME) {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<OpenFile> {
        self.open_at(name, OFlags::empty())
    }

    fn create(&self, name: &str, len_bytes: u64) -> io::Result<OpenFile> {
        let mut file = self.open_at(name, OFlags::CREATE | OFlags::TRUNC)?;
        if let Err(error) = file.preallocate(len_bytes) {
            // What could be allocated must not stay taken.
            self.remove(name)?;
            return Err(error);
        }
        Ok(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.directory, from, &self.directory, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.directory)?)
    }
}

/// An open file of a [`FileDisk`].
#[derive(Debug)]
pub struct OpenFile(OwnedFd);

impl OpenFile {
    fn preallocate(&mut self, len_bytes: u64) -> io::Result<()> {
        if len_bytes == 0 {
            return Ok(());
        }
        loop {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len_bytes) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let mut offset = 0;
        while offset < len_bytes {
            let step = usize::try_from(len_bytes - offset).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write_all_at(offset, &ZEROS[..step])?;
            offset += step as u64;
        }
        Ok(())
    }
}

impl DiskFile for OpenFile {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(&self.0)?.st_size).unwrap_or(0))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(&self.0, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    fn write_all_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            match rustix::io::pwrite(&self.0, &data[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.0)?)
    }

    fn set_len(&mut self, len_bytes: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.0, len_bytes)?)
    }
}
