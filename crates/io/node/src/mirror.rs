//! The mirror of a static Pod in the API: made where it is missing, made anew where it shows another Pod or somebody deleted
//! it, and given the Pod's statuses. The Pod itself never waits for it.

use crate::Shared;
use crate::static_pods::{FullName, full_name};
use crate::status::{Wanted, send};
use api::write::{Target, Verb, Write};
use client::transport::CallError;
use client::typed::target;
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use kubelet::static_pods as rules;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Between attempts at what the server did not take: from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What stands in the API under the names of static Pods.
#[derive(Default)]
pub(crate) struct Mirrors(Mutex<BTreeMap<FullName, watch::Sender<Option<Arc<Pod>>>>>);

impl Mirrors {
    pub(crate) fn set(&self, name: FullName, mirror: Option<Arc<Pod>>) {
        self.slot(name, |slot| slot.send_replace(mirror));
    }

    pub(crate) fn get(&self, name: &FullName) -> Option<Arc<Pod>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).and_then(|slot| slot.borrow().clone())
    }

    fn follow(&self, name: FullName) -> watch::Receiver<Option<Arc<Pod>>> {
        self.slot(name, |slot| slot.subscribe())
    }

    fn slot<T>(&self, name: FullName, with: impl FnOnce(&watch::Sender<Option<Arc<Pod>>>) -> T) -> T {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.receiver_count() > 0 || slot.borrow().is_some());
        with(slots.entry(name).or_insert_with(|| watch::Sender::new(None)))
    }
}

struct Mirror {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    /// Statuses that the mirror does not show yet, the oldest first.
    statuses: VecDeque<Arc<PodStatus>>,
    /// The last status that was written, and the UID of the mirror that has it.
    last: (String, Value),
    newest: Option<Arc<PodStatus>>,
    /// It was created, and the watch is to tell of it.
    awaited: bool,
}

/// Keeps the mirror true until the sender is dropped; `written` is called for each status at once: nothing of a static Pod
/// depends on the API.
pub(crate) async fn run(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    mut receiver: mpsc::UnboundedReceiver<Wanted>,
    written: impl Fn(),
    gone: impl Fn(),
) {
    let mut found = shared.mirrors.follow(full_name(&pod));
    let last = (String::new(), Value::Null);
    let mut mirror = Mirror { shared, pod, statuses: VecDeque::new(), last, newest: None, awaited: false };
    let mut wait = RETRY.0;
    loop {
        let now = found.borrow_and_update().clone();
        let failed = match mirror.reconcile(now).await {
            Ok(()) => false,
            Err(error) => {
                let (namespace, name) = full_name(&mirror.pod);
                tracing::warn!(pod = name, namespace, %error, "mirror Pod not up to date, trying again");
                true
            }
        };
        let again = tokio::time::sleep(wait);
        wait = if failed { (wait * 2).min(RETRY.1) } else { RETRY.0 };
        tokio::select! {
            wanted = receiver.recv() => match wanted {
                None => return,
                Some(Wanted::Deleted) => gone(),
                Some(Wanted::Status(status)) => {
                    written();
                    mirror.newest = Some(status.clone());
                    mirror.statuses.push_back(status);
                }
            },
            changed = found.changed() => {
                if changed.is_err() {
                    return;
                }
                mirror.awaited = false;
            }
            () = again, if failed => {}
        }
    }
}

impl Mirror {
    async fn reconcile(&mut self, found: Option<Arc<Pod>>) -> Result<(), CallError> {
        let Some(found) = found else { return self.create().await };
        if !rules::is_mirror_of(&found, &self.pod) || found.metadata.deletion_timestamp.is_some() {
            // Where somebody else has the name, it is theirs.
            return if rules::is_mirror(&found) { delete(&self.shared, &found).await } else { Ok(()) };
        }
        let uid = found.metadata.uid.clone().unwrap_or_default();
        if self.last.0 != uid {
            self.last = (uid.clone(), serde_json::to_value(&found.status).unwrap_or_default());
            self.statuses = self.newest.iter().cloned().collect();
        }
        let (namespace, name) = full_name(&self.pod);
        let target = Target { subresource: "status", ..target::<Pod>(&namespace, &name) };
        while let Some(status) = self.statuses.front() {
            let passed_over = self.statuses.get(1).is_some_and(|later| kubelet::status::shows_all_of(later, status));
            if !passed_over {
                let new = serde_json::to_value(&**status).unwrap_or_default();
                match send(&self.shared, &uid, &target, &self.last.1, &new).await {
                    // Another one will be seen.
                    Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
                    sent => sent?,
                }
                self.last.1 = new;
            }
            self.statuses.pop_front();
        }
        Ok(())
    }

    async fn create(&mut self) -> Result<(), CallError> {
        if self.awaited {
            return Ok(());
        }
        let node = &self.shared.config.name;
        let owner = self.shared.client.get::<Node>("", node).await?;
        let body = rules::mirror(&self.pod, node, owner.metadata.uid.as_deref().unwrap_or_default());
        let (namespace, _) = full_name(&self.pod);
        let target = target::<Pod>(&namespace, "");
        let write = Write { verb: Verb::Create, target, body: body.to_string().into() };
        self.shared.client.transport().write(write).await?;
        self.awaited = true;
        Ok(())
    }
}

/// Deletes a mirror at once; gone or replaced already is as good.
pub(crate) async fn delete(shared: &Shared, mirror: &Pod) -> Result<(), CallError> {
    let (namespace, name) = full_name(mirror);
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": mirror.metadata.uid}});
    match shared.client.delete::<Pod>(&namespace, &name, &options).await {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        deleted => deleted,
    }
}
