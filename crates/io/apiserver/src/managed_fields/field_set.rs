//! Sets of field paths, as `managedFields` records them (structured-merge-diff `fieldpath`, `FieldsV1`).

use schema::table::{Field, ListKind, Shape, Table, TypeId};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A set of paths as a tree. A key is a path element as `FieldsV1` writes it: `f:name`, `k:{…}`, `v:…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    member: bool,
    below: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    /// From `FieldsV1`; what is malformed is left out.
    pub(super) fn parse(fields: &Value) -> Self {
        Self { member: false, ..Self::parse_node(fields) }
    }

    fn parse_node(fields: &Value) -> Self {
        let Some(map) = fields.as_object() else {
            return Self::default();
        };
        let below =
            map.iter().filter(|(key, _)| *key != ".").map(|(key, value)| (key.clone(), Self::parse_node(value)));
        let below: BTreeMap<_, _> = below.collect();
        Self { member: map.contains_key(".") || below.is_empty(), below }
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

    /// Takes away the paths of `other` with everything below them.
    pub(super) fn subtract_trees(&mut self, other: &Self) {
        for (key, set) in &other.below {
            if set.member {
                self.below.remove(key);
            } else if let Some(own) = self.below.get_mut(key) {
                own.subtract_trees(set);
                if own.is_empty() {
                    self.below.remove(key);
                }
            }
        }
    }

    fn child(&mut self, key: &str) -> &mut Self {
        self.below.entry(key.to_owned()).or_default()
    }

    pub(super) fn remove(&mut self, path: &[&str]) {
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

    fn prune(&mut self) {
        for set in self.below.values_mut() {
            set.prune();
        }
        self.below.retain(|_, set| !set.is_empty());
    }
}

/// What a change did.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Added or changed.
    pub set: FieldSet,
    pub removed: FieldSet,
}

/// Compares two objects of a type.
pub(super) fn compare(table: &Table, of: TypeId, old: &Value, new: &Value) -> Difference {
    let mut difference = Difference::default();
    let walk = Walk { table };
    walk.strukt(of, old, new, &mut difference.set, &mut difference.removed);
    difference.set.prune();
    difference.removed.prune();
    difference
}

struct Walk<'a> {
    table: &'a Table,
}

/// How a value is followed.
enum Form<'a> {
    /// As a whole.
    Leaf,
    Struct(TypeId),
    Map(&'a Shape),
    Set,
    Keyed(&'a [&'a str], TypeId),
}

impl Walk<'_> {
    fn form<'f>(&self, shape: &'f Shape, list: ListKind) -> Form<'f> {
        match (shape, list) {
            (_, ListKind::Atomic | ListKind::AtomicValue) => Form::Leaf,
            (Shape::Struct(of), _) if self.table[*of].atomic => Form::Leaf,
            (Shape::Struct(of), _) => Form::Struct(*of),
            (Shape::Map(element), _) => Form::Map(element),
            (Shape::List(_), ListKind::Set) => Form::Set,
            (Shape::List(Shape::Struct(of)), ListKind::Map(keys)) => Form::Keyed(keys, *of),
            _ => Form::Leaf,
        }
    }

    fn strukt(&self, of: TypeId, old: &Value, new: &Value, set: &mut FieldSet, removed: &mut FieldSet) {
        let names = keys(old).chain(keys(new)).collect::<BTreeSet<_>>();
        for name in names {
            let field: Option<&Field> = self.table[of].field(name);
            let form = field.map_or(Form::Leaf, |f| self.form(&f.shape, f.list));
            let key = format!("f:{name}");
            self.value(&form, old.get(name), new.get(name), set.child(&key), removed.child(&key));
        }
    }

    fn value(
        &self,
        form: &Form<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
        set: &mut FieldSet,
        removed: &mut FieldSet,
    ) {
        let nothing = Value::Null;
        match (old, new) {
            (_, None) => {
                removed.member |= old.is_some();
                return;
            }
            (None, Some(_)) => set.member = true,
            _ => {}
        }
        let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
        match form {
            Form::Leaf => set.member |= old != new,
            // A null that becomes something is a change of what is in it, not of itself.
            Form::Struct(of) => self.strukt(*of, old, new, set, removed),
            Form::Map(shape) => {
                let element = self.form(shape, ListKind::Plain);
                for name in keys(old).chain(keys(new)).collect::<BTreeSet<_>>() {
                    let key = format!("f:{name}");
                    self.value(&element, old.get(name), new.get(name), set.child(&key), removed.child(&key));
                }
            }
            Form::Set => {
                let (old, new) = (items(old), items(new));
                for item in new {
                    set.child(&format!("v:{item}")).member |= !old.contains(item);
                }
                for item in old.iter().filter(|item| !new.contains(item)) {
                    removed.child(&format!("v:{item}")).member = true;
                }
            }
            Form::Keyed(keys, of) => self.keyed(keys, *of, old, new, set, removed),
        }
    }

    fn keyed(&self, keys: &[&str], of: TypeId, old: &Value, new: &Value, set: &mut FieldSet, removed: &mut FieldSet) {
        let find =
            |list: &'_ Value, wanted: &str| items(list).iter().find(|item| key_of(item, keys) == wanted).cloned();
        let form = if self.table[of].atomic { Form::Leaf } else { Form::Struct(of) };
        for item in items(new) {
            let key = key_of(item, keys);
            let before = find(old, &key);
            self.value(&form, before.as_ref(), Some(item), set.child(&key), removed.child(&key));
        }
        for item in items(old) {
            let key = key_of(item, keys);
            if find(new, &key).is_none() {
                removed.child(&key).member = true;
            }
        }
    }
}

fn keys(value: &Value) -> impl Iterator<Item = &str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str())
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `k:{"name":"c"}`: the item's keys, sorted.
fn key_of(item: &Value, keys: &[&str]) -> String {
    let chosen: BTreeMap<&str, &Value> =
        keys.iter().filter_map(|key| item.get(*key).map(|value| (*key, value))).collect();
    format!("k:{}", serde_json::to_string(&chosen).unwrap_or_default())
}
