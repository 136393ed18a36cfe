//! `metadata`: reading it, and upstream's checks of it (apimachinery `api/validation/objectmeta.go`,
//! kubernetes `apis/core/validation`).

use crate::internal;
use crate::names::{self, IMMUTABLE, NEGATIVE};
use crate::tree::Tree;
use schema::field::{ErrorList, Path, forbidden, invalid, not_supported, required, too_long};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;

pub fn name(object: &Value) -> &str {
    object["metadata"].text("name")
}

pub fn generate_name(object: &Value) -> &str {
    object["metadata"].text("generateName")
}

pub fn namespace(object: &Value) -> &str {
    object["metadata"].text("namespace")
}

pub fn uid(object: &Value) -> &str {
    object["metadata"].text("uid")
}

/// As text, empty if not set.
pub fn resource_version(object: &Value) -> &str {
    object["metadata"].text("resourceVersion")
}

pub fn generation(object: &Value) -> i64 {
    object["metadata"].int("generation")
}

/// RFC 3339, `None` unless deletion was asked for.
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    object["metadata"].text_opt("deletionTimestamp")
}

pub fn deletion_grace_period_s(object: &Value) -> Option<i64> {
    object["metadata"].int_opt("deletionGracePeriodSeconds")
}

pub fn creation_timestamp(object: &Value) -> Option<&str> {
    object["metadata"].text_opt("creationTimestamp")
}

pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"].texts("finalizers")
}

pub fn owner_references(object: &Value) -> &[Value] {
    object["metadata"].list("ownerReferences")
}

pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"].text_opt(key)
}

pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].text_opt(key)
}

pub fn labels(object: &Value) -> BTreeMap<String, String> {
    object["metadata"].pairs("labels").map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// The metadata of an object, made if it is absent.
pub fn metadata_mut(object: &mut Value) -> Option<&mut Value> {
    crate::tree::object_mut(object, "metadata")
}

/// Sets a field of `metadata`.
pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(map) = metadata_mut(object).and_then(Value::as_object_mut) {
        map.insert(field.to_owned(), value.into());
    }
}

/// Removes a field of `metadata`.
pub fn unset(object: &mut Value, field: &str) {
    if let Some(metadata) = object.get_mut("metadata") {
        crate::tree::remove(metadata, field);
    }
}

/// `ValidateLabels` of any map of strings at `path`.
pub fn validate_labels(map: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for (key, value) in map.as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        found.extend(names::errors(path, key, names::qualified_name(key)));
        found.extend(names::errors(path, value, names::label_value(value)));
    }
    found
}

/// `ValidateLabelName`.
pub fn validate_label_name(key: &str, path: &Path) -> ErrorList {
    names::errors(path, key, names::qualified_name(key)).collect()
}

/// `ValidateAnnotations`.
pub fn validate_annotations(map: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let mut bytes = 0;
    for (key, value) in map.as_object().into_iter().flatten() {
        found.extend(names::errors(path, key, names::qualified_name(&key.to_lowercase())));
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        found.push(too_long(path, ANNOTATIONS_MAX_BYTES));
    }
    found
}

/// `ValidateLabelSelector`, with invalid values refused. `None` where there is no selector.
pub fn validate_label_selector(selector: Option<&Value>, path: &Path) -> ErrorList {
    selector.map_or_else(ErrorList::new, |s| validate_label_selector_lenient(s, path, false))
}

