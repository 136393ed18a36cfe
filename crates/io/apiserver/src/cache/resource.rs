//! The cache of one resource: its objects by key and a window of their latest changes.
//!
//! Watchers pull: each has a place in the window and is woken when there is more. One that falls out of the window's
//! end is told so and must list again; nobody waits for it.

use super::Incoming;
use super::entry::{Change, Entry, Selection};
use api::object::Object;
use api::resource::Resource;
use api::rules::Rules;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// Changes kept at most.
const WINDOW_CHANGES: usize = 4096;
/// Bytes of objects kept alive by the window at most, beyond [`WINDOW_CHANGES_MIN`] changes.
const WINDOW_BYTES: usize = 4 << 20;
const WINDOW_CHANGES_MIN: usize = 128;

pub(crate) struct Cache {
    pub resource: &'static Resource,
    pub rules: &'static Rules,
    has_fields: bool,
    state: RwLock<State>,
    /// Counts wake-ups.
    woken: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    items: BTreeMap<Arc<str>, Arc<Entry>>,
    window: VecDeque<Arc<Change>>,
    /// The place of `window[0]` among all changes ever.
    first: u64,
    window_bytes: usize,
    /// Every change after this revision is in the window.
    complete_after: u64,
    last_change: u64,
}

/// A watcher's place in the window.
#[derive(Debug)]
pub(crate) struct Cursor {
    next: u64,
    woken: watch::Receiver<u64>,
}

/// What one list takes from the cache.
pub(crate) struct Page {
    pub objects: Vec<Arc<Object>>,
    /// Entries behind the last object, whether they are meant or not.
    pub left: usize,
    pub last_change: u64,
}

/// The changes asked for are gone from the window; every change after the revision is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lagging {
    pub complete_after: u64,
}

impl Cache {
    pub(crate) fn new(resource: &'static Resource) -> Self {
        let rules = api::kinds::rules(resource.group, resource.kind);
        // A kind with selectable fields names them for an empty object, too.
        let has_fields = !(rules.selectable)(&json!({})).is_empty();
        Self { resource, rules, has_fields, state: RwLock::default(), woken: watch::Sender::new(0) }
    }

