//! What a writer may not set is taken out or kept (upstream `registry/core/pod/strategy.go`, `api/pod/util.go`).
//!
//! Fields behind feature gates that 1.37 has off by default are dropped, unless the old object has them.

use super::{CONTAINER_LISTS, qos, resources};
use crate::tree::{Tree, keep, list_mut, object_mut, remove};
use serde_json::{Value, json};

const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// `PrepareForCreate`. The creation timestamp, if it is set already, is the time of the condition that is set here.
pub fn create(pod: &mut Value) {
    drop_disabled(pod, &Value::Null);
    let mut status = json!({"phase": "Pending"});
    if !pod["spec"].list("schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null,
            "lastTransitionTime": pod["metadata"]["creationTimestamp"],
        }]);
    }
    let labels = pod["metadata"]["labels"].clone();
    let annotations = pod["metadata"]["annotations"].clone();
    if let Some(spec) = pod.get_mut("spec") {
        merge_affinity_label_keys(spec, &labels);
        for constraint in list_mut(spec, "topologySpreadConstraints") {
            merge_label_keys(constraint, &labels);
        }
        apparmor_from_annotations(spec, &annotations);
        resources::default_pod_level(spec);
    }
    status["qosClass"] = qos::class(&pod["spec"]).into();
    pod["status"] = status;
}

/// `PrepareForUpdate`.
pub fn update(pod: &mut Value, old: &Value) {
    keep(pod, old, "status");
    keep_pod_resources(pod, old);
    drop_disabled(pod, old);
}

/// Clients that do not know resources of whole Pods do not take them away.
fn keep_pod_resources(pod: &mut Value, old: &Value) {
    if !pod["spec"].has("resources")
        && let Some(resources) = old["spec"].field("resources")
    {
        pod["spec"]["resources"] = resources.clone();
    }
}

/// `PrepareForUpdate` of `pods/status`.
pub fn status_update(pod: &mut Value, old: &Value) {
    keep(pod, old, "spec");
    if let Some(metadata) = object_mut(pod, "metadata") {
        keep(metadata, &old["metadata"], "deletionTimestamp");
        keep(metadata, &old["metadata"], "ownerReferences");
    }
    let Some(status) = object_mut(pod, "status") else { return };
    let old_status = &old["status"];
    for field in ["qosClass", "resourceClaimStatuses", "extendedResourceClaimStatus", "observedGeneration"] {
        let unset = match status.field(field) {
            None => true,
            Some(value) => value.as_i64() == Some(0) || value.as_str() == Some(""),
        };
        if unset {
            keep(status, old_status, field);
        }
    }
    let mut before: Vec<(&str, i64)> =
        old_status.list("conditions").iter().map(|c| (c.text("type"), c.int("observedGeneration"))).collect();
    for condition in list_mut(status, "conditions") {
        let Some(at) = before.iter().position(|(of, _)| *of == condition.text("type")) else { continue };
        let (_, generation) = before.remove(at);
        if condition.int("observedGeneration") == 0 && generation != 0 {
            condition["observedGeneration"] = generation.into();
        }
    }
    drop_disabled(pod, old);
    drop_disabled_status(pod, old);
}

/// `PrepareForUpdate` of `pods/ephemeralcontainers`: only the ephemeral containers may change.
pub fn ephemeral_containers_update(pod: &mut Value, old: &Value) {
    let wanted = pod["spec"]["ephemeralContainers"].take();
    reset_to_old(pod, old);
    if !wanted.is_null() {
        pod["spec"]["ephemeralContainers"] = wanted;
    } else if let Some(spec) = pod.get_mut("spec") {
        remove(spec, "ephemeralContainers");
    }
    drop_disabled(pod, old);
}

/// `PrepareForUpdate` of `pods/resize`: only resources and resize policies may change.
pub fn resize_update(pod: &mut Value, old: &Value) {
    keep_all_but_resources(pod, old);
    keep_pod_resources(pod, old);
    if let Some(spec) = pod.get_mut("spec") {
        resources::default_pod_level(spec);
    }
    drop_disabled(pod, old);
}

/// `dropNonResizeUpdates`. Other containers than before are left for validation to tell.
fn keep_all_but_resources(pod: &mut Value, old: &Value) {
    let lists = ["containers", "initContainers"];
    if lists.iter().any(|l| pod["spec"].list(l).len() != old["spec"].list(l).len()) {
        return;
    }
    let wanted = pod["spec"].take();
    reset_to_old(pod, old);
    let spec = &mut pod["spec"];
    keep(spec, &wanted, "resources");
    for list in lists {
        let same_names =
            spec.list(list).iter().zip(wanted.list(list)).all(|(now, wanted)| now.text("name") == wanted.text("name"));
        if !same_names {
            spec[list] = wanted[list].clone();
            continue;
        }
        for (container, wanted) in list_mut(spec, list).iter_mut().zip(wanted.list(list)) {
            keep(container, wanted, "resources");
            keep(container, wanted, "resizePolicy");
        }
    }
}

