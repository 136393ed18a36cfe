//! Claims made for a Pod (upstream `ValidatePersistentVolumeClaimTemplate`, `ValidatePersistentVolumeClaimSpec`).

use crate::kinds::core::pod::requirements::quantity_value;
use crate::meta::{validate_annotations, validate_label_selector, validate_labels};
use crate::names;
use crate::tree::{Tree, quantity};
use schema::field::{ErrorList, Path, forbidden, invalid, not_supported, required};
use serde_json::Value;

pub(super) fn ephemeral(source: &Value, path: &Path) -> ErrorList {
    let path = path.child("volumeClaimTemplate");
    let Some(template) = source.field("volumeClaimTemplate") else { return vec![required(&path, "")] };
    let metadata = &template["metadata"];
    let at = path.child("metadata");
    let mut found = validate_annotations(&metadata["annotations"], &at.child("annotations"));
    found.extend(validate_labels(&metadata["labels"], &at.child("labels")));
    // In the order of Go's struct.
    for field in [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ] {
        if metadata.has(field) {
            // Upstream lower-cases the first letter of the Go name only.
            let shown = if field == "uid" { "uID" } else { field };
            found.push(forbidden(&at.child(shown), "cannot be set"));
        }
    }
    found.extend(claim_spec(&template["spec"], &path.child("spec")));
    found
}

/// `ValidatePersistentVolumeClaimSpec` of a new claim.
pub(in crate::kinds::core::pod) fn claim_spec(spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let at = path.child("accessModes");
    if spec.list("accessModes").is_empty() {
        found.push(required(&at, "at least 1 access mode is required"));
    }
    found.extend(validate_label_selector(spec.field("selector"), &path.child("selector")));
    let modes = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    found.extend(spec.texts("accessModes").filter(|m| !modes.contains(m)).map(|m| not_supported(&at, m, &modes)));
    let once = spec.texts("accessModes").any(|m| m == "ReadWriteOncePod");
    if once && spec.texts("accessModes").any(|m| m != "ReadWriteOncePod" && modes.contains(&m)) {
        found.push(forbidden(&at, "may not use ReadWriteOncePod with other access modes"));
    }
    let at = path.child("resources").key("storage");
    match quantity(&spec["resources"]["requests"]["storage"]) {
        None => found.push(required(&at, "")),
        Some(size) if size.is_zero() || size.signum() < 0 => {
            found.push(invalid(&at, size.canonical(), "must be greater than zero"));
        }
        Some(size) => found.extend(quantity_value("storage", size, &at)),
    }
    for field in ["storageClassName", "volumeAttributesClassName"] {
        if field == "volumeAttributesClassName" {
            if let Some(mode) = spec.text_opt("volumeMode").filter(|m| !["Block", "Filesystem"].contains(m)) {
                found.push(not_supported(&path.child("volumeMode"), mode, &["Block", "Filesystem"]));
            }
            found.extend(data_sources(spec, path));
        }
        let class = spec.text(field);
        if !class.is_empty() {
            found.extend(names::errors(&path.child(field), class, names::dns_subdomain(class)));
        }
    }
    found
}

fn data_sources(spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for field in ["dataSource", "dataSourceRef"] {
        let Some(source) = spec.field(field) else { continue };
        let at = path.child(field);
        for field in ["name", "kind"] {
            if source.text(field).is_empty() {
                found.push(required(&at.child(field), ""));
            }
        }
        let (group, kind) = (source.text("apiGroup"), source.text("kind"));
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            let text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            found.push(invalid(&at, kind, text));
        }
        if !group.is_empty() {
            found.extend(names::errors(&at.child("apiGroup"), group, names::dns_subdomain(group)));
        }
        let namespace = source.text("namespace");
        if field == "dataSourceRef" && !namespace.is_empty() {
            found.extend(names::errors(&at.child("namespace"), namespace, names::dns_label(namespace)));
        }
    }
    let (Some(source), Some(reference)) = (spec.field("dataSource"), spec.field("dataSourceRef")) else { return found };
    // Upstream prints the path where a value should stand: a struct without public fields.
    let shown = serde_json::json!({});
    if !reference.text("namespace").is_empty() {
        found.push(invalid(path, shown, "may not be specified when dataSourceRef.namespace is specified"));
    } else if ["apiGroup", "kind", "name"].iter().any(|f| source.field(f) != reference.field(f)) {
        found.push(invalid(path, shown, "must match dataSourceRef"));
    }
    found
}