    /// The fields that field selectors may name, beyond name and namespace.
    pub(crate) fn selectable(&self) -> Vec<&'static str> {
        (self.rules.selectable)(&Value::Object(serde_json::Map::new())).into_iter().map(|(field, _)| field).collect()
    }

    pub(crate) fn entry(&self, key: Arc<str>, object: Object) -> Entry {
        Entry::new(key, object, self.rules, self.has_fields)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.read().items.get(key).cloned()
    }

    /// The entries below a prefix in key order, and the revision of the resource's last change.
    pub(crate) fn list(&self, prefix: &str) -> (Vec<Arc<Entry>>, u64) {
        let state = self.read();
        (state.below(prefix).cloned().collect(), state.last_change)
    }

    /// The first `limit` objects below a prefix that are meant, all of them when it is 0.
    pub(crate) fn page(&self, prefix: &str, selection: &Selection, limit: usize) -> Page {
        let state = self.read();
        let mut below = state.below(prefix);
        let mut page = Page { objects: Vec::new(), left: 0, last_change: state.last_change };
        for entry in below.by_ref() {
            if selection.matches(entry) {
                page.objects.push(entry.object.clone());
                if page.objects.len() == limit {
                    break;
                }
            }
        }
        page.left = below.count();
        page
    }

    pub(crate) fn len(&self) -> usize {
        self.read().items.len()
    }

    pub(crate) fn last_change(&self) -> u64 {
        self.read().last_change
    }

    /// A place behind the last change up to `revision`.
    ///
    /// # Errors
    /// When changes after `revision` are gone.
    pub(crate) fn cursor(&self, revision: u64) -> Result<Cursor, Lagging> {
        let woken = self.woken.subscribe();
        let state = self.read();
        if revision < state.complete_after {
            return Err(Lagging { complete_after: state.complete_after });
        }
        let behind = state.window.partition_point(|change| change.revision <= revision);
        Ok(Cursor { next: state.first + behind as u64, woken })
    }

    /// The entries below a prefix and the place behind the last change that they show.
    pub(crate) fn list_and_cursor(&self, prefix: &str) -> (Vec<Arc<Entry>>, u64, Cursor) {
        let woken = self.woken.subscribe();
        let state = self.read();
        let entries = state.below(prefix).cloned().collect();
        let next = state.first + state.window.len() as u64;
        (entries, state.last_change, Cursor { next, woken })
    }

    /// At most `limit` changes from the cursor on; moves it.
    ///
    /// # Errors
    /// When the watcher was too slow.
    pub(crate) fn changes(&self, cursor: &mut Cursor, limit: usize) -> Result<Vec<Arc<Change>>, Lagging> {
        let state = self.read();
        let Some(skip) = cursor.next.checked_sub(state.first) else {
            return Err(Lagging { complete_after: state.complete_after });
        };
        let changes: Vec<_> =
            state.window.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).take(limit).cloned().collect();
        cursor.next += changes.len() as u64;
        Ok(changes)
    }

    /// Puts another set of objects in place; all watchers must list again.
    pub(crate) fn replace(&self, entries: Vec<Entry>, revision: u64) {
        let mut state = self.write();
        let first = state.first + state.window.len() as u64 + 1;
        let items = entries.into_iter().map(|entry| (entry.key.clone(), Arc::new(entry))).collect();
        *state = State { items, first, complete_after: revision, last_change: revision, ..State::default() };
        drop(state);
        self.wake();
    }

    pub(super) fn apply(&self, incoming: Vec<Incoming>) {
        // Parsing happens outside the lock; the feed is the only writer.
        let parsed: Vec<_> = incoming
            .into_iter()
            .map(|event| {
                let entry = event.value.map(|value| {
                    let object = crate::stored::object(event.namespace, event.name, event.revision, value);
                    self.entry(event.key.clone(), object)
                });
                (event.key, event.revision, entry)
            })
            .collect();
        let mut state = self.write();
        for (key, revision, entry) in parsed {
            state.apply(key, revision, entry);
        }
    }

    pub(crate) fn wake(&self) {
        self.woken.send_modify(|count| *count += 1);
    }
}

impl Cursor {
    /// Waits until there may be more.
    pub(crate) async fn woken(&mut self) {
        if self.woken.changed().await.is_err() {
            // The cache is gone, and with it whatever could come.
            std::future::pending::<()>().await;
        }
    }
}

impl State {
    /// The entries whose keys begin with `prefix`, in the order of the keys.
    fn below(&self, prefix: &str) -> impl Iterator<Item = &Arc<Entry>> {
        // Keys are text, and no text holds the character: nothing that begins with the prefix is left out.
        let end = format!("{prefix}\u{10FFFF}");
        let range = (Bound::Included(prefix), Bound::Excluded(end.as_str()));
        self.items.range::<str, _>(range).map(|(_, entry)| entry)
    }

    fn apply(&mut self, key: Arc<str>, revision: u64, entry: Option<Entry>) {
        let change = match entry {
            Some(entry) => {
                let entry = Arc::new(entry);
                let previous = self.items.insert(key, entry.clone());
                previous.iter().for_each(|previous| previous.object.supersede());
                Change { revision, entry, previous, deleted: false }
            }
            None => {
                let Some(previous) = self.items.remove(&key) else {
                    return;
                };
                let last = Arc::new(previous.at(revision));
                [&previous, &last].iter().for_each(|past| past.object.supersede());
                Change { revision, entry: last, previous: Some(previous), deleted: true }
            }
        };
        self.last_change = revision;
        self.window_bytes += change.entry.object.len_bytes();
        self.window.push_back(Arc::new(change));
        while self.window.len() > WINDOW_CHANGES
            || (self.window.len() > WINDOW_CHANGES_MIN && self.window_bytes > WINDOW_BYTES)
        {
            if let Some(gone) = self.window.pop_front() {
                self.window_bytes -= gone.entry.object.len_bytes();
                self.first += 1;
                self.complete_after = gone.revision;
            }
        }
    }
}
