//! The entries of `metadata.managedFields`, and what updates and applies make of them (apimachinery
//! `util/managedfields/internal`, structured-merge-diff `merge/update.go`).

use super::compare::{Difference, compare};
use super::form::{Form, field_set};
use super::merge::{merge, without};
use super::set::{Filter, Set, contains, meets};
use super::validate::validate;
use crate::table::{Table, TypeId};
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Managers by update that are told apart; the oldest of more are merged (upstream `DefaultMaxUpdateManagers`).
const UPDATE_MANAGERS_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";
/// Who owns what an object held before anybody applied it.
const BEFORE_APPLY: &str = "before-first-apply";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Longer annotations are refused, so that none is made (upstream `TotalAnnotationSizeLimitB`).
const ANNOTATIONS_MAX_BYTES: usize = 256 << 10;

/// What nobody owns (upstream `stripMetaManager`).
const STRIPPED: &[&[&str]] = &[
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata"],
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

/// An object in a version, with its type.
#[derive(Debug)]
pub struct Version {
    pub of: TypeId,
    pub object: Value,
}

/// One write, and all that is asked of its surroundings.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    pub table: &'a Table,
    /// The type of the objects.
    pub of: TypeId,
    /// Theirs: `apps/v1`.
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub manager: &'a str,
    /// RFC 3339, seconds.
    pub now: &'a str,
    /// What the kind's rules reset at this door.
    pub filter: Option<Filter>,
    /// An object in another version; `None` where that is not served.
    pub in_version: &'a dyn Fn(&Value, &str) -> Option<Version>,
}

/// Who holds a field, as a conflict names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    name: String,
    /// `Apply` or `Update`.
    operation: String,
    /// Of applies only for the record; it does not tell them apart.
    pub(super) api_version: String,
    subresource: String,
}

/// A field that somebody else holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    pub manager: Manager,
    /// `.spec.replicas`
    pub path: String,
}

/// Why an apply was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The applied object does not fit its type.
    #[error("{0}")]
    Untyped(String),
}

/// Fields as they were read; most entries of an update are handed on as they came.
#[derive(Debug, Clone)]
pub(super) enum Fields {
    Raw(Value),
    Set(Set),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub manager: Manager,
    pub time: String,
    pub fields: Fields,
}

/// Stamps `new` against the object that is there (or an empty one of the kind, for a create; it has no uid).
pub fn update(writer: &Writer<'_>, live: &Value, new: &mut Value) {
    let entries = live_or_new(writer, live, new);
    let Some(entries) = entries else {
        return;
    };
    let is_new = live.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().is_empty();
    // Who does not track fields yet begins with an apply.
    if entries.is_empty() && !is_new {
        return;
    }
    let entries = updated(writer, live, new, entries, writer.manager);
    set_entries(new, entries);
}

/// The entries that a write begins with; those of `new` are taken out of it.
fn live_or_new(writer: &Writer<'_>, live: &Value, new: &mut Value) -> Option<Vec<Entry>> {
    let metadata = new.get_mut("metadata").and_then(Value::as_object_mut)?;
    let sent = metadata.remove("managedFields");
    let held = live.pointer("/metadata/managedFields");
    if !writer.subresource.is_empty() {
        return Some(entries_of(live));
    }
    match sent {
        Some(Value::Array(entries)) if is_reset(&entries) => Some(Vec::new()),
        // As it is there: nothing is to be checked.
        Some(sent) if Some(&sent) == held => Some(parse(sent).unwrap_or_default()),
        Some(sent) => match parse(sent).filter(|entries| !entries.is_empty()).and_then(canonical) {
            Some(entries) => Some(entries),
            None => Some(entries_of(live)),
        },
        None => Some(entries_of(live)),
    }
}

