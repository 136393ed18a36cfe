//! What becomes of each field of the kinds with behaviour (`marks.txt`): somebody acts upon it, refuses it, or it is stored
//! with a warning. A field without a mark fails the tests.

use serde_json::Value;
use std::sync::LazyLock;

struct Line {
    /// With its group behind a space, if it is not of the core group; with a subresource, if it is about that.
    kind: &'static str,
    pattern: Vec<&'static str>,
    /// `honoured`, `refused`, `warned` or `whole`.
    mark: &'static str,
    /// The file that does it, below `crates/`; of what is warned, why nothing comes of it.
    what: &'static str,
}

static LINES: LazyLock<Vec<Line>> = LazyLock::new(|| read(include_str!("marks.txt")));

fn read(text: &'static str) -> Vec<Line> {
    let mut kind = "";
    let mut lines = Vec::new();
    for text in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some(text) = text.strip_prefix("  ") else {
            kind = text;
            continue;
        };
        let mut words = text.splitn(3, ' ');
        let (path, mark, what) =
            (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
        lines.push(Line { kind, pattern: path.split('.').collect(), mark, what });
    }
    lines
}

fn names(wanted: &str, name: &str) -> bool {
    match wanted {
        "*" => true,
        "<containers>" => matches!(name, "containers" | "initContainers" | "ephemeralContainers"),
        wanted => wanted == name,
    }
}

/// A field that nobody acts upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheeded {
    /// `spec.tolerations[1].tolerationSeconds`
    pub path: String,
    pub why: &'static str,
}

/// The fields of a core kind that are set, or are not as in `old`, and that nobody acts upon, in the order of the table.
/// `object` is as its writer sent it: what admission adds is nobody's wish. `of` names the kind and, where the write goes to
/// one, its subresource: `Pod/resize`.
pub fn unheeded(of: &str, object: &Value, old: Option<&Value>) -> Vec<Unheeded> {
    unheeded_by(&LINES, of, object, old)
}

fn unheeded_by(lines: &[Line], of: &str, object: &Value, old: Option<&Value>) -> Vec<Unheeded> {
    let mut all = Vec::new();
    for line in lines.iter().filter(|line| line.kind == of && line.mark == "warned") {
        let end = line.pattern.iter().position(|name| *name == "**").unwrap_or(line.pattern.len());
        let mut found = Vec::new();
        set_at(object, &line.pattern[..end], String::new(), &mut found);
        let mut known = Vec::new();
        if let Some(old) = old {
            set_at(old, &line.pattern[..end], String::new(), &mut known);
        }
        found.retain(|new| !known.contains(new));
        all.extend(found.into_iter().map(|(path, _)| Unheeded { path, why: line.what }));
    }
    all
}