/// `ValidateLabelSelector`; `any_value` lets values pass that are no label values (objects that had them before).
pub fn validate_label_selector_lenient(selector: &Value, path: &Path, any_value: bool) -> ErrorList {
    let mut found = validate_labels(&selector["matchLabels"], &path.child("matchLabels"));
    for (i, requirement) in selector.list("matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = requirement.list("values");
        let operator = requirement.text("operator");
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                found.push(required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                found.push(forbidden(
                    &path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => found.push(invalid(&path.child("operator"), operator, "not a valid selector operator")),
        }
        found.extend(validate_label_name(requirement.text("key"), &path.child("key")));
        if !any_value {
            for (j, value) in requirement.texts("values").enumerate() {
                found.extend(names::errors(&path.child("values").index(j), value, names::label_value(value)));
            }
        }
    }
    found
}

fn validate_owner_references(metadata: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let mut first_controller: Option<String> = None;
    let references = metadata.list("ownerReferences");
    for (i, reference) in references.iter().enumerate() {
        let item = path.index(i);
        let api_version = reference.text("apiVersion");
        let parts: Vec<&str> = api_version.split('/').collect();
        if api_version.is_empty() {
            found.push(required(&item.child("apiVersion"), "must not be empty"));
        } else if parts.len() > 2 || parts.last().is_some_and(|v| v.is_empty()) {
            let text = "must be <group>/<version> or <version>";
            found.push(invalid(&item.child("apiVersion"), api_version, text));
        }
        for field in ["kind", "name", "uid"] {
            if reference.text(field).is_empty() {
                found.push(required(&item.child(field), "must not be empty"));
            }
        }
        if api_version == "v1" && reference.text("kind") == "Event" {
            let text = "/v1, Kind=Event is disallowed from being an owner";
            found.push(internal::invalid(&item, "metav1.OwnerReference", reference, text));
        }
        if reference.flag("controller") {
            let this = format!("{}/{}", reference.text("kind"), reference.text("name"));
            match &first_controller {
                Some(first) => found.push(internal::invalid(
                    path,
                    "[Smetav1.OwnerReference",
                    &metadata["ownerReferences"],
                    &format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                )),
                None => first_controller = Some(this),
            }
        }
    }
    found
}

fn validate_finalizers(metadata: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for finalizer in metadata.texts("finalizers") {
        found.extend(names::errors(path, finalizer, names::qualified_name(finalizer)));
    }
    let has = |name: &str| metadata.texts("finalizers").any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let text = "finalizer orphan and foregroundDeletion cannot be both set";
        found.push(invalid(path, metadata["finalizers"].clone(), text));
    }
    found
}

/// Groups of upstream whose kinds take apimachinery's rules as they are.
const PLAIN_GROUPS: [&str; 5] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
];

/// `validateKubeFinalizerName`: kinds of kubernetes itself want a domain or a name that upstream uses.
fn validate_kube_finalizers(object: &Value) -> ErrorList {
    let group = object.text("apiVersion").split_once('/').map_or("", |(group, _)| group);
    if PLAIN_GROUPS.contains(&group) || (group.is_empty() && object.text("kind") == "Event") {
        return ErrorList::new();
    }
    let metadata = &object["metadata"];
    let path = Path::new("metadata").child("finalizers");
    let standard = ["kubernetes", "orphan", "foregroundDeletion"];
    let bad = |f: &str| !f.contains('/') && !standard.contains(&f);
    let text = "name is neither a standard finalizer name nor is it fully qualified";
    metadata
        .texts("finalizers")
        .enumerate()
        .filter(|(_, f)| bad(f))
        .map(|(i, f)| invalid(&path.index(i), f, text))
        .collect()
}

/// `ValidateFieldManager`: also for the query parameter.
pub fn validate_field_manager(manager: &str, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    if manager.len() > 128 {
        found.push(too_long(path, 128));
    }
    for (position, c) in manager.char_indices() {
        // Go's unicode.IsPrint: letters, marks, numbers, punctuation, symbols and the ASCII space.
        if c.is_control() || (c.is_whitespace() && c != ' ') {
            let text = format!("invalid character U+{:04X} (at position {position})", u32::from(c));
            found.push(invalid(path, manager, &text));
        }
    }
    found
}

fn validate_managed_fields(metadata: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for (i, entry) in metadata.list("managedFields").iter().enumerate() {
        let path = path.index(i);
        let operation = entry.text("operation");
        match operation {
            "" => found.push(required(&path.child("operation"), "must not be empty")),
            "Apply" | "Update" => {}
            _ => found.push(not_supported(&path.child("operation"), operation, &["Apply", "Update"])),
        }
        let fields_type = entry.text("fieldsType");
        if !fields_type.is_empty() && fields_type != "FieldsV1" {
            found.push(invalid(&path.child("fieldsType"), fields_type, "must be `FieldsV1`"));
        }
        found.extend(validate_field_manager(entry.text("manager"), &path.child("manager")));
        if entry.text("subresource").len() > 256 {
            found.push(too_long(&path.child("subresource"), 256));
        }
    }
    found
}

