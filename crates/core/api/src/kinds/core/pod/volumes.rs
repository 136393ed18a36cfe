//! Validation of volumes (upstream `ValidateVolumes`, `validateVolumeSource`).

pub(super) mod claim;
mod projected;
mod sources;

use super::CONTAINER_LISTS;
use super::validate::Lenient;
use crate::names;
use crate::tree::{Tree, quantity};
use schema::field::{ErrorList, Path, duplicate, forbidden, invalid, not_found, not_supported, required};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The valid volumes by name: what mounts may name.
pub(super) type Known<'a> = BTreeMap<&'a str, &'a Value>;

/// Sources in the order of upstream's checks: the field, and what its errors (and those of a second source) call it.
const SOURCES: [(&str, &str, &str); 29] = [
    ("hostPath", "hostPath", "hostPath"),
    ("gitRepo", "gitRepo", "gitRepo"),
    ("gcePersistentDisk", "persistentDisk", "gcePersistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret", "secret"),
    ("nfs", "nfs", "nfs"),
    ("iscsi", "iscsi", "iscsi"),
    ("glusterfs", "glusterfs", "glusterfs"),
    ("flocker", "flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd", "rbd"),
    ("cinder", "cinder", "cinder"),
    ("cephfs", "cephfs", "cephFS"),
    ("quobyte", "quobyte", "quobyte"),
    ("downwardAPI", "downwardAPI", "downwarAPI"),
    ("fc", "fc", "fc"),
    ("flexVolume", "flexVolume", "flexVolume"),
    ("configMap", "configMap", "configMap"),
    ("azureFile", "azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk", "azureDisk"),
    ("storageos", "storageos", "storageos"),
    ("projected", "projected", "projected"),
    ("scaleIO", "scaleIO", "scaleIO"),
    ("csi", "csi", "csi"),
    ("ephemeral", "ephemeral", "ephemeral"),
    ("image", "image", "image"),
];

/// `ValidateVolumes`; `metadata` is absent in templates.
pub(super) fn volumes<'a>(
    spec: &'a Value,
    metadata: Option<&Value>,
    path: &Path,
    lenient: Lenient,
) -> (Known<'a>, ErrorList) {
    let mut found = ErrorList::new();
    let mut known = Known::new();
    let pod_name = metadata.map_or("", |m| m.text("name"));
    let volumes = spec.list("volumes");
    let created: BTreeSet<String> = volumes
        .iter()
        .filter(|v| v.has("ephemeral") && !pod_name.is_empty())
        .map(|v| format!("{pod_name}-{}", v.text("name")))
        .collect();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        let name = volume.text("name");
        let mut errors = source(volume, pod_name, &at, lenient);
        if name.is_empty() {
            errors.push(required(&at.child("name"), ""));
        } else {
            errors.extend(names::errors(&at.child("name"), name, names::dns_label(name)));
        }
        if known.contains_key(name) {
            errors.push(duplicate(&at.child("name"), name));
        }
        if errors.is_empty() {
            known.insert(name, volume);
        }
        found.extend(errors);
        let claim = volume["persistentVolumeClaim"].text("claimName");
        if created.contains(claim) {
            let text = "must not reference a PVC that gets created for an ephemeral volume";
            found.push(invalid(&at.child("persistentVolumeClaim").child("claimName"), claim, text));
        }
    }
    (known, found)
}