/// The paths and values of what is set under a pattern; lists are told by index.
fn set_at<'a>(value: &'a Value, pattern: &[&str], path: String, found: &mut Vec<(String, &'a Value)>) {
    if let Value::Array(items) = value
        && !pattern.is_empty()
    {
        for (at, item) in items.iter().enumerate() {
            set_at(item, pattern, format!("{path}[{at}]"), found);
        }
        return;
    }
    let Some((wanted, rest)) = pattern.split_first() else {
        let empty = match value {
            Value::Null => true,
            Value::Object(map) => map.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if !empty {
            found.push((path, value));
        }
        return;
    };
    for (name, inner) in value.as_object().into_iter().flatten().filter(|(name, _)| names(wanted, name)) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        set_at(inner, rest, path, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;
    use schema::table::{Shape, TypeId};
    use serde_json::json;
    use std::path::Path;

    impl Line {
        fn fits(&self, path: &[&str]) -> bool {
            let (pattern, open) = match self.pattern.split_last() {
                Some((&"**", before)) => (before, true),
                _ => (self.pattern.as_slice(), false),
            };
            let long_enough = if open { path.len() >= pattern.len() } else { path.len() == pattern.len() };
            long_enough && pattern.iter().zip(path).all(|(wanted, name)| names(wanted, name))
        }
    }

    fn mark(kind: &str, path: &[&str]) -> Option<&'static Line> {
        LINES.iter().find(|line| line.kind == kind && line.fits(path))
    }

    /// Every path below a type; a type inside itself is not walked again.
    fn paths(of: TypeId, path: &[&'static str], above: &[TypeId], all: &mut Vec<Vec<&'static str>>) {
        for field in table::table()[of].fields {
            let mut shape = field.shape;
            while let Shape::List(inner) | Shape::Items(inner) = shape {
                shape = *inner;
            }
            let path = [path, &[field.name]].concat();
            match shape {
                Shape::Struct(inner) if !above.contains(&inner) => {
                    paths(inner, &path, &[above, &[inner]].concat(), all);
                }
                _ => all.push(path),
            }
        }
    }

    fn all_paths(kind: &str) -> Vec<Vec<&'static str>> {
        let (kind, group) = kind.split_once(' ').unwrap_or((kind, ""));
        let kind = kind.split('/').next().unwrap();
        let of = table::type_of(group, "v1", kind).unwrap();
        let mut all = Vec::new();
        paths(of, &[], &[of], &mut all);
        all.retain(|path| !matches!(path[0], "kind" | "apiVersion" | "metadata" | "status"));
        all
    }

    fn kinds() -> Vec<&'static str> {
        let mut kinds: Vec<&str> = LINES.iter().map(|line| line.kind).collect();
        kinds.dedup();
        // Of a subresource only what changes there is marked.
        kinds.retain(|kind| !kind.contains('/'));
        kinds
    }

    #[test]
    fn every_field_has_a_mark() {
        let unmarked: Vec<String> = kinds()
            .into_iter()
            .flat_map(|kind| all_paths(kind).into_iter().map(move |path| (kind, path)))
            .filter(|(kind, path)| mark(kind, path).is_none())
            .map(|(kind, path)| format!("{kind} {}", path.join(".")))
            .collect();
        assert_eq!(unmarked, Vec::<String>::new());
    }

    #[test]
    fn every_mark_has_fields_and_its_file() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for line in LINES.iter() {
            let used = all_paths(line.kind)
                .iter()
                .any(|path| mark(line.kind, path).is_some_and(|own| std::ptr::eq(own, line)));
            assert!(used, "{} {}: no field", line.kind, line.pattern.join("."));
            match line.mark {
                "honoured" | "refused" => assert!(crates.join(line.what).is_file(), "{} is not there", line.what),
                mark => assert!(matches!(mark, "warned" | "whole") && !line.what.is_empty(), "{mark}"),
            }
        }
    }

    /// Warnings are told by pattern alone, so none may hide behind a line before it.
    #[test]
    fn no_line_takes_from_a_warning() {
        for line in LINES.iter().filter(|line| line.mark == "warned") {
            for path in all_paths(line.kind).iter().filter(|path| line.fits(path)) {
                let first = mark(line.kind, path).map(|first| first.pattern.join("."));
                assert_eq!(first, Some(line.pattern.join(".")), "{}", path.join("."));
            }
        }
    }

    /// Marks of a test's own: what of the real ones warns today is honoured tomorrow.
    fn marks() -> Vec<Line> {
        read(
            "Pod\n  spec.hostUsers warned no users\n  spec.<containers>.label.** warned no label\n  \
             spec.tolerations.tolerationSeconds warned no eviction\n  spec.** honoured x\n\
             Pod/resize\n  spec.<containers>.resources.** warned no resize",
        )
    }

    fn told(of: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
        let found = unheeded_by(&marks(), of, object, old);
        found.into_iter().map(|field| format!("{}: {}", field.path, field.why)).collect()
    }

    #[test]
    fn only_what_is_set_warns() {
        let pod = json!({"spec": {
            "hostUsers": false,
            "containers": [{"name": "a", "label": {"level": "s0"}, "user": 1}, {"name": "b", "label": {}}],
            "tolerations": [{"key": "k"}, {"key": "l", "tolerationSeconds": 3}],
        }});
        let users = "spec.hostUsers: no users";
        let (label, toleration) =
            ("spec.containers[0].label: no label", "spec.tolerations[1].tolerationSeconds: no eviction");
        assert_eq!(told("Pod", &pod, None), [users, label, toleration]);
        let mut old = pod.clone();
        old["spec"]["hostUsers"] = true.into();
        assert_eq!(told("Pod", &pod, Some(&old)), [users]);
        assert_eq!(told("Pod", &pod, Some(&pod)), Vec::<String>::new());
        let plain = json!({"spec": {"containers": [{"name": "a", "image": "b"}]}});
        assert_eq!(told("Pod", &plain, None), Vec::<String>::new());
    }

    #[test]
    fn at_a_subresource_what_changes_there_warns() {
        let pod = |cpu: &str| json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}});
        assert_eq!(told("Pod/resize", &pod("1"), Some(&pod("1"))), Vec::<String>::new());
        let changed = told("Pod/resize", &pod("2"), Some(&pod("1")));
        assert_eq!(changed, ["spec.containers[0].resources: no resize"]);
    }
}
