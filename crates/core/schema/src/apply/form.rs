//! How a value is followed: by its type in the table and the markers of the field that it stands in.

use super::set;
use crate::table::{ListKind, Shape, Table, TypeId};
use serde_json::{Map, Value};

/// The form of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form<'a> {
    /// One value; of the shape that validation wants.
    Scalar(&'a Shape),
    /// Anything, as a whole.
    Any,
    Struct(TypeId),
    Map(&'a Shape),
    /// Replaced as a whole.
    AtomicStruct(TypeId),
    AtomicMap(&'a Shape),
    AtomicList(&'a Shape),
    /// A list of scalars that stand once each.
    Set(&'a Shape),
    /// A list of structs told apart by the values of some fields.
    Keyed(&'static [&'static str], TypeId),
}

impl<'a> Form<'a> {
    pub(super) fn of(table: &Table, shape: &'a Shape, list: ListKind) -> Self {
        let whole = matches!(list, ListKind::Atomic | ListKind::AtomicValue);
        match (shape, list) {
            (Shape::Struct(of), _) if whole || table[*of].atomic => Self::AtomicStruct(*of),
            (Shape::Struct(of), _) => Self::Struct(*of),
            (Shape::Map(element), _) if whole => Self::AtomicMap(element),
            (Shape::Map(element), _) => Self::Map(element),
            (Shape::List(element), ListKind::Set) => Self::Set(element),
            (Shape::List(Shape::Struct(of)), ListKind::Map(keys)) => Self::Keyed(keys, *of),
            (Shape::List(element) | Shape::Items(element), _) => Self::AtomicList(element),
            (Shape::Any | Shape::SchemaOrBool(_) | Shape::SchemaOrArray(_) | Shape::SchemaOrStrings(_), _) => Self::Any,
            _ => Self::Scalar(shape),
        }
    }

    /// Whether it is one leaf, whatever is in it.
    pub(super) fn is_leaf(&self) -> bool {
        !matches!(self, Self::Struct(_) | Self::Map(_) | Self::Set(_) | Self::Keyed(..))
    }

    /// The form of a named entry of a struct or map.
    pub(super) fn entry(&self, table: &'a Table, name: &str) -> Self {
        match self {
            Self::Struct(of) | Self::AtomicStruct(of) => {
                table[*of].field(name).map_or(Self::Any, |field| Self::of(table, &field.shape, field.list))
            }
            Self::Map(element) | Self::AtomicMap(element) => Self::of(table, element, ListKind::Plain),
            _ => Self::Any,
        }
    }

    /// The form of a list's items.
    pub(super) fn item(&self, table: &'a Table) -> Self {
        match self {
            Self::Keyed(_, of) if table[*of].atomic => Self::AtomicStruct(*of),
            Self::Keyed(_, of) => Self::Struct(*of),
            Self::Set(element) | Self::AtomicList(element) => Self::of(table, element, ListKind::Plain),
            _ => Self::Any,
        }
    }

    /// The form of what a path element leads to.
    pub(super) fn below(&self, table: &'a Table, key: &str) -> Self {
        match key.strip_prefix("f:") {
            Some(name) => self.entry(table, name),
            None => self.item(table),
        }
    }

    /// Whether a path element is a field that the type declares.
    pub(super) fn names(&self, table: &Table, key: &str) -> bool {
        match (self, key.strip_prefix("f:")) {
            (Self::Struct(of) | Self::AtomicStruct(of), Some(name)) => table[*of].field(name).is_some(),
            _ => false,
        }
    }

    /// The path element of a list's item.
    ///
    /// # Errors
    /// What upstream says of an item that has none.
    pub(super) fn element(&self, table: &Table, item: &Value) -> Result<String, String> {
        match self {
            Self::Keyed(keys, of) => {
                let Some(map) = item.as_object() else {
                    let what = if item.is_null() { "a null element" } else { "non-map elements" };
                    return Err(format!("associative list with keys may not have {what}"));
                };
                let mut chosen = Map::new();
                for key in *keys {
                    if let Some(value) = map.get(*key) {
                        chosen.insert((*key).to_owned(), value.clone());
                    } else if let Some(default) = table[*of].field(key).and_then(|field| field.default) {
                        chosen.insert((*key).to_owned(), serde_json::from_str(default).unwrap_or_default());
                    }
                }
                if chosen.is_empty() {
                    let keys: Vec<String> = keys.iter().map(|key| crate::field::go_quote(key)).collect();
                    return Err(format!(
                        "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                        keys.join(" ")
                    ));
                }
                Ok(format!("k:{}", Value::Object(chosen)))
            }
            _ => match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(format!("v:{scalar}")),
            },
        }
    }
}

/// Every path of a value: what who sends it owns (upstream `ToFieldSet`).
pub(super) fn field_set(table: &Table, form: &Form<'_>, value: &Value) -> set::Set {
    let mut all = set::Set::default();
    owned(table, form, value, &mut all);
    all
}

fn owned(table: &Table, form: &Form<'_>, value: &Value, into: &mut set::Set) {
    match (form, value) {
        (form, _) if form.is_leaf() => into.member = true,
        (Form::Struct(_) | Form::Map(_), Value::Object(map)) => {
            for (name, value) in map {
                let key = set::field(name);
                let child = into.child(&key);
                owned(table, &form.entry(table, name), value, child);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                child.member |= empty || !form.names(table, &key);
                if child.is_empty() {
                    into.below.remove(&key);
                }
            }
        }
        (_, Value::Array(items)) => {
            let mut seen = std::collections::BTreeMap::new();
            for item in items {
                if let Ok(key) = form.element(table, item) {
                    seen.entry(key).or_insert_with(Vec::new).push(item);
                }
            }
            for (key, items) in seen {
                let child = into.child(&key);
                if let [one] = items.as_slice() {
                    owned(table, &form.item(table), one, child);
                }
                child.member = true;
            }
        }
        _ => {}
    }
}
