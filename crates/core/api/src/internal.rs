//! Values as upstream's *internal* types print as JSON: Go field names in Go's order, `null` for what is not set.
//! Some messages show a rejected value, or a difference of two specs, in this form.
//!
//! `internal.txt` has one line per type: its name, then `|` and, for each field, the printed name (`?` before it: left
//! out when empty), the name in the API, and the shape: `s` string, `n` number, `b` boolean, `q` quantity, `i` number or
//! string, `*` pointer, `[` list, `m` map, `I` embedded, `S` struct (`*S`, `[S`) with the type's name. Extracted from
//! `pkg/apis/core/types.go` of 1.37, and from `meta/v1`, whose types print as in the API but in Go's order. So far it has
//! what lies below a Pod's spec; a line more serves another kind.

use schema::field::{ErrorType, FieldError, Path};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::OnceLock;

struct Field {
    shown: &'static str,
    /// Left out when empty.
    optional: bool,
    json: &'static str,
    shape: &'static str,
}

fn types() -> &'static BTreeMap<&'static str, Vec<Field>> {
    static TYPES: OnceLock<BTreeMap<&'static str, Vec<Field>>> = OnceLock::new();
    TYPES.get_or_init(|| {
        let line = |line: &'static str| {
            let mut parts = line.split('|');
            let name = parts.next().unwrap_or_default();
            let fields = parts.map(|part| {
                let mut words = part.splitn(3, ',');
                let shown = words.next().unwrap_or_default();
                Field {
                    shown: shown.trim_start_matches('?'),
                    optional: shown.starts_with('?'),
                    json: words.next().unwrap_or_default(),
                    shape: words.next().unwrap_or_default(),
                }
            });
            (name, fields.collect())
        };
        include_str!("internal.txt").lines().map(line).collect()
    })
}

/// A JSON text that is written in order.
#[derive(Debug, Clone)]
enum Node {
    Leaf(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// Go's `json.Marshal` escapes what HTML might misread.
fn leaf(value: &Value) -> Node {
    let text = value.to_string();
    Node::Leaf(if text.contains(['<', '>', '&']) {
        text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    } else {
        text
    })
}

fn node(shape: &str, value: &Value) -> Node {
    let null = || Node::Leaf("null".to_owned());
    match shape.as_bytes() {
        b"s" if value.is_null() => Node::Leaf("\"\"".to_owned()),
        b"n" | b"i" if value.is_null() => Node::Leaf("0".to_owned()),
        b"b" if value.is_null() => Node::Leaf("false".to_owned()),
        b"q" if value.is_null() => Node::Leaf("\"0\"".to_owned()),
        [b'S', ..] => object(&shape[1..], value),
        [b'*', b'S', ..] if !value.is_null() => object(&shape[2..], value),
        [b'[', b'S', ..] => match value.as_array() {
            Some(items) => Node::List(items.iter().map(|item| object(&shape[2..], item)).collect()),
            None => null(),
        },
        b"m" => match value.as_object() {
            Some(map) => {
                let mut entries: Vec<_> = map.iter().map(|(k, v)| (k.clone(), leaf(v))).collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                Node::Map(entries)
            }
            None => null(),
        },
        b"[" => match value.as_array() {
            Some(items) => Node::List(items.iter().map(leaf).collect()),
            None => null(),
        },
        _ if value.is_null() => null(),
        _ => leaf(value),
    }
}

fn object(of: &str, value: &Value) -> Node {
    let mut entries = Vec::new();
    for field in types().get(of).into_iter().flatten() {
        if let Some(embedded) = field.shape.strip_prefix('I') {
            if let Node::Map(inner) = object(embedded, embedded_value(embedded, value)) {
                entries.extend(inner);
            }
            continue;
        }
        let inner = &value[field.json];
        if field.optional && is_empty(inner) {
            continue;
        }
        entries.push((field.shown.to_owned(), node(field.shape, inner)));
    }
    Node::Map(entries)
}

/// Embedded structs are inline in the API too, but for metadata.
fn embedded_value<'a>(of: &str, value: &'a Value) -> &'a Value {
    if of == "metav1.ObjectMeta" { &value["metadata"] } else { value }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

impl Node {
    fn compact(&self, out: &mut String) {
        match self {
            Self::Leaf(text) => out.push_str(text),
            Self::List(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.compact(out);
                }
                out.push(']');
            }
            Self::Map(entries) => {
                out.push('{');
                for (i, (name, value)) in entries.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    let _ = write!(out, "{comma}{}:", Value::from(name.as_str()));
                    value.compact(out);
                }
                out.push('}');
            }
        }
    }

    /// Go's `MarshalIndent` with one space.
    fn pretty(&self, depth: usize, out: &mut String) {
        let indent = |out: &mut String, depth: usize| {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', depth));
        };
        match self {
            Self::List(items) if !items.is_empty() => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    indent(out, depth + 1);
                    item.pretty(depth + 1, out);
                }
                indent(out, depth);
                out.push(']');
            }
            Self::Map(entries) if !entries.is_empty() => {
                out.push('{');
                for (i, (name, value)) in entries.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    indent(out, depth + 1);
                    let _ = write!(out, "{}: ", Value::from(name.as_str()));
                    value.pretty(depth + 1, out);
                }
                indent(out, depth);
                out.push('}');
            }
            other => other.compact(out),
        }
    }
}

