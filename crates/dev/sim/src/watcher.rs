//! A client that watches one resource through all crashes, resuming where it was: what it is told must be complete and in
//! order.

use crate::cluster::Sim;
use crate::door::Outside;
use api::object::Object;
use api::write::Target;
use apiserver::authentication::{MASTERS, User};
use client::transport::{CallError, ListQuery, ObjectEvent, Transport};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a watcher knows.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) objects: BTreeMap<String, u64>,
    /// Up to where.
    pub(crate) revision: u64,
    /// Each unbroken stretch: from which list, and the revisions told after it.
    pub(crate) stretches: Vec<(u64, Vec<u64>)>,
}

pub(crate) async fn run(sim: Arc<Sim>, plural: &'static str) {
    let user = User::component("watcher", &[MASTERS]);
    let door = Outside { sim: sim.clone(), user };
    let target = Target { version: "v1", plural, ..Target::default() };
    let query = ListQuery { target, ..ListQuery::default() };
    loop {
        if let Err(error) = follow(&sim, &door, &query, plural).await {
            if error.is_expired() {
                sim.checks().seen.entry(plural).or_default().revision = 0;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn follow(sim: &Sim, door: &Outside, query: &ListQuery, plural: &'static str) -> Result<(), CallError> {
    let known = sim.checks().seen.get(plural).map_or(0, |seen| seen.revision);
    if known == 0 {
        let list = door.list(query).await?;
        let mut checks = sim.checks();
        let seen = checks.seen.entry(plural).or_default();
        seen.objects = list.items.iter().map(|object| (key(object), object.revision)).collect();
        seen.revision = list.revision;
        seen.stretches.push((list.revision, Vec::new()));
    }
    let revision = sim.checks().seen.get(plural).map_or(0, |seen| seen.revision);
    let mut events = door.watch(query, revision).await?;
    while let Some(event) = events.next().await {
        let wrong = sim.checks().seen.entry(plural).or_default().take(event?).err();
        if let Some(wrong) = wrong {
            sim.wrong(format!("a watch on {plural}: {wrong}"));
        }
    }
    Err(CallError::Unreachable("the watch ended".to_owned()))
}

impl Seen {
    fn take(&mut self, event: ObjectEvent) -> Result<(), String> {
        let (object, is_new, is_deleted) = match event {
            ObjectEvent::Added(object) => (object, true, false),
            ObjectEvent::Modified(object) => (object, false, false),
            ObjectEvent::Deleted(object) => (object, false, true),
            ObjectEvent::Bookmark(revision) => {
                let is_back = revision < self.revision;
                self.revision = self.revision.max(revision);
                return if is_back { Err(format!("a bookmark at {revision} after {}", self.revision)) } else { Ok(()) };
            }
        };
        let (key, revision) = (key(&object), object.revision);
        let last = std::mem::replace(&mut self.revision, revision);
        if let Some((_, revisions)) = self.stretches.last_mut() {
            revisions.push(revision);
        }
        let was = if is_deleted { self.objects.remove(&key) } else { self.objects.insert(key.clone(), revision) };
        if revision < last {
            return Err(format!("{key} at {revision} after {last}"));
        }
        if was.is_some() == is_new {
            return Err(format!("{key} at {revision} is told as new: {is_new}, and was known: {was:?}"));
        }
        Ok(())
    }
}

pub(crate) fn key(object: &Object) -> String {
    format!("{}/{}", object.namespace, object.name)
}
