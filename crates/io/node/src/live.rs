//! A Pod's volumes over time: prepared when the machine wants them, then kept as ConfigMaps, Secrets, tokens and the Pod's
//! own metadata are. Each object is watched once for all Pods of the node that mount it, by its name: the node authorizer
//! allows no more (upstream `pkg/kubelet/util/manager`).

use crate::Shared;
use crate::effects::Effects;
use client::informer::{Change, Informer};
use client::transport::ListQuery;
use client::typed::{Client, Kind, target};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Volume};
use kubelet::pod::{Input, PodEvent};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Waits after a failure grow from the first to the second (upstream `goroutinemap/exponentialbackoff`).
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(122));

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    ConfigMap,
    Secret,
}

/// A source, its namespace and its name.
type Key = (Source, String, String);

/// What is watched for the node's Pods.
#[derive(Default)]
pub(crate) struct Watches(Mutex<BTreeMap<Key, Weak<Watched>>>);

struct Watched {
    /// Counts its changes.
    changes: watch::Receiver<u64>,
    _task: AbortOnDropHandle<()>,
}

impl Watches {
    /// The watch of that object, which ends with its last holder.
    fn get(&self, client: &Client, key: Key) -> Arc<Watched> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.retain(|_, watched| watched.strong_count() > 0);
        if let Some(watched) = map.get(&key).and_then(Weak::upgrade) {
            return watched;
        }
        let (sender, changes) = watch::channel(0);
        let (client, (source, namespace, name)) = (client.clone(), key.clone());
        let task = crate::prober::owned(async move {
            match source {
                Source::ConfigMap => follow::<ConfigMap>(client, &namespace, &name, sender).await,
                Source::Secret => follow::<Secret>(client, &namespace, &name, sender).await,
            }
        });
        let watched = Arc::new(Watched { changes, _task: task });
        map.insert(key, Arc::downgrade(&watched));
        watched
    }
}

async fn follow<K: Kind>(client: Client, namespace: &str, name: &str, sender: watch::Sender<u64>) {
    let query = ListQuery {
        target: target::<K>(namespace, ""),
        field_selector: format!("metadata.name={name}"),
        ..ListQuery::default()
    };
    let (informer, _, mut changes) = Informer::<K>::new(client.transport().clone(), query);
    let tell = async {
        while let Some(change) = changes.recv().await {
            if !matches!(change, Change::Synced) {
                sender.send_modify(|count| *count += 1);
            }
        }
    };
    tokio::join!(informer.run(), tell);
}

/// The task that has a Pod's volumes in hand.
pub(crate) struct Live {
    pods: watch::Sender<Arc<Pod>>,
    task: JoinHandle<()>,
}

impl Live {
    /// Prepares the volumes and answers; `before` is ended first.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        effects: Arc<Effects>,
        pod: Arc<Pod>,
        outbox: mpsc::UnboundedSender<Input>,
        before: Option<Live>,
    ) -> Self {
        let (pods, receiver) = watch::channel(pod);
        let keeper = Keeper { shared: shared.clone(), effects, outbox, pods: receiver };
        let task = shared.tasks.spawn(async move {
            if let Some(before) = before {
                before.end().await;
            }
            keeper.run().await;
        });
        Self { pods, task }
    }

    pub(crate) fn set(&self, pod: Arc<Pod>) {
        self.pods.send_replace(pod);
    }

    /// Nothing is written any more when this returns.
    pub(crate) async fn end(self) {
        drop(self.pods);
        self.task.await.ok();
    }
}

struct Keeper {
    shared: Arc<Shared>,
    effects: Arc<Effects>,
    outbox: mpsc::UnboundedSender<Input>,
    pods: watch::Receiver<Arc<Pod>>,
}

