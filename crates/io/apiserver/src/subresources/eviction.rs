//! `pods/eviction`: a delete that disruption budgets may forbid (upstream `registry/core/pod/storage/eviction.go`).

mod budget;

use crate::call::{Answer, Call};
use crate::commit::Committed;
use crate::decode_body::{self, Expected};
use crate::delete;
use crate::delete_options::DeleteOptions;
use crate::errors::{self, Result};
use crate::query::WriteOptions;
use crate::refusal::Refusal;
use crate::{respond, stored, world};
use api::meta;
use api::object::Object;
use api::tree::Tree;
use serde_json::{Value, json};

pub(super) async fn evict(call: &Call<'_>) -> Result<Answer> {
    let options = WriteOptions::parse(call.query, "CreateOptions", false)?;
    let of = api::table::type_of("policy", "v1", "Eviction").ok_or_else(errors::no_such_resource)?;
    let expected = Expected { group: "policy", version: "v1", kind: "Eviction", of };
    let eviction = decode_body::body(call, expected, options.field_validation)?;
    let name = call.info.name.as_str();
    if meta::name(&eviction) != name {
        return Err(Refusal::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut delete_options = DeleteOptions::of(&eviction["deleteOptions"])?;
    delete_options.dry_run |= options.dry_run;
    loop {
        let entry = call.server.current(call, name).await?.ok_or_else(|| call.not_found(name))?;
        let pod = respond::tree_of(&entry.object)?;
        let outcome = if no_disruption(&pod) {
            let as_seen = pod["status"].text("phase") == "Pending" && meta::deletion_timestamp(&pod).is_none();
            mark_and_delete(call, &entry.object, &delete_options, as_seen).await?
        } else {
            match budget::ask(call, &pod, delete_options.dry_run).await? {
                budget::Verdict::Granted => mark_and_delete(call, &entry.object, &delete_options, false).await?,
                budget::Verdict::NotCounted(budget) => {
                    match mark_and_delete(call, &entry.object, &delete_options, true).await? {
                        // The Pod may have become ready, and then it counts.
                        Evicted::Moved if delete_options.resource_version.is_none() => {
                            return Err(budget::not_observed(&budget));
                        }
                        outcome => outcome,
                    }
                }
            }
        };
        if let Evicted::Done = outcome {
            let tree = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
            return Ok(Answer::Tree { code: 201, tree });
        }
    }
}

/// Pods that have ended, wait or are being deleted (`canIgnorePDB`).
fn no_disruption(pod: &Value) -> bool {
    matches!(pod["status"].text("phase"), "Succeeded" | "Failed" | "Pending") || meta::deletion_timestamp(pod).is_some()
}

enum Evicted {
    Done,
    /// The Pod is no longer as it was judged.
    Moved,
}

/// Tells why the Pod goes (`DisruptionTarget`) and deletes it; with `as_seen` only if it is as it was judged.
async fn mark_and_delete(call: &Call<'_>, seen: &Object, options: &DeleteOptions, as_seen: bool) -> Result<Evicted> {
    let mut options = options.clone();
    if !options.dry_run {
        let revision = loop {
            let entry = call.server.current(call, &seen.name).await?.ok_or_else(|| call.not_found(&seen.name))?;
            if as_seen && entry.object.revision != seen.revision {
                return Ok(Evicted::Moved);
            }
            let mut pod = respond::tree_of(&entry.object)?;
            options.check_preconditions(call, &pod)?;
            mark(&mut pod, &world::rfc3339(call.now));
            let key = call.key(&seen.name);
            match call.server.put(&key, entry.object.revision, stored::encode(&pod)).await? {
                Committed::Done(revision) => break revision,
                Committed::Moved => {}
            }
        };
        if as_seen || options.resource_version.is_some() {
            options.resource_version = Some(revision.to_string());
        }
    }
    match delete::delete_named(call, &seen.name, &options).await {
        Err(refusal) if as_seen && refusal.reason == "Conflict" => Ok(Evicted::Moved),
        outcome => outcome.map(|_| Evicted::Done),
    }
}

/// `UpdatePodCondition`: the time is that of the last change of status.
fn mark(pod: &mut Value, now: &str) {
    let of = "DisruptionTarget";
    let before = pod["status"].list("conditions").iter().find(|condition| condition.text("type") == of);
    let since =
        before.filter(|condition| condition.text("status") == "True").map_or(now, |c| c.text("lastTransitionTime"));
    let condition = json!({
        "type": of, "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        "lastProbeTime": null, "lastTransitionTime": since,
    });
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    if let Some(all) = pod["status"]["conditions"].as_array_mut() {
        match all.iter_mut().find(|condition| condition.text("type") == of) {
            Some(present) => *present = condition,
            None => all.push(condition),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::mark;
    use serde_json::json;

    #[test]
    fn the_condition_keeps_the_time_of_its_change() {
        let mut pod = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        mark(&mut pod, "2026-01-01T00:00:00Z");
        let first = pod.clone();
        mark(&mut pod, "2026-01-01T00:00:09Z");
        assert_eq!(pod, first);
        assert_eq!(pod["status"]["conditions"][1]["reason"], "EvictionByEvictionAPI");
        pod["status"]["conditions"][1]["status"] = "False".into();
        mark(&mut pod, "2026-01-01T00:00:09Z");
        assert_eq!(pod["status"]["conditions"][1]["lastTransitionTime"], "2026-01-01T00:00:09Z");
    }
}
