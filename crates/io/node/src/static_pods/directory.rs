//! The directory of manifests (upstream `pkg/kubelet/config/file.go`). Each visible file gives one Pod. A file is read when
//! whoever wrote it has closed it or moved it here; what a symlink leads to is watched as well. A file that cannot be used
//! leaves the Pod as it was that it gave before: half a file ends nothing.

use super::Wanted;
use crate::Shared;
use futures::StreamExt;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kubelet::static_pods::{self, MAX_BYTES, Origin};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

/// As long a chain of symlinks as the kernel follows.
const MAX_LINKS: usize = 40;

pub(super) async fn run(shared: &Arc<Shared>, sender: mpsc::UnboundedSender<Wanted>) {
    let path = shared.config.data_dir.join("manifests");
    if let Err(error) = std::fs::create_dir_all(&path) {
        tracing::warn!(path = %path.display(), %error, "cannot make the directory of static Pods");
    }
    let inotify = match Inotify::init() {
        Ok(inotify) => inotify,
        Err(error) => {
            tracing::warn!(%error, "manifests of static Pods are read once and not watched");
            let mut directory = Directory::new(shared, path, None);
            directory.read_all();
            sender.send(directory.wanted()).ok();
            return std::future::pending().await;
        }
    };
    let mut directory = Directory::new(shared, path, Some(inotify.watches()));
    directory.watch();
    directory.read_all();
    let mut told = directory.wanted();
    sender.send(told.clone()).ok();
    let Ok(mut events) = inotify.into_event_stream([0; 4096]) else { return std::future::pending().await };
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => directory.take(&event.wd, event.mask, event.name),
            Err(error) => {
                tracing::warn!(%error, "manifests are read anew");
                directory.read_all();
            }
        }
        let wanted = directory.wanted();
        if wanted != told {
            told = wanted;
            sender.send(told.clone()).ok();
        }
    }
}

struct Directory<'a> {
    shared: &'a Shared,
    path: PathBuf,
    watches: Option<Watches>,
    /// What is watched: the directory itself, the one it stands in, those that symlinks lead to.
    watched: HashMap<WatchDescriptor, PathBuf>,
    /// The Pod of each file.
    files: BTreeMap<OsString, Arc<Pod>>,
}

impl<'a> Directory<'a> {
    fn new(shared: &'a Shared, path: PathBuf, watches: Option<Watches>) -> Self {
        Self { shared, path, watches, watched: HashMap::new(), files: BTreeMap::new() }
    }

    fn wanted(&self) -> Wanted {
        self.files.values().cloned().collect()
    }

    /// The directory, and its parent, which tells when it is replaced.
    fn watch(&mut self) {
        let path = self.path.clone();
        self.add(&path);
        if let Some(parent) = path.parent() {
            self.add(parent);
        }
    }

    fn add(&mut self, path: &Path) {
        let Some(watches) = &mut self.watches else { return };
        let mask = WatchMask::CREATE
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE
            | WatchMask::ONLYDIR;
        match watches.add(path, mask) {
            Ok(descriptor) => {
                self.watched.insert(descriptor, path.to_owned());
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot be watched for static Pods"),
        }
    }

    fn take(&mut self, descriptor: &WatchDescriptor, mask: EventMask, name: Option<OsString>) {
        if mask.contains(EventMask::Q_OVERFLOW) {
            self.read_all();
            return;
        }
        let place = self.watched.get(descriptor).cloned();
        if mask.contains(EventMask::IGNORED) {
            self.watched.remove(descriptor);
            return;
        }
        let (Some(place), Some(name)) = (place, name) else { return };
        if Some(place.as_path()) == self.path.parent() && Some(name.as_os_str()) == self.path.file_name() {
            let path = self.path.clone();
            self.add(&path);
            self.read_all();
            return;
        }
        if place == self.path && is_visible(&name) {
            // Whoever makes a file goes on to write it, unless it is made whole: a link.
            let path = self.path.join(&name);
            let begun = mask.contains(EventMask::CREATE)
                && std::fs::symlink_metadata(&path).is_ok_and(|file| file.is_file() && is_single(&file));
            if !begun {
                self.read(&name);
            }
            return;
        }
        // Something that a symlink may lead through.
        let links = self.entries().into_iter().filter(|name| self.path.join(name).is_symlink());
        for name in links.collect::<Vec<_>>() {
            self.read(&name);
        }
    }

    fn entries(&self) -> BTreeSet<OsString> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).filter(|name| is_visible(name)).collect()
    }

    /// Reads every file, and forgets those that are gone.
    fn read_all(&mut self) {
        let entries = self.entries();
        for gone in self.files.keys().filter(|name| !entries.contains(*name)).cloned().collect::<Vec<_>>() {
            self.read(&gone);
        }
        for name in entries {
            self.read(&name);
        }
    }

    fn read(&mut self, name: &OsString) {
        let path = self.path.join(name);
        let place = path.display().to_string();
        for directory in led_through(&path) {
            if directory != self.path {
                self.add(&directory);
            }
        }
        let node = &self.shared.config.name;
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.files.remove(name);
                self.shared.manifests.set(&place, None);
                return;
            }
            Err(error) => return self.tell(&place, &format!("cannot be read: {error}")),
        };
        match static_pods::decode(&bytes, Origin::File { path: &place, node }, Timestamp::now()) {
            Ok(mut manifest) => {
                for warning in &manifest.warnings {
                    tracing::warn!(path = place, "{warning}");
                }
                self.shared.manifests.set(&place, None);
                if let Some(pod) = manifest.pods.pop() {
                    let same = self
                        .files
                        .get(name)
                        .is_some_and(|known| known.metadata.uid == pod.metadata.uid && known.spec == pod.spec);
                    if !same {
                        self.files.insert(name.clone(), Arc::new(pod));
                    }
                }
            }
            Err(wrong) => self.tell(&place, &wrong.to_string()),
        }
    }

    fn tell(&self, place: &str, problem: &str) {
        if self.shared.manifests.set(place, Some(problem.to_owned())) {
            tracing::warn!(path = place, problem, "this manifest cannot be used");
        }
    }
}

fn is_visible(name: &std::ffi::OsStr) -> bool {
    !name.as_encoded_bytes().starts_with(b".")
}

fn is_single(file: &std::fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(file) == 1
}

/// The directories in which the symlinks from `path` on stand, and what they lead to.
fn led_through(path: &Path) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(target) = std::fs::read_link(&at) else { break };
        let parent = at.parent().map(Path::to_owned).unwrap_or_default();
        at = parent.join(target);
        // A link on the way may itself be a directory, as those of mounted ConfigMaps are.
        directories.extend(
            at.ancestors().skip(1).find(|ancestor| ancestor.is_symlink()).and_then(Path::parent).map(Path::to_owned),
        );
        directories.extend(at.parent().and_then(|parent| parent.canonicalize().ok()));
    }
    directories
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let kind = std::fs::metadata(path)?;
    if !kind.is_file() {
        // Nothing is read from a pipe; a directory is not descended into.
        return Err(std::io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other("it is longer than 10 MiB"));
    }
    Ok(bytes)
}
