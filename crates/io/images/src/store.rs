//! The store on disk: its index, leases, and what is thrown away when. The layout stands at the head of `lib.rs`.

mod index;
mod write;

use crate::config::{self, ImageConfig};
use crate::digest::Digest;
use crate::pull::Pulls;
use crate::{DiskUsage, Options, Reference};
pub(crate) use index::Record;
use index::{Index, Unreadable};
use rustix::fs::{FlockOperation, OFlags};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
pub(crate) use write::TempPath;

/// An image that is here, with all its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `sha256:…` of the config.
    pub id: String,
    pub config: Arc<ImageConfig>,
    /// Normalised: `docker.io/library/busybox:1.37`.
    pub repo_tags: Vec<String>,
    /// `docker.io/library/busybox@sha256:…`; empty for what came from a docker archive.
    pub repo_digests: Vec<String>,
    /// Of the manifest, the config and the layers as they were transferred.
    pub size_bytes: u64,
    /// Directories for overlayfs, the lowest first.
    pub layers: Vec<PathBuf>,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("image store {0} is in use by another process")]
    Busy(PathBuf),
    #[error("image store {path}: cannot {what}")]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("image store: {path} is damaged")]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("image store: {path} was written by a newer version ({version})")]
    Newer { path: PathBuf, version: u32 },
}

/// The store could not do its work on disk.
#[derive(Debug, thiserror::Error)]
#[error("image store: cannot {what} {path}: {source}")]
pub struct StoreError {
    pub(crate) what: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: std::io::Error,
}

impl StoreError {
    pub(crate) fn new(what: &'static str, path: &Path, source: impl Into<std::io::Error>) -> StoreError {
        StoreError { what, path: path.to_owned(), source: source.into() }
    }
}

/// Why an image was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("image {0:?} not found")]
    NotFound(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The images of one directory. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct Images {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) pulls: Pulls,
    state: Mutex<State>,
    /// Held by whoever replaces the index.
    writing: Mutex<()>,
    next_temp: AtomicU64,
    /// Of the layers there are, by directory.
    pub(crate) layer_usage: Mutex<BTreeMap<OsString, DiskUsage>>,
    /// Keeps the flock.
    _lock: std::os::fd::OwnedFd,
}

#[derive(Default)]
struct State {
    index: Index,
    configs: BTreeMap<Digest, Arc<ImageConfig>>,
    /// How many leases an image has.
    leases: HashMap<Digest, usize>,
    /// Chain ids of layers that an import or a pull under way needs.
    pins: HashMap<Digest, usize>,
}

/// Keeps an image's layers on disk until it is dropped.
pub struct Lease {
    inner: Arc<Inner>,
    id: Digest,
}

/// Keeps layers that no image names yet.
pub(crate) struct Pins {
    inner: Arc<Inner>,
    chains: Vec<Digest>,
}

