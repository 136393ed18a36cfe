//! Validation of `pods/ephemeralcontainers` and `pods/resize` (upstream `ValidatePodEphemeralContainersUpdate`,
//! `ValidatePodResize`).

use super::update::{annotation_updates, new_object};
use super::validate::Lenient;
use super::{is_mirror, is_sidecar, nowhere, qos};
use crate::internal;
use crate::tree::{Tree, keep, list_mut, object_mut, remove, same};
use schema::field::{ErrorList, Path, forbidden, invalid};
use serde_json::Value;

/// Behind the generic `ValidateObjectMetaUpdate`; [`super::prepare::ephemeral_containers_update`] goes before.
pub fn ephemeral_containers_update(new: &Value, old: &Value) -> ErrorList {
    let lenient = Lenient::towards(old);
    if is_mirror(old) {
        return vec![forbidden(&nowhere(), "static pods do not support ephemeral containers")];
    }
    let mut found = new_object(new, lenient);
    found.extend(annotation_updates(new, old, lenient));
    let path = Path::new("spec").child("ephemeralContainers");
    let list = "ephemeralContainers";
    for before in old["spec"].list(list) {
        let name = before.text("name");
        match new["spec"].list(list).iter().rev().find(|c| c.text("name") == name) {
            None => {
                let text = format!("existing ephemeral containers \"{name}\" may not be removed\n");
                found.push(forbidden(&path, &text));
            }
            Some(now) if !same(before, now) => {
                let of = "EphemeralContainer";
                let diff = crate::diff::unified(&internal::pretty(of, before), &internal::pretty(of, now));
                let text = format!("existing ephemeral containers \"{name}\" may not be changed\n{diff}");
                found.push(forbidden(&path, &text));
            }
            Some(_) => {}
        }
    }
    found
}

/// Behind the generic `ValidateObjectMetaUpdate`; [`super::prepare::resize_update`] goes before.
pub fn resize_update(new: &Value, old: &Value) -> ErrorList {
    if is_mirror(old) {
        return vec![forbidden(&nowhere(), "static pods cannot be resized")];
    }
    let (spec, before) = (&new["spec"], &old["spec"]);
    if before["os"].text("name") == "windows" {
        return vec![forbidden(&nowhere(), "windows pods cannot be resized")];
    }
    let path = Path::new("spec");
    let mut found = new_object(new, Lenient::towards(old));
    let class = match old["status"].text("qosClass") {
        "" => qos::class(before),
        class => class,
    };
    if class != qos::class(spec) {
        let shown = new["status"].text("qosClass");
        found.push(invalid(&path, shown, "Pod QOS Class may not change as a result of resizing"));
    }
    let running = old["status"].list("containerStatuses").iter().find(|s| s["state"].has("running"));
    if running.is_some_and(|s| !s.has("resources")) {
        found.push(forbidden(&path, "Pod running on node without support for resize"));
    }
    let mut copy = spec.clone();
    found.extend(pod_level(&mut copy, spec, before, &path));
    let order = container_order(spec, before, &path);
    if !order.is_empty() {
        found.extend(order);
        return found;
    }
    for list in ["initContainers", "containers"] {
        for (i, (now, before)) in spec.list(list).iter().zip(before.list(list)).enumerate() {
            let at = path.child(list).index(i).child("resources");
            for (kind, word) in [("requests", "resource requests"), ("limits", "resource limits")] {
                if removed(&now["resources"][kind], &before["resources"][kind]) {
                    found.push(forbidden(&at.child(kind), &format!("{word} cannot be removed")));
                }
            }
        }
    }
    for (now, before) in list_mut(&mut copy, "containers").iter_mut().zip(before.list("containers")) {
        set_back(now, before);
        if !same(now, before) {
            found.push(forbidden(&path, "only cpu and memory resources are mutable"));
        }
    }
    let init = list_mut(&mut copy, "initContainers");
    for (i, (now, before)) in init.iter_mut().zip(before.list("initContainers")).enumerate() {
        let at = path.child("initContainers").index(i);
        let modified = !same(now, before);
        set_back(now, before);
        if !same(now, before) {
            let text = "only cpu and memory resources for init or sidecar containers are mutable";
            found.push(forbidden(&at, text));
        }
        if modified && !is_sidecar(now) {
            let restarting = now.list("resizePolicy").iter().filter(|p| p.text("restartPolicy") == "RestartContainer");
            let text = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            found.extend(restarting.map(|_| forbidden(&at, text)));
        }
    }
    if spec.field("volumes") != before.field("volumes") {
        let text = "volumes are immutable on resize when InPlacePodVerticalScalingMemoryBackedVolumes feature gate is disabled";
        found.push(forbidden(&path.child("volumes"), text));
    }
    if found.is_empty() && !same(&copy, before) {
        found.push(forbidden(&path, "only cpu and memory resources are mutable"));
    }
    found
}

fn is_set(resources: &Value) -> bool {
    resources.entries("requests").next().is_some() || resources.entries("limits").next().is_some()
}

/// `validatePodLevelResourcesResize`: sets back in `copy` what may change.
fn pod_level(copy: &mut Value, new: &Value, old: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    if !is_set(&new["resources"]) && !is_set(&old["resources"]) {
        return found;
    }
    let at = path.child("resources");
    if old.has("resources") {
        if !new.has("resources") {
            return vec![forbidden(&at, "pod-level resources cannot be removed")];
        }
        for (kind, word) in [("requests", "requests"), ("limits", "limits")] {
            if removed(&new["resources"][kind], &old["resources"][kind]) {
                found.push(forbidden(&at.child(kind), &format!("pod-level resource {word} cannot be removed")));
            }
        }
    }
    set_back(copy, old);
    if !old.has("resources") && copy["resources"].as_object().is_some_and(serde_json::Map::is_empty) {
        remove(copy, "resources");
    }
    if !same(&copy["resources"], &old["resources"]) {
        found.push(forbidden(path, "only cpu and memory resources are mutable at pod-level"));
    }
    found
}

fn container_order(new: &Value, old: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for list in ["containers", "initContainers"] {
        let at = path.child(list);
        if new.list(list).len() != old.list(list).len() {
            found.push(forbidden(&at, &format!("{list} may not be added or removed on resize")));
            continue;
        }
        for (i, (now, before)) in new.list(list).iter().zip(old.list(list)).enumerate() {
            if now.text("name") != before.text("name") {
                let text = format!("{list} may not be renamed or reordered on resize");
                found.push(forbidden(&at.index(i).child("name"), &text));
            }
        }
    }
    found
}

fn removed(now: &Value, before: &Value) -> bool {
    before.as_object().into_iter().flatten().any(|(name, _)| !now.has(name))
        || before.as_object().map_or(0, serde_json::Map::len) > now.as_object().map_or(0, serde_json::Map::len)
}

/// cpu and memory of `value.resources` as they were.
fn set_back(value: &mut Value, before: &Value) {
    for kind in ["limits", "requests"] {
        let old = &before["resources"][kind];
        if !value["resources"].has(kind) && old.is_null() {
            continue;
        }
        let Some(list) = object_mut(value, "resources").and_then(|r| object_mut(r, kind)) else { continue };
        for name in ["cpu", "memory"] {
            keep(list, old, name);
        }
        let emptied = list.as_object().is_some_and(serde_json::Map::is_empty);
        if emptied && let Some(resources) = value.get_mut("resources") {
            remove(resources, kind);
        }
    }
}
