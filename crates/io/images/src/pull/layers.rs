//! One pull from beginning to end: manifest, config, layers side by side, and the image.

use super::blobs::{self, ChunkReader};
use super::resolve::{self, Resolved};
use super::{Failure, Listeners, Progress, PullFailure};
use crate::digest::Digest;
use crate::layer::{self, Expected, LayerError};
use crate::manifest::{Descriptor, MAX_CONFIG_BYTES};
use crate::registry::Registry;
use crate::store::{Image, Images, Inner, Record, TempPath};
use crate::unpack::Unpacked;
use crate::{Auth, Reference, config, copy_up};
use futures::StreamExt;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio_util::sync::CancellationToken;

/// Chunks between the network and the unpacking thread.
const CHUNKS: usize = 64;

/// A layer on its way: `None` if it was there already.
type Fetched = Option<(TempPath, Unpacked, OwnedMutexGuard<()>)>;

struct Pull<'a> {
    inner: &'a Arc<Inner>,
    reference: &'a Reference,
    registries: &'a [Arc<Registry>],
    listeners: &'a Listeners,
    /// One layer failed: the others are not wanted any more.
    stop: CancellationToken,
}

impl Images {
    pub(super) async fn pull_alone(
        &self,
        reference: &Reference,
        auths: &[Auth],
        listeners: &Listeners,
    ) -> Result<Image, Failure> {
        let inner = &self.inner;
        let resolved = resolve::resolve(inner, reference, auths).await?;
        let pull =
            Pull { inner, reference, registries: &resolved.registries, listeners, stop: CancellationToken::new() };
        let config = pull.config(&resolved.manifest.config).await?;
        let invalid = |reason: String| Failure::new(PullFailure::Invalid, reason);
        let (_, diff_ids) = config::parse(&config).map_err(|e| invalid(format!("malformed image config: {e}")))?;
        let layers = &resolved.manifest.layers;
        if diff_ids.len() != layers.len() {
            return Err(invalid(format!(
                "mismatched image rootfs and manifest layers: {} and {}",
                diff_ids.len(),
                layers.len()
            )));
        }
        let mut chains: Vec<Digest> = Vec::new();
        for diff_id in &diff_ids {
            chains.push(Digest::chain(chains.last(), diff_id));
        }
        let kept = resolved.documents.iter().map(|(digest, _)| *digest).chain([resolved.manifest.config.digest]);
        let _pins = inner.pin(chains.iter().copied().chain(kept).collect());
        pull.layers(layers, &diff_ids, &chains).await?;
        let record = record(reference, &resolved, &chains);
        let (inner, documents) = (inner.clone(), resolved.documents);
        let commit = move || {
            for (digest, bytes) in &documents {
                inner.put_blob(digest, bytes)?;
            }
            inner.commit(record, &config)
        };
        tokio::task::spawn_blocking(commit).await.map_err(Failure::other)?.map_err(Failure::other)
    }
}

fn record(reference: &Reference, resolved: &Resolved, chains: &[Digest]) -> Record {
    let documents: u64 = resolved.documents.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let blobs = resolved.manifest.layers.iter().chain([&resolved.manifest.config]).map(|d| d.size).sum::<u64>();
    let tag = reference.digest().is_none().then(|| reference.canonical());
    Record {
        id: resolved.manifest.config.digest,
        tags: tag.into_iter().collect(),
        digests: BTreeSet::from([format!("{}@{}", reference.repository(), resolved.digest)]),
        manifests: resolved.documents.iter().map(|(digest, _)| *digest).collect(),
        layers: chains.to_vec(),
        size_bytes: documents + blobs,
        removed: false,
    }
}

