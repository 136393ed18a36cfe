//! A local copy of a list, kept by a watch, that tells what changed.

use crate::transport::{CallError, ListQuery, ObjectEvent, Transport};
use crate::typed::{Kind, decode};
use api::object::Object;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::mpsc;

/// Waits between attempts to reach the server grow from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

type Objects<K> = BTreeMap<(String, String), Arc<K>>;

/// What is known of the list now.
pub struct Cache<K> {
    objects: RwLock<Objects<K>>,
}

impl<K> Cache<K> {
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// In the order of namespace and name.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn set(&self, object: &Object, typed: Arc<K>) -> Option<Arc<K>> {
        let key = (object.namespace.clone(), object.name.clone());
        self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(key, typed)
    }

    fn remove(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(&key)
    }
}

/// One change of the list.
#[derive(Debug)]
pub enum Change<K> {
    Set {
        new: Arc<K>,
        old: Option<Arc<K>>,
    },
    /// Its last known state.
    Gone(Arc<K>),
    /// The first list has been told in full.
    Synced,
}

/// The two ends of an informer; [`Informer::run`] must be driven.
pub struct Informer<K> {
    cache: Arc<Cache<K>>,
    transport: Arc<dyn Transport>,
    query: ListQuery,
    sender: mpsc::UnboundedSender<Change<K>>,
}

impl<K: Kind> Informer<K> {
    /// `query.target` must name `K`'s resource.
    pub fn new(
        transport: Arc<dyn Transport>,
        query: ListQuery,
    ) -> (Self, Arc<Cache<K>>, mpsc::UnboundedReceiver<Change<K>>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let cache = Arc::new(Cache { objects: RwLock::default() });
        (Self { cache: cache.clone(), transport, query, sender }, cache, receiver)
    }

    /// Lists, then watches; after a lost watch resumes, after an expired one lists again. Ends when nobody listens.
    pub async fn run(self) {
        let mut wait = RETRY.0;
        let mut synced = false;
        while !self.sender.is_closed() {
            match self.list_and_watch(&mut synced, &mut wait).await {
                Err(error) if error.is_expired() => {}
                ended => {
                    if let Err(error) = ended {
                        tracing::debug!(resource = self.query.target.plural, %error, "watch ended");
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY.1);
                }
            }
        }
    }

    async fn list_and_watch(&self, synced: &mut bool, wait: &mut Duration) -> Result<(), CallError> {
        let list = self.transport.list(&self.query).await?;
        let mut missing = self.cache.objects.read().unwrap_or_else(PoisonError::into_inner).clone();
        for object in &list.items {
            missing.remove(&(object.namespace.clone(), object.name.clone()));
            self.set(object)?;
        }
        for (namespace, name) in missing.into_keys() {
            self.gone(&namespace, &name);
        }
        if !std::mem::replace(synced, true) {
            self.tell(Change::Synced);
        }
        let mut revision = list.revision;
        loop {
            let mut events = self.transport.watch(&self.query, revision).await?;
            *wait = RETRY.0;
            let before = revision;
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = self.sender.closed() => return Ok(()),
                };
                let Some(event) = event else { break };
                revision = self.take(event?)?;
            }
            if revision == before {
                return Ok(());
            }
        }
    }

    fn take(&self, event: ObjectEvent) -> Result<u64, CallError> {
        Ok(match event {
            ObjectEvent::Added(object) | ObjectEvent::Modified(object) => {
                self.set(&object)?;
                object.revision
            }
            ObjectEvent::Deleted(object) => {
                self.gone(&object.namespace, &object.name);
                object.revision
            }
            ObjectEvent::Bookmark(revision) => revision,
        })
    }

    fn set(&self, object: &Object) -> Result<(), CallError> {
        let new = decode::<K>(object)?;
        let old = self.cache.set(object, new.clone());
        if old.as_ref().is_none_or(|old| old.metadata().resource_version != new.metadata().resource_version) {
            self.tell(Change::Set { new, old });
        }
        Ok(())
    }

    fn gone(&self, namespace: &str, name: &str) {
        if let Some(old) = self.cache.remove(namespace, name) {
            self.tell(Change::Gone(old));
        }
    }

    /// A listener that has gone away ends `run` at its next turn.
    fn tell(&self, change: Change<K>) {
        self.sender.send(change).ok();
    }
}