impl Keeper {
    async fn run(mut self) {
        let mut pod = self.pods.borrow_and_update().clone();
        let watched: Vec<_> =
            sources(&pod).into_iter().map(|key| self.shared.watches.get(&self.shared.client, key)).collect();
        let mut changes: Vec<_> = watched.iter().map(|watched| watched.changes.clone()).collect();
        for changes in &mut changes {
            changes.mark_unchanged();
        }
        let mut prepared = false;
        let mut wait = RETRY.0;
        loop {
            let (next, failed) = if prepared { self.update(&pod).await } else { self.prepare(&pod).await };
            prepared |= !failed;
            let after = if failed { Some(wait) } else { next };
            wait = if failed { (wait * 2).min(RETRY.1) } else { RETRY.0 };
            let at = after.map(|after| Instant::now() + after);
            if self.due(&mut pod, &mut changes, at).await.is_none() {
                return;
            }
        }
    }

    /// Waits until something may have to be written; `None` when nothing ever will.
    async fn due(
        &mut self,
        pod: &mut Arc<Pod>,
        changes: &mut [watch::Receiver<u64>],
        at: Option<Instant>,
    ) -> Option<()> {
        loop {
            tokio::select! {
                set = self.pods.changed() => {
                    set.ok()?;
                    let new = self.pods.borrow_and_update().clone();
                    let same = new.metadata.labels == pod.metadata.labels
                        && new.metadata.annotations == pod.metadata.annotations
                        && new.spec == pod.spec;
                    *pod = new;
                    if same {
                        continue;
                    }
                }
                () = any(changes) => {}
                () = until(at) => {}
            }
            return Some(());
        }
    }

    async fn prepare(&self, pod: &Pod) -> (Option<Duration>, bool) {
        match self.effects.prepare(pod).await {
            Ok(()) => {
                self.outbox.send(Input::VolumesReady).ok();
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                (self.shared.volumes.next_renewal(uid), false)
            }
            Err(error) => {
                let (reason, message) = (error.reason, error.message);
                self.outbox.send(Input::VolumesFailed { reason, message }).ok();
                (None, true)
            }
        }
    }

    async fn update(&self, pod: &Arc<Pod>) -> (Option<Duration>, bool) {
        let (next, problems) = self.shared.volumes.update(pod).await;
        for problem in &problems {
            let event = PodEvent {
                warning: true,
                reason: problem.reason.into(),
                message: problem.message.clone(),
                field_path: String::new(),
            };
            self.shared.events.pod(pod, &event);
        }
        (next, !problems.is_empty())
    }
}

/// The next change of any of them.
async fn any(changes: &mut [watch::Receiver<u64>]) {
    let waits = changes.iter_mut().map(|changes| {
        async move {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    });
    let waits: Vec<_> = waits.collect();
    if waits.is_empty() {
        return std::future::pending().await;
    }
    futures::future::select_all(waits).await;
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What the Pod's volumes are written from.
fn sources(pod: &Pod) -> BTreeSet<Key> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.flat_map(named).map(|(source, name)| (source, namespace.clone(), name)).collect()
}

fn named(volume: &Volume) -> Vec<(Source, String)> {
    let mut named = Vec::new();
    named.extend(volume.config_map.iter().map(|map| (Source::ConfigMap, map.name.clone())));
    named.extend(volume.secret.iter().flat_map(|secret| secret.secret_name.clone()).map(|name| (Source::Secret, name)));
    for projection in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        named.extend(projection.config_map.iter().map(|map| (Source::ConfigMap, map.name.clone())));
        named.extend(projection.secret.iter().map(|secret| (Source::Secret, secret.name.clone())));
    }
    named
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_watched() {
        let pod = json!({"metadata": {"namespace": "n"}, "spec": {"containers": [], "volumes": [
            {"name": "a", "configMap": {"name": "m"}},
            {"name": "b", "secret": {"secretName": "s"}},
            {"name": "c", "emptyDir": {}},
            {"name": "d", "projected": {"sources": [
                {"configMap": {"name": "m"}}, {"secret": {"name": "t"}}, {"serviceAccountToken": {"path": "token"}}
            ]}},
        ]}});
        let found: Vec<_> = sources(&serde_json::from_value(pod).unwrap()).into_iter().collect();
        let key = |source, name: &str| (source, "n".to_owned(), name.to_owned());
        assert_eq!(found, [key(Source::ConfigMap, "m"), key(Source::Secret, "s"), key(Source::Secret, "t")]);
    }
}
