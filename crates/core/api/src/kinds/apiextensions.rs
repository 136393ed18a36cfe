//! `apiextensions.k8s.io/v1` CustomResourceDefinition.

use super::rows;
use super::shared::{default_service_port, keep_spec_and_meta, set_default};
use crate::rules::Rules;
use crate::tree::{Tree, default_to, object_mut};
use serde_json::{Value, json};

pub static DEFINITION: Rules = Rules {
    default,
    prepare_create,
    prepare_status_update: keep_spec_and_meta,
    unconditional_update: false,
    ..rows::STATUS_APART_COUNTED
};

fn default(definition: &mut Value) {
    let Some(spec) = object_mut(definition, "spec") else { return };
    if let Some(names) = object_mut(spec, "names") {
        let kind = names.text("kind").to_owned();
        default_to(names, "singular", kind.to_lowercase());
        if !kind.is_empty() {
            default_to(names, "listKind", format!("{kind}List"));
        }
    }
    set_default(spec, "conversion", json!({"strategy": "None"}));
    default_service_port(spec, "/conversion/webhook/clientConfig/service");
    store_version(definition);
}

fn prepare_create(definition: &mut Value) {
    (rows::STATUS_APART_COUNTED.prepare_create)(definition);
    store_version(definition);
}

/// Without any stored version known, it is the one that is stored now.
fn store_version(definition: &mut Value) {
    if !definition["status"].list("storedVersions").is_empty() {
        return;
    }
    let stored = definition["spec"].list("versions").iter().find(|version| version.flag("storage"));
    let Some(name) = stored.map(|version| version["name"].clone()) else { return };
    if let Some(status) = object_mut(definition, "status") {
        status["storedVersions"] = json!([name]);
    }
}