/// An empty list, or one empty entry, takes all entries away.
fn is_reset(entries: &[Value]) -> bool {
    match entries {
        [] => true,
        [one] => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// `None` where an entry is malformed.
fn parse(entries: Value) -> Option<Vec<Entry>> {
    let Value::Array(entries) = entries else {
        return Some(Vec::new());
    };
    let mut all: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let entry = Entry::parse(entry)?;
        // Of two entries of one manager the later counts.
        all.retain(|other| !other.manager.is(&entry.manager));
        all.push(entry);
    }
    Some(all)
}

/// An object's entries; none where they are malformed.
pub(super) fn entries_of(object: &Value) -> Vec<Entry> {
    object.pointer("/metadata/managedFields").cloned().and_then(parse).unwrap_or_default()
}

/// The entries in their order: applies first, then by time and name.
pub(super) fn to_json(mut entries: Vec<Entry>) -> Value {
    entries.sort_by(|a, b| a.order().cmp(&b.order()));
    Value::Array(entries.into_iter().map(Entry::into_json).collect())
}

/// Entries of strangers in the form that is made here.
fn canonical(mut entries: Vec<Entry>) -> Option<Vec<Entry>> {
    for entry in &mut entries {
        if let Fields::Raw(raw) = &entry.fields {
            entry.fields = Fields::Set(Set::parse(raw)?);
        }
    }
    Some(entries)
}

fn updated(writer: &Writer<'_>, live: &Value, new: &Value, mut entries: Vec<Entry>, manager: &str) -> Vec<Entry> {
    let differences = Differences::new(writer, live, new);
    let own = Manager {
        name: if manager.is_empty() { "unknown" } else { manager }.to_owned(),
        operation: "Update".to_owned(),
        api_version: writer.api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
    };
    entries.retain_mut(|entry| {
        differences.of(&entry.manager.api_version, |difference| {
            // What the writer changes stays its own.
            if entry.manager != own {
                entry.fields.subtract(&difference.set);
            }
            entry.fields.subtract(&difference.removed);
            !entry.fields.is_empty()
        })
    });
    let mut set = differences.of_writer.set.clone();
    set.subtract(&stripped());
    if !set.is_empty() {
        match entries.iter_mut().find(|entry| entry.manager == own) {
            Some(entry) => {
                entry.fields.union(&set);
                writer.now.clone_into(&mut entry.time);
            }
            None => entries.push(Entry { manager: own, time: writer.now.to_owned(), fields: Fields::Set(set) }),
        }
    }
    cap(entries)
}

fn stripped() -> Set {
    let mut set = Set::default();
    STRIPPED.iter().for_each(|path| set.insert(path));
    set
}

/// What a change did, in each version that is asked for.
struct Differences<'a> {
    writer: &'a Writer<'a>,
    old: &'a Value,
    new: &'a Value,
    of_writer: Difference,
    others: RefCell<BTreeMap<String, Option<Difference>>>,
}

impl<'a> Differences<'a> {
    fn new(writer: &'a Writer<'a>, old: &'a Value, new: &'a Value) -> Self {
        let of_writer = Self::compare(writer, writer.of, old, new);
        Self { writer, old, new, of_writer, others: RefCell::default() }
    }

    fn compare(writer: &Writer<'_>, of: TypeId, old: &Value, new: &Value) -> Difference {
        let mut difference = compare(writer.table, &Form::Struct(of), old, new);
        if let Some(filter) = writer.filter {
            difference.set.filter(filter);
            difference.removed.filter(filter);
        }
        difference
    }

    /// False for a version that is not served any more.
    fn of(&self, version: &str, judge: impl FnOnce(&Difference) -> bool) -> bool {
        if version == self.writer.api_version {
            return judge(&self.of_writer);
        }
        let mut others = self.others.borrow_mut();
        if !others.contains_key(version) {
            let both = (self.writer.in_version)(self.old, version).zip((self.writer.in_version)(self.new, version));
            let difference = both.map(|(old, new)| Self::compare(self.writer, old.of, &old.object, &new.object));
            others.insert(version.to_owned(), difference);
        }
        others.get(version).and_then(Option::as_ref).is_some_and(judge)
    }
}

