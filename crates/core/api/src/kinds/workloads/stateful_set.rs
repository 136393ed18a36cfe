//! Validation of `apps/v1` StatefulSet.

use super::checks::{
    self, Words, amount, at_most_all, int_or_percent, not_above, not_negative, runs_for_good, selector_and_labels,
};
use crate::internal;
use crate::kinds::core::pod::template;
use crate::names::{self, IMMUTABLE};
use crate::tree::{Tree, remove, same};
use schema::field::{ErrorList, Path, invalid, not_supported, required};
use schema::selector::LabelSelector;
use serde_json::{Value, json};

const WORDS: Words = Words { empty_for: "statefulset", unreadable: Some(""), deadline_in: "StatefulSet" };
const POLICIES: [&str; 2] = ["OrderedReady", "Parallel"];

pub(super) fn validate(set: &Value, old: &Value) -> ErrorList {
    let (spec, path) = (&set["spec"], Path::new("spec"));
    let mut found = ErrorList::new();
    let at = path.child("podManagementPolicy");
    match spec.text("podManagementPolicy") {
        "" => found.push(required(&at, "")),
        policy if POLICIES.contains(&policy) => {}
        policy => found.push(invalid(&at, policy, "must be 'OrderedReady' or 'Parallel'")),
    }
    found.extend(strategy(&spec["updateStrategy"], &path.child("updateStrategy")));
    if let Some(retention) = spec.field("persistentVolumeClaimRetentionPolicy") {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for field in ["whenDeleted", "whenScaled"] {
            let policy = retention.text(field);
            if !matches!(policy, "Retain" | "Delete") {
                found.push(not_supported(&path.child(field), policy, &["Retain", "Delete"]));
            }
        }
    }
    let claims = spec.list("volumeClaimTemplates");
    for (at, claim) in claims.iter().enumerate() {
        let path = path.child("volumeClaimTemplates").index(at).child("spec");
        found.extend(crate::kinds::core::pod::claim_spec(&claim["spec"], &path));
    }
    found.extend(not_negative(spec, &["replicas", "minReadySeconds"], &path));
    found.extend(not_negative(&spec["ordinals"], &["start"], &path.child("ordinals")));
    let service = spec.text("serviceName");
    if !service.is_empty() {
        found.extend(names::errors(&path.child("serviceName"), service, names::dns_label(service)));
    }
    found.extend(selector_and_labels(spec, &path, &WORDS));
    let at = path.child("template");
    if LabelSelector::from_value(&spec["selector"]).is_ok() {
        found.extend(of_template(spec, &old["spec"]["template"], &at));
    }
    found.extend(runs_for_good(&spec["template"], &at, &WORDS));
    found
}

/// The template as its Pods will be: with a volume for each claim, named after themselves.
fn of_template(spec: &Value, old: &Value, path: &Path) -> ErrorList {
    let mut pods = spec["template"].clone();
    let claims = spec.list("volumeClaimTemplates");
    if pods["spec"].is_object() {
        for field in ["hostname", "subdomain"] {
            remove(&mut pods["spec"], field);
        }
        if !claims.is_empty() {
            let named = |claim: &Value| claim["metadata"].text("name").to_owned();
            let mut volumes: Vec<Value> = claims
                .iter()
                .map(|claim| json!({"name": named(claim), "persistentVolumeClaim": {"claimName": named(claim)}}))
                .collect();
            let own = pods["spec"].list("volumes").iter();
            let own = own.filter(|volume| !claims.iter().any(|claim| named(claim) == volume.text("name")));
            volumes.extend(own.cloned().collect::<Vec<_>>());
            pods["spec"]["volumes"] = volumes.into();
        }
    }
    template::validate(&pods, old, path)
}

fn strategy(strategy: &Value, path: &Path) -> ErrorList {
    let at = path.child("rollingUpdate");
    match (strategy.text("type"), strategy.field("rollingUpdate")) {
        ("", _) => vec![required(path, "")],
        ("OnDelete", Some(rolling)) => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            vec![internal::invalid(&at, "RollingUpdateStatefulSetStrategy", rolling, detail)]
        }
        ("RollingUpdate", Some(rolling)) => roll(rolling, &at),
        ("OnDelete" | "RollingUpdate", None) => ErrorList::new(),
        _ => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            vec![internal::invalid(path, "StatefulSetUpdateStrategy", strategy, detail)]
        }
    }
}

fn roll(rolling: &Value, path: &Path) -> ErrorList {
    let mut found = not_negative(rolling, &["partition"], path);
    if let Some(unavailable) = rolling.field("maxUnavailable") {
        let at = path.child("maxUnavailable");
        found.extend(int_or_percent(unavailable, &at));
        if amount(unavailable) == 0 {
            found.push(invalid(&at, unavailable.clone(), "cannot be 0"));
        }
        found.extend(at_most_all(unavailable, &at));
    }
    found
}

pub(super) fn update(new: &Value, old: &Value) -> ErrorList {
    let mut found = validate(new, old);
    found.extend(checks::selector_is_kept(new, old));
    let path = Path::new("spec");
    for field in ["volumeClaimTemplates", "serviceName", "podManagementPolicy"] {
        let (now, before) = (&new["spec"][field], &old["spec"][field]);
        if same(now, before) {
            continue;
        }
        let path = path.child(field);
        found.push(if field == "volumeClaimTemplates" {
            internal::invalid(&path, "[SPersistentVolumeClaim", now, IMMUTABLE)
        } else {
            invalid(&path, now.clone(), IMMUTABLE)
        });
    }
    found
}

pub(super) fn status(new: &Value, old: &Value) -> ErrorList {
    let (status, path) = (&new["status"], Path::new("status"));
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    let mut found = not_negative(status, &["replicas"], &path);
    found.extend(not_negative(status, &parts, &path));
    found.extend(not_negative(status, &["observedGeneration", "collisionCount"], &path));
    found.extend(not_above(status, &parts, "replicas", &path));
    if status.int("availableReplicas") > status.int("readyReplicas") {
        let detail = "cannot be greater than status.readyReplicas";
        found.push(invalid(&path.child("availableReplicas"), status.int("availableReplicas"), detail));
    }
    found.extend(checks::collisions(new, old));
    found
}

pub(super) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut found = checks::template_warnings(new, old, &["spec", "template"]);
    if new["spec"].int("revisionHistoryLimit") < 0 {
        found.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .to_owned(),
        );
    }
    found
}
