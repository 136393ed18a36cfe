//! The watch cache: every object of every resource in memory, fed by one watch on the store, read by everybody.
//!
//! Reads are consistent: they wait until the cache has seen what the store had committed when they were asked. Writers
//! wait for it too, so that a finished write is seen by every later synchronous look ([`crate::lookup::Lookup`]).

mod entry;
mod resource;

pub(crate) use entry::{Change, Entry, Selection};
pub(crate) use resource::{Cache, Cursor};

use crate::errors::{self, Result};
use crate::lookup::{GroupResource, Lookup};
use api::object::Object;
use api::resource::Resource;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::kv::{Kv, Range, StoreError, WatchItem};
use tokio::sync::watch;

const ROOT: &str = "/registry/";
/// The first key behind everything below [`ROOT`].
const ROOT_END: &str = "/registry0";
const LOAD_PAGE: usize = 2000;

/// All resources' caches.
pub(crate) struct Caches {
    kv: Arc<dyn Kv>,
    by_storage: BTreeMap<&'static str, Arc<Cache>>,
    by_resource: BTreeMap<GroupResource, Arc<Cache>>,
    /// Everything up to this revision has been applied.
    applied: watch::Sender<u64>,
}

/// One event on its way from the store into a cache.
struct Incoming {
    namespace: String,
    name: String,
    key: Arc<str>,
    value: Option<Bytes>,
    revision: u64,
}

impl Caches {
    /// Empty caches of all resources that are stored.
    pub(crate) fn new(kv: Arc<dyn Kv>, resources: &'static [Resource]) -> Self {
        let mut by_storage = BTreeMap::new();
        let mut by_resource = BTreeMap::new();
        for resource in resources.iter().filter(|r| r.stored && !r.storage.is_empty()) {
            by_storage.entry(resource.storage).or_insert_with(|| Arc::new(Cache::new(resource)));
        }
        for resource in resources {
            if let Some(cache) = by_storage.get(resource.storage) {
                by_resource.insert(GroupResource::new(resource.group, resource.plural), cache.clone());
            }
        }
        Self { kv, by_storage, by_resource, applied: watch::Sender::new(0) }
    }

    pub(crate) fn of(&self, resource: &Resource) -> Option<&Arc<Cache>> {
        self.by_storage.get(resource.storage)
    }