/// Spec, status and, of metadata, what upstream's `ResetObjectMetaForStatus` keeps.
fn reset_to_old(pod: &mut Value, old: &Value) {
    keep(pod, old, "spec");
    keep(pod, old, "status");
    let Some(metadata) = object_mut(pod, "metadata") else { return };
    for field in
        ["deletionTimestamp", "generation", "selfLink", "labels", "annotations", "finalizers", "ownerReferences"]
    {
        keep(metadata, &old["metadata"], field);
    }
}

/// Label keys of affinity terms become expressions with this Pod's own values.
fn merge_affinity_label_keys(spec: &mut Value, labels: &Value) {
    let Some(affinity) = spec.get_mut("affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = affinity.get_mut(kind) else { continue };
        for weighted in list_mut(affinity, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = weighted.get_mut("podAffinityTerm") {
                merge_label_keys(term, labels);
            }
        }
        for term in list_mut(affinity, "requiredDuringSchedulingIgnoredDuringExecution") {
            merge_label_keys(term, labels);
        }
    }
}

/// `applyLabelKeysToLabelSelector`, for `matchLabelKeys` and `mismatchLabelKeys`.
fn merge_label_keys(term: &mut Value, labels: &Value) {
    let mut added = Vec::new();
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term.texts(list) {
            if let Some(value) = labels.text_opt(key) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if let Some(selector) = term.get_mut("labelSelector").filter(|s| s.is_object() && !added.is_empty()) {
        let mut expressions = selector.list("matchExpressions").to_vec();
        expressions.extend(added);
        selector["matchExpressions"] = expressions.into();
    }
}

/// The AppArmor profile that an annotation of old asks for, as the field of today.
pub(super) fn apparmor_of_annotation(annotation: &str) -> Option<Value> {
    match annotation.strip_prefix("localhost/") {
        Some("") => None,
        Some(profile) => Some(json!({"type": "Localhost", "localhostProfile": profile})),
        None if annotation == "unconfined" => Some(json!({"type": "Unconfined"})),
        None if annotation == "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        None => None,
    }
}

/// What validation would say to a profile from an annotation.
fn is_valid_apparmor(profile: &Value) -> bool {
    profile.text_opt("localhostProfile").is_none_or(|p| p.trim() == p && !p.is_empty() && p.len() <= 4095)
}

/// Containers with an AppArmor annotation and without the field: the container, its annotation, the profile to set.
fn apparmor_changes<'a>(spec: &'a Value, annotations: &'a Value) -> Vec<(&'a str, Option<Value>)> {
    if spec["os"].text("name") == "windows" {
        return Vec::new();
    }
    let pod_profile = spec["securityContext"].field("appArmorProfile");
    let mut changes = Vec::new();
    for container in CONTAINER_LISTS.iter().flat_map(|l| spec.list(l)) {
        let name = container.text("name");
        let Some(annotation) = annotations.text_opt(&format!("{APPARMOR_ANNOTATION}{name}")) else { continue };
        if container["securityContext"].has("appArmorProfile") {
            continue;
        }
        let profile = apparmor_of_annotation(annotation).filter(is_valid_apparmor);
        if profile.is_none() || profile.as_ref() != pod_profile {
            changes.push((name, profile));
        }
    }
    changes
}

fn apparmor_from_annotations(spec: &mut Value, annotations: &Value) {
    let changes: Vec<(String, Value)> = apparmor_changes(spec, annotations)
        .into_iter()
        .filter_map(|(name, profile)| Some((name.to_owned(), profile?)))
        .collect();
    for list in CONTAINER_LISTS {
        for container in list_mut(spec, list) {
            let Some((_, profile)) = changes.iter().find(|(name, _)| name == container.text("name")) else { continue };
            if let Some(context) = object_mut(container, "securityContext") {
                context["appArmorProfile"] = profile.clone();
            }
        }
    }
}

/// The warnings of `applyAppArmorVersionSkew`.
pub fn warnings(pod: &Value) -> Vec<String> {
    apparmor_changes(&pod["spec"], &pod["metadata"]["annotations"])
        .into_iter()
        .map(|(name, _)| {
            format!(
                "metadata.annotations[{APPARMOR_ANNOTATION}{name}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
            )
        })
        .collect()
}