/// `ValidateObjectMeta` as built-in kinds use it, with their rule for finalizers (told by the object's `apiVersion`).
/// `name` checks `metadata.name` (and, with `true`, `generateName`): [`crate::rules::Rules::validate_name`].
pub fn validate_create(object: &Value, namespaced: bool, name: fn(&str, bool) -> Vec<String>) -> ErrorList {
    let mut found = validate_create_custom(object, namespaced, name);
    found.extend(validate_kube_finalizers(object));
    found
}

/// `ValidateObjectMeta` of apimachinery: custom resources.
pub fn validate_create_custom(object: &Value, namespaced: bool, name: fn(&str, bool) -> Vec<String>) -> ErrorList {
    let metadata = &object["metadata"];
    let path = Path::new("metadata");
    let mut found = ErrorList::new();
    let generate_name = metadata.text("generateName");
    if !generate_name.is_empty() {
        found.extend(names::errors(&path.child("generateName"), generate_name, name(generate_name, true)));
    }
    let own_name = metadata.text("name");
    if own_name.is_empty() {
        found.push(required(&path.child("name"), "name or generateName is required"));
    } else {
        found.extend(names::errors(&path.child("name"), own_name, name(own_name, false)));
    }
    let namespace = metadata.text("namespace");
    let at = path.child("namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => found.push(required(&at, "")),
        (true, false) => found.extend(names::errors(&at, namespace, names::dns_label(namespace))),
        (false, false) => found.push(forbidden(&at, "not allowed on this type")),
        (false, true) => {}
    }
    validate_generation(metadata, &path, &mut found);
    found.extend(validate_labels(&metadata["labels"], &path.child("labels")));
    found.extend(validate_annotations(&metadata["annotations"], &path.child("annotations")));
    found.extend(validate_owner_references(metadata, &path.child("ownerReferences")));
    found.extend(validate_finalizers(metadata, &path.child("finalizers")));
    found.extend(validate_managed_fields(metadata, &path.child("managedFields")));
    found
}

fn validate_generation(metadata: &Value, path: &Path, found: &mut ErrorList) {
    let generation = metadata.int("generation");
    if generation < 0 {
        found.push(invalid(&path.child("generation"), generation, NEGATIVE));
    }
}

/// `ValidateObjectMetaUpdate` with the finalizer rule of built-in kinds.
pub fn validate_update(new: &Value, old: &Value) -> ErrorList {
    let mut found = validate_update_custom(new, old);
    found.extend(validate_kube_finalizers(new));
    found
}

/// `ValidateObjectMetaUpdate` of apimachinery.
pub fn validate_update_custom(new: &Value, old: &Value) -> ErrorList {
    let (new, old) = (&new["metadata"], &old["metadata"]);
    let path = Path::new("metadata");
    let mut found = ErrorList::new();
    if old.has("deletionTimestamp") {
        let before: BTreeSet<&str> = old.texts("finalizers").collect();
        let added: BTreeSet<&str> = new.texts("finalizers").filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let listed = added.iter().map(|f| format!("\"{f}\"")).collect::<Vec<_>>().join(", ");
            let text = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}"
            );
            found.push(forbidden(&path.child("finalizers"), &text));
        }
    }
    if new.text("resourceVersion").is_empty() {
        found.push(invalid(&path.child("resourceVersion"), "", "must be specified for an update"));
    }
    validate_generation(new, &path, &mut found);
    if new.int("generation") < old.int("generation") {
        found.push(invalid(&path.child("generation"), new.int("generation"), "must not be decremented"));
    }
    for field in ["name", "namespace", "uid"] {
        if new.text(field) != old.text(field) {
            found.push(invalid(&path.child(field), new.text(field), IMMUTABLE));
        }
    }
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if new.field(field) != old.field(field) {
            found.push(invalid(&path.child(field), new[field].clone(), IMMUTABLE));
        }
    }
    found.extend(validate_labels(&new["labels"], &path.child("labels")));
    found.extend(validate_annotations(&new["annotations"], &path.child("annotations")));
    found.extend(validate_owner_references(new, &path.child("ownerReferences")));
    found.extend(validate_managed_fields(new, &path.child("managedFields")));
    found
}
