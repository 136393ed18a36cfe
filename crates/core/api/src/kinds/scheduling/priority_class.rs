//! `scheduling.k8s.io/v1` PriorityClass.

use crate::human;
use crate::kinds::columns;
use crate::meta;
use crate::names::IMMUTABLE;
use crate::rules::Rules;
use crate::tree::Tree;
use jiff::Timestamp;
use schema::field::{ErrorList, Path, forbidden, invalid, not_supported, required};
use serde_json::{Value, json};

const SYSTEM_PREFIX: &str = "system-";
/// `SystemPriorityClasses`: name and value; none is the default.
const SYSTEM: [(&str, i64); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
const HIGHEST_OF_USERS: i64 = 1_000_000_000;

pub static RULES: Rules = Rules {
    default,
    validate,
    validate_update: update,
    columns: columns::PRIORITY_CLASS,
    row,
    prepare_create: |class| meta::set(class, "generation", 1),
    ..Rules::PLAIN
};

fn default(class: &mut Value) {
    if !class.has("preemptionPolicy") {
        class["preemptionPolicy"] = "PreemptLowerPriority".into();
    }
}

fn row(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(meta::name(class)),
        json!(class.int("value")),
        json!(class.flag("globalDefault")),
        json!(human::age(&class["metadata"]["creationTimestamp"], now)),
        json!(class.text("preemptionPolicy")),
    ]
}

fn validate(class: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    let (name, value) = (meta::name(class), class.int("value"));
    if name.starts_with(SYSTEM_PREFIX) {
        let problem = match SYSTEM.into_iter().find(|(known, _)| *known == name) {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, wanted)) if wanted != value => Some(format!("value of {name} PriorityClass must be {wanted}")),
            Some(_) if class.flag("globalDefault") => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(problem) = problem {
            let detail = format!(
                "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {problem}"
            );
            found.push(forbidden(&Path::new("metadata").child("name"), &detail));
        }
    } else if value > HIGHEST_OF_USERS {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}");
        found.push(forbidden(&Path::new("value"), &detail));
    }
    match class.text("preemptionPolicy") {
        "" => found.push(required(&Path::new("preemptionPolicy"), "")),
        "PreemptLowerPriority" | "Never" => {}
        policy => {
            let known = ["PreemptLowerPriority", "Never"];
            found.push(not_supported(&Path::new("preemptionPolicy"), policy, &known));
        }
    }
    found
}

fn update(new: &Value, old: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    if new.int("value") != old.int("value") {
        found.push(forbidden(&Path::new("value"), "may not be changed in an update."));
    }
    if new.text("preemptionPolicy") != old.text("preemptionPolicy") {
        found.push(invalid(&Path::new("preemptionPolicy"), new["preemptionPolicy"].clone(), IMMUTABLE));
    }
    found
}
