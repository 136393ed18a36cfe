//! Sets of field paths, in the form of `FieldsV1` (structured-merge-diff `fieldpath`).

use super::form::Form;
use crate::field::go_quote;
use crate::table::Table;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A set of paths as a tree. A key is a path element as `FieldsV1` writes it: `f:name`, `k:{…}`, `v:…`, `i:…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    pub(super) member: bool,
    pub(super) below: BTreeMap<String, Set>,
}

/// What of a change counts for its writer; the rest is reset by the kind's rules (upstream `GetResetFields`). Paths are
/// written as in a [`Set`]; `*` stands for any element.
#[derive(Debug, Clone, Copy)]
pub enum Filter {
    /// All but these and what lies below them.
    Without(&'static [&'static [&'static str]]),
    /// Only these, what lies below them, and the way to them.
    Only(&'static [&'static [&'static str]]),
}

impl Set {
    pub fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    /// From `FieldsV1`. Elements of unknown form are left out, those of keys and values are brought to the form that is
    /// made here; `None` where the value is no field set at all.
    pub(super) fn parse(fields: &Value) -> Option<Self> {
        Some(Self { member: false, ..Self::parse_node(fields)? })
    }

    fn parse_node(fields: &Value) -> Option<Self> {
        let map = fields.as_object()?;
        let mut set = Self { member: map.contains_key(".") || map.is_empty(), below: BTreeMap::new() };
        for (key, value) in map.iter().filter(|(key, _)| *key != ".") {
            if let Some(key) = canonical(key)? {
                set.below.insert(key, Self::parse_node(value)?);
            }
        }
        Some(set)
    }

    pub(super) fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.below.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (key, set) in &self.below {
            map.insert(key.clone(), set.to_json());
        }
        Value::Object(map)
    }

    pub(super) fn union(&mut self, other: &Self) {
        self.member |= other.member;
        for (key, set) in &other.below {
            self.below.entry(key.clone()).or_default().union(set);
        }
    }

    /// Takes away the paths of `other`, not what lies below them.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (key, set) in &other.below {
            if let Some(own) = self.below.get_mut(key) {
                own.subtract(set);
                if own.is_empty() {
                    self.below.remove(key);
                }
            }
        }
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self { member: self.member && other.member, below: BTreeMap::new() };
        for (key, set) in &other.below {
            if let Some(own) = self.below.get(key) {
                let common = own.intersection(set);
                if !common.is_empty() {
                    both.below.insert(key.clone(), common);
                }
            }
        }
        both
    }

    /// The set below an element, empty or not.
    pub(super) fn child(&mut self, key: &str) -> &mut Self {
        if !self.below.contains_key(key) {
            self.below.insert(key.to_owned(), Self::default());
        }
        self.below.get_mut(key).unwrap_or_else(|| unreachable!("inserted above"))
    }

    pub(super) fn has(&self, path: &[&str]) -> bool {
        match path {
            [] => self.member,
            [first, rest @ ..] => self.below.get(*first).is_some_and(|set| set.has(rest)),
        }
    }

    pub(super) fn insert(&mut self, path: &[&str]) {
        match path {
            [] => self.member = true,
            [first, rest @ ..] => self.child(first).insert(rest),
        }
    }

    /// Takes away a path with everything below it.
    fn remove(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => drop(self.below.remove(*last)),
            [first, rest @ ..] => {
                if let Some(own) = self.below.get_mut(*first) {
                    own.remove(rest);
                    if own.is_empty() {
                        self.below.remove(*first);
                    }
                }
            }
        }
    }

    pub(super) fn filter(&mut self, filter: Filter) {
        match filter {
            Filter::Without(paths) => paths.iter().for_each(|path| self.remove(path)),
            Filter::Only(paths) => self.keep(paths),
        }
    }

    fn keep(&mut self, paths: &[&[&str]]) {
        if paths.iter().any(|path| path.is_empty()) {
            return;
        }
        self.below.retain(|key, set| {
            let fitting = paths.iter().filter(|path| path[0] == "*" || path[0] == key);
            let behind: Vec<&[&str]> = fitting.map(|path| &path[1..]).collect();
            if behind.is_empty() {
                return false;
            }
            set.keep(&behind);
            !set.is_empty()
        });
    }

    /// As upstream's `EnsureNamedFieldsAreMembers`: a struct's field belongs to who owns something in it.
    pub(super) fn with_named_fields(&self, table: &Table, form: &Form<'_>) -> Self {
        let mut all = Self { member: self.member, below: BTreeMap::new() };
        for (key, set) in &self.below {
            let mut below = set.with_named_fields(table, &form.below(table, key));
            below.member |= form.names(table, key) && !set.below.is_empty();
            all.below.insert(key.clone(), below);
        }
        all
    }

    /// The paths, as upstream prints them: `.spec.containers[name="a"].image`; those of one level before those below.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.collect(&mut String::new(), &mut all);
        all
    }

    fn collect(&self, path: &mut String, all: &mut Vec<String>) {
        let length = path.len();
        for key in self.below.iter().filter(|(_, set)| set.member).map(|(key, _)| key) {
            all.push(format!("{path}{}", printed(key)));
        }
        for (key, set) in &self.below {
            path.push_str(&printed(key));
            set.collect(path, all);
            path.truncate(length);
        }
    }
}

/// Whether a path is a member both of the `FieldsV1` value and of the set.
pub(super) fn meets(fields: &Value, set: &Set) -> bool {
    let Some(map) = fields.as_object() else {
        return false;
    };
    set.below
        .iter()
        .any(|(key, set)| map.get(key).is_some_and(|fields| (set.member && is_member(fields)) || meets(fields, set)))
}

/// Whether every path of the set is a member of the `FieldsV1` value.
pub(super) fn contains(fields: &Value, set: &Set) -> bool {
    let Some(map) = fields.as_object() else {
        return false;
    };
    set.below.iter().all(|(key, set)| {
        map.get(key).is_some_and(|fields| (!set.member || is_member(fields)) && contains(fields, set))
    })
}

fn is_member(fields: &Value) -> bool {
    fields.as_object().is_some_and(|map| map.is_empty() || map.contains_key("."))
}

/// The key of a field.
pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The form of a key that is made here; `Some(None)` for elements of an unknown kind, `None` for what is malformed.
#[allow(clippy::option_option)] // Two ways of having nothing, both used at one place.
fn canonical(key: &str) -> Option<Option<String>> {
    let (kind, rest) = key.split_once(':')?;
    Some(match kind {
        "f" | "i" => Some(key.to_owned()),
        "k" => {
            let fields: Map<String, Value> = serde_json::from_str(rest).ok()?;
            Some(format!("k:{}", Value::Object(fields)))
        }
        "v" => Some(format!("v:{}", serde_json::from_str::<Value>(rest).ok()?)),
        _ => None,
    })
}

/// A key as errors show it.
pub(super) fn printed(key: &str) -> String {
    let Some((kind, rest)) = key.split_once(':') else {
        return key.to_owned();
    };
    match kind {
        "f" => format!(".{rest}"),
        "k" => {
            let fields: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
            format!("[{}]", fields.join(","))
        }
        "v" => format!("[={}]", shown(&serde_json::from_str(rest).unwrap_or_default())),
        _ => format!("[{rest}]"),
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), go_quote)
}