/// Merges the oldest updates of a version when there are too many.
fn cap(mut entries: Vec<Entry>) -> Vec<Entry> {
    let mut updates: Vec<(String, Manager)> = entries
        .iter()
        .filter(|entry| !entry.is_apply())
        .map(|entry| (entry.time.clone(), entry.manager.clone()))
        .collect();
    let mut count = updates.len();
    if count <= UPDATE_MANAGERS_MAX {
        return entries;
    }
    updates.sort();
    let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
    for (time, manager) in updates {
        if count <= UPDATE_MANAGERS_MAX {
            break;
        }
        let bucket = Manager {
            name: ANCIENT.to_owned(),
            operation: "Update".to_owned(),
            api_version: manager.api_version.clone(),
            subresource: String::new(),
        };
        let Some(first) = first_of.get(&manager.api_version) else {
            first_of.insert(manager.api_version.clone(), manager);
            continue;
        };
        if !entries.iter().any(|entry| entry.manager == bucket)
            && let Some(entry) = entries.iter_mut().find(|entry| entry.manager == *first)
        {
            entry.manager = bucket.clone();
        }
        let Some(at) = entries.iter().position(|entry| entry.manager == manager) else {
            continue;
        };
        if entries[at].manager != bucket {
            let set = entries.remove(at).fields.into_set();
            count -= 1;
            if let Some(entry) = entries.iter_mut().find(|entry| entry.manager == bucket) {
                entry.fields.union(&set);
                entry.time = time;
            }
        }
    }
    entries
}

/// What came of an apply.
#[derive(Debug)]
pub struct Applied {
    /// With its `managedFields`; not in normal form yet.
    pub object: Value,
    /// Whether anything but `managedFields` differs from the live object.
    pub changed: bool,
}

/// Applies a configuration to the live object (or an empty one of the kind). `applied` is of the writer's version and has no
/// `managedFields`. kubectl takes over what it applied on its own side before (`last-applied-configuration`).
///
/// # Errors
/// Conflicts, unless `force`; a configuration that does not fit its type.
pub fn apply(writer: &Writer<'_>, live: &Value, applied: &Value, force: bool) -> Result<Applied, ApplyError> {
    let mut entries = entries_of(live);
    if entries.is_empty() {
        let empty = json!({"kind": live["kind"], "apiVersion": live["apiVersion"]});
        let empty = (writer.in_version)(&empty, writer.api_version).map_or(empty, |version| version.object);
        entries = updated(writer, &empty, live, entries, BEFORE_APPLY);
    }
    let mut result = merged(writer, live, applied, entries.clone(), force);
    if writer.manager == "kubectl" {
        if let Err(ApplyError::Conflicts(conflicts)) = &result {
            let allowed = allowed_by_last_applied(writer, live);
            let left: Vec<Conflict> =
                conflicts.iter().filter(|conflict| !allowed.contains(&conflict.path)).cloned().collect();
            result = if left.is_empty() {
                merged(writer, live, applied, entries, true)
            } else {
                Err(ApplyError::Conflicts(left))
            };
        }
        if let Ok(applied_to) = &mut result {
            renew_last_applied(&mut applied_to.object, applied);
        }
    }
    result
}

fn merged(
    writer: &Writer<'_>,
    live: &Value,
    applied: &Value,
    entries: Vec<Entry>,
    force: bool,
) -> Result<Applied, ApplyError> {
    let (table, form) = (writer.table, Form::Struct(writer.of));
    validate(table, &form, applied).map_err(ApplyError::Untyped)?;
    let own = Manager {
        name: writer.manager.to_owned(),
        operation: "Apply".to_owned(),
        api_version: String::new(),
        subresource: writer.subresource.to_owned(),
    };
    let mut entries = entries;
    entries.iter_mut().for_each(Entry::open);
    let last = entries.iter().position(|entry| entry.manager.is(&own)).map(|at| entries.remove(at));
    let mut set = field_set(table, &form, applied);
    if let Some(filter) = writer.filter {
        set.filter(filter);
    }
    let object = merge(table, &form, Some(live), Some(applied)).unwrap_or_default();
    let object = prune(writer, object, &entries, &set, last.as_ref());
    let differences = Differences::new(writer, live, &object);
    let mut conflicts = Vec::new();
    entries.retain_mut(|entry| {
        differences.of(&entry.manager.api_version, |difference| {
            let taken = entry.fields.intersection(&difference.set);
            let paths = taken.paths().into_iter();
            conflicts.extend(paths.map(|path| Conflict { manager: entry.manager.clone(), path }));
            entry.fields.subtract(&taken);
            entry.fields.subtract(&difference.removed);
            !entry.fields.is_empty()
        })
    });
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    set.subtract(&stripped());
    let changed = *live != object;
    if !set.is_empty() {
        // Who applies what is there already changes no time.
        let time = if changed { writer.now.to_owned() } else { last.map(|entry| entry.time).unwrap_or_default() };
        let manager = Manager { api_version: writer.api_version.to_owned(), ..own };
        entries.push(Entry { manager, time, fields: Fields::Set(set) });
    }
    let mut object = object;
    set_entries(&mut object, entries);
    Ok(Applied { object, changed })
}

