//! `v1` Namespace.

use crate::human;
use crate::kinds::columns;
use crate::meta;
use crate::names::{self, qualified_name};
use crate::rules::Rules;
use crate::tree::{Tree, default_to, keep, object_mut};
use jiff::Timestamp;
use schema::field::{ErrorList, Path, invalid};
use serde_json::{Value, json};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";
/// Finalizers that need no domain (upstream `IsStandardFinalizerName`).
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

pub static RULES: Rules = Rules {
    default,
    prepare_create,
    prepare_update,
    prepare_status_update: |new, old| keep(new, old, "spec"),
    validate: |namespace| validate_finalizers(namespace, |path, _| path.clone()),
    validate_status_update,
    validate_name: names::dns_label_name,
    selectable: |namespace| {
        let phase = namespace["status"].text("phase");
        vec![("name", meta::name(namespace).to_owned()), ("status.phase", phase.to_owned())]
    },
    columns: columns::NAMESPACE,
    row,
    ..Rules::PLAIN
};

/// On `/finalize` only the spec changes.
pub fn prepare_finalize(new: &mut Value, old: &Value) {
    keep(new, old, "status");
}

/// On `/finalize` (upstream `ValidateNamespaceFinalizeUpdate`).
pub fn validate_finalize(new: &Value) -> ErrorList {
    validate_finalizers(new, Path::index)
}

fn default(namespace: &mut Value) {
    let name = meta::name(namespace).to_owned();
    if !name.is_empty()
        && let Some(labels) = meta::metadata_mut(namespace).and_then(|metadata| object_mut(metadata, "labels"))
    {
        labels[NAME_LABEL] = name.into();
    }
    if object_mut(namespace, "spec").is_none() {
        return;
    }
    if let Some(status) = object_mut(namespace, "status") {
        default_to(status, "phase", "Active");
    }
}

fn prepare_create(namespace: &mut Value) {
    namespace["status"] = json!({"phase": "Active"});
    let has = namespace["spec"].texts("finalizers").any(|finalizer| finalizer == FINALIZER);
    if has {
        return;
    }
    let Some(spec) = object_mut(namespace, "spec") else { return };
    match spec["finalizers"].as_array_mut() {
        Some(all) => all.push(FINALIZER.into()),
        None => spec["finalizers"] = json!([FINALIZER]),
    }
    // A name that was generated has no label yet.
    default(namespace);
}

fn prepare_update(new: &mut Value, old: &Value) {
    keep(new, old, "status");
    if let Some(spec) = object_mut(new, "spec") {
        keep(spec, &old["spec"], "finalizers");
    }
}

fn row(namespace: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(meta::name(namespace)),
        json!(namespace["status"].text("phase")),
        json!(human::age(&namespace["metadata"]["creationTimestamp"], now)),
    ]
}

fn validate_finalizers(namespace: &Value, place: fn(&Path, usize) -> Path) -> ErrorList {
    let all = Path::new("spec").child("finalizers");
    let mut found = ErrorList::new();
    for (at, finalizer) in namespace["spec"].texts("finalizers").enumerate() {
        let path = place(&all, at);
        found.extend(qualified_name(finalizer).iter().map(|message| invalid(&path, finalizer, message)));
        if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            found.push(invalid(&path, finalizer, detail));
        }
    }
    found
}

fn validate_status_update(new: &Value, _: &Value) -> ErrorList {
    let phase = new["status"].text("phase");
    let (wanted, detail) = if meta::deletion_timestamp(new).is_none() {
        ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
    } else {
        ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
    };
    if phase == wanted {
        return ErrorList::new();
    }
    vec![invalid(&Path::new("status").child("Phase"), phase, detail)]
}
