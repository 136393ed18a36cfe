//! What of a Pod may change (upstream `ValidatePodUpdate`).

use super::{scheduling, validate};
use crate::internal;
use crate::meta;
use crate::names;
use crate::tree::{Tree, keep, list_mut, remove, same};
use schema::field::{ErrorList, Path, forbidden, invalid, required};
use serde_json::Value;

use super::validate::Lenient;

const CHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// `ValidatePodUpdate` behind its `ValidateObjectMetaUpdate`.
pub fn update(new: &Value, old: &Value) -> ErrorList {
    let lenient = Lenient::towards(old);
    let mut found = new_object(new, lenient);
    found.extend(annotation_updates(new, old, lenient));
    let (spec, old_spec) = (&new["spec"], &old["spec"]);
    let path = Path::new("spec");
    for list in ["containers", "initContainers"] {
        let (now, before) = (spec.list(list), old_spec.list(list));
        let at = path.child(list);
        if now.len() != before.len() {
            found.push(forbidden(&at, "pod updates may not add or remove containers"));
            return found;
        }
        for (i, container) in now.iter().enumerate() {
            if container.text("image").is_empty() {
                found.push(required(&at.index(i).child("image"), ""));
            }
            found.extend(super::containers::image_spaces(container, &at.index(i)));
        }
    }
    if let Err(stop) = deadline(spec, old_spec, &path.child("activeDeadlineSeconds"), &mut found) {
        found.push(stop);
        return found;
    }
    found.extend(added_tolerations(spec, old_spec, &path.child("tolerations"), lenient));
    found.extend(deleted_gates(spec, old_spec, &path.child("schedulingGates")));
    if same(spec, old_spec) {
        return found;
    }
    let mut munged = munge(spec, old_spec);
    if !old_spec.list("schedulingGates").is_empty() {
        gated(&mut munged, old_spec, &path, &mut found);
    }
    if !same(&munged, old_spec) {
        let diff = crate::diff::unified(&internal::pretty("PodSpec", old_spec), &internal::pretty("PodSpec", &munged));
        found.push(forbidden(&path, &format!("{CHANGEABLE}\n{diff}")));
    }
    found
}

/// `validatePodMetadataAndSpec`: what a new Pod of this form would be told.
pub(super) fn new_object(pod: &Value, lenient: Lenient) -> ErrorList {
    let mut found = meta::validate_create(pod, true, names::dns_subdomain_name);
    found.extend(validate::annotations_and_spec(pod, lenient));
    found
}

/// `ValidatePodSpecificAnnotationUpdates`.
pub(super) fn annotation_updates(new: &Value, old: &Value, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    let path = Path::new("metadata").child("annotations");
    let (now, before) = (&new["metadata"]["annotations"], &old["metadata"]["annotations"]);
    let kind = |key: &str| match key {
        "kubernetes.io/config.mirror" => Some("mirror pod annotation"),
        _ if key.starts_with("container.apparmor.security.beta.kubernetes.io/") => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, value) in before.as_object().into_iter().flatten() {
        if let Some(what) = kind(key).filter(|_| now.get(key) != Some(value)) {
            found.push(forbidden(&path.key(key), &format!("may not remove or update {what}")));
        }
    }
    for key in now.as_object().into_iter().flatten().map(|(key, _)| key) {
        if let Some(what) = kind(key).filter(|_| before.get(key).is_none()) {
            found.push(forbidden(&path.key(key), &format!("may not add {what}")));
        }
    }
    found.extend(validate::annotations(now, &new["spec"], &path, lenient));
    found
}

