//! The store's history as a watcher sees it across all processes: complete, in order, and never taken back.

use crate::cluster::Sim;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::embedded::Embedded;
use store::kv::{Event, Kv, Range, StoreError, WatchItem};
use tokio::task::JoinSet;

/// Everything that was ever shown.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) events: Vec<Event>,
    /// Where `events` ends, whole transactions only.
    pub(crate) revision: u64,
    /// What the keys hold now, by these events: revision and value.
    mirror: BTreeMap<String, (u64, bytes::Bytes)>,
}

impl History {
    /// Takes the next events; says what is wrong with them.
    fn take(&mut self, events: Vec<Event>) -> Result<(), String> {
        for event in events {
            if event.revision < self.revision {
                return Err(format!("event {} of {} after {}", event.revision, event.key, self.revision));
            }
            let previous = event.previous.as_ref().map(|entry| (entry.mod_revision, entry.value.clone()));
            let mirrored = match &event.value {
                Some(value) => self.mirror.insert(event.key.to_string(), (event.revision, value.clone())),
                None => self.mirror.remove(event.key.as_ref()),
            };
            // A missed event shows in what the next one replaces.
            if previous.is_some() && previous != mirrored {
                return Err(format!("an event before {} of {} was not shown", event.revision, event.key));
            }
            self.revision = event.revision;
            self.events.push(event);
        }
        Ok(())
    }
}

/// Checks a store that has just been opened against what was shown before, and follows it.
pub(crate) async fn resume(sim: &Arc<Sim>, store: &Embedded, parts: &mut JoinSet<()>) {
    let everything = Range { start: "".into(), end: "\u{10ffff}".into(), revision: 0, limit: 0 };
    let present = match store.range(everything).await {
        Ok(present) => present,
        Err(error) => return sim.wrong(format!("the store cannot be read: {error}")),
    };
    let known = sim.history().revision;
    if present.revision < known {
        return sim.wrong(format!("revision {known} was shown, and after a crash there is only {}", present.revision));
    }
    let mut watch = match store.watch("", known + 1).await {
        Ok(watch) => watch,
        Err(error) => return sim.wrong(format!("the store cannot be watched from {}: {error}", known + 1)),
    };
    // Up to the present first, which then must be what the events make of it.
    while let Some(item) = watch.next().await {
        match item {
            Ok(WatchItem::Events(events)) => take(sim, events),
            Ok(WatchItem::Progress(_)) => break,
            Err(error) => return sim.wrong(format!("the store's history breaks: {error}")),
        }
    }
    let found = present.entries.iter().map(|entry| (entry.key.to_string(), (entry.mod_revision, entry.value.clone())));
    let found: BTreeMap<_, _> = found.collect();
    let is_same = {
        let history = sim.history();
        // Leases may have ended in between.
        history.revision > present.revision || history.mirror == found
    };
    if !is_same {
        sim.wrong(format!("at revision {} the store does not hold what its events say", present.revision));
    }
    let sim = sim.clone();
    parts.spawn(async move {
        while let Some(item) = watch.next().await {
            match item {
                Ok(WatchItem::Events(events)) => take(&sim, events),
                Ok(WatchItem::Progress(_)) => {}
                Err(StoreError::Closed) => return,
                Err(error) => return sim.wrong(format!("the store's watch ended: {error}")),
            }
        }
    });
}

fn take(sim: &Sim, events: Vec<Event>) {
    for event in &events {
        sim.checks().trace_event(event);
    }
    let taken = sim.history().take(events);
    if let Err(what) = taken {
        sim.wrong(what);
    }
}
