//! What differs between two objects of a type (structured-merge-diff `typed/compare.go`). What is equal costs a comparison of
//! the values and nothing else.

use super::form::Form;
use super::set::{self, Set};
use crate::table::Table;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What a change did.
#[derive(Debug, Clone, Default)]
pub(super) struct Difference {
    /// Added or changed.
    pub set: Set,
    pub removed: Set,
}

pub(super) fn compare(table: &Table, form: &Form<'_>, old: &Value, new: &Value) -> Difference {
    let mut difference = Difference::default();
    walk(table, form, old, new, &mut difference.set, &mut difference.removed);
    difference
}

fn walk(table: &Table, form: &Form<'_>, old: &Value, new: &Value, set: &mut Set, removed: &mut Set) {
    if old == new {
        return;
    }
    let lengths = length(old) + length(new);
    // Two empty ones are compared as a whole.
    if form.is_leaf() || lengths == 0 {
        set.member = true;
        return;
    }
    match form {
        Form::Struct(_) | Form::Map(_) => {
            let nothing = Map::new();
            let (old, new) = (old.as_object().unwrap_or(&nothing), new.as_object().unwrap_or(&nothing));
            for (name, before) in old {
                let now = new.get(name);
                if now != Some(before) {
                    pair(table, &form.entry(table, name), &set::field(name), Some(before), now, set, removed);
                }
            }
            for (name, now) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                pair(table, &form.entry(table, name), &set::field(name), None, Some(now), set, removed);
            }
        }
        _ => items(table, form, list(old), list(new), set, removed),
    }
}

/// One entry or item on both sides.
fn pair(
    table: &Table,
    form: &Form<'_>,
    key: &str,
    old: Option<&Value>,
    new: Option<&Value>,
    set: &mut Set,
    removed: &mut Set,
) {
    match (old, new) {
        (Some(old), Some(new)) => {
            walk(table, form, old, new, set.child(key), removed.child(key));
            for side in [set, removed] {
                if side.below.get(key).is_some_and(Set::is_empty) {
                    side.below.remove(key);
                }
            }
        }
        (None, Some(new)) => whole(table, form, new, set.child(key)),
        (Some(old), None) => whole(table, form, old, removed.child(key)),
        (None, None) => {}
    }
}

/// Everything of a value that is on one side only.
fn whole(table: &Table, form: &Form<'_>, value: &Value, into: &mut Set) {
    into.member = true;
    match (form, value) {
        (form, _) if form.is_leaf() => {}
        (Form::Struct(_) | Form::Map(_), Value::Object(map)) => {
            for (name, value) in map {
                whole(table, &form.entry(table, name), value, into.child(&set::field(name)));
            }
        }
        (_, Value::Array(items)) => {
            for (key, items) in by_key(table, form, items) {
                let child = into.child(&key);
                child.member = true;
                if let [one] = items.as_slice() {
                    whole(table, &form.item(table), one, child);
                }
            }
        }
        _ => {}
    }
}

fn items(table: &Table, form: &Form<'_>, old: &[Value], new: &[Value], set: &mut Set, removed: &mut Set) {
    let (old, new) = (by_key(table, form, old), by_key(table, form, new));
    let item = form.item(table);
    let nothing = Vec::new();
    for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
        let (before, now) = (old.get(key).unwrap_or(&nothing), new.get(key).unwrap_or(&nothing));
        match (before.as_slice(), now.as_slice()) {
            ([] | [_], [] | [_]) => {
                pair(table, &item, key, before.first().copied(), now.first().copied(), set, removed);
            }
            ([_, _, ..], [_, _, ..]) => {
                if before != now {
                    set.child(key).member = true;
                }
            }
            ([_, _, ..], now) => {
                pair(table, &item, key, None, now.first().copied(), set, removed);
                removed.child(key).member = true;
            }
            (before, _) => {
                pair(table, &item, key, before.first().copied(), None, set, removed);
                set.child(key).member = true;
            }
        }
    }
}

/// A list's items by their path element; live objects may hold one twice.
pub(super) fn by_key<'v>(table: &Table, form: &Form<'_>, items: &'v [Value]) -> BTreeMap<String, Vec<&'v Value>> {
    let mut all: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(key) = form.element(table, item) {
            all.entry(key).or_default().push(item);
        }
    }
    all
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn length(value: &Value) -> usize {
    value.as_object().map_or(0, Map::len) + list(value).len()
}