impl Images {
    /// Opens the store below `dir`, makes it if there is none, and collects what a crash left behind. Blocks.
    pub fn open(dir: &Path, options: Options) -> Result<Images, OpenError> {
        // Registries are asked over TLS; a program that chose its provider keeps it.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let lock = write::make_directories(dir)?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(OpenError::Busy(dir.to_owned()));
        }
        write::empty_temp(dir)?;
        let mut state = State { index: Index::load(dir)?, ..State::default() };
        let unreadable: Vec<Unreadable> = state.index.check(dir, &mut state.configs);
        for Unreadable { id, why } in unreadable {
            tracing::warn!(image = %id, why, "an image is incomplete on disk and is forgotten");
            state.index.images.remove(&id);
        }
        let inner = Inner {
            dir: dir.to_owned(),
            options,
            pulls: Pulls::default(),
            state: Mutex::new(state),
            writing: Mutex::new(()),
            next_temp: AtomicU64::new(0),
            layer_usage: Mutex::default(),
            _lock: lock,
        };
        let inner = Arc::new(inner);
        inner.collect_unknown()?;
        Ok(Images { inner })
    }

    /// The image a user means: a name with or without tag, a name with a digest, an id (`sha256:…`, or its first
    /// hexadecimal digits where they are unique). `None`: it is not here, or that is no name.
    pub fn resolve(&self, name: &str) -> Option<Image> {
        let state = self.inner.state();
        let id = state.find(name)?;
        state.image(&self.inner.dir, &id)
    }

    /// Every image, by id.
    pub fn list(&self) -> Vec<Image> {
        let state = self.inner.state();
        let present = state.index.images.values().filter(|record| !record.removed);
        present.filter_map(|record| state.image(&self.inner.dir, &record.id)).collect()
    }

    /// Holds an image by its id (`sha256:…`), also one that was removed while it was in use. `None`: no such image.
    pub fn lease(&self, id: &str) -> Option<Lease> {
        let id: Digest = id.parse().ok()?;
        let mut state = self.inner.state();
        state.index.images.get(&id)?;
        *state.leases.entry(id).or_default() += 1;
        Some(Lease { inner: self.inner.clone(), id })
    }

    /// Removes the image that `name` means, with all its names, as CRI's `RemoveImage`. Its layers stay until the last
    /// lease is gone. Blocks.
    pub fn remove(&self, name: &str) -> Result<(), RemoveError> {
        let id = self.inner.state().find(name).ok_or_else(|| RemoveError::NotFound(name.to_owned()))?;
        self.inner.forget(&[id])?;
        Ok(())
    }

    /// Removes every image that nobody holds and `keep` does not want; returns them. Blocks.
    pub fn prune(&self, keep: impl Fn(&Image) -> bool) -> Result<Vec<Image>, StoreError> {
        let candidates: Vec<Image> = {
            let all = self.list();
            let state = self.inner.state();
            let held = |image: &Image| image.id.parse().is_ok_and(|id: Digest| state.leases.contains_key(&id));
            all.into_iter().filter(|image| !held(image)).collect()
        };
        let gone: Vec<Image> = candidates.into_iter().filter(|image| !keep(image)).collect();
        let ids: Vec<Digest> = gone.iter().filter_map(|image| image.id.parse().ok()).collect();
        self.inner.forget(&ids)?;
        Ok(gone)
    }

    /// Collects images that were removed while in use and that nobody has leased again since the store was opened.
    /// Blocks.
    pub fn collect(&self) -> Result<(), StoreError> {
        self.inner.forget(&[])
    }
}

impl State {
    fn find(&self, name: &str) -> Option<Digest> {
        let present = |id: &Digest| self.index.images.get(id).is_some_and(|record| !record.removed);
        if let Ok(id) = name.parse::<Digest>() {
            return present(&id).then_some(id);
        }
        if let Ok(reference) = Reference::parse(name) {
            let name = reference.canonical();
            let named = |record: &&Record| record.tags.contains(&name) || record.digests.contains(&name);
            if let Some(record) = self.index.images.values().filter(|r| !r.removed).find(named) {
                return Some(record.id);
            }
        }
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if hex.is_empty() || !hex.bytes().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        let mut matching = self.index.images.keys().filter(|id| present(id) && id.hex().starts_with(hex));
        let first = matching.next()?;
        matching.next().is_none().then_some(*first)
    }

    fn image(&self, dir: &Path, id: &Digest) -> Option<Image> {
        let record = self.index.images.get(id)?;
        Some(Image {
            id: id.to_string(),
            config: self.configs.get(id)?.clone(),
            repo_tags: record.tags.iter().cloned().collect(),
            repo_digests: record.digests.iter().cloned().collect(),
            size_bytes: record.size_bytes,
            layers: record.layers.iter().map(|chain| layer_path(dir, chain)).collect(),
        })
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn layer_path(&self, chain: &Digest) -> PathBuf {
        layer_path(&self.dir, chain)
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        index::blob_path(&self.dir, digest)
    }

    /// A path below `tmp` that nobody else has; what stands there is deleted when the guard goes.
    pub(crate) fn temp(&self) -> TempPath {
        let n = self.next_temp.fetch_add(1, Ordering::Relaxed);
        TempPath::new(self.dir.join("tmp").join(n.to_string()))
    }

    /// Keeps these layers from being collected until an image names them.
    pub(crate) fn pin(self: &Arc<Self>, chains: Vec<Digest>) -> Pins {
        let mut state = self.state();
        for chain in &chains {
            *state.pins.entry(*chain).or_default() += 1;
        }
        drop(state);
        Pins { inner: self.clone(), chains }
    }

    /// Stores a small blob under its digest. Blocks.
    pub(crate) fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        if path.exists() {
            return Ok(());
        }
        write::write_file(&self.temp(), &path, bytes)
    }