fn source(volume: &Value, pod_name: &str, path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    let mut seen = false;
    if let Some(dir) = volume.field("emptyDir") {
        seen = true;
        let at = path.child("emptyDir");
        if quantity(&dir["sizeLimit"]).is_some_and(|q| q.signum() < 0) {
            found.push(forbidden(&at.child("sizeLimit"), "SizeLimit field must be a valid resource quantity"));
        }
        if let Some(mode) = dir.int_opt("mode").filter(|m| !(0..=0o1777).contains(m)) {
            let text = "must be a number between 0 and 01777 (octal), both inclusive";
            found.push(invalid(&at.child("mode"), mode, text));
        }
    }
    for (field, own, other) in SOURCES.iter().filter(|(field, ..)| volume.has(field)) {
        if seen {
            found.push(forbidden(&path.child(other), "may not specify more than 1 volume type"));
        } else {
            seen = true;
            found.extend(one(field, &volume[*field], &path.child(own), lenient));
            if *field == "ephemeral" && !pod_name.is_empty() && !volume.text("name").is_empty() {
                let claim = format!("{pod_name}-{}", volume.text("name"));
                for message in names::dns_subdomain(&claim) {
                    let text = format!("PVC name \"{claim}\": {message}");
                    found.push(invalid(&path.child("name"), volume.text("name"), &text));
                }
            }
        }
        let iscsi = &volume["iscsi"];
        let length = volume.text("name").len() + 1 + iscsi.text("targetPortal").len();
        if *field == "iscsi" && iscsi.has("initiatorName") && length > 64 {
            let text = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
            found.push(invalid(&path.child("name"), volume.text("name"), text));
        }
    }
    if !seen {
        found.push(required(path, "must specify a volume type"));
    }
    found
}

fn one(kind: &str, source: &Value, path: &Path, lenient: Lenient) -> ErrorList {
    match kind {
        "secret" => key_source(source, "secretName", path),
        "configMap" => key_source(source, "name", path),
        "downwardAPI" => projected::downward_api(source, path),
        "projected" => projected::projected(source, path, lenient),
        "ephemeral" => claim::ephemeral(source, path),
        "image" => {
            let mut found = ErrorList::new();
            if source.text("reference").is_empty() && !lenient.empty_image_reference {
                found.push(required(&path.child("reference"), ""));
            }
            found.extend(super::containers::pull_policy(source.text("pullPolicy"), &path.child("pullPolicy")));
            found
        }
        _ => sources::source(kind, source, path),
    }
}

/// ConfigMap and Secret volumes.
fn key_source(source: &Value, name: &str, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    if source.text(name).is_empty() {
        found.push(required(&path.child(name), ""));
    }
    default_mode(&mut found, source, path);
    for (i, item) in source.list("items").iter().enumerate() {
        found.extend(key_to_path(item, &path.child("items").index(i)));
    }
    found
}

/// `defaultMode` and `defaultUser`.
fn default_mode(found: &mut ErrorList, source: &Value, path: &Path) {
    found.extend(file_mode(source, "defaultMode", path));
    found.extend(user(source, "defaultUser", path));
}

fn file_mode(source: &Value, field: &str, path: &Path) -> Option<schema::field::FieldError> {
    let mode = source.int_opt(field).filter(|m| !(0..=0o777).contains(m))?;
    Some(invalid(&path.child(field), mode, "must be a number between 0 and 0777 (octal), both inclusive"))
}

fn user(source: &Value, field: &str, path: &Path) -> ErrorList {
    let Some(id) = source.int_opt(field) else { return ErrorList::new() };
    names::user_id(id).iter().map(|message| invalid(&path.child(field), id, message)).collect()
}

fn key_to_path(item: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for field in ["key", "path"] {
        if item.text(field).is_empty() {
            found.push(required(&path.child(field), ""));
        }
    }
    found.extend(non_reserved(item.text("path"), &path.child("path")));
    found.extend(file_mode(item, "mode", path));
    found.extend(user(item, "user", path));
    found
}

/// `validatePathNoBacksteps`.
pub(super) fn no_backsteps(target: &str, path: &Path) -> Option<schema::field::FieldError> {
    target.split('/').any(|part| part == "..").then(|| invalid(path, target, "must not contain '..'"))
}

/// `validateLocalDescendingPath`.
pub(super) fn descending(target: &str, path: &Path) -> ErrorList {
    let absolute = names::is_absolute(target).then(|| invalid(path, target, "must be a relative path"));
    absolute.into_iter().chain(no_backsteps(target, path)).collect()
}

/// `ValidateLocalNonReservedPath`.
pub(super) fn non_reserved(target: &str, path: &Path) -> ErrorList {
    let mut found = descending(target, path);
    if target.starts_with("..") && !target.starts_with("../") {
        found.push(invalid(path, target, "must not start with '..'"));
    }
    found
}

