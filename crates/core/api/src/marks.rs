//! What becomes of each field of the kinds with behaviour (`marks.txt`): somebody acts upon it, refuses it, or it is stored
//! with a warning. A field without a mark fails the tests.

use serde_json::Value;
use std::sync::LazyLock;

struct Line {
    kind: &'static str,
    pattern: Vec<&'static str>,
    /// `honoured`, `refused` or `warned`.
    mark: &'static str,
    /// The file that does it, below `crates/`; of what is warned, why nothing comes of it.
    what: &'static str,
}

static LINES: LazyLock<Vec<Line>> = LazyLock::new(|| {
    let mut kind = "";
    let mut lines = Vec::new();
    for text in include_str!("marks.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
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
});

fn names(wanted: &str, name: &str) -> bool {
    match wanted {
        "*" => true,
        "<containers>" => matches!(name, "containers" | "initContainers" | "ephemeralContainers"),
        wanted => wanted == name,
    }
}

/// A `Warning:` for each field of a core kind that is set and that nobody acts upon, in the order of the table. `object`
/// is as its writer sent it: what admission adds is nobody's wish.
pub fn warnings(kind: &str, object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for line in LINES.iter().filter(|line| line.kind == kind && line.mark == "warned") {
        let end = line.pattern.iter().position(|name| *name == "**").unwrap_or(line.pattern.len());
        let mut paths = Vec::new();
        set_at(object, &line.pattern[..end], String::new(), &mut paths);
        let told = |path| format!("{path}: stored, but minke does not act on it yet: {}", line.what);
        warnings.extend(paths.into_iter().map(told));
    }
    warnings
}

/// The paths of what is set under a pattern; lists are told by index.
fn set_at(value: &Value, pattern: &[&str], path: String, found: &mut Vec<String>) {
    if let Value::Array(items) = value {
        for (at, item) in items.iter().enumerate() {
            if pattern.is_empty() {
                found.push(path);
                return;
            }
            set_at(item, pattern, format!("{path}[{at}]"), found);
        }
        return;
    }
    let Some((wanted, rest)) = pattern.split_first() else {
        if !value.is_null() && *value != Value::Object(serde_json::Map::new()) {
            found.push(path);
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
        let of = table::type_of("", "v1", kind).unwrap();
        let mut all = Vec::new();
        paths(of, &[], &[of], &mut all);
        all.retain(|path| !matches!(path[0], "kind" | "apiVersion" | "metadata" | "status"));
        all
    }

    fn kinds() -> Vec<&'static str> {
        let mut kinds: Vec<&str> = LINES.iter().map(|line| line.kind).collect();
        kinds.dedup();
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
                mark => assert!(mark == "warned" && !line.what.is_empty(), "{mark}"),
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

    #[test]
    fn only_what_is_set_warns() {
        let pod = json!({"spec": {
            "hostUsers": false,
            "containers": [
                {"name": "a", "securityContext": {"seLinuxOptions": {"level": "s0"}, "runAsUser": 1}},
                {"name": "b", "securityContext": {"seLinuxOptions": {}}, "resizePolicy": []},
            ],
            "tolerations": [{"key": "k"}, {"key": "l", "tolerationSeconds": 3}],
        }});
        expect_test::expect![[r#"
            spec.containers[0].securityContext.seLinuxOptions: stored, but minke does not act on it yet: no SELinux label is applied
            spec.hostUsers: stored, but minke does not act on it yet: Pods get no user namespace of their own
            spec.tolerations[1].tolerationSeconds: stored, but minke does not act on it yet: no Pod is evicted for a taint"#]]
        .assert_eq(&warnings("Pod", &pod).join("\n"));
        assert_eq!(
            warnings("Pod", &json!({"spec": {"containers": [{"name": "a", "image": "b"}]}})),
            Vec::<String>::new()
        );
    }
}
