//! Whether an applied object fits its type, in upstream's words (structured-merge-diff `typed/validate.go`).

use super::form::Form;
use super::set::printed;
use crate::field::go_quote;
use crate::table::{Shape, Table};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;

/// All that is wrong: `.data.a: expected string, got …`; several one to a line.
pub(super) fn validate(table: &Table, form: &Form<'_>, value: &Value) -> Result<(), String> {
    let mut found = Vec::new();
    walk(table, form, value, &mut String::new(), &mut found);
    match found.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(many.iter().fold("errors:".to_owned(), |all, one| format!("{all}\n  {one}"))),
    }
}

fn walk(table: &Table, form: &Form<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let mut tell = |what: String| found.push(if path.is_empty() { what } else { format!("{path}: {what}") });
    if value.is_null() {
        return;
    }
    match form {
        Form::Any => {}
        Form::Scalar(shape) => {
            if let Some(what) = scalar(shape, value) {
                tell(what);
            }
        }
        Form::Struct(_) | Form::Map(_) | Form::AtomicStruct(_) | Form::AtomicMap(_) => {
            let Some(map) = value.as_object() else {
                return tell(format!("expected map, got &{{{}}}", go(value)));
            };
            let length = path.len();
            for (name, value) in map {
                let key = super::set::field(name);
                path.push_str(&printed(&key));
                let declared = match form {
                    Form::Struct(_) | Form::AtomicStruct(_) => form.names(table, &key),
                    _ => true,
                };
                if !declared {
                    found.push(format!("{path}: field not declared in schema"));
                    path.truncate(length);
                    return;
                }
                walk(table, &form.entry(table, name), value, path, found);
                path.truncate(length);
            }
        }
        Form::AtomicList(_) | Form::Set(_) | Form::Keyed(..) => {
            let Some(items) = value.as_array() else {
                return tell(format!("expected list, got &{{{}}}", go(value)));
            };
            list(table, form, items, path, found);
        }
    }
}

fn list(table: &Table, form: &Form<'_>, items: &[Value], path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    let mut seen = BTreeSet::new();
    for (at, item) in items.iter().enumerate() {
        let key = if matches!(form, Form::AtomicList(_)) { Ok(format!("i:{at}")) } else { form.element(table, item) };
        let key = match key {
            Ok(key) => key,
            Err(why) => return found.push(format!("{path}: element {at}: {why}")),
        };
        let shown = printed(&key);
        if !seen.insert(key) {
            found.push(format!("{path}: duplicate entries for key {shown}"));
        }
        path.push_str(&shown);
        walk(table, &form.item(table), item, path, found);
        path.truncate(length);
    }
}

fn scalar(shape: &Shape, value: &Value) -> Option<String> {
    let is_scalar = !value.is_array() && !value.is_object();
    match shape {
        Shape::Bool if !value.is_boolean() => Some(format!("expected boolean, got &{{{}}}", go(value))),
        Shape::Int32 | Shape::Int64 | Shape::Float64 if !value.is_number() => {
            Some(format!("expected numeric (int or float), got {}", go_type(value)))
        }
        Shape::Quantity | Shape::IntOrString if !is_scalar => {
            Some(format!("expected any scalar, got &{{{}}}", go(value)))
        }
        Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime if !value.is_string() => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)))
        }
        _ => None,
    }
}

/// Go's `%T`.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Go's `%v`.
fn go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

/// Go's `%#v`.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => go_quote(text),
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let mut text = "map[string]interface {}{".to_owned();
            for (at, (key, value)) in map.iter().enumerate() {
                let comma = if at == 0 { "" } else { ", " };
                let _ = write!(text, "{comma}{}:{}", go_quote(key), go_syntax(value));
            }
            text + "}"
        }
        other => other.to_string(),
    }
}
