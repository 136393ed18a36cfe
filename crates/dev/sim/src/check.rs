//! What must hold: always, and in the end.

use crate::cluster::{Report, Sim};
use crate::door::Outside;
use crate::runtime::Container;
use crate::watcher::Seen;
use api::write::Target;
use apiserver::authentication::{MASTERS, User};
use client::transport::{ListQuery, Transport};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::kv::Event;

/// What was noted during a run.
#[derive(Default)]
pub(crate) struct Checks {
    pub(crate) wrong: Vec<String>,
    hash: u64,
    log: Option<Vec<String>>,
    /// Resource, name and revision of what was acknowledged.
    acknowledged: Vec<(&'static str, String, u64)>,
    /// Pods whose deletion was acknowledged.
    pub(crate) unwanted: BTreeSet<String>,
    pub(crate) seen: BTreeMap<&'static str, Seen>,
}

impl Checks {
    /// FNV-1a over everything that happens. `SIM_TRACE=1` prints it.
    pub(crate) fn trace(&mut self, at: Duration, what: &str) {
        self.mix(&at.as_nanos().to_le_bytes());
        self.mix(what.as_bytes());
        let log = self.log.get_or_insert_default();
        if std::env::var_os("SIM_TRACE").is_some() {
            log.push(format!("{at:?} {what}"));
        }
    }

