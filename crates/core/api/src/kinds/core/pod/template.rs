//! The Pod template of other kinds (`{metadata, spec}`): what upstream's `PodTemplateSpec` shares with a Pod.

use super::validate::{self, Lenient};
use super::{defaults, prepare, security, warnings};
use crate::meta::{validate_annotations, validate_labels};
use crate::tree::{Tree, object_mut};
use schema::field::{ErrorList, Path, forbidden};
use serde_json::Value;

/// Defaults of the template's spec; unlike a Pod's, requests do not follow limits.
pub fn default(template: &mut Value) {
    if let Some(spec) = object_mut(template, "spec") {
        defaults::pod_spec(spec);
    }
}

/// Drops what 1.37 has off (`DropDisabledTemplateFields`); `old` is `null` on create.
pub fn prepare(template: &mut Value, old: &Value) {
    prepare::drop_disabled(template, old);
}

/// `ValidatePodTemplateSpec`; `old` is the template before, or `null`.
pub fn validate(template: &Value, old: &Value, path: &Path) -> ErrorList {
    let lenient = Lenient::towards(old);
    let (metadata, spec) = (&template["metadata"], &template["spec"]);
    let at = path.child("annotations");
    let annotations = &metadata["annotations"];
    let mut found = validate_labels(&metadata["labels"], &path.child("labels"));
    found.extend(validate_annotations(annotations, &at));
    found.extend(validate::annotations(annotations, spec, &at, lenient));
    let at = path.child("spec");
    found.extend(validate::pod_spec(spec, None, &at, lenient));
    found.extend(security::seccomp_annotations_match(annotations, spec, &at));
    found.extend(security::apparmor_annotations_match(annotations, spec, &at));
    if !spec.list("ephemeralContainers").is_empty() {
        found.push(forbidden(&at.child("ephemeralContainers"), "ephemeral containers not allowed in pod template"));
    }
    found
}

/// `GetWarningsForPodTemplate`.
pub fn warnings(template: &Value, path: &Path) -> Vec<String> {
    warnings::of_spec(path, &template["spec"], &template["metadata"])
}
