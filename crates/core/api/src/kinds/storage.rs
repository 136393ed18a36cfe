//! `storage.k8s.io/v1` StorageClass (upstream `apis/storage/validation`).

use super::rows;
use crate::meta::validate_label_name;
use crate::names::{IMMUTABLE, errors, qualified_name};
use crate::rules::Rules;
use crate::tree::{Tree, same};
use schema::field::{ErrorList, Path, duplicate, invalid, not_supported, required};
use serde_json::Value;

pub static STORAGE_CLASS: Rules = Rules {
    validate,
    validate_update: |new, old| {
        let fields = ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"];
        let changed = fields.into_iter().filter(|field| !same(&new[*field], &old[*field]));
        // Upstream's declarative rule shows no value.
        changed.map(|field| invalid(&Path::new(field), Value::Null, IMMUTABLE)).collect()
    },
    ..rows::STORAGE_CLASS
};

fn validate(class: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    let (provisioner, path) = (class.text("provisioner").to_lowercase(), Path::new("provisioner"));
    if provisioner.is_empty() {
        found.push(required(&path, ""));
    } else {
        found.extend(errors(&path, &provisioner, qualified_name(&provisioner)));
    }
    for (field, known) in
        [("reclaimPolicy", ["Delete", "Retain"]), ("volumeBindingMode", ["Immediate", "WaitForFirstConsumer"])]
    {
        let value = class.text(field);
        if !value.is_empty() && !known.contains(&value) {
            found.push(not_supported(&Path::new(field), value, &known));
        }
    }
    for (at, term) in class.list("allowedTopologies").iter().enumerate() {
        let path = Path::new("allowedTopologies").index(at).child("matchLabelExpressions");
        let mut keys: Vec<&str> = Vec::new();
        for (at, expression) in term.list("matchLabelExpressions").iter().enumerate() {
            let path = path.index(at);
            if expression.list("values").is_empty() {
                found.push(required(&path.child("values"), ""));
            }
            let mut seen: Vec<&str> = Vec::new();
            for (at, value) in expression.texts("values").enumerate() {
                if seen.contains(&value) {
                    found.push(duplicate(&path.child("values").index(at), value));
                }
                seen.push(value);
            }
            let key = expression.text("key");
            found.extend(validate_label_name(key, &path.child("key")));
            if keys.contains(&key) {
                found.push(duplicate(&path.child("key"), key));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            // Upstream compares with the empty places of the list that it has made room for.
            found.push(duplicate(&path, ""));
        }
    }
    found
}