/// Takes out what the manager applied before, applies no more, and nobody else holds.
fn prune(writer: &Writer<'_>, merged: Value, others: &[Entry], set: &Set, last: Option<&Entry>) -> Value {
    let Some(last) = last.filter(|last| !last.fields.is_empty()) else {
        return merged;
    };
    let version = last.manager.api_version.as_str();
    let Some(Version { of, object }) = in_version(writer, &merged, version) else {
        return merged;
    };
    let table = writer.table;
    let form = Form::Struct(of);
    let last = last.fields.to_set().with_named_fields(table, &form);
    let mut pruned = without(table, &form, &object, &last);
    // What others, or this configuration, hold comes back.
    let mut held: BTreeMap<&str, Set> = BTreeMap::new();
    for entry in others {
        held.entry(&entry.manager.api_version).or_default().union(&entry.fields.to_set());
    }
    held.entry(writer.api_version).or_default().union(set);
    let (first, rest): (Vec<_>, Vec<_>) = held.into_iter().partition(|(of, _)| *of == version);
    for (version, held) in first.into_iter().chain(rest) {
        let both = in_version(writer, &object, version).zip(in_version(writer, &pruned, version));
        if let Some((whole, part)) = both {
            let form = Form::Struct(whole.of);
            let named = |set: Set| set.with_named_fields(table, &form);
            let mut gone = named(field_set(table, &form, &whole.object));
            gone.subtract(&named(field_set(table, &form, &part.object)));
            gone.subtract(&named(held));
            pruned = without(table, &form, &whole.object, &gone);
        }
    }
    // What was never this manager's comes back, too.
    let Some(Version { object: part, .. }) = in_version(writer, &pruned, version) else {
        return merged;
    };
    let mut gone = field_set(table, &form, &object).with_named_fields(table, &form);
    gone.subtract(&field_set(table, &form, &part).with_named_fields(table, &form));
    let gone = gone.intersection(&last);
    let pruned = without(table, &form, &object, &gone);
    in_version(writer, &pruned, writer.api_version).map_or(merged, |version| version.object)
}

fn in_version(writer: &Writer<'_>, object: &Value, version: &str) -> Option<Version> {
    if object["apiVersion"] == version {
        let of = if version == writer.api_version { writer.of } else { (writer.in_version)(object, version)?.of };
        return Some(Version { of, object: object.clone() });
    }
    (writer.in_version)(object, version)
}

/// The fields that kubectl applied on its own side and nobody has changed since.
fn allowed_by_last_applied(writer: &Writer<'_>, live: &Value) -> Vec<String> {
    let last = live.pointer("/metadata/annotations").and_then(|all| all.get(LAST_APPLIED)).and_then(Value::as_str);
    let Some(last) = last.and_then(|last| serde_json::from_str::<Value>(last).ok()) else {
        return Vec::new();
    };
    let form = Form::Struct(writer.of);
    if last["apiVersion"] != writer.api_version || validate(writer.table, &form, &last).is_err() {
        return Vec::new();
    }
    let mut set = field_set(writer.table, &form, &last);
    let difference = compare(writer.table, &form, &last, live);
    set.subtract(&difference.set);
    set.subtract(&difference.removed);
    set.paths()
}

/// Keeps kubectl's own record for clients that apply on their side again.
fn renew_last_applied(object: &mut Value, applied: &Value) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut record = applied.clone();
    let own = record.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    if let Some(own) = own {
        own.remove(LAST_APPLIED);
        if own.is_empty()
            && let Some(metadata) = record["metadata"].as_object_mut()
        {
            metadata.remove("annotations");
        }
    }
    annotations.insert(LAST_APPLIED.to_owned(), format!("{record}\n").into());
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len()).sum();
    if size > ANNOTATIONS_MAX_BYTES {
        annotations.remove(LAST_APPLIED);
    }
}

fn set_entries(object: &mut Value, entries: Vec<Entry>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), to_json(entries));
    }
}