/// The deadline may only come nearer; `Err` ends validation as upstream does.
fn deadline(spec: &Value, old: &Value, path: &Path, found: &mut ErrorList) -> Result<(), schema::field::FieldError> {
    let max = i64::from(i32::MAX);
    match (spec.int_opt("activeDeadlineSeconds"), old.int_opt("activeDeadlineSeconds")) {
        (Some(now), _) if !(0..=max).contains(&now) => Err(invalid(path, now, &names::in_range(0, max))),
        (Some(now), Some(before)) if before < now => {
            Err(invalid(path, now, "must be less than or equal to previous value"))
        }
        (None, Some(_)) => {
            found.push(invalid(path, Value::Null, "must not update from a positive integer to nil value"));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn added_tolerations(spec: &Value, old: &Value, path: &Path, lenient: Lenient) -> ErrorList {
    let now = spec.list("tolerations");
    let kept = |before: &Value| {
        now.iter().any(|t| {
            let mut before = before.clone();
            keep(&mut before, t, "tolerationSeconds");
            before == *t
        })
    };
    if !old.list("tolerations").iter().all(kept) {
        return vec![forbidden(path, "existing toleration can not be modified except its tolerationSeconds")];
    }
    scheduling::tolerations(now, path, lenient)
}

fn deleted_gates(spec: &Value, old: &Value, path: &Path) -> ErrorList {
    let before = old.list("schedulingGates");
    let new = spec.list("schedulingGates").iter().map(|g| g.text("name")).enumerate();
    new.filter(|(_, name)| !before.iter().any(|g| g.text("name") == *name))
        .map(|(i, name)| {
            let text = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            forbidden(&path.index(i).child("name"), &text)
        })
        .collect()
}

/// The new spec with all that may change set back.
fn munge(spec: &Value, old: &Value) -> Value {
    let mut munged = spec.clone();
    for list in ["containers", "initContainers"] {
        for (container, before) in list_mut(&mut munged, list).iter_mut().zip(old.list(list)) {
            keep(container, before, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        keep(&mut munged, old, field);
    }
    if old.int("terminationGracePeriodSeconds") < 0 && munged.int_opt("terminationGracePeriodSeconds") == Some(1) {
        keep(&mut munged, old, "terminationGracePeriodSeconds");
    }
    munged
}

/// A Pod that waits at a gate may be narrowed to fewer nodes.
fn gated(munged: &mut Value, old: &Value, path: &Path, found: &mut ErrorList) {
    if munged.field("nodeSelector") != old.field("nodeSelector") {
        let lost = old.pairs("nodeSelector").any(|(key, value)| munged["nodeSelector"].text_opt(key) != Some(value));
        if lost {
            let text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            found.push(invalid(&path.child("nodeSelector"), munged["nodeSelector"].clone(), text));
        }
        keep(munged, old, "nodeSelector");
    }
    let before = old["affinity"].field("nodeAffinity");
    let now = munged["affinity"].field("nodeAffinity");
    if before == now {
        return;
    }
    let empty = Value::Null;
    let at = path.child("affinity").child("nodeAffinity");
    found.extend(narrowed(now.unwrap_or(&empty), before.unwrap_or(&empty), &at));
    let other = munged["affinity"].has("podAffinity") || munged["affinity"].has("podAntiAffinity");
    match (munged.has("affinity"), before) {
        (false, None) => {}
        (false, Some(before)) => munged["affinity"] = serde_json::json!({ "nodeAffinity": before }),
        (true, _) if !old.has("affinity") && !other => remove(munged, "affinity"),
        (true, _) => {
            let before = old["affinity"].clone();
            if let Some(affinity) = munged.get_mut("affinity") {
                keep(affinity, &before, "nodeAffinity");
            }
        }
    }
}

/// `validateNodeAffinityMutation`.
fn narrowed(now: &Value, before: &Value, path: &Path) -> ErrorList {
    let field = "requiredDuringSchedulingIgnoredDuringExecution";
    let (new_terms, old_terms) = (now[field].list("nodeSelectorTerms"), before[field].list("nodeSelectorTerms"));
    let at = path.child(field).child("nodeSelectorTerms");
    let mut found = ErrorList::new();
    if !before.has(field) || old_terms.is_empty() {
        return found;
    }
    if old_terms.len() != new_terms.len() {
        let text = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        let shown = &now[field]["nodeSelectorTerms"];
        return vec![internal::invalid(&at, "[SNodeSelectorTerm", shown, text)];
    }
    for (i, (term, before)) in new_terms.iter().zip(old_terms).enumerate() {
        let lists = ["matchExpressions", "matchFields"];
        let was_empty = lists.iter().all(|l| before.list(l).is_empty());
        let grown = lists.iter().all(|l| term.list(l).starts_with(before.list(l)));
        if !grown || (was_empty && lists.iter().any(|l| !term.list(l).is_empty())) {
            let text = "only additions are allowed (no mutations or deletions)";
            found.push(internal::invalid(&at.index(i), "NodeSelectorTerm", term, text));
        }
    }
    found
}