    pub(crate) fn trace_event(&mut self, event: &Event) {
        self.mix(&event.revision.to_le_bytes());
        self.mix(event.key.as_bytes());
        self.mix(event.value.as_deref().unwrap_or_default());
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn acknowledge(&mut self, plural: &'static str, name: &str, revision: u64) {
        self.acknowledged.push((plural, name.to_owned(), revision));
    }
}

/// Whether one of the controllers binds Pods; if not, clients do.
pub(crate) fn has_scheduler() -> bool {
    control::controllers::all().iter().any(|controller| controller.name == "kube-scheduler")
}

/// Waits until everything has come to rest where it should.
pub(crate) async fn converge(sim: &Arc<Sim>, limit: Duration) {
    let end = sim.monotonic() + limit;
    loop {
        // A simulation may look from time to time: what it looks at does not notice.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let unrest = unrest(sim).await;
        match unrest.first() {
            None => return,
            Some(_) if sim.monotonic() > end => return unrest.into_iter().for_each(|what| sim.wrong(what)),
            Some(_) => {}
        }
    }
}

async fn pods(sim: &Arc<Sim>) -> Option<Vec<Value>> {
    let door = Outside { sim: sim.clone(), user: User::component("checker", &[MASTERS]) };
    let query =
        ListQuery { target: Target { version: "v1", plural: "pods", ..Target::default() }, ..ListQuery::default() };
    let list = door.list(&query).await.ok()?;
    list.items.iter().map(|object| object.decode::<Value>().ok()).collect()
}

/// What is not yet as it should be.
async fn unrest(sim: &Arc<Sim>) -> Vec<String> {
    let Some(pods) = pods(sim).await else { return vec!["the Pods cannot be listed".to_owned()] };
    let containers: Vec<Container> = sim.nodes.iter().flat_map(crate::runtime::Runtime::containers).collect();
    let mut unrest = Vec::new();
    let unwanted = sim.checks().unwanted.clone();
    for pod in &pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        if pod["metadata"]["deletionTimestamp"].is_string() || unwanted.contains(name) {
            unrest.push(format!("{name} is still there: {}", pod["status"]));
        } else if let Some(what) = unsettled(pod, &containers) {
            unrest.push(format!("{name}: {what}: {} {}", pod["spec"]["nodeName"], pod["status"]));
        }
    }
    let uids: BTreeSet<&str> = pods.iter().filter_map(|pod| pod["metadata"]["uid"].as_str()).collect();
    let sandboxes = sim.nodes.iter().flat_map(crate::runtime::Runtime::sandboxes);
    let orphans = sandboxes.filter(|sandbox| !uids.contains(sandbox.uid.as_str()));
    unrest.extend(orphans.map(|sandbox| format!("{} of {} has no Pod", sandbox.id, sandbox.uid)));
    let orphans = containers.iter().filter(|container| !uids.contains(container.uid.as_str()));
    unrest.extend(orphans.map(|container| format!("{} of {} has no Pod", container.id, container.uid)));
    unrest
}

/// Why a Pod that is to stay is not where its containers should bring it.
fn unsettled(pod: &Value, containers: &[Container]) -> Option<String> {
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    let specs = pod["spec"]["containers"].as_array()?;
    let image = |spec: &Value| spec["image"].as_str().unwrap_or_default().to_owned();
    let ends = specs.iter().all(|spec| image(spec).starts_with("sim/exit"));
    let fails = specs.iter().any(|spec| image(spec).starts_with("sim/exit-3"));
    let killed = pod["spec"]["restartPolicy"] == "Never";
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    let expected: &[&str] = match (ends, fails) {
        // A sandbox that died took it along.
        (true, false) if killed => &["Succeeded", "Failed"],
        (true, true) => &["Failed"],
        (true, false) => &["Succeeded"],
        (false, _) if killed => &["Running", "Failed", "Succeeded"],
        (false, _) => &["Running"],
    };
    if !expected.contains(&phase) {
        return Some(format!("phase {phase}, expected one of {expected:?}"));
    }
    let running: BTreeSet<&str> =
        containers.iter().filter(|c| c.uid == uid && c.runs()).map(|container| container.name.as_str()).collect();
    let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let shown: Vec<&Value> = statuses.iter().filter(|status| status["state"]["running"].is_object()).collect();
    if phase != "Running" {
        return (!running.is_empty()).then(|| format!("it has ended, and {running:?} run"));
    }
    for status in &shown {
        let name = status["name"].as_str().unwrap_or_default();
        if !running.contains(name) {
            return Some(format!("{name} is shown as running and does not"));
        }
    }
    for spec in specs {
        let status = statuses.iter().find(|status| status["name"] == spec["name"]);
        let (asked, granted) = (&spec["resources"]["requests"], status.map(|status| &status["allocatedResources"]));
        if granted.is_some_and(|granted| granted != asked && !granted.is_null()) {
            return Some(format!("{} asks for {asked} and was granted {granted:?}", spec["name"]));
        }
    }
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut resizes = conditions.filter_map(|condition| condition["type"].as_str());
    if let Some(kind) = resizes.find(|kind| kind.starts_with("PodResize")) {
        return Some(format!("{kind} stays"));
    }
    for status in pod["status"]["ephemeralContainerStatuses"].as_array().into_iter().flatten() {
        if status["restartCount"] != 0 {
            return Some(format!("{} was started again", status["name"]));
        }
    }
    let shown: BTreeSet<&str> = shown.iter().filter_map(|status| status["name"].as_str()).collect();
    for spec in specs {
        let name = spec["name"].as_str().unwrap_or_default();
        let is_to_run = !image(spec).starts_with("sim/exit") && !killed;
        if is_to_run && !(running.contains(name) && shown.contains(name)) {
            return Some(format!("{name} should run"));
        }
    }
    None
}

/// What can be said only at the end.
pub(crate) async fn finish(sim: &Arc<Sim>) {
    let mut wrong = bindings(sim);
    wrong.extend(lost(sim));
    wrong.extend(watches(sim));
    for what in wrong {
        sim.wrong(what);
    }
    let checks = sim.checks();
    if let (Some(log), true) = (&checks.log, std::env::var_os("SIM_TRACE").is_some()) {
        let text = log.join("\n");
        #[allow(clippy::print_stderr, reason = "asked for")]
        {
            eprintln!("{text}");
        }
    }
}

/// Every version of every Pod that the store has shown: each Pod gets one node, once.
fn bindings(sim: &Sim) -> Vec<String> {
    let mut nodes: BTreeMap<String, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    for event in sim.history().events.iter().filter(|event| event.key.starts_with("/registry/pods/")) {
        let Some(pod) = event.value.as_ref().and_then(|value| serde_json::from_slice::<Value>(value).ok()) else {
            continue;
        };
        let (Some(uid), node) = (pod["metadata"]["uid"].as_str(), pod["spec"]["nodeName"].as_str()) else { continue };
        match (nodes.get(uid).map(String::as_str), node) {
            (None, Some(node)) => drop(nodes.insert(uid.to_owned(), node.to_owned())),
            (Some(before), node) if node != Some(before) => {
                wrong.push(format!("{} at {} moved from {before} to {node:?}", event.key, event.revision));
            }
            _ => {}
        }
    }
    wrong
}

/// Everything acknowledged is in the history, at its revision.
fn lost(sim: &Sim) -> Vec<String> {
    let history = sim.history();
    let written: BTreeSet<(u64, &str)> =
        history.events.iter().map(|event| (event.revision, event.key.as_ref())).collect();
    let acknowledged = sim.checks().acknowledged.clone();
    let is_lost = |(plural, name, revision): &(&'static str, String, u64)| {
        let key = format!("/registry/{plural}/default/{name}");
        let lost = !written.contains(&(*revision, key.as_str()));
        lost.then(|| format!("{key} at {revision} was acknowledged and is not in the history"))
    };
    acknowledged.iter().filter_map(is_lost).collect()
}

/// Each watcher was told of every change since its list, in order.
fn watches(sim: &Sim) -> Vec<String> {
    let seen = sim.checks().seen.clone();
    let history = sim.history();
    let mut wrong = Vec::new();
    for (plural, seen) in seen {
        let prefix = format!("/registry/{plural}/");
        for (start, told) in &seen.stretches {
            let Some(last) = told.last() else { continue };
            let changes = history.events.iter().filter(|event| event.key.starts_with(&prefix));
            let changes = changes.map(|event| event.revision).filter(|revision| revision > start && revision <= last);
            let expected: Vec<u64> = changes.collect();
            if expected != *told {
                wrong.push(format!("a watch on {plural} from {start} was told {told:?}, and there was {expected:?}"));
            }
        }
    }
    wrong
}

pub(crate) fn report(sim: &Sim) -> Report {
    let revisions = sim.history().revision;
    let checks = sim.checks();
    Report {
        trace_hash: checks.hash,
        revisions,
        crashes: sim.crashes.load(Ordering::Relaxed),
        acknowledged: checks.acknowledged.len(),
        containers_started: sim.nodes.iter().map(crate::runtime::Runtime::started).sum(),
        took: sim.monotonic(),
    }
}
