//! Volumes, claims and what drives them.

use super::{age, name, or};
use crate::kinds::columns;
use crate::kinds::core::pod::claim_spec;
use crate::kinds::shared::{clear_status, keep_spec, keep_status};
use crate::meta;
use crate::rules::Rules;
use crate::tree::{Tree, default_to, object_mut, remove, same};
use jiff::Timestamp;
use schema::field::Path;
use serde_json::{Value, json};

pub static PERSISTENT_VOLUME: Rules = Rules {
    default: |volume| {
        if let Some(spec) = object_mut(volume, "spec") {
            default_to(spec, "persistentVolumeReclaimPolicy", "Retain");
            default_to(spec, "volumeMode", "Filesystem");
        }
        if let Some(status) = object_mut(volume, "status") {
            default_to(status, "phase", "Pending");
        }
    },
    prepare_create: |volume| {
        let now = volume["metadata"]["creationTimestamp"].clone();
        volume["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": now});
    },
    prepare_update: keep_status,
    prepare_status_update: keep_spec,
    columns: columns::PERSISTENT_VOLUME,
    row: volume,
    ..Rules::PLAIN
};

pub static PERSISTENT_VOLUME_CLAIM: Rules = Rules {
    default: |claim| {
        if let Some(spec) = object_mut(claim, "spec") {
            default_to(spec, "volumeMode", "Filesystem");
        }
        if let Some(status) = object_mut(claim, "status") {
            default_to(status, "phase", "Pending");
        }
    },
    prepare_create: |claim| {
        claim["status"] = json!({"phase": "Pending"});
        normalize_sources(claim);
    },
    prepare_update: |new, old| {
        keep_status(new, old);
        normalize_sources(new);
    },
    prepare_status_update: keep_spec,
    validate: |claim| claim_spec(&claim["spec"], &Path::new("spec")),
    columns: columns::PERSISTENT_VOLUME_CLAIM,
    row: claim,
    ..Rules::PLAIN
};

pub static STORAGE_CLASS: Rules = Rules {
    default: |class| {
        default_to(class, "reclaimPolicy", "Delete");
        default_to(class, "volumeBindingMode", "Immediate");
    },
    columns: columns::STORAGE_CLASS,
    row: |class, now| {
        vec![
            name(class),
            json!(class.text("provisioner")),
            or(class.text("reclaimPolicy"), "Delete"),
            or(class.text("volumeBindingMode"), "Immediate"),
            json!(class.flag("allowVolumeExpansion")),
            age(class, now),
        ]
    },
    ..Rules::PLAIN
};

pub static VOLUME_ATTRIBUTES_CLASS: Rules = Rules {
    columns: columns::VOLUME_ATTRIBUTES_CLASS,
    row: |class, now| vec![name(class), json!(class.text("driverName")), age(class, now)],
    ..Rules::PLAIN
};

pub static VOLUME_ATTACHMENT: Rules = Rules {
    unconditional_update: false,
    prepare_create: clear_status,
    prepare_update: keep_status,
    prepare_status_update: keep_spec,
    columns: columns::VOLUME_ATTACHMENT,
    row: |attachment, now| {
        let spec = &attachment["spec"];
        vec![
            name(attachment),
            json!(spec.text("attacher")),
            json!(spec["source"].text("persistentVolumeName")),
            json!(spec.text("nodeName")),
            json!(attachment["status"].flag("attached")),
            age(attachment, now),
        ]
    },
    ..Rules::PLAIN
};

pub static CSI_DRIVER: Rules = Rules {
    default: |driver| {
        let Some(spec) = object_mut(driver, "spec") else { return };
        for (field, value) in [
            ("attachRequired", json!(true)),
            ("podInfoOnMount", json!(false)),
            ("storageCapacity", json!(false)),
            ("fsGroupPolicy", json!("ReadWriteOnceWithFSType")),
            ("volumeLifecycleModes", json!(["Persistent"])),
            ("requiresRepublish", json!(false)),
            ("preventPodSchedulingIfMissing", json!(false)),
            ("seLinuxMount", json!(false)),
        ] {
            if !spec.has(field) {
                spec[field] = value;
            }
        }
    },
    // It counts from the first change.
    prepare_update: |new, old| {
        if !same(&new["spec"], &old["spec"]) {
            meta::set(new, "generation", meta::generation(old) + 1);
        }
    },
    unconditional_update: false,
    warnings: token_warning,
    columns: columns::CSIDRIVER,
    row: csi_driver,
    ..Rules::PLAIN
};