/// `SplitMaybeSubscriptedPath`: `metadata.labels['a']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(head, _)| !head.is_empty())
}

const POD_FIELDS: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// `validateObjectFieldSelector`; `allowed` is sorted.
pub(super) fn field_ref(reference: &Value, allowed: &[&str], path: &Path) -> ErrorList {
    for field in ["apiVersion", "fieldPath"] {
        if reference.text(field).is_empty() {
            return vec![required(&path.child(field), "")];
        }
    }
    let field = reference.text("fieldPath");
    let at = path.child("fieldPath");
    let refuse = |text: &str| vec![invalid(&at, field, &format!("error converting fieldPath: {text}"))];
    if reference.text("apiVersion") != "v1" {
        return refuse(&format!("unsupported pod version: {}", reference.text("apiVersion")));
    }
    if let Some((map, key)) = subscript(field) {
        return match map {
            "metadata.annotations" => {
                let key = key.to_lowercase();
                names::errors(path, &key, names::qualified_name(&key)).collect()
            }
            "metadata.labels" => names::errors(path, key, names::qualified_name(key)).collect(),
            _ => refuse(&format!("field label does not support subscript: {field}")),
        };
    }
    let field = if field == "spec.host" { "spec.nodeName" } else { field };
    if !POD_FIELDS.contains(&field) {
        return refuse(&format!("field label not supported: {field}"));
    }
    if allowed.contains(&field) { ErrorList::new() } else { vec![not_supported(&at, field, allowed)] }
}

/// `validateContainerResourceFieldSelector`; volumes must name the container.
pub(super) fn resource_field_ref(reference: &Value, volume: bool, path: &Path) -> ErrorList {
    let allowed = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let mut found = ErrorList::new();
    let resource = reference.text("resource");
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if volume && reference.text("containerName").is_empty() {
        found.push(required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        found.push(required(&path.child("resource"), ""));
    } else if !allowed.contains(&resource) && !huge {
        found.push(not_supported(&path.child("resource"), resource, &allowed));
    }
    let divisor = reference.text("divisor");
    if matches!(divisor, "" | "0") {
        return found;
    }
    let sizes = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
    let (values, of) = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => ("1m, 1", "cpu"),
        "memory" => (sizes, "memory"),
        "ephemeral-storage" => (sizes, "local ephemeral storage"),
        _ if huge => (sizes, "hugepages"),
        _ => return found,
    };
    if !values.split(", ").any(|v| v == divisor) {
        let values = values.replace("1m, 1", "1m and 1");
        let text = format!("only divisor's values {values} are supported with the {of} resource");
        found.push(invalid(&path.child("divisor"), resource, &text));
    }
    found
}

/// `validateFileKeyRefVolumes`.
pub(super) fn file_key_refs(spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for list in CONTAINER_LISTS {
        for (i, container) in spec.list(list).iter().enumerate() {
            for (j, variable) in container.list("env").iter().enumerate() {
                let Some(reference) = variable["valueFrom"].field("fileKeyRef") else { continue };
                let name = reference.text("volumeName");
                let env = path.child(list).index(i).child("env").index(j);
                let at = env.child("valueFrom").child("fileKeyRef").child("volumeName");
                match spec.list("volumes").iter().rev().find(|v| v.text("name") == name) {
                    None => found.push(not_found(&at, name)),
                    Some(volume) if volume.has("emptyDir") => {}
                    Some(_) => found.push(invalid(&at, name, "referenced volume must be of type emptyDir")),
                }
            }
        }
    }
    found
}

/// Whether a projected token's path would be refused today.
pub(super) fn has_non_local_token_path(spec: &Value) -> bool {
    let sources = spec.list("volumes").iter().flat_map(|v| v["projected"].list("sources"));
    sources
        .filter_map(|s| s.field("serviceAccountToken"))
        .any(|token| !non_reserved(token.text("path"), &Path::default()).is_empty())
}