impl Pull<'_> {
    async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        let digest = &descriptor.digest;
        if let Ok(bytes) = tokio::fs::read(self.inner.blob_path(digest)).await
            && Digest::of(&bytes) == *digest
        {
            return Ok(bytes);
        }
        let mut failure = None;
        for registry in self.registries.iter().filter(|registry| registry.host.pull) {
            match resolve::fetch(self.reference, registry, "blobs", digest, MAX_CONFIG_BYTES).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => failure = failure.or(Some(Failure::from(error))),
            }
        }
        Err(failure.unwrap_or_else(|| Failure::other("no server is configured to pull from")))
    }

    /// Fetches several at once; each takes its place in order, because it is completed from those below it. After a
    /// failure it returns once nobody writes below `tmp` any more.
    async fn layers(&self, layers: &[Descriptor], diff_ids: &[Digest], chains: &[Digest]) -> Result<(), Failure> {
        let fetches = (0..layers.len()).map(|i| self.fetch(&layers[i], diff_ids[i], chains[i]));
        let mut fetched = futures::stream::iter(fetches).buffered(self.inner.options.parallel_layers.max(1));
        let mut failure = None;
        let mut index = 0;
        while let Some(result) = fetched.next().await {
            let placed = match result {
                Ok(Some(fetched)) if failure.is_none() => self.place(fetched, index, diff_ids, chains).await,
                // Deleting takes its time.
                Ok(Some(fetched)) => tokio::task::spawn_blocking(move || drop(fetched)).await.map_err(Failure::other),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            match placed {
                Ok(()) if failure.is_none() => self.tell(&layers[index], layers[index].size, true),
                Ok(()) => {}
                Err(error) => {
                    self.stop.cancel();
                    failure.get_or_insert(error);
                }
            }
            index += 1;
        }
        failure.map_or(Ok(()), Err)
    }

    async fn place(
        &self,
        (temp, unpacked, guard): (TempPath, Unpacked, OwnedMutexGuard<()>),
        index: usize,
        diff_ids: &[Digest],
        chains: &[Digest],
    ) -> Result<(), Failure> {
        let lowers: Vec<PathBuf> = chains[..index].iter().rev().map(|chain| self.inner.layer_path(chain)).collect();
        let (inner, chain, diff_id) = (self.inner.clone(), chains[index], diff_ids[index]);
        let place = move || {
            let completed = copy_up::complete(temp.path(), &unpacked, &lowers);
            completed.map_err(|source| Failure::other(LayerError::Unpack { diff_id, source }))?;
            inner.put_layer(&temp, &chain).map_err(Failure::other)
        };
        let placed = tokio::task::spawn_blocking(place).await.map_err(Failure::other)?;
        drop(guard);
        placed
    }

    async fn fetch(&self, descriptor: &Descriptor, diff_id: Digest, chain: Digest) -> Result<Fetched, Failure> {
        let lock = self.inner.pulls.layer(&chain).lock_owned();
        let guard = self.stop.run_until_cancelled(lock).await.ok_or_else(|| Failure::other("another layer failed"))?;
        if self.inner.layer_path(&chain).is_dir() {
            return Ok(None);
        }
        if descriptor.urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
            let reason = format!(
                "layer {} is foreign (its manifest tells other places for it), which is not supported",
                descriptor.digest
            );
            return Err(Failure::new(PullFailure::Invalid, reason));
        }
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let temp = self.inner.temp();
        let (expected, options) = (Expected { blob: Some(descriptor.digest), diff_id }, self.inner.options.clone());
        // The directory lives as long as somebody writes into it, whoever has lost interest.
        let unpack = tokio::task::spawn_blocking(move || {
            let result = layer::unpack(ChunkReader::new(receiver), expected, temp.path(), &options);
            result.map(|unpacked| (temp, unpacked))
        });
        let received = |bytes| self.tell(descriptor, bytes, false);
        let stream =
            blobs::stream(self.reference, self.registries, &descriptor.digest, descriptor.size, sender, received);
        // Without a sender the unpacking ends.
        let (_, result) = futures::join!(self.stop.run_until_cancelled(stream), unpack);
        match result.map_err(Failure::other)? {
            Ok((temp, unpacked)) => Ok(Some((temp, unpacked, guard))),
            Err(error @ (LayerError::Read(_) | LayerError::Directory { .. })) => Err(Failure::other(error)),
            Err(error) => Err(Failure::new(PullFailure::Invalid, error)),
        }
    }

    fn tell(&self, descriptor: &Descriptor, received_bytes: u64, done: bool) {
        let layer = descriptor.digest.to_string();
        self.listeners.tell(&Progress { layer, received_bytes, total_bytes: descriptor.size, done });
    }
}
