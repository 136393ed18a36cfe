//! Strategic merge patch (apimachinery `util/strategicpatch`): lists merged by key, with `$patch`, `$retainKeys`,
//! `$deleteFromPrimitiveList` and `$setElementOrder`.
//!
//! Order of a merged list: what `$setElementOrder` says, then the order of the patch, then that of the object.

use super::order::{arrange, check_order, deduplicated, reused};
use super::{PatchError, go_print};
use crate::table::{Patch, Shape, Table, TypeId};
use serde_json::{Map, Value};

type Fields = Map<String, Value>;

pub(super) const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
pub(super) const SET_ORDER: &str = "$setElementOrder";

pub(super) fn apply(table: &Table, of: TypeId, target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let as_map = |value: &Value| match value {
        Value::Object(map) => map.clone(),
        _ => Map::new(),
    };
    let merged = Merge { table }.map(as_map(target), as_map(patch), Place::Struct(of))?;
    Ok(Value::Object(merged))
}

pub(super) fn internal(text: impl Into<String>) -> PatchError {
    PatchError::Internal(text.into())
}

fn malformed(of: &str) -> PatchError {
    PatchError::Malformed(format!("invalid patch format of {of}"))
}

pub(super) fn no_merge_key(item: &Fields, key: &str) -> PatchError {
    let shown = go_print(&Value::Object(item.clone()));
    internal(format!("map: {shown} does not contain declared merge key: {key}"))
}

pub(super) fn bad_type(expected: &str, value: &Value) -> PatchError {
    let actual = match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    internal(format!("expected a {expected}, but received a {actual}"))
}

/// The type that fields are looked up in.
#[derive(Clone, Copy)]
enum Place {
    Struct(TypeId),
    /// A type without fields: merging below it needs none, unless it holds structures.
    Other(&'static Shape),
}

impl Place {
    fn of(shape: &'static Shape) -> Self {
        match shape {
            Shape::Struct(of) => Self::Struct(*of),
            other => Self::Other(other),
        }
    }

    /// Go's name of the kind.
    fn kind(self) -> &'static str {
        match self {
            Self::Struct(_) => "struct",
            Self::Other(shape) => match shape {
                Shape::String => "string",
                Shape::Bool => "bool",
                Shape::Int32 => "int32",
                Shape::Int64 => "int64",
                Shape::Float64 => "float64",
                Shape::List(_) | Shape::Items(_) | Shape::Bytes => "slice",
                Shape::Map(_) => "map",
                _ => "struct",
            },
        }
    }
}

struct Merge<'t> {
    table: &'t Table,
}