/// One field that a gate turns off: where it stands (`*` is every item of a list).
type Gated = &'static [&'static [&'static str]];

/// `AtomicWriteVolumeUserFields`.
const VOLUME_USERS: Gated = &[
    &["volumes", "*", "secret", "defaultUser"],
    &["volumes", "*", "secret", "items", "*", "user"],
    &["volumes", "*", "configMap", "defaultUser"],
    &["volumes", "*", "configMap", "items", "*", "user"],
    &["volumes", "*", "downwardAPI", "defaultUser"],
    &["volumes", "*", "downwardAPI", "items", "*", "user"],
    &["volumes", "*", "projected", "defaultUser"],
    &["volumes", "*", "projected", "sources", "*", "secret", "items", "*", "user"],
    &["volumes", "*", "projected", "sources", "*", "configMap", "items", "*", "user"],
    &["volumes", "*", "projected", "sources", "*", "downwardAPI", "items", "*", "user"],
    &["volumes", "*", "projected", "sources", "*", "serviceAccountToken", "user"],
    &["volumes", "*", "projected", "sources", "*", "clusterTrustBundle", "user"],
    &["volumes", "*", "projected", "sources", "*", "podCertificate", "user"],
];
/// `EmptyDirVolumeMode`.
const EMPTY_DIR_MODE: Gated = &[&["volumes", "*", "emptyDir", "mode"]];
/// `GenericWorkload`.
const SCHEDULING_GROUP: Gated = &[&["schedulingGroup"]];
/// `EvictionRequestAPI`.
const EVICTION_RESPONDERS: Gated = &[&["evictionResponders"]];
/// `VolumeBindMountOptions`, of each container.
const BIND_MOUNT_OPTIONS: Gated = &[&["volumeMounts", "*", "bindMountOptions"]];
/// `GRPCContainerProbeTLS`, of each container.
const GRPC_MODE: Gated =
    &[&["livenessProbe", "grpc", "mode"], &["readinessProbe", "grpc", "mode"], &["startupProbe", "grpc", "mode"]];
/// `H2CContainerProbe`, of each container.
const HTTP_PROTOCOL: Gated = &[
    &["livenessProbe", "httpGet", "protocol"],
    &["readinessProbe", "httpGet", "protocol"],
    &["startupProbe", "httpGet", "protocol"],
    &["lifecycle", "postStart", "httpGet", "protocol"],
    &["lifecycle", "preStop", "httpGet", "protocol"],
];
/// `ContainerStopSignals`, of each container.
const STOP_SIGNAL: Gated = &[&["lifecycle", "stopSignal"]];

fn in_use(value: &Value, path: &[&str]) -> bool {
    match path {
        [] => !value.is_null(),
        ["*", rest @ ..] => value.as_array().into_iter().flatten().any(|item| in_use(item, rest)),
        [name, rest @ ..] => in_use(&value[*name], rest),
    }
}

fn drop_path(value: &mut Value, path: &[&str]) {
    match path {
        [] => {}
        [name] => remove(value, name),
        ["*", rest @ ..] => value.as_array_mut().into_iter().flatten().for_each(|item| drop_path(item, rest)),
        [name, rest @ ..] => {
            if let Some(inner) = value.get_mut(*name) {
                drop_path(inner, rest);
            }
        }
    }
}

/// `DropDisabledPodFields`, the spec and annotations.
pub(super) fn drop_disabled(pod: &mut Value, old: &Value) {
    let old = &old["spec"];
    let Some(spec) = pod.get_mut("spec") else { return };
    for gated in [VOLUME_USERS, EMPTY_DIR_MODE, SCHEDULING_GROUP, EVICTION_RESPONDERS] {
        if !gated.iter().any(|path| in_use(old, path)) {
            gated.iter().for_each(|path| drop_path(spec, path));
        }
    }
    let old_containers = || CONTAINER_LISTS.iter().flat_map(|l| old.list(l));
    for gated in [BIND_MOUNT_OPTIONS, GRPC_MODE, HTTP_PROTOCOL, STOP_SIGNAL] {
        if old_containers().any(|c| gated.iter().any(|path| in_use(c, path))) {
            continue;
        }
        for list in CONTAINER_LISTS {
            for container in list_mut(spec, list) {
                let had_signal = container["lifecycle"].has("stopSignal");
                gated.iter().for_each(|path| drop_path(container, path));
                let empty = container["lifecycle"].as_object().is_some_and(serde_json::Map::is_empty);
                if had_signal && empty {
                    remove(container, "lifecycle");
                }
            }
        }
    }
    if let Some(metadata) = pod.get_mut("metadata")
        && let Some(annotations) = metadata.get_mut("annotations")
    {
        for stage in ["alpha", "beta"] {
            remove(annotations, &format!("pod.{stage}.kubernetes.io/init-containers"));
            remove(annotations, &format!("pod.{stage}.kubernetes.io/init-container-statuses"));
        }
    }
}

/// `dropDisabledPodStatusFields`.
fn drop_disabled_status(pod: &mut Value, old: &Value) {
    let old = &old["status"];
    let Some(status) = pod.get_mut("status") else { return };
    for field in ["nodeAllocatableResourceClaimStatuses", "volumeHealth"] {
        if old.list(field).is_empty() {
            remove(status, field);
        }
    }
    let digest = &["volumeMounts", "*", "volumeStatus"];
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    if lists.iter().flat_map(|l| old.list(l)).any(|s| in_use(s, digest)) {
        return;
    }
    for list in lists {
        list_mut(status, list).iter_mut().for_each(|s| drop_path(s, digest));
    }
}
