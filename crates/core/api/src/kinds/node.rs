//! `node.k8s.io/v1` RuntimeClass (upstream `apis/node/validation`).

use super::core::pod;
use super::rows;
use crate::internal;
use crate::meta;
use crate::names::{IMMUTABLE, dns_label, errors};
use crate::rules::Rules;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, invalid, required};
use serde_json::{Value, json};

pub static RUNTIME_CLASS: Rules = Rules {
    validate,
    validate_update: |new, old| {
        let changed = new.text("handler") != old.text("handler");
        changed.then(|| invalid(&Path::new("handler"), Value::Null, IMMUTABLE)).into_iter().collect()
    },
    unconditional_update: false,
    create_on_update: true,
    ..rows::RUNTIME_CLASS
};

fn validate(class: &Value) -> ErrorList {
    let (handler, path) = (class.text("handler"), Path::new("handler"));
    let mut found = ErrorList::new();
    if handler.is_empty() {
        found.push(required(&path, ""));
    } else {
        found.extend(errors(&path, handler, dns_label(handler)));
    }
    let overhead = json!({"limits": class["overhead"]["podFixed"]});
    found.extend(pod::container_resources(&overhead, &Path::new("overhead")));
    let (scheduling, path) = (&class["scheduling"], Path::new("scheduling"));
    found.extend(meta::validate_labels(&scheduling["nodeSelector"], &path.child("nodeSelector")));
    let (tolerations, path) = (scheduling.list("tolerations"), path.child("tolerations"));
    found.extend(pod::tolerations(tolerations, &path));
    for (at, toleration) in tolerations.iter().enumerate() {
        let key = |one: &Value| ["key", "operator", "value", "effect"].map(|field| one.text(field).to_owned());
        if tolerations[..at].iter().any(|before| key(before) == key(toleration)) {
            found.push(internal::duplicate(&path.index(at), "Toleration", toleration));
        }
    }
    found
}
