//! `metadata.managedFields`: who set which field (apimachinery `util/managedfields`). Server-side apply is not here yet;
//! entries of other servers' applies are kept and lose the fields that others change.

mod field_set;

use crate::call::Call;
use crate::query::WriteOptions;
use crate::world;
use api::meta;
use field_set::{FieldSet, compare};
use schema::decode::{self, Decoded};
use serde_json::{Value, json};

/// Managers by update that are told apart; older ones are merged (upstream `CapManagersManager`).
const UPDATE_MANAGERS_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// Fields that nobody owns.
const STRIPPED: &[&[&str]] = &[
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:selfLink"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:clusterName"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
];

#[derive(Debug, Clone)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    subresource: String,
    time: String,
    fields: FieldSet,
}

/// Stamps a new object; call it with the object as decoded and defaulted, before admission changes it.
pub(crate) fn created(call: &Call<'_>, object: &mut Value, options: &WriteOptions) {
    meta::unset(object, "managedFields");
    // What Go's empty object of the kind holds is no new field.
    let empty = json!({"kind": call.resource.kind, "apiVersion": call.resource.api_version()});
    let empty = decode::normalize(api::table::table(), call.resource.of, Decoded { value: empty, strict: Vec::new() });
    let empty = empty.map_or_else(|_| json!({}), |decoded| decoded.value);
    stamp(call, object, &empty, Vec::new(), options);
}

/// Stamps a changed object against the stored one.
pub(crate) fn updated(call: &Call<'_>, object: &mut Value, old: &Value, options: &WriteOptions) {
    let sent = object["metadata"].get("managedFields").and_then(Value::as_array).cloned().unwrap_or_default();
    let reset = sent.len() == 1 && sent[0].as_object().is_some_and(serde_json::Map::is_empty);
    let kept = old["metadata"].get("managedFields").and_then(Value::as_array).cloned().unwrap_or_default();
    let entries = if reset {
        Vec::new()
    } else if sent.is_empty() {
        kept
    } else {
        sent
    };
    let entries = entries.iter().map(Entry::parse).collect();
    stamp(call, object, old, entries, options);
}

fn stamp(call: &Call<'_>, object: &mut Value, old: &Value, mut entries: Vec<Entry>, options: &WriteOptions) {
    let mut difference = compare(api::table::table(), call.resource.of, old, object);
    for set in [&mut difference.set, &mut difference.removed] {
        for path in STRIPPED {
            set.remove(path);
        }
        // The status has a door of its own, and who comes through the main one sets nothing in it.
        if call.subresource.is_none() && call.resource.subresources.iter().any(|s| s.name == "status") {
            set.remove(&["f:status"]);
        }
        if call.resource.plural == "certificatesigningrequests" {
            // Written once, in part by the server.
            set.remove(&["f:spec"]);
        }
    }
    let manager = manager(call, options);
    let subresource = call.subresource.map(|s| s.name).unwrap_or_default();
    let api_version = call.resource.api_version();
    // Upstream loses the time on the way from the Scale to the object.
    let now = if subresource == "scale" { String::new() } else { world::rfc3339(call.now) };
    let is_own = |entry: &Entry| {
        entry.manager == manager
            && entry.operation == "Update"
            && entry.api_version == api_version
            && entry.subresource == subresource
    };
    for entry in &mut entries {
        let before = entry.fields.clone();
        entry.fields.subtract_trees(&difference.removed);
        if !is_own(entry) {
            entry.fields.subtract(&difference.set);
        }
        if is_own(entry) {
            entry.fields.union(&difference.set);
            if entry.fields != before {
                entry.time.clone_from(&now);
            }
        }
    }
    if !difference.set.is_empty() && !entries.iter().any(is_own) {
        let operation = "Update".to_owned();
        let subresource = subresource.to_owned();
        entries.push(Entry {
            manager: manager.clone(),
            operation,
            api_version,
            subresource,
            time: now,
            fields: difference.set,
        });
    }
    entries.retain(|entry| !entry.fields.is_empty());
    cap(&mut entries);
    // Applies first, then by time, then by name.
    entries.sort_by(|a, b| {
        let key = |e: &Entry| {
            (e.operation != "Apply", e.time.clone(), e.manager.clone(), e.api_version.clone(), e.subresource.clone())
        };
        key(a).cmp(&key(b))
    });
    if entries.is_empty() {
        meta::unset(object, "managedFields");
    } else {
        meta::set(object, "managedFields", entries.iter().map(Entry::to_json).collect::<Vec<_>>());
    }
}

/// The name that a change is recorded under: the option, or the client's program.
fn manager(call: &Call<'_>, options: &WriteOptions) -> String {
    if !options.field_manager.is_empty() {
        return options.field_manager.clone();
    }
    let program = call.header("user-agent").split('/').next().unwrap_or_default();
    let printable: String = program.chars().filter(|c| !c.is_control()).collect();
    let mut end = printable.len().min(128);
    while !printable.is_char_boundary(end) {
        end -= 1;
    }
    printable[..end].to_owned()
}

/// Merges the oldest updates when there are too many.
fn cap(entries: &mut Vec<Entry>) {
    let mut updates: Vec<usize> = (0..entries.len())
        .filter(|i| entries[*i].operation == "Update" && entries[*i].subresource.is_empty())
        .collect();
    if updates.len() <= UPDATE_MANAGERS_MAX {
        return;
    }
    updates.sort_by(|a, b| entries[*a].time.cmp(&entries[*b].time));
    let surplus = updates.len() - UPDATE_MANAGERS_MAX + 1;
    let mut merged: Vec<Entry> = Vec::new();
    let mut gone: Vec<usize> = updates.into_iter().take(surplus).collect();
    gone.sort_unstable_by(|a, b| b.cmp(a));
    for index in gone {
        let old = entries.remove(index);
        match merged.iter_mut().find(|m| m.api_version == old.api_version) {
            Some(into) => {
                into.fields.union(&old.fields);
                if into.time < old.time {
                    into.time = old.time;
                }
            }
            None => merged.push(Entry { manager: ANCIENT.to_owned(), ..old }),
        }
    }
    entries.extend(merged);
}

impl Entry {
    fn parse(entry: &Value) -> Self {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        Self {
            manager: text("manager"),
            operation: text("operation"),
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields: FieldSet::parse(&entry["fieldsV1"]),
        }
    }

    fn to_json(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_json(),
        });
        if !self.time.is_empty() {
            entry["time"] = self.time.as_str().into();
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.as_str().into();
        }
        entry
    }
}
