//! Entries of a workload as its Scale has them, and back (apimachinery `util/managedfields/scalehandler.go`).

use super::managed::{Fields, Manager, entries_of, to_json};
use super::set::Set;
use serde_json::Value;

const REPLICAS: &[&str] = &["f:spec", "f:replicas"];
const SCALE: &str = "autoscaling/v1";

fn replicas() -> Set {
    let mut set = Set::default();
    set.insert(REPLICAS);
    set
}

/// Who holds the replicas of a workload (of version `parent`), as entries of its Scale.
pub fn to_scale(object: &Value, parent: &str) -> Value {
    let holding = entries_of(object)
        .into_iter()
        .filter(|entry| entry.manager.api_version == parent && entry.fields.to_set().has(REPLICAS));
    to_json(holding.map(|entry| entry.of(SCALE, replicas())).collect())
}

/// A workload's entries after a write to its Scale, whose entries are `scale`.
pub fn to_parent(object: &Value, scale: &Value, parent: &str) -> Value {
    let mut scaled = entries_of(scale);
    let mut all = Vec::new();
    let held = entries_of(object);
    let times: Vec<(Manager, String)> = held.iter().map(|entry| (entry.manager.clone(), entry.time.clone())).collect();
    for mut entry in held {
        let mut set = entry.fields.to_set();
        if entry.manager.api_version != parent {
            // Of a version that knows no Scale.
            continue;
        }
        if set.has(REPLICAS) {
            match scaled.iter().position(|other| other.manager.is(&entry.manager)) {
                Some(at) => drop(scaled.remove(at)),
                None => {
                    set.subtract(&replicas());
                    entry.fields = Fields::Set(set);
                }
            }
        }
        if !entry.fields.is_empty() {
            all.push(entry);
        }
    }
    for entry in scaled.into_iter().filter(|entry| entry.fields.to_set().has(REPLICAS)) {
        // Upstream loses the time on this way, but for who had an entry before.
        let time = times.iter().find(|(manager, _)| manager.is(&entry.manager)).map(|(_, time)| time.clone());
        let mut entry = entry.of(parent, replicas());
        entry.time = time.unwrap_or_default();
        all.push(entry);
    }
    to_json(all)
}