    /// The revision up to which everything has been applied.
    pub(crate) fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// How many objects there are of each resource.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static Resource, usize)> {
        self.by_storage.values().map(|cache| (cache.resource, cache.len()))
    }

    /// Waits until everything up to `revision` has been applied.
    pub(crate) async fn wait_for(&self, revision: u64) {
        if self.applied() >= revision {
            return;
        }
        let mut applied = self.applied.subscribe();
        // The sender lives as long as `self`.
        let _ = applied.wait_for(|applied| *applied >= revision).await;
    }

    /// Waits until an object is there, at most as long as `limit`.
    pub(crate) async fn wait_for_object(&self, resource: GroupResource, namespace: &str, name: &str, limit: Duration) {
        let Some(cache) = self.by_resource.get(&resource) else {
            return;
        };
        let key = cache.resource.key(namespace, name);
        let (_, _, mut cursor) = cache.list_and_cursor(&key);
        let there = async {
            while cache.get(&key).is_none() {
                cursor.woken().await;
            }
        };
        // Who waits looks itself whether it came.
        let _ = tokio::time::timeout(limit, there).await;
    }

    /// Waits until everything that is committed now has been applied.
    pub(crate) async fn fresh(&self) -> Result<u64> {
        let revision = self.kv.revision().await.map_err(|e| errors::store(&e))?;
        self.wait_for(revision).await;
        Ok(revision)
    }

    /// Loads everything, and gives the revision from which [`Self::run`] must watch.
    pub(crate) async fn load(&self) -> std::result::Result<u64, StoreError> {
        let mut revision = 0;
        let mut start: Arc<str> = ROOT.into();
        let mut loaded: BTreeMap<&'static str, Vec<Entry>> = BTreeMap::new();
        loop {
            let range = Range { start: start.clone(), end: ROOT_END.into(), revision, limit: LOAD_PAGE };
            let page = self.kv.range(range).await?;
            if revision == 0 {
                revision = page.revision;
            }
            if let Some(last) = page.entries.last() {
                start = format!("{}\0", last.key).into();
            }
            for stored in page.entries {
                if let Some((cache, namespace, name)) = self.locate(&stored.key) {
                    let object = crate::stored::object(namespace, name, stored.mod_revision, stored.value);
                    loaded.entry(cache.resource.storage).or_default().push(cache.entry(stored.key, object));
                }
            }
            if page.remaining == 0 {
                break;
            }
        }
        for (storage, cache) in &self.by_storage {
            cache.replace(loaded.remove(storage).unwrap_or_default(), revision);
        }
        self.applied.send_replace(revision);
        Ok(revision)
    }

    /// Follows the store from `revision` on, for ever. A watch that breaks because the store dropped it is begun anew.
    ///
    /// # Errors
    /// When the store fails or is closed.
    pub(crate) async fn run(&self, revision: u64) -> std::result::Result<(), StoreError> {
        let mut revision = revision;
        loop {
            match self.follow(revision).await {
                Err(StoreError::Slow) => revision = self.applied(),
                Err(StoreError::Compacted { .. }) => revision = self.load().await?,
                Err(error) => return Err(error),
                Ok(()) => return Err(StoreError::Closed),
            }
        }
    }

    async fn follow(&self, revision: u64) -> std::result::Result<(), StoreError> {
        let mut watch = self.kv.watch(ROOT, revision + 1).await?;
        while let Some(item) = watch.next().await {
            match item? {
                WatchItem::Progress(revision) => {
                    self.applied
                        .send_if_modified(|applied| revision > std::mem::replace(applied, revision.max(*applied)));
                }
                WatchItem::Events(events) => self.apply(events),
            }
        }
        Ok(())
    }

    fn apply(&self, events: Vec<store::kv::Event>) {
        let mut revision = 0;
        let mut by_cache: BTreeMap<&'static str, Vec<Incoming>> = BTreeMap::new();
        for event in events {
            revision = event.revision;
            if let Some((cache, namespace, name)) = self.locate(&event.key) {
                let incoming = Incoming { namespace, name, key: event.key, value: event.value, revision };
                by_cache.entry(cache.resource.storage).or_default().push(incoming);
            }
        }
        let mut touched = Vec::new();
        for (storage, incoming) in by_cache {
            if let Some(cache) = self.by_storage.get(storage) {
                cache.apply(incoming);
                touched.push(cache);
            }
        }
        self.applied.send_replace(revision);
        // Watchers are woken once `applied` stands, so that a bookmark never lags behind an event.
        for cache in touched {
            cache.wake();
        }
    }

    /// The cache, namespace and name that a key belongs to. Storage paths have one or two segments.
    fn locate(&self, key: &str) -> Option<(&Arc<Cache>, String, String)> {
        let rest = key.strip_prefix(ROOT)?;
        let (first, behind) = rest.split_once('/')?;
        let (cache, behind) = if let Some(cache) = self.by_storage.get(first) {
            (cache, behind)
        } else {
            let (second, behind) = behind.split_once('/')?;
            (self.by_storage.get(&rest[..first.len() + 1 + second.len()])?, behind)
        };
        if !cache.resource.namespaced {
            return Some((cache, String::new(), behind.to_owned()));
        }
        let (namespace, name) = behind.split_once('/')?;
        Some((cache, namespace.to_owned(), name.to_owned()))
    }
}

impl Lookup for Caches {
    fn get(&self, resource: GroupResource, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let cache = self.by_resource.get(&resource)?;
        cache.get(&cache.resource.key(namespace, name)).map(|entry| entry.object.clone())
    }

    fn list(&self, resource: GroupResource, namespace: &str) -> Vec<Arc<Object>> {
        let Some(cache) = self.by_resource.get(&resource) else {
            return Vec::new();
        };
        cache.list(&cache.resource.key(namespace, "")).0.iter().map(|entry| entry.object.clone()).collect()
    }

    fn last_change(&self, resource: GroupResource) -> u64 {
        self.by_resource.get(&resource).map_or(0, |cache| cache.last_change())
    }
}
