//! Validation of volume mounts and devices (upstream `ValidateVolumeMounts`, `ValidateVolumeDevices`).

use super::volumes::{self, Known};
use crate::tree::Tree;
use schema::field::{ErrorList, Path, duplicate, forbidden, invalid, not_found, not_supported, required};
use serde_json::Value;
use std::collections::BTreeSet;

/// `ValidateVolumeMounts`.
pub(super) fn mounts(container: &Value, volumes: &Known<'_>, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let mut seen = BTreeSet::new();
    let devices = container.list("volumeDevices");
    for (i, mount) in container.list("volumeMounts").iter().enumerate() {
        let at = path.index(i);
        let (name, target) = (mount.text("name"), mount.text("mountPath"));
        if name.is_empty() {
            found.push(required(&at.child("name"), ""));
        }
        if !volumes.contains_key(name) {
            found.push(not_found(&at.child("name"), name));
        }
        if target.is_empty() {
            found.push(required(&at.child("mountPath"), ""));
        }
        if !seen.insert(target) {
            found.push(invalid(&at.child("mountPath"), target, "must be unique"));
        }
        if devices.iter().any(|d| d.text("name") == name) {
            found.push(invalid(&at.child("name"), name, "must not already exist in volumeDevices"));
        }
        if devices.iter().any(|d| d.text("devicePath") == target) {
            let text = "must not already exist as a path in volumeDevices";
            found.push(invalid(&at.child("mountPath"), target, text));
        }
        // Upstream names the list, not the item, in what follows.
        let (sub, expression) = (mount.text("subPath"), mount.text("subPathExpr"));
        if !sub.is_empty() {
            found.extend(volumes::descending(sub, &path.child("subPath")));
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                let text = "subPathExpr and subPath are mutually exclusive";
                found.push(invalid(&at.child("subPathExpr"), expression, text));
            }
            found.extend(volumes::descending(expression, &path.child("subPathExpr")));
        }
        found.extend(propagation(mount, container, &path.child("mountPropagation")));
        found.extend(recursive_read_only(mount, &path.child("recursiveReadOnly")));
        found.extend(bind_options(mount, &at.child("bindMountOptions")));
        if !mount.list("bindMountOptions").is_empty() && volumes.get(name).is_some_and(|v| v.has("image")) {
            let text = "bindMountOptions may not be used with image volumes";
            found.push(invalid(&at.child("bindMountOptions"), mount["bindMountOptions"].clone(), text));
        }
    }
    found
}

fn propagation(mount: &Value, container: &Value, path: &Path) -> ErrorList {
    let allowed = ["Bidirectional", "HostToContainer", "None"];
    match mount.text_opt("mountPropagation") {
        None => ErrorList::new(),
        Some("Bidirectional") if !container["securityContext"].flag("privileged") => {
            let text = "Bidirectional mount propagation is available only to privileged containers";
            vec![forbidden(path, text)]
        }
        Some(mode) if allowed.contains(&mode) => ErrorList::new(),
        Some(mode) => vec![not_supported(path, mode, &allowed)],
    }
}

fn recursive_read_only(mount: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    match mount.text_opt("recursiveReadOnly") {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !mount.flag("readOnly") {
                found.push(forbidden(path, "may only be specified when readOnly is true"));
            }
            if mount.text_opt("mountPropagation").is_some_and(|p| p != "None") {
                found.push(forbidden(path, "may only be specified when mountPropagation is None or not specified"));
            }
        }
        Some(other) => found.push(not_supported(path, other, &["Disabled", "Enabled", "IfPossible"])),
    }
    found
}

fn bind_options(mount: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let mut seen = BTreeSet::new();
    let allowed = ["nodev", "noexec", "nosuid"];
    for (i, option) in mount.texts("bindMountOptions").enumerate() {
        if !allowed.contains(&option) {
            found.push(not_supported(&path.index(i), option, &allowed));
        }
        if !seen.insert(option) {
            found.push(duplicate(&path.index(i), option));
        }
    }
    found
}

/// `ValidateVolumeDevices`.
pub(super) fn devices(container: &Value, volumes: &Known<'_>, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    let mounts = container.list("volumeMounts");
    for (i, device) in container.list("volumeDevices").iter().enumerate() {
        let (at_name, at_path) = (path.index(i).child("name"), path.index(i).child("devicePath"));
        let (name, target) = (device.text("name"), device.text("devicePath"));
        if name.is_empty() {
            found.push(required(&at_name, ""));
        }
        if names.contains(name) {
            found.push(invalid(&at_name, name, "must be unique"));
        }
        match volumes.get(name) {
            None => found.push(not_found(&at_name, name)),
            Some(volume) if volume.has("persistentVolumeClaim") || volume.has("ephemeral") => {}
            Some(_) => {
                let text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                found.push(invalid(&at_name, name, text));
            }
        }
        if target.is_empty() {
            found.push(required(&at_path, ""));
        }
        if paths.contains(target) {
            found.push(invalid(&at_path, target, "must be unique"));
        }
        if target.split('/').any(|part| part == "..") {
            found.push(invalid(&at_path, target, "can not contain backsteps ('..')"));
        } else {
            paths.insert(target);
        }
        if mounts.iter().any(|m| m.text("name") == name) {
            found.push(invalid(&at_name, name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|m| m.text("mountPath") == target) {
            found.push(invalid(&at_path, target, "must not already exist as a path in volumeMounts"));
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
    found
}