impl Entry {
    fn parse(entry: Value) -> Option<Self> {
        let Value::Object(mut entry) = entry else {
            return None;
        };
        let mut text = |name: &str| match entry.remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (operation, api_version) = (text("operation"), text("apiVersion"));
        let known = matches!(operation.as_str(), "Apply" | "Update") && text("fieldsType") == "FieldsV1";
        if !known || api_version.is_empty() {
            return None;
        }
        let manager = Manager { name: text("manager"), operation, api_version, subresource: text("subresource") };
        let time = text("time");
        let fields = entry.remove("fieldsV1").unwrap_or_else(|| json!({}));
        fields.is_object().then_some(Self { manager, time, fields: Fields::Raw(fields) })
    }

    fn into_json(self) -> Value {
        let mut entry = Map::new();
        let mut text = |name: &str, text: String| {
            if !text.is_empty() {
                entry.insert(name.to_owned(), text.into());
            }
        };
        text("manager", self.manager.name);
        text("operation", self.manager.operation);
        text("apiVersion", self.manager.api_version);
        text("subresource", self.manager.subresource);
        text("time", self.time);
        text("fieldsType", "FieldsV1".to_owned());
        let fields = match self.fields {
            Fields::Raw(raw) => raw,
            Fields::Set(set) => set.to_json(),
        };
        entry.insert("fieldsV1".to_owned(), fields);
        Value::Object(entry)
    }

    fn is_apply(&self) -> bool {
        self.manager.operation == "Apply"
    }

    /// The same manager's, of other fields in another version.
    pub(super) fn of(self, api_version: &str, set: Set) -> Self {
        let manager = Manager { api_version: api_version.to_owned(), ..self.manager };
        Self { manager, time: self.time, fields: Fields::Set(set) }
    }

    /// Applies, then by time, name, version and door.
    fn order(&self) -> (&str, &str, &str, &str, &str) {
        let m = &self.manager;
        (&m.operation, &self.time, &m.name, &m.api_version, &m.subresource)
    }

    fn open(&mut self) {
        let set = self.fields.to_set();
        self.fields = Fields::Set(set);
    }
}

impl Fields {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Raw(raw) => raw.as_object().is_none_or(Map::is_empty),
            Self::Set(set) => set.is_empty(),
        }
    }

    pub(super) fn to_set(&self) -> Set {
        match self {
            Self::Raw(raw) => Set::parse(raw).unwrap_or_default(),
            Self::Set(set) => set.clone(),
        }
    }

    fn into_set(self) -> Set {
        match self {
            Self::Raw(raw) => Set::parse(&raw).unwrap_or_default(),
            Self::Set(set) => set,
        }
    }

    fn intersection(&self, other: &Set) -> Set {
        self.to_set().intersection(other)
    }

    /// Leaves a raw value as it is where nothing is taken.
    fn subtract(&mut self, other: &Set) {
        match self {
            Self::Raw(raw) if !meets(raw, other) => {}
            _ => {
                let mut set = std::mem::replace(self, Self::Raw(Value::Null)).into_set();
                set.subtract(other);
                *self = Self::Set(set);
            }
        }
    }

    /// Leaves a raw value as it is where nothing is added.
    fn union(&mut self, other: &Set) {
        match self {
            Self::Raw(raw) if contains(raw, other) => {}
            _ => {
                let mut set = std::mem::replace(self, Self::Raw(Value::Null)).into_set();
                set.union(other);
                *self = Self::Set(set);
            }
        }
    }
}

impl Manager {
    /// Whether the two are one; an apply is the same in whatever version.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == "Apply" || self.api_version == other.api_version)
    }

    /// As conflicts name it: `"alpha"`, `"kubectl" with subresource "status" using v1`.
    pub fn shown(&self) -> String {
        let mut text = crate::field::go_quote(&self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", crate::field::go_quote(&self.subresource)));
        }
        if self.operation == "Update" {
            // Upstream's identifier of a manager holds no time, so that none is told.
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// What a refused apply says: `Apply failed with 1 conflict: conflict with "alpha": .data.a`.
pub fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager.shown(), one.path);
    }
    let mut by_manager: BTreeMap<&Manager, Vec<&str>> = BTreeMap::new();
    for conflict in conflicts {
        by_manager.entry(&conflict.manager).or_default().push(&conflict.path);
    }
    let mut lines = Vec::new();
    for (manager, paths) in by_manager {
        lines.push(format!("conflicts with {}:", manager.shown()));
        lines.extend(paths.iter().map(|path| format!("- {path}")));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
