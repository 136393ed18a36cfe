//! An applied object on top of the live one, and fields taken out of an object (structured-merge-diff `typed/merge.go`,
//! `typed/remove.go`).

use super::compare::by_key;
use super::form::Form;
use super::set::{self, Set};
use crate::table::Table;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What the two make together; the applied one wins. `None` where nothing is left.
pub(super) fn merge(table: &Table, form: &Form<'_>, live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
    let length = |value: Option<&Value>| {
        let value = value?;
        value.as_object().map(Map::len).or_else(|| value.as_array().map(Vec::len))
    };
    let empty = length(live).unwrap_or(0) + length(applied).unwrap_or(0) == 0;
    if form.is_leaf() || empty {
        return applied.or(live).cloned();
    }
    match form {
        Form::Struct(_) | Form::Map(_) => {
            let nothing = Map::new();
            let live = live.and_then(Value::as_object).unwrap_or(&nothing);
            let applied = applied.and_then(Value::as_object).unwrap_or(&nothing);
            let mut out = Map::new();
            for name in live.keys().chain(applied.keys()).collect::<BTreeSet<_>>() {
                let merged = merge(table, &form.entry(table, name), live.get(name), applied.get(name));
                if let Some(merged) = merged {
                    out.insert(name.clone(), merged);
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        _ => {
            let list = |value: Option<&'_ Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
            let out = items(table, form, &list(live), &list(applied));
            (!out.is_empty()).then_some(Value::Array(out))
        }
    }
}

/// The items of both: the applied ones in their order, and the live ones that are not among them where they stood.
fn items(table: &Table, form: &Form<'_>, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let keyed = |items: &[Value]| -> Vec<(usize, String)> {
        let keys = items.iter().enumerate().filter_map(|(at, item)| Some((at, form.element(table, item).ok()?)));
        keys.collect()
    };
    let (left, right) = (keyed(live), keyed(applied));
    let (by_left, by_right) = (by_key(table, form, live), by_key(table, form, applied));
    let item = form.item(table);
    // Of one that stands twice in the live list nothing is merged.
    let merged = |key: &str| {
        let only =
            |items: Option<&Vec<&'_ Value>>| items.filter(|items| items.len() == 1).map(|items| items[0].clone());
        merge(table, &item, only(by_left.get(key)).as_ref(), only(by_right.get(key)).as_ref())
    };
    let mut shared = right.iter().map(|(_, key)| key).filter(|key| by_left.contains_key(*key));
    let mut next_shared = shared.next();
    let mut done = BTreeSet::new();
    let mut out = Vec::new();
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if let (Some((_, key)), Some((_, other))) = (left.get(l), right.get(r)) {
            if key == other {
                done.insert(key);
                out.extend(merged(key));
                l += 1;
                r += 1;
                next_shared = shared.next();
                continue;
            }
            // Comes later in the applied order, where it is merged.
            if by_right.contains_key(key) && next_shared.is_some_and(|next| next != key) {
                l += 1;
                continue;
            }
        }
        if let Some((at, key)) = left.get(l) {
            if !by_right.contains_key(key) {
                out.extend(merge(table, &item, Some(&live[*at]), None));
                l += 1;
                continue;
            } else if done.contains(key) {
                l += 1;
            }
        }
        if let Some((_, key)) = right.get(r) {
            done.insert(key);
            out.extend(merged(key));
            r += 1;
            if next_shared == Some(key) {
                next_shared = shared.next();
            }
        }
    }
    out
}

/// The value without the paths of the set.
pub(super) fn without(table: &Table, form: &Form<'_>, value: &Value, paths: &Set) -> Value {
    match (form, value) {
        (Form::Scalar(_), value) => value.clone(),
        (Form::Struct(_) | Form::Map(_), Value::Object(map)) if !map.is_empty() => {
            let mut out = Map::new();
            for (name, value) in map {
                match paths.below.get(&set::field(name)) {
                    Some(below) if below.member => {}
                    Some(below) if !below.below.is_empty() => {
                        out.insert(name.clone(), without(table, &form.entry(table, name), value, below));
                    }
                    _ => drop(out.insert(name.clone(), value.clone())),
                }
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        (Form::Set(_) | Form::Keyed(..), Value::Array(items)) if !items.is_empty() => {
            let mut out = Vec::new();
            for item in items {
                let key = form.element(table, item).unwrap_or_default();
                match paths.below.get(&key) {
                    Some(below) if below.member => {}
                    Some(below) if !below.below.is_empty() => {
                        out.push(without(table, &form.item(table), item, below));
                    }
                    _ => out.push(item.clone()),
                }
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        _ => Value::Null,
    }
}
