//! `watch`: changes as they happen, one JSON object a line (or protobuf frames).
//!
//! A watcher pulls from the cache's window; it blocks nobody. One that is too slow gets `410 Expired` and its end.

use crate::body::Body;
use crate::cache::{Cache, Change, Cursor, Entry, Selection};
use crate::call::{Answer, Call};
use crate::errors::{self, Result};
use crate::negotiate::{Encoding, Negotiated, Target};
use crate::query::ListOptions;
use crate::read;
use crate::server::ApiServer;
use crate::{convert, partial, respond, select, table_form};
use api::object::Object;
use api::resource::Resource;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, header};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Without `timeoutSeconds` a watch lasts so long and up to as much again.
const TIMEOUT_MIN_S: u64 = 1800;
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Changes taken from the window at once.
const BATCH: usize = 256;

/// One step of a watch, below any encoding.
pub(crate) enum Step {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    Deleted(Arc<Object>),
    Bookmark { revision: u64, initial_end: bool },
    Failed(crate::refusal::Refusal),
}

/// Where a watch begins and how long it lasts.
pub(crate) struct Watcher {
    server: Arc<ApiServer>,
    cache: Arc<Cache>,
    cursor: Cursor,
    prefix: String,
    selection: Selection,
    pending: VecDeque<Step>,
    bookmarks: bool,
    next_bookmark: Instant,
    told: u64,
    ends: Instant,
    ended: bool,
}

pub(crate) async fn watch(call: &Call<'_>, form: &Negotiated) -> Result<Answer> {
    let cache = call.server.caches.of(call.resource).ok_or_else(errors::no_such_resource)?.clone();
    let options = ListOptions::parse(call.query, true)?;
    let selection = select::selection(call, &cache, &options)?;
    let revision = read::revision(&options.resource_version).map_err(errors::plain)?;
    if let Some(wanted) = revision {
        read::not_older_than(call, wanted).await?;
    }
    let server = call.server.shared();
    let opened = open(server, cache, call.key(""), selection, revision, &options).await;
    let frames = Frames::new(call, form)?;
    let content_type = frames.content_type();
    let stream = match opened {
        Ok(watcher) => watcher.stream(),
        Err(refusal) => futures::stream::iter([Step::Failed(refusal)]).boxed(),
    };
    let mut frames = frames;
    let body = stream.map(move |step| Ok(frames.encode(&step))).filter(|bytes| {
        let empty = bytes.as_ref().is_ok_and(Bytes::is_empty);
        futures::future::ready(!empty)
    });
    let mut response = http::Response::new(Body::Stream(body.boxed()));
    if let Ok(value) = HeaderValue::from_str(&content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    Ok(Answer::Response(response))
}

/// Begins a watch. `revision` `None` or 0 begins with the present objects.
pub(crate) async fn open(
    server: Arc<ApiServer>,
    cache: Arc<Cache>,
    prefix: String,
    selection: Selection,
    revision: Option<u64>,
    options: &ListOptions,
) -> Result<Watcher> {
    if revision != Some(0) {
        server.caches.fresh().await?;
    }
    let from_now = options.send_initial_events == Some(false) && revision.unwrap_or(0) == 0;
    let initial = options.send_initial_events == Some(true) || (!from_now && revision.unwrap_or(0) == 0);
    let mut pending = VecDeque::new();
    let cursor;
    let mut told;
    if initial || from_now {
        let applied = server.caches.applied();
        let (entries, last_change, at) = cache.list_and_cursor(&prefix);
        cursor = at;
        told = applied.max(last_change);
        if initial {
            pending.extend(entries.iter().filter(|e| selection.matches(e)).map(|e| Step::Added(e.object.clone())));
        }
        if options.send_initial_events == Some(true) && options.bookmarks {
            pending.push_back(Step::Bookmark { revision: told, initial_end: true });
        }
    } else {
        told = revision.unwrap_or(0);
        cursor = cache.cursor(told).map_err(|lagging| errors::too_old(told, lagging.complete_after))?;
        told = told.max(1);
    }
    let now = Instant::now();
    let timeout_s = options.timeout_s.unwrap_or_else(|| TIMEOUT_MIN_S + server.world.random() % TIMEOUT_MIN_S);
    Ok(Watcher {
        server,
        cache,
        cursor,
        prefix,
        selection,
        pending,
        bookmarks: options.bookmarks,
        next_bookmark: now + BOOKMARK_EVERY,
        told,
        ends: now + Duration::from_secs(timeout_s),
        ended: false,
    })
}

impl Watcher {
    /// The steps; the stream ends at its time, when the server shuts down, or after a failure.
    pub(crate) fn stream(self) -> futures::stream::BoxStream<'static, Step> {
        futures::stream::unfold(self, |mut watcher| async move { watcher.next().await.map(|step| (step, watcher)) })
            .boxed()
    }

    async fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.pending.pop_front() {
                return Some(step);
            }
            if self.ended {
                return None;
            }
            match self.cache.changes(&mut self.cursor, BATCH) {
                Ok(changes) if changes.is_empty() => self.wait().await,
                Ok(changes) => {
                    for change in changes {
                        self.told = self.told.max(change.revision);
                        self.pending.extend(self.step(&change));
                    }
                }
                Err(lagging) => {
                    self.ended = true;
                    return Some(Step::Failed(errors::too_old(self.told, lagging.complete_after)));
                }
            }
        }
    }

    async fn wait(&mut self) {
        let mut stopping = self.server.stopping();
        tokio::select! {
            () = self.cursor.woken() => {}
            () = tokio::time::sleep_until(self.ends) => {
                self.ended = true;
                self.bookmark();
            }
            () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                self.bookmark();
            }
            () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => self.ended = true,
        }
    }

    fn bookmark(&mut self) {
        // All changes up to here have been handed out: the window was empty when the waiting began, and a change since
        // then has woken us.
        let applied = self.server.caches.applied();
        if self.bookmarks && applied > self.told && self.cache.last_change() <= self.told {
            self.told = applied;
            self.pending.push_back(Step::Bookmark { revision: applied, initial_end: false });
        }
    }

    /// A change as this watcher's selection sees it.
    fn step(&self, change: &Change) -> Option<Step> {
        let entry = &change.entry;
        if !entry.key.starts_with(&self.prefix) {
            return None;
        }
        let was = change.previous.as_ref().is_some_and(|previous| self.selection.matches(previous));
        if change.deleted {
            return was.then(|| Step::Deleted(entry.object.clone()));
        }
        match (was, self.selection.matches(entry)) {
            (false, true) => Some(Step::Added(entry.object.clone())),
            (true, true) => Some(Step::Modified(entry.object.clone())),
            (true, false) => {
                let previous: Option<&Arc<Entry>> = change.previous.as_ref();
                previous.map(|previous| Step::Deleted(previous.at(change.revision).object))
            }
            (false, false) => None,
        }
    }
}

