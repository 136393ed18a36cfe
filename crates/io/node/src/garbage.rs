//! Images that nobody uses go when their file system is full: looked at by upstream's period (`ImageGCPeriod`), since nothing
//! tells of a full file system.

use crate::counters::Counted;
use crate::worker::now;
use crate::{NodeError, Shared, disk, every};
use kubelet::garbage::{Images, insufficient};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often images are looked at at least (upstream `ImageGCPeriod`).
const PERIOD: Duration = Duration::from_secs(300);

/// What is known of the images.
#[derive(Default)]
pub(crate) struct Collector(tokio::sync::Mutex<Images>);

/// Collects for ever.
pub(crate) async fn run(shared: Arc<Shared>) -> Result<(), NodeError> {
    // Images must be seen to be old: where they may go young they are looked at more often.
    let young = shared.config.images.minimum_age.max(Duration::from_secs(1));
    let mut ticks = every(PERIOD.min(young));
    let mut failed_before = false;
    loop {
        ticks.tick().await;
        match shared.images.collect(&shared).await {
            Ok(()) => failed_before = false,
            Err(error) => {
                tracing::warn!(error, "images not collected");
                // A single failure is no event (upstream `StartGarbageCollection`).
                if failed_before {
                    shared.events.node(true, "ImageGCFailed", error);
                }
                failed_before = true;
            }
        }
    }
}

impl Collector {
    /// Clears images away if their file system is too full.
    async fn collect(&self, shared: &Shared) -> Result<(), String> {
        self.observe(shared).await?;
        let usage = shared.runtime.image_fs().await.map_err(|error| error.to_string())?;
        let room = disk::room(&usage.images.mountpoint).map_err(|error| error.to_string())?;
        if room.capacity_bytes == 0 {
            let why = "invalid capacity 0 on image filesystem".to_owned();
            shared.events.node(true, "InvalidDiskCapacity", why.clone());
            return Err(why);
        }
        let policy = shared.config.images;
        let Some((excess, percent)) = policy.excess(room.capacity_bytes, room.available_bytes) else { return Ok(()) };
        let freed = self.free(shared, excess, policy.minimum_age, "space").await?;
        if freed < excess {
            let why = insufficient(percent, room.capacity_bytes, freed);
            shared.events.node(true, "FreeDiskSpaceFailed", why.clone());
            return Err(why);
        }
        Ok(())
    }

    /// Removes every image that nobody uses; returns how many bytes that freed.
    pub(crate) async fn free_all(&self, shared: &Shared) -> Result<u64, String> {
        self.observe(shared).await?;
        self.free(shared, u64::MAX, Duration::ZERO, "space").await
    }

    /// Sees which images there are, and which are in use: by any container that there is, dead ones too.
    async fn observe(&self, shared: &Shared) -> Result<(), String> {
        let images = shared.runtime.list_images().await.map_err(|error| error.to_string())?;
        let sandboxes = shared.runtime.list_sandboxes().await.map_err(|error| error.to_string())?;
        let mut used: BTreeSet<String> =
            sandboxes.into_iter().flat_map(|sandbox| sandbox.containers).map(|container| container.image_id).collect();
        used.extend(images.iter().filter(|image| image.pinned).map(|image| image.id.clone()));
        for name in image_volumes(shared) {
            if let Ok(Some(image)) = shared.runtime.image_status(&name).await {
                used.insert(image.id);
            }
        }
        let present = images.into_iter().map(|image| image.id).collect();
        self.0.lock().await.observe(&present, &used, now().mono);
        Ok(())
    }

    async fn free(&self, shared: &Shared, wanted: u64, age: Duration, reason: &str) -> Result<u64, String> {
        let candidates = {
            let images = self.0.lock().await;
            images.candidates(age, now().mono)
        };
        let mut freed = 0;
        for id in candidates {
            if freed >= wanted {
                break;
            }
            let Ok(Some(image)) = shared.runtime.image_status(&id).await else { continue };
            if let Err(error) = shared.runtime.remove_image(&id).await {
                tracing::warn!(image = id, %error, "image not removed");
                continue;
            }
            tracing::info!(image = id, names = ?image.repo_tags, bytes = image.size_bytes, "unused image removed");
            shared.counters.add(Counted::ImagesCollected, &[reason]);
            freed += image.size_bytes;
        }
        Ok(freed)
    }
}

/// The images that Pods mount as volumes.
fn image_volumes(shared: &Shared) -> Vec<String> {
    let of = |entry: crate::pods::Entry| {
        let volumes = entry.pod.spec.clone().and_then(|spec| spec.volumes).unwrap_or_default();
        volumes.into_iter().filter_map(|volume| volume.image?.reference).collect::<Vec<_>>()
    };
    shared.pods.all().into_iter().flat_map(of).collect()
}
