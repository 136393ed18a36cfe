//! Columns of kinds that have no file of their own yet (upstream `printers/internalversion`).

mod cluster;
mod storage;

pub use cluster::*;
pub use storage::*;

use crate::human;
use crate::meta;
use crate::tree::Tree;
use jiff::Timestamp;
use schema::selector::LabelSelector;
use serde_json::{Value, json};

/// `a=b,c=d`, or `<none>`.
pub(super) fn labels(map: &Value) -> String {
    let pairs: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A label selector as upstream prints it; `empty` for one that says nothing.
pub(super) fn selector(selector: Option<&Value>, empty: &str) -> String {
    let Some(selector) = selector else { return empty.to_owned() };
    if LabelSelector::from_value(selector).is_err() {
        return "<error>".to_owned();
    }
    // Requirements by key: a label is one that asks for equality.
    let mut parts: Vec<(String, String)> =
        selector.pairs("matchLabels").map(|(key, value)| (key.to_owned(), format!("{key}={value}"))).collect();
    for expression in selector.list("matchExpressions") {
        let key = expression.text("key");
        let mut values: Vec<&str> = expression.texts("values").collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match expression.text("operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        parts.push((key.to_owned(), text));
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let text = parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",");
    if text.is_empty() { empty.to_owned() } else { text }
}

fn name(object: &Value) -> Value {
    json!(meta::name(object))
}

fn age(object: &Value, now: Timestamp) -> Value {
    json!(human::age(&object["metadata"]["creationTimestamp"], now))
}

fn or(text: &str, absent: &str) -> Value {
    json!(if text.is_empty() { absent } else { text })
}

/// An integer or text as `IntOrString` prints it.
fn int_or_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
