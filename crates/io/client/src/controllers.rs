//! Runs [`Controller`]s: one shared view of the resources they watch, one queue of keys per controller, writes with
//! back-off per key.

use crate::transport::{CallError, ListQuery, ObjectEvent, Transport};
use api::controller::{Config, Controller, Key, Plan, ResourceName, View};
use api::object::Object;
use api::write::Target;
use futures::StreamExt;
use futures::stream::SelectAll;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Upstream's per-item rate limit for controllers (`workqueue.DefaultTypedControllerRateLimiter`).
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1000));
const RETRY: Duration = Duration::from_secs(1);

/// The wall clock, so that a simulation can bring its own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

#[derive(Default)]
struct Caches {
    objects: BTreeMap<ResourceName, BTreeMap<(String, String), Arc<Object>>>,
}

impl View for Caches {
    fn get(&self, resource: ResourceName, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.objects.get(&resource)?.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    fn list(&self, resource: ResourceName, namespace: &str) -> Vec<Arc<Object>> {
        let Some(objects) = self.objects.get(&resource) else { return Vec::new() };
        if namespace.is_empty() {
            return objects.values().cloned().collect();
        }
        let start = (namespace.to_owned(), String::new());
        objects.range(start..).take_while(|((of, _), _)| of == namespace).map(|(_, object)| object.clone()).collect()
    }
}

/// What the watch task of one resource tells the loop.
enum Told {
    Listed(Vec<Arc<Object>>),
    Event(ObjectEvent),
}

/// The keys of one controller that wait: at once, or until their time.
#[derive(Default)]
struct Queue {
    ready: BTreeSet<Key>,
    later: BTreeMap<Key, Instant>,
    failures: BTreeMap<Key, u32>,
}

impl Queue {
    fn add_at(&mut self, key: Key, at: Instant) {
        let slot = self.later.entry(key).or_insert(at);
        *slot = at.min(*slot);
    }

    fn take_due(&mut self, now: Instant) -> Vec<Key> {
        let due = self.later.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect::<Vec<_>>();
        for key in due {
            self.later.remove(&key);
            self.ready.insert(key);
        }
        std::mem::take(&mut self.ready).into_iter().collect()
    }

    fn failed(&mut self, key: Key, now: Instant) {
        let failures = self.failures.entry(key.clone()).or_default();
        let wait = BACK_OFF.0.saturating_mul(1 << (*failures).min(20)).min(BACK_OFF.1);
        *failures += 1;
        self.add_at(key, now + wait);
    }
}

/// Runs all `controllers` over one set of caches until the future is dropped. One task: plans are pure and short.
/// `reader` lists and watches for all of them; each writes as itself, through the writer at its place in `writers`.
pub async fn run(
    controllers: &'static [Controller],
    config: Config,
    reader: Arc<dyn Transport>,
    writers: Vec<Arc<dyn Transport>>,
    clock: Clock,
) {
    let resources: BTreeSet<ResourceName> =
        controllers.iter().flat_map(|c| c.watches.iter().map(|(resource, _)| *resource)).collect();
    let mut streams = SelectAll::new();
    for resource in &resources {
        streams.push(follow(reader.clone(), *resource).map(move |told| (*resource, told)).boxed());
    }
    let mut unsynced = resources.clone();
    let mut caches = Caches::default();
    let mut queues: Vec<Queue> = controllers.iter().map(|_| Queue::default()).collect();
    loop {
        let next = queues.iter().filter_map(|queue| queue.later.values().min()).min().copied();
        tokio::select! {
            told = streams.next() => {
                let Some((resource, told)) = told else { return };
                if matches!(told, Told::Listed(_)) {
                    unsynced.remove(&resource);
                }
                take(&mut caches, controllers, &mut queues, resource, told);
            }
            () = sleep_until(next), if next.is_some() => {}
        }
        if !unsynced.is_empty() {
            continue;
        }
        for ((controller, queue), writer) in controllers.iter().zip(&mut queues).zip(&writers) {
            for key in queue.take_due(Instant::now()) {
                let now = clock();
                let plan = (controller.plan)(&config, &caches, &key, now);
                match carry_out(&**writer, &plan, &mut caches).await {
                    Ok(()) => {
                        queue.failures.remove(&key);
                        if let Some(at) = plan.again_at {
                            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                            queue.add_at(key, Instant::now() + wait);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(controller = controller.name, ?key, %error, "plan failed, will be made again");
                        queue.failed(key, Instant::now());
                    }
                }
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

async fn carry_out(transport: &dyn Transport, plan: &Plan, caches: &mut Caches) -> Result<(), CallError> {
    for write in &plan.writes {
        transport.write(write.clone()).await?;
    }
    for (resource, object) in &plan.assume {
        let key = (object.namespace.clone(), object.name.clone());
        caches.objects.entry(*resource).or_default().insert(key, object.clone());
    }
    Ok(())
}

fn take(caches: &mut Caches, controllers: &[Controller], queues: &mut [Queue], resource: ResourceName, told: Told) {
    let objects = caches.objects.entry(resource).or_default();
    let changed = match told {
        Told::Listed(items) => {
            let fresh = items.into_iter().map(|o| ((o.namespace.clone(), o.name.clone()), o)).collect();
            let mut old = std::mem::replace(objects, fresh);
            old.retain(|key, _| !objects.contains_key(key));
            objects.values().cloned().chain(old.into_values()).collect()
        }
        Told::Event(ObjectEvent::Added(object) | ObjectEvent::Modified(object)) => {
            objects.insert((object.namespace.clone(), object.name.clone()), object.clone());
            vec![object]
        }
        Told::Event(ObjectEvent::Deleted(object)) => {
            objects.remove(&(object.namespace.clone(), object.name.clone()));
            vec![object]
        }
        Told::Event(ObjectEvent::Bookmark(_)) => return,
    };
    for (controller, queue) in controllers.iter().zip(queues) {
        for (_, concerns) in controller.watches.iter().filter(|(watched, _)| *watched == resource) {
            for object in &changed {
                queue.ready.extend(concerns(caches, object));
            }
        }
    }
}

/// Lists and watches one resource for ever.
fn follow(transport: Arc<dyn Transport>, resource: ResourceName) -> impl futures::Stream<Item = Told> {
    let ResourceName { group, version, plural } = resource;
    let query = ListQuery { target: Target { group, version, plural, ..Target::default() }, ..ListQuery::default() };
    let (sender, receiver) = futures::channel::mpsc::unbounded();
    let work = async move {
        loop {
            if let Err(error) = list_and_watch(&*transport, &query, &sender).await
                && !error.is_expired()
            {
                tracing::debug!(plural, %error, "watch ended");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    futures::stream::select(receiver.map(Some), futures::stream::once(work).map(|()| None::<Told>))
        .filter_map(futures::future::ready)
}

async fn list_and_watch(
    transport: &dyn Transport,
    query: &ListQuery,
    sender: &futures::channel::mpsc::UnboundedSender<Told>,
) -> Result<(), CallError> {
    let list = transport.list(query).await?;
    let mut revision = list.revision;
    sender.unbounded_send(Told::Listed(list.items)).ok();
    loop {
        let mut events = transport.watch(query, revision).await?;
        while let Some(event) = events.next().await {
            let event = event?;
            revision = match &event {
                ObjectEvent::Added(o) | ObjectEvent::Modified(o) | ObjectEvent::Deleted(o) => o.revision,
                ObjectEvent::Bookmark(revision) => *revision,
            };
            sender.unbounded_send(Told::Event(event)).ok();
        }
    }
}
