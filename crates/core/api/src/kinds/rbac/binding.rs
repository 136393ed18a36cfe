//! RoleBinding and ClusterRoleBinding.

use crate::human;
use crate::kinds::columns;
use crate::meta;
use crate::names::{self, IMMUTABLE};
use crate::rules::Rules;
use crate::tree::{Tree, default_to, list_mut};
use jiff::Timestamp;
use schema::field::{ErrorList, Path, invalid, not_supported, required};
use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";

pub static ROLE_BINDING: Rules = Rules {
    default,
    validate: |binding| validate(binding, true),
    validate_update: |new, old| update(new, old, true),
    validate_name: names::path_segment_name,
    columns: columns::ROLE_BINDING,
    row,
    create_on_update: true,
    ..Rules::PLAIN
};

pub static CLUSTER_ROLE_BINDING: Rules = Rules {
    validate: |binding| validate(binding, false),
    validate_update: |new, old| update(new, old, false),
    columns: columns::CLUSTER_ROLE_BINDING,
    ..ROLE_BINDING
};

fn default(binding: &mut Value) {
    if binding["roleRef"].is_object() {
        default_to(&mut binding["roleRef"], "apiGroup", GROUP);
    }
    for subject in list_mut(binding, "subjects") {
        if matches!(subject.text("kind"), "User" | "Group") {
            default_to(subject, "apiGroup", GROUP);
        }
    }
}

fn row(binding: &Value, now: Timestamp) -> Vec<Value> {
    let subjects = |kind: &str| -> String {
        let of_kind = binding.list("subjects").iter().filter(|subject| subject.text("kind") == kind);
        let shown = of_kind.map(|subject| match subject.text("namespace") {
            _ if kind != "ServiceAccount" => subject.text("name").to_owned(),
            "" => subject.text("name").to_owned(),
            namespace => format!("{namespace}/{}", subject.text("name")),
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    let role = &binding["roleRef"];
    vec![
        json!(meta::name(binding)),
        json!(format!("{}/{}", role.text("kind"), role.text("name"))),
        json!(human::age(&binding["metadata"]["creationTimestamp"], now)),
        json!(subjects("User")),
        json!(subjects("Group")),
        json!(subjects("ServiceAccount")),
    ]
}

fn validate(binding: &Value, namespaced: bool) -> ErrorList {
    let (role, path) = (&binding["roleRef"], Path::new("roleRef"));
    let mut found = ErrorList::new();
    if role.text("apiGroup") != GROUP {
        found.push(not_supported(&path.child("apiGroup"), role.text("apiGroup"), &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.text("kind")) {
        found.push(not_supported(&path.child("kind"), role.text("kind"), kinds));
    }
    let name = role.text("name");
    found.extend(names::errors(&path.child("name"), name, names::path_segment_name(name, false)));
    let subjects = || {
        let all = binding.list("subjects").iter().enumerate();
        all.map(|(at, subject)| (subject, Path::new("subjects").index(at)))
    };
    found.extend(subjects().flat_map(|(subject, path)| validate_subject(subject, namespaced, &path)));
    // Upstream's declarative rules come last.
    let nameless = subjects().filter(|(subject, _)| subject.text("name").is_empty());
    found.extend(nameless.map(|(_, path)| required(&path.child("name"), "")));
    if name.is_empty() {
        found.push(required(&path.child("name"), ""));
    }
    found
}

fn validate_subject(subject: &Value, namespaced: bool, path: &Path) -> ErrorList {
    let (name, group) = (subject.text("name"), subject.text("apiGroup"));
    let mut found = ErrorList::new();
    match subject.text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                let messages = names::dns_subdomain_name(name, false);
                found.extend(names::errors(&path.child("name"), name, messages));
            }
            if !group.is_empty() {
                found.push(not_supported(&path.child("apiGroup"), group, &[""]));
            }
            if !namespaced && subject.text("namespace").is_empty() {
                found.push(required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                found.push(not_supported(&path.child("apiGroup"), group, &[GROUP]));
            }
        }
        kind => found.push(not_supported(&path.child("kind"), kind, &["ServiceAccount", "User", "Group"])),
    }
    found
}

fn update(new: &Value, old: &Value, namespaced: bool) -> ErrorList {
    let mut found = validate(new, namespaced);
    if new["roleRef"] != old["roleRef"] {
        // Upstream prints its internal type, whose fields have Go's names; where a declarative rule speaks, nothing.
        let role = &new["roleRef"];
        let shown = if namespaced {
            json!({"APIGroup": role.text("apiGroup"), "Kind": role.text("kind"), "Name": role.text("name")})
        } else {
            Value::Null
        };
        found.push(invalid(&Path::new("roleRef"), shown, IMMUTABLE));
    }
    found
}