    /// Moves an unpacked layer to its place. Blocks.
    pub(crate) fn put_layer(&self, temp: &TempPath, chain: &Digest) -> Result<(), StoreError> {
        let path = self.layer_path(chain);
        match std::fs::rename(temp.path(), &path) {
            // Somebody else was faster with the same content.
            Err(_) if path.is_dir() => Ok(()),
            result => result.map_err(|source| StoreError::new("move a layer to", &path, source)),
        }
    }

    /// Makes `record` an image, its names no longer any other's. Everything is on the disk when this returns. Blocks.
    pub(crate) fn commit(&self, record: Record, config: &[u8]) -> Result<Image, StoreError> {
        let id = record.id;
        let bad = |source| StoreError::new("read the config of", &self.blob_path(&id), std::io::Error::other(source));
        let (parsed, _) = config::parse(config).map_err(|e: serde_json::Error| bad(e))?;
        self.put_blob(&id, config)?;
        write::sync_all(&self.dir)?;
        self.update(|index| index.insert(record))?;
        let mut state = self.state();
        state.configs.insert(id, Arc::new(parsed));
        let image = state.image(&self.dir, &id);
        drop(state);
        image
            .ok_or_else(|| StoreError::new("find", &self.dir, std::io::Error::other("the image was removed meanwhile")))
    }

    /// Replaces the index on disk, then in memory.
    fn update(&self, change: impl FnOnce(&mut Index)) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = self.state().index.clone();
        change(&mut index);
        if self.state().index == index {
            return Ok(());
        }
        index.save(&self.dir, &self.temp())?;
        self.state().index = index;
        Ok(())
    }

    /// Removes `ids`, and whatever was removed before and is not held any more.
    fn forget(self: &Arc<Self>, ids: &[Digest]) -> Result<(), StoreError> {
        let held: BTreeSet<Digest> = self.state().leases.keys().copied().collect();
        self.update(|index| {
            for id in ids {
                if let Some(record) = index.images.get_mut(id) {
                    record.remove();
                }
            }
            index.images.retain(|id, record| !record.removed || held.contains(id));
        })?;
        self.collect_unknown_now()
    }

    fn collect_unknown(self: &Arc<Self>) -> Result<(), OpenError> {
        self.collect_unknown_now().map_err(|StoreError { what, path, source }| OpenError::Io { what, path, source })
    }

    /// Moves every layer and blob that neither an image nor a pull under way knows out of the way, and deletes them.
    fn collect_unknown_now(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut trash = Vec::new();
        {
            // The lock is held over the renames: whoever pins a layer afterwards finds it gone.
            let mut state = self.state();
            let known = state.index.layers();
            let blobs = state.index.blobs();
            let images: BTreeSet<Digest> = state.index.images.keys().copied().collect();
            state.configs.retain(|id, _| images.contains(id));
            let pinned = |digest: &Digest| state.pins.contains_key(digest);
            for (directory, keep) in [("layers", &known), ("blobs/sha256", &blobs)] {
                for path in write::entries(&self.dir.join(directory))? {
                    let digest =
                        path.file_name().and_then(|n| format!("sha256:{}", n.to_str()?).parse::<Digest>().ok());
                    if digest.is_some_and(|digest| keep.contains(&digest) || pinned(&digest)) {
                        continue;
                    }
                    let temp = self.temp();
                    std::fs::rename(&path, temp.path()).map_err(|e| StoreError::new("move away", &path, e))?;
                    trash.push(temp);
                }
            }
        }
        if !trash.is_empty() {
            // The store stays locked until its names below `tmp` are free.
            let inner = self.clone();
            write::in_background(move || drop((trash, inner)));
        }
        Ok(())
    }
}

fn layer_path(dir: &Path, chain: &Digest) -> PathBuf {
    dir.join("layers").join(chain.hex())
}

/// Opens a directory for `*at` calls.
pub(crate) fn open_directory(path: &Path) -> Result<std::os::fd::OwnedFd, StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(|e| StoreError::new("open", path, e))
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        let Some(count) = state.leases.get_mut(&self.id) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        state.leases.remove(&self.id);
        let removed = state.index.images.get(&self.id).is_some_and(|record| record.removed);
        drop(state);
        if removed {
            let inner = self.inner.clone();
            write::in_background(move || {
                if let Err(error) = inner.forget(&[]) {
                    tracing::warn!(%error, "a removed image could not be collected");
                }
            });
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        for chain in &self.chains {
            if let Some(count) = state.pins.get_mut(chain) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(chain);
                }
            }
        }
    }
}
