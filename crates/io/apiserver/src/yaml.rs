//! JSON trees as YAML, in the style of Go's encoder (`sigs.k8s.io/yaml`): keys sorted, lists not indented.

use serde_json::Value;
use std::fmt::Write;

pub(crate) fn write(tree: &Value) -> String {
    let mut out = String::new();
    node(&mut out, tree, 0, false);
    out
}

/// Writes a node; `inline` says that the cursor stands behind `- ` or `key:`.
fn node(out: &mut String, value: &Value, indent: usize, after_dash: bool) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| key.as_str());
            for (index, (key, value)) in keys.into_iter().enumerate() {
                if index > 0 || !after_dash {
                    pad(out, indent);
                }
                scalar_text(out, key, indent);
                out.push(':');
                child(out, value, indent);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 || !after_dash {
                    pad(out, indent);
                }
                out.push_str("- ");
                match item {
                    Value::Object(map) if !map.is_empty() => node(out, item, indent + 2, true),
                    Value::Array(inner) if !inner.is_empty() => node(out, item, indent + 2, true),
                    other => {
                        scalar(out, other, indent);
                        out.push('\n');
                    }
                }
            }
        }
        other => {
            scalar(out, other, indent);
            out.push('\n');
        }
    }
}

fn child(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            node(out, value, indent + 2, false);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            node(out, value, indent, false);
        }
        other => {
            out.push(' ');
            scalar(out, other, indent);
            out.push('\n');
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::String(text) => scalar_text(out, text, indent),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn scalar_text(out: &mut String, text: &str, indent: usize) {
    let printable = !text.chars().any(|c| c.is_control() && c != '\n');
    if text.contains('\n') && printable && !text.starts_with([' ', '\n']) {
        block(out, text, indent);
    } else if is_plain(text) {
        out.push_str(text);
    } else if printable && !text.contains('\n') && !resolves(text) {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    } else {
        // JSON strings are double-quoted YAML.
        let _ = write!(out, "{}", Value::from(text));
    }
}

fn block(out: &mut String, text: &str, indent: usize) {
    out.push('|');
    let body = text.trim_end_matches('\n');
    match text.len() - body.len() {
        0 => out.push('-'),
        1 => {}
        _ => out.push('+'),
    }
    let lines = text.strip_suffix('\n').unwrap_or(text);
    for line in lines.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent + 2);
            out.push_str(line);
        }
    }
}

/// Whether a plain scalar would be read as something other than a string: such strings are double-quoted.
fn resolves(text: &str) -> bool {
    const WORDS: &[&str] = &[
        "", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", ".inf", "-.inf", "+.inf", "<<",
        "=",
    ];
    let lower = text.to_ascii_lowercase();
    let number = text.trim_start_matches(['+', '-']).replace('_', "");
    let based = ["0x", "0o", "0b"].iter().any(|p| number.starts_with(p) && number.len() > 2);
    let is_number =
        number.starts_with(|c: char| c.is_ascii_digit() || c == '.') && (number.parse::<f64>().is_ok() || based);
    let is_time = text.len() >= 8
        && text.as_bytes()[..4].iter().all(u8::is_ascii_digit)
        && text.as_bytes()[4] == b'-'
        && text[5..].starts_with(|c: char| c.is_ascii_digit());
    WORDS.contains(&lower.as_str()) || is_number || is_time || is_sexagesimal(text)
}

/// `1:30`: an integer to base 60 in YAML 1.1.
fn is_sexagesimal(text: &str) -> bool {
    text.contains(':') && text.split(':').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else {
        return false;
    };
    let leading = "-?:,[]{}#&*!|>'\"%@`";
    let starts_well =
        !leading.contains(first) || (matches!(first, '-' | '?' | ':') && text.chars().nth(1).is_some_and(|c| c != ' '));
    starts_well
        && !resolves(text)
        && !text.starts_with(' ')
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.chars().any(char::is_control)
        && !matches!(text, "---" | "...")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn go_style() {
        let tree = json!({
            "items": [{"data": {"a": "1", "b": "x: y", "c": "yes", "d": "two\nlines\n"}, "list": [1, [], {}, "q"]}],
            "empty": "", "nested": [[1, 2]], "t": "2020-01-01T00:00:00Z", "u": "it's"
        });
        let want = "empty: \"\"\nitems:\n- data:\n    a: \"1\"\n    b: 'x: y'\n    c: \"yes\"\n    d: |\n      two\n      lines\n  list:\n  - 1\n  - []\n  - {}\n  - q\nnested:\n- - 1\n  - 2\nt: \"2020-01-01T00:00:00Z\"\nu: it's\n";
        assert_eq!(write(&tree), want);
    }
}
