//! `v1` ServiceAccount.

use crate::human;
use crate::kinds::columns;
use crate::meta;
use crate::rules::Rules;
use crate::tree::{Tree, list_mut};
use serde_json::{Value, json};

const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

pub static RULES: Rules = Rules {
    prepare_create: clean_references,
    prepare_update: |new, _| clean_references(new),
    warnings,
    columns: columns::SERVICE_ACCOUNT,
    row: |account, now| {
        vec![json!(meta::name(account)), json!(human::age(&account["metadata"]["creationTimestamp"], now))]
    },
    ..Rules::PLAIN
};

/// Of a reference to a Secret only the name counts.
fn clean_references(account: &mut Value) {
    for secret in list_mut(account, "secrets") {
        let name = secret.text("name");
        *secret = if name.is_empty() { json!({}) } else { json!({"name": name}) };
    }
}

fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    if meta::annotation(new, ENFORCE).is_none() || old.is_some_and(|old| meta::annotation(old, ENFORCE).is_some()) {
        return Vec::new();
    }
    vec![format!(
        "metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
    )]
}