/// Turns steps into what goes over the wire.
struct Frames {
    server: Arc<ApiServer>,
    resource: &'static Resource,
    form: Negotiated,
    table: Option<TableFrames>,
    sent: Arc<AtomicU64>,
}

struct TableFrames {
    version: String,
    query: crate::query::Query,
    first: bool,
}

impl Frames {
    fn new(call: &Call<'_>, form: &Negotiated) -> Result<Self> {
        let table = match &form.target {
            Target::Table(version) => {
                // Refuses a wrong includeObject before the stream begins.
                table_form::Table::new(call, version)?;
                Some(TableFrames { version: version.clone(), query: call.query.clone(), first: true })
            }
            _ => None,
        };
        Ok(Self {
            server: call.server.shared(),
            resource: call.resource,
            form: form.clone(),
            table,
            sent: call.server.metrics.watch_events(call),
        })
    }

    fn content_type(&self) -> String {
        match self.form.encoding {
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch".to_owned(),
            other => other.content_type().to_owned(),
        }
    }

    fn encode(&mut self, step: &Step) -> Bytes {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let (name, object) = match step {
            Step::Added(object) => ("ADDED", object),
            Step::Modified(object) => ("MODIFIED", object),
            Step::Deleted(object) => ("DELETED", object),
            Step::Bookmark { revision, initial_end } => {
                return self.frame("BOOKMARK", self.bookmark(*revision, *initial_end));
            }
            Step::Failed(refusal) => return self.frame("ERROR", errors::status(refusal)),
        };
        if self.form.encoding == Encoding::Json && self.form.target == Target::Itself && self.resource.stored {
            let mut out = Vec::with_capacity(object.len_bytes() + 32);
            out.extend_from_slice(b"{\"type\":\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\",\"object\":");
            object.write_json(&mut out);
            out.extend_from_slice(b"}\n");
            return out.into();
        }
        match respond::tree_of(object) {
            Ok(tree) => {
                let tree = self.target(convert::from_stored(self.resource, tree));
                self.frame(name, tree)
            }
            Err(refusal) => self.frame("ERROR", errors::status(&refusal)),
        }
    }

    fn bookmark(&self, revision: u64, initial_end: bool) -> Value {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match &self.form.target {
            Target::Table(version) => {
                json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata, "columnDefinitions": null, "rows": []})
            }
            Target::Partial(version) | Target::PartialList(version) => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
            }
            Target::Itself => {
                let mut tree = json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata});
                // What Go writes of an empty object of the kind.
                schema::decode::normalize(
                    api::table::table(),
                    self.resource.of,
                    schema::decode::Decoded { value: tree.clone(), strict: Vec::new() },
                )
                .map_or_else(|_| tree.take(), |decoded| decoded.value)
            }
        }
    }

    fn target(&mut self, tree: Value) -> Value {
        match (&self.form.target, &mut self.table) {
            (Target::Partial(version) | Target::PartialList(version), _) => partial::object(&tree, version),
            (Target::Table(_), Some(frames)) => frames.table(self.resource, &tree, self.server.world.now()),
            _ => tree,
        }
    }

    fn frame(&self, name: &str, object: Value) -> Bytes {
        if self.form.encoding == Encoding::Protobuf {
            return protobuf_frame(name, &object);
        }
        let event = json!({"type": name, "object": object});
        match self.form.encoding {
            Encoding::Yaml => format!("{}---\n", crate::yaml::write(&event)).into(),
            _ => format!("{event}\n").into(),
        }
    }
}

impl TableFrames {
    fn table(&mut self, resource: &'static Resource, tree: &Value, now: jiff::Timestamp) -> Value {
        let revision = tree["metadata"]["resourceVersion"].clone();
        let mut table = table_form::Table::of(resource, &self.query, &self.version);
        table.push_at(resource, tree, now);
        if !std::mem::replace(&mut self.first, false) {
            table = table.without_columns();
        }
        table.finish(json!({"resourceVersion": revision}))
    }
}

/// A watch event as protobuf: its length in four bytes, then `WatchEvent{type, object: RawExtension{raw}}`.
fn protobuf_frame(name: &str, object: &Value) -> Bytes {
    let raw = respond::protobuf(object)
        .unwrap_or_else(|refusal| respond::protobuf(&errors::status(&refusal)).unwrap_or_default());
    let extension = field(1, &raw);
    let mut event = field(1, name.as_bytes());
    event.extend(field(2, &extension));
    let mut out = u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    out.extend(event);
    out.into()
}

/// One length-delimited field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or(0));
    out.extend_from_slice(bytes);
    out
}