impl Merge<'_> {
    /// A field of the place, with how it is patched.
    fn field(&self, place: Place, name: &str) -> Result<(&'static Shape, Patch), PatchError> {
        let Place::Struct(of) = place else {
            let kind = place.kind();
            let text = format!("merging an object in json but data type is not struct, instead is: {kind}");
            return Err(internal(text));
        };
        let kind = &self.table[of];
        let exact = kind.field(name);
        let field = exact.or_else(|| kind.fields.iter().find(|f| f.name.eq_ignore_ascii_case(name)));
        let field = field.ok_or_else(|| {
            let (of, name) = (kind.go_name(), crate::field::go_quote(name));
            internal(format!("unable to find api field in struct {of} for the json field {name}"))
        })?;
        Ok((&field.shape, field.patch))
    }

    fn slice_field(&self, place: Place, name: &str) -> Result<(Place, Patch), PatchError> {
        let (shape, patch) = self.field(place, name)?;
        match shape {
            Shape::List(element) | Shape::Items(element) => Ok((Place::of(element), patch)),
            Shape::Bytes => Ok((Place::Other(&Shape::Int32), patch)),
            _ => Err(internal(format!("expected slice or array type, but got: {}", place.kind()))),
        }
    }

    fn map(&self, mut original: Fields, mut patch: Fields, place: Place) -> Result<Fields, PatchError> {
        if let Some(directive) = patch.get(DIRECTIVE).cloned() {
            return match directive.as_str() {
                Some("replace") => {
                    patch.remove(DIRECTIVE);
                    Ok(patch)
                }
                Some("delete") => Ok(Map::new()),
                _ => Err(unknown_directive(&directive, patch)),
            };
        }
        retain_keys(&mut original, &mut patch)?;
        self.ordered_lists(&mut original, &mut patch, place)?;
        for (key, value) in patch {
            self.entry(&mut original, &key, value, place)?;
        }
        Ok(original)
    }

    fn entry(&self, original: &mut Fields, key: &str, value: Value, place: Place) -> Result<(), PatchError> {
        let deletes = key.starts_with(DELETE_FROM);
        let key = if deletes { directive_target(key, DELETE_FROM, "primitive list")? } else { key };
        if value.is_null() {
            original.remove(key);
            return Ok(());
        }
        let merged = match (original.remove(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let (shape, how) = self.field(place, key)?;
                Some(Value::Object(if how.replace { new } else { self.map(old, new, Place::of(shape))? }))
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let (element, how) = self.slice_field(place, key)?;
                if deletes || how.merge {
                    Some(Value::Array(self.list(old, new, element, how.key, deletes)?))
                } else {
                    Some(Value::Array(new))
                }
            }
            (old, _) if deletes => old,
            (_, mut new) => {
                if !matches!(new, Value::Array(_) | Value::Object(_)) {
                    Some(new)
                } else {
                    discard_nulls(&mut new);
                    without_directives(new)
                }
            }
        };
        if let Some(merged) = merged {
            original.insert(key.to_owned(), merged);
        }
        Ok(())
    }

    /// `$setElementOrder` lists with the lists they order.
    fn ordered_lists(&self, original: &mut Fields, patch: &mut Fields, place: Place) -> Result<(), PatchError> {
        let keys: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
        for directive in keys {
            let order = patch.remove(&directive).unwrap_or(Value::Null);
            let Value::Array(order) = order else { return Err(bad_type("[]interface {}", &order)) };
            let key = directive_target(&directive, SET_ORDER, "setElementOrder list")?.to_owned();
            let list = |value: Option<&Value>| match value {
                None => Ok(None),
                Some(Value::Array(items)) => Ok(Some(items.clone())),
                Some(other) => Err(bad_type("[]interface {}", other)),
            };
            let (old, new) = (list(original.get(&key))?, list(patch.get(&key))?);
            let (element, how) = self.slice_field(place, &key)?;
            check_order(new.as_deref(), &order, how.key)?;
            let server_order = match (&old, &new) {
                (Some(old), Some(new)) if how.merge && !how.key.is_empty() => reused(old, new, how.key),
                (old, _) => old.clone().unwrap_or_default(),
            };
            let merged = match (old, new) {
                (Some(old), None) => old,
                (None, Some(new)) => match without_directives(Value::Array(new)) {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                },
                (Some(old), Some(new)) if how.merge => self.list(old, new, element, how.key, false)?,
                (Some(_), Some(new)) => new,
                (None, None) => continue,
            };
            let maps = matches!(element_kind(&[&server_order, &merged])?, "map");
            let ordered = arrange(merged, &order, &order, &server_order, how.key, maps)?;
            original.insert(key.clone(), Value::Array(ordered));
            patch.remove(&key);
        }
        Ok(())
    }

    fn list(
        &self,
        original: Vec<Value>,
        patch: Vec<Value>,
        element: Place,
        key: &str,
        deletes: bool,
    ) -> Result<Vec<Value>, PatchError> {
        if original.is_empty() && patch.is_empty() {
            return Ok(original);
        }
        let maps = element_kind(&[&original, &patch])? == "map";
        if !maps {
            if deletes {
                return Ok(original.into_iter().filter(|item| !patch.contains(item)).collect());
            }
            let mut merged = original.clone();
            merged.extend(patch.iter().cloned());
            return arrange(deduplicated(merged), &patch, &patch, &original, key, false);
        }
        if key.is_empty() {
            return Err(internal(format!("cannot merge lists without merge key for {}", element.kind())));
        }
        let (original, patch) = special_elements(original, patch, key)?;
        let mut merged = original.clone();
        for item in &patch {
            let Value::Object(item) = item else { continue };
            let value = item.get(key).ok_or_else(|| no_merge_key(item, key))?;
            match merged.iter().position(|old| old.get(key) == Some(value)) {
                Some(at) => {
                    let Value::Object(old) = merged[at].take() else { continue };
                    merged[at] = Value::Object(self.map(old, item.clone(), element)?);
                }
                None => merged.push(Value::Object(item.clone())),
            }
        }
        arrange(merged, &patch, &patch, &original, key, true)
    }
}

