//! `delete` and `deletecollection`: preconditions, grace, finalizers, propagation (apiserver
//! `registry/rest/delete.go`, `registry/generic/registry/store.go`).

use crate::admission::{self, Operation};
use crate::call::{Answer, Call, List};
use crate::commit::Committed;
use crate::errors::{self, Result};
use crate::query::ListOptions;
use crate::read;
use crate::refusal::Refusal;
use crate::server::{self, ApiServer};
use crate::{delete_options, respond, select, stored, world};
use api::meta;
use api::object::Object;
use delete_options::{DeleteOptions, Propagation};
use serde_json::{Value, json};
use std::sync::Arc;

/// Resources whose deletion answers with the object (upstream stores with `ReturnDeletedObject`).
const ANSWER_WITH_OBJECT: &[(&str, &str)] = &[
    ("", "namespaces"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourceslices"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
];

/// Upstream's `batch/v1` deletes leave a Job's Pods behind unless told otherwise.
const JOB_ORPHANS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

/// What became of one object.
pub(crate) enum Outcome {
    /// It is gone; its last state.
    Gone(Arc<Object>),
    /// It waits for its grace period or its finalizers.
    Waits(Arc<Object>),
}

pub(crate) async fn delete(call: &Call<'_>) -> Result<Answer> {
    let options = DeleteOptions::parse(call)?;
    if call.resource.group == "batch" && call.resource.plural == "jobs" && options.propagation.is_none() {
        call.warn(JOB_ORPHANS);
    }
    let outcome = delete_named(call, &call.info.name, &options).await?;
    Ok(answer(call, outcome))
}

fn answer(call: &Call<'_>, outcome: Outcome) -> Answer {
    let (group, plural) = (call.resource.group, call.resource.plural);
    let object = match outcome {
        Outcome::Waits(object) => return Answer::Object { code: 200, object },
        Outcome::Gone(object) => object,
    };
    if ANSWER_WITH_OBJECT.contains(&(group, plural)) {
        return Answer::Object { code: 200, object };
    }
    let uid = respond::tree_of(&object).map(|tree| meta::uid(&tree).to_owned()).unwrap_or_default();
    let mut details = json!({"name": object.name, "kind": plural, "uid": uid});
    if !group.is_empty() {
        details["group"] = group.into();
    }
    let tree = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Answer::Tree { code: 200, tree }
}

/// Deletes one object of the call's resource and namespace.
pub(crate) async fn delete_named(call: &Call<'_>, name: &str, options: &DeleteOptions) -> Result<Outcome> {
    loop {
        let entry = call.server.current(call, name).await?.ok_or_else(|| call.not_found(name))?;
        if let Some(outcome) = attempt(call, &entry.object, options).await? {
            return Ok(outcome);
        }
    }
}

/// `None`: somebody else changed the object meanwhile.
async fn attempt(call: &Call<'_>, object: &Arc<Object>, options: &DeleteOptions) -> Result<Option<Outcome>> {
    let old = respond::tree_of(object)?;
    options.check_preconditions(call, &old)?;
    let name = object.name.as_str();
    let is_namespace = call.resource.group.is_empty() && call.resource.plural == "namespaces";
    let within = if is_namespace { name } else { object.namespace.as_str() };
    let request = server::admission_request(call, Operation::Delete, name, within, Some(&old), options.dry_run);
    call.warn_all(admission::mutate(&request, &mut Value::Null)?);
    call.warn_all(admission::validate(&request, &Value::Null)?);
    if is_namespace {
        return namespace(call, object, old, options).await;
    }
    match plan(call, old, options) {
        Planned::AlreadyWaits => Ok(Some(Outcome::Waits(object.clone()))),
        Planned::Keep(new) => keep(call, object, &new, options).await,
        Planned::Remove(None) => remove(call, object, object.parts().0.clone(), options).await,
        Planned::Remove(Some(last)) => {
            // Watchers see that the grace period has ended before they see the object go, as upstream has it.
            match keep(call, object, &last, options).await? {
                Some(Outcome::Waits(marked)) => remove(call, &marked, marked.parts().0.clone(), options).await,
                other => Ok(other),
            }
        }
    }
}

enum Planned {
    /// Deletion goes on already, and this request does not shorten it.
    AlreadyWaits,
    /// The object stays for now, changed like this.
    Keep(Value),
    /// The object goes; its last state if that differs from the stored one.
    Remove(Option<Value>),
}

/// What deleting means for an object as it is.
fn plan(call: &Call<'_>, old: Value, options: &DeleteOptions) -> Planned {
    let rules = api::kinds::rules(call.resource.group, call.resource.kind);
    let now = call.now;
    let mut new = old;
    let asked = options.grace_period_s.map(|s| if s < 0 { 1 } else { s });
    let supports_grace = is_graceful(call);
    let mut graceful = None;
    if supports_grace && let Some(at) = meta::deletion_timestamp(&new).and_then(|t| t.parse::<jiff::Timestamp>().ok()) {
        let current = meta::deletion_grace_period_s(&new).unwrap_or(0);
        if current != 0 {
            let Some(mut period) = asked.filter(|asked| *asked < current) else {
                return Planned::AlreadyWaits;
            };
            // Back to when deletion began, then forward by the shorter period, but never into the past.
            let mut ends = jiff::Timestamp::from_second(at.as_second() - current + period).unwrap_or(now);
            if ends < now {
                ends = now;
                period = period.min(1);
            }
            meta::set(&mut new, "deletionTimestamp", world::rfc3339(ends));
            meta::set(&mut new, "deletionGracePeriodSeconds", period);
            graceful = Some(period);
        }
    } else if supports_grace && let Some(period) = (rules.grace_period_s)(&new, asked) {
        let ends = jiff::Timestamp::from_second(now.as_second() + period).unwrap_or(now);
        meta::set(&mut new, "deletionTimestamp", world::rfc3339(ends));
        meta::set(&mut new, "deletionGracePeriodSeconds", period);
        if meta::generation(&new) > 0 {
            let next = meta::generation(&new) + 1;
            meta::set(&mut new, "generation", next);
        }
        graceful = Some(period);
    }
    options.set_finalizers(call, &mut new);
    let waits = meta::finalizers(&new).next().is_some();
    match graceful {
        Some(0) if !waits => Planned::Remove(Some(new)),
        Some(_) => Planned::Keep(new),
        None if waits => {
            mark_deleting(&mut new, now);
            Planned::Keep(new)
        }
        None => Planned::Remove(None),
    }
}

/// Kinds with a grace period (upstream `RESTGracefulDeleteStrategy`): Pods.
fn is_graceful(call: &Call<'_>) -> bool {
    call.resource.group.is_empty() && call.resource.plural == "pods"
}

/// An object without grace that waits for finalizers (upstream `markAsDeleting`).
fn mark_deleting(object: &mut Value, now: jiff::Timestamp) {
    let at = meta::deletion_timestamp(object).and_then(|t| t.parse::<jiff::Timestamp>().ok());
    if at.is_none() && meta::generation(object) > 0 {
        let next = meta::generation(object) + 1;
        meta::set(object, "generation", next);
    }
    if at.is_none_or(|at| at > now) {
        meta::set(object, "deletionTimestamp", world::rfc3339(now));
    }
    meta::set(object, "deletionGracePeriodSeconds", 0);
}

async fn keep(call: &Call<'_>, object: &Arc<Object>, new: &Value, options: &DeleteOptions) -> Result<Option<Outcome>> {
    let bytes = stored::encode(new);
    if bytes == *object.parts().0 {
        return Ok(Some(Outcome::Waits(object.clone())));
    }
    if options.dry_run {
        return Ok(Some(Outcome::Waits(ApiServer::written(&object.namespace, &object.name, object.revision, bytes))));
    }
    Ok(match call.server.put(&call.key(&object.name), object.revision, bytes.clone()).await? {
        Committed::Done(revision) => {
            Some(Outcome::Waits(ApiServer::written(&object.namespace, &object.name, revision, bytes)))
        }
        Committed::Moved => None,
    })
}

async fn remove(
    call: &Call<'_>,
    object: &Arc<Object>,
    bytes: bytes::Bytes,
    options: &DeleteOptions,
) -> Result<Option<Outcome>> {
    if options.dry_run {
        return Ok(Some(Outcome::Gone(ApiServer::written(&object.namespace, &object.name, object.revision, bytes))));
    }
    Ok(match call.server.remove(&call.key(&object.name), object.revision).await? {
        Committed::Done(revision) => {
            Some(Outcome::Gone(ApiServer::written(&object.namespace, &object.name, revision, bytes)))
        }
        Committed::Moved => None,
    })
}

/// Namespaces wait for their content: deletion marks them Terminating, `/finalize` lets them go (upstream
/// `registry/core/namespace/storage`).
async fn namespace(
    call: &Call<'_>,
    object: &Arc<Object>,
    old: Value,
    options: &DeleteOptions,
) -> Result<Option<Outcome>> {
    let finalizers = old["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    if meta::deletion_timestamp(&old).is_some() {
        if finalizers || meta::finalizers(&old).next().is_some() {
            return Ok(Some(Outcome::Waits(object.clone())));
        }
        return remove(call, object, object.parts().0.clone(), options).await;
    }
    let mut new = old;
    meta::set(&mut new, "deletionTimestamp", world::rfc3339(call.now));
    new["status"]["phase"] = "Terminating".into();
    options.set_finalizers(call, &mut new);
    keep(call, object, &new, options).await
}

pub(crate) async fn delete_collection(call: &Call<'_>) -> Result<Answer> {
    let cache = call.server.caches.of(call.resource).ok_or_else(errors::no_such_resource)?.clone();
    let options = DeleteOptions::parse(call)?;
    let list_options = ListOptions::parse(call.query, false)?;
    let selection = select::selection(call, &cache, &list_options)?;
    let list: List = read::select_list(call, &cache, &list_options, &selection).await?;
    for object in &list.objects {
        match delete_named(call, &object.name, &options).await {
            Err(refusal) if refusal.reason != "NotFound" => return Err(refusal),
            _ => {}
        }
    }
    Ok(Answer::List(list))
}

impl DeleteOptions {
    pub(crate) fn check_preconditions(&self, call: &Call<'_>, old: &Value) -> Result<()> {
        let (uid, revision) = (meta::uid(old), meta::resource_version(old));
        let (group, kind, name) = (call.kind_group(), call.resource.kind, meta::name(old));
        let is_namespace = group.is_empty() && kind == "Namespace";
        if let Some(wanted) = self.uid.as_deref().filter(|wanted| *wanted != uid) {
            if is_namespace {
                let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
                return Err(errors::conflict(group, call.resource.plural, name, &why));
            }
            let why = format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
            );
            return Err(errors::conflict(group, kind, name, &why));
        }
        if let Some(wanted) = self.resource_version.as_deref().filter(|wanted| *wanted != revision) {
            if is_namespace {
                let why = format!(
                    "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {revision}"
                );
                return Err(errors::conflict(group, call.resource.plural, name, &why));
            }
            let why = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
            );
            return Err(errors::conflict(group, kind, name, &why));
        }
        Ok(())
    }

    /// The finalizers that propagation asks for (upstream `deletionFinalizersForGarbageCollection`).
    fn set_finalizers(&self, call: &Call<'_>, object: &mut Value) {
        let (group, plural) = (call.resource.group, call.resource.plural);
        if plural == "events" {
            return;
        }
        let present: Vec<String> = meta::finalizers(object).map(str::to_owned).collect();
        let has = |name: &str| present.iter().any(|f| f == name);
        // Upstream's choice for kinds that were there before propagation was.
        let orphans_by_default = matches!((group, plural), ("batch", "jobs") | ("", "replicationcontrollers"));
        let (orphan, foreground) = match self.propagation {
            Some(Propagation::Orphan) => (true, false),
            Some(Propagation::Foreground) => (false, true),
            Some(Propagation::Background) => (false, false),
            None if has("orphan") => (true, false),
            None if has("foregroundDeletion") => (false, true),
            None => (orphans_by_default, false),
        };
        let mut wanted: Vec<Value> = present
            .iter()
            .filter(|f| !matches!(f.as_str(), "orphan" | "foregroundDeletion"))
            .map(|f| f.as_str().into())
            .collect();
        if orphan {
            wanted.push("orphan".into());
        }
        if foreground {
            wanted.push("foregroundDeletion".into());
        }
        let mut sorted: Vec<&str> = wanted.iter().filter_map(Value::as_str).collect();
        let mut before: Vec<&str> = present.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        before.sort_unstable();
        if sorted == before {
            return;
        }
        if wanted.is_empty() {
            meta::unset(object, "finalizers");
        } else {
            meta::set(object, "finalizers", Value::Array(wanted));
        }
    }
}

/// A refusal for options that cannot be.
pub(crate) fn invalid_options(found: &schema::field::ErrorList) -> Refusal {
    errors::invalid("meta.k8s.io", "DeleteOptions", "", found)
}