pub static CSI_NODE: Rules = Rules {
    columns: columns::CSINODE,
    row: |node, now| vec![name(node), json!(node["spec"].list("drivers").len()), age(node, now)],
    unconditional_update: false,
    prepare_create: clear_status,
    prepare_update: keep_status,
    prepare_status_update: keep_spec,
    ..Rules::PLAIN
};

pub static CSI_STORAGE_CAPACITY: Rules = Rules { unconditional_update: false, ..Rules::PLAIN };

/// The older and the newer field for a claim's source tell the same (`NormalizeDataSources`).
fn normalize_sources(claim: &mut Value) {
    let Some(spec) = claim.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    let of = |reference: &Value| json!({"apiGroup": reference["apiGroup"], "kind": reference["kind"], "name": reference["name"]});
    let known = |source: &Value| match source.text("apiGroup") {
        "" => source.text("kind") == "PersistentVolumeClaim",
        group => (group, source.text("kind")) == ("snapshot.storage.k8s.io", "VolumeSnapshot"),
    };
    if spec.has("dataSource") && !known(&spec["dataSource"]) {
        remove(spec, "dataSource");
    }
    match (spec.has("dataSource"), spec.has("dataSourceRef")) {
        (true, false) => spec["dataSourceRef"] = of(&spec["dataSource"]),
        (false, true) if spec["dataSourceRef"].text("namespace").is_empty() => {
            spec["dataSource"] = of(&spec["dataSourceRef"]);
        }
        _ => {}
    }
}

fn phase(object: &Value) -> &str {
    if meta::deletion_timestamp(object).is_some() { "Terminating" } else { object["status"].text("phase") }
}

/// `RWO,ROX`, each once and in upstream's order.
fn modes(object: &Value) -> String {
    let known =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| object.texts("accessModes").any(|one| one == mode);
    known.into_iter().filter(|(mode, _)| has(mode)).map(|(_, short)| short).collect::<Vec<_>>().join(",")
}

fn volume(volume: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &volume["spec"];
    let claim = spec
        .field("claimRef")
        .map_or_else(String::new, |claim| format!("{}/{}", claim.text("namespace"), claim.text("name")));
    vec![
        name(volume),
        or(spec["capacity"].text("storage"), "0"),
        json!(modes(spec)),
        json!(spec.text("persistentVolumeReclaimPolicy")),
        json!(phase(volume)),
        json!(claim),
        json!(class_of(volume)),
        or(spec.text("volumeAttributesClassName"), "<unset>"),
        json!(volume["status"].text("reason")),
        age(volume, now),
        or(spec.text("volumeMode"), "<unset>"),
    ]
}

/// The old annotation wins over the field.
fn class_of(object: &Value) -> &str {
    meta::annotation(object, "volume.beta.kubernetes.io/storage-class")
        .unwrap_or_else(|| object["spec"].text("storageClassName"))
}

fn claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&claim["spec"], &claim["status"]);
    let (capacity, modes) = if spec.text("volumeName").is_empty() {
        (json!(""), String::new())
    } else {
        (or(status["capacity"].text("storage"), "0"), modes(status))
    };
    vec![
        name(claim),
        json!(phase(claim)),
        json!(spec.text("volumeName")),
        capacity,
        json!(modes),
        json!(class_of(claim)),
        or(spec.text("volumeAttributesClassName"), "<unset>"),
        age(claim, now),
        or(spec.text("volumeMode"), "<unset>"),
    ]
}

const TOKEN_IN_SECRETS: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";

fn token_warning(new: &Value, old: Option<&Value>) -> Vec<String> {
    let spec = &new["spec"];
    let unchanged = old.is_some_and(|old| old["spec"]["tokenRequests"] == spec["tokenRequests"]);
    if unchanged || spec.list("tokenRequests").is_empty() || spec.has("serviceAccountTokenInSecrets") {
        return Vec::new();
    }
    vec![TOKEN_IN_SECRETS.to_owned()]
}

fn csi_driver(driver: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &driver["spec"];
    let modes = spec.texts("volumeLifecycleModes").collect::<Vec<_>>().join(",");
    let requests = spec.list("tokenRequests");
    let audiences = requests.iter().map(|request| request.text("audience")).collect::<Vec<_>>().join(",");
    vec![
        name(driver),
        json!(spec.flag_opt("attachRequired").unwrap_or(true)),
        json!(spec.flag("podInfoOnMount")),
        json!(spec.flag("storageCapacity")),
        json!(if requests.is_empty() { "<unset>".to_owned() } else { audiences }),
        json!(spec.flag("requiresRepublish")),
        or(&modes, "<none>"),
        age(driver, now),
    ]
}