fn unknown_directive(directive: &Value, patch: Fields) -> PatchError {
    let shown = match directive {
        Value::String(text) => text.clone(),
        Value::Number(n) if n.is_f64() => format!("%!s(float64={n})"),
        Value::Number(n) => format!("%!s(int64={n})"),
        Value::Bool(b) => format!("%!s(bool={b})"),
        Value::Null => "%!s(<nil>)".to_owned(),
        other => go_print(other),
    };
    internal(format!("unknown patch type: {shown} in map: {}", go_print(&Value::Object(patch))))
}

/// The list that `$setElementOrder/containers` speaks of.
fn directive_target<'k>(key: &'k str, prefix: &str, what: &str) -> Result<&'k str, PatchError> {
    match key.split_once('/') {
        Some((head, target)) if head == prefix => Ok(target),
        _ => Err(malformed(what)),
    }
}

/// `$retainKeys`: the patch may hold only these, and the object keeps no others.
fn retain_keys(original: &mut Fields, patch: &mut Fields) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else { return Err(malformed("retainKeys")) };
    let retained = |key: &str| keys.iter().any(|k| k.as_str() == Some(key));
    let exempt = |key: &str| key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !exempt(key) && !retained(key)) {
        return Err(malformed("retainKeys"));
    }
    original.retain(|key, _| retained(key));
    Ok(())
}

/// Drops `null` members, which would be written otherwise.
fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, item| !item.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// A value without the parts that are directives; `None` where it is one itself.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let kept = map.into_iter().filter_map(|(key, item)| Some((key, without_directives(item)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

/// The one kind of all elements.
fn element_kind(lists: &[&[Value]]) -> Result<&'static str, PatchError> {
    let mut found = None;
    for item in lists.iter().copied().flatten() {
        let kind = match item {
            Value::Null => return Err(internal("list elements are null")),
            Value::Bool(_) => "bool",
            Value::Number(n) if n.is_f64() => "float64",
            Value::Number(_) => "int64",
            Value::String(_) => "string",
            Value::Array(_) if found.is_none() => {
                return Err(PatchError::NotApplicable("lists of lists are not supported".to_owned()));
            }
            Value::Array(_) => "slice",
            Value::Object(_) => "map",
        };
        if found.is_some_and(|known| known != kind) {
            let shown: Vec<String> = lists.iter().map(|l| go_print(&Value::Array(l.to_vec()))).collect();
            return Err(internal(format!("list element types are not identical: [{}]", shown.join(" "))));
        }
        found = Some(kind);
    }
    found.ok_or_else(|| internal("no elements in any of the given slices"))
}

/// Carries out `$patch` elements of a list: returns the object's list and the patch without them.
fn special_elements(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::new();
    let mut replace = false;
    for item in patch {
        let Value::Object(map) = &item else { continue };
        match map.get(DIRECTIVE) {
            None => plain.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let value = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
                    original.retain(|old| old.get(key) != Some(value));
                }
                Some("replace") => replace = true,
                Some("merge") => return Err(internal("merging lists cannot yet be specified in the patch")),
                _ => return Err(unknown_directive(directive, map.clone())),
            },
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}