/// One line, as in `Invalid value: {…}`. `of` is a type of `internal.txt`, or `[S` and one for a list.
pub fn compact(of: &str, value: &Value) -> String {
    let mut out = String::new();
    let shape = if of.starts_with('[') { of.to_owned() } else { format!("S{of}") };
    node(&shape, value).compact(&mut out);
    out
}

/// Indented by one space, as the differences are made of.
pub fn pretty(of: &str, value: &Value) -> String {
    let mut out = String::new();
    object(of, value).pretty(0, &mut out);
    out
}

/// [`schema::field::invalid`] with the value in internal form; `Null` is shown as such.
pub fn invalid(path: &Path, of: &str, value: &Value, detail: &str) -> FieldError {
    let shown = if value.is_null() { "null".to_owned() } else { compact(of, value) };
    let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
    FieldError {
        error_type: ErrorType::Invalid,
        path: path.as_str().to_owned(),
        message: format!("Invalid value: {shown}{detail}"),
    }
}

/// [`schema::field::duplicate`] with the value in internal form.
pub fn duplicate(path: &Path, of: &str, value: &Value) -> FieldError {
    FieldError {
        error_type: ErrorType::Duplicate,
        path: path.as_str().to_owned(),
        message: format!("Duplicate value: {}", compact(of, value)),
    }
}

/// [`schema::field::not_supported`] with the value in internal form.
pub fn not_supported(path: &Path, of: &str, value: &Value, supported: &[&str]) -> FieldError {
    let supported = supported.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", ");
    FieldError {
        error_type: ErrorType::NotSupported,
        path: path.as_str().to_owned(),
        message: format!("Unsupported value: {}: supported values: {supported}", compact(of, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shapes() {
        assert_eq!(
            compact("SeccompProfile", &json!({"type": "Localhost"})),
            r#"{"Type":"Localhost","LocalhostProfile":null}"#
        );
        assert_eq!(compact("[SPodIP", &json!([{"ip": "1.2.3.4"}])), r#"[{"IP":"1.2.3.4"}]"#);
        assert_eq!(
            compact("metav1.LabelSelector", &json!({"matchLabels": {"a": "b"}})),
            r#"{"matchLabels":{"a":"b"}}"#
        );
        assert_eq!(
            pretty("ResourceRequirements", &json!({"limits": {"cpu": "1"}})),
            "{\n \"Limits\": {\n  \"cpu\": \"1\"\n },\n \"Requests\": null,\n \"Claims\": null\n}"
        );
    }
}
