//! What the validations of workloads share (upstream `apis/apps/validation`, `apis/core/validation`).

use crate::internal;
use crate::kinds::core::pod::template;
use crate::meta::validate_label_selector;
use crate::names::{self, IMMUTABLE, NEGATIVE};
use crate::tree::{Tree, same};
use schema::field::{ErrorList, FieldError, Path, forbidden, invalid, not_supported, required};
use schema::selector::LabelSelector;
use serde_json::Value;

/// How a kind words its rules of selector and template.
pub(super) struct Words {
    /// `empty selector is invalid for …`
    pub empty_for: &'static str,
    /// What a selector that cannot be read is told; `None`: nothing more than its own errors.
    pub unreadable: Option<&'static str>,
    /// `activeDeadlineSeconds in … is not Supported`
    pub deadline_in: &'static str,
}

/// Numbers of `of` that may not be negative; absent ones pass.
pub(in crate::kinds) fn not_negative(of: &Value, fields: &[&str], path: &Path) -> ErrorList {
    let wrong = fields.iter().filter(|field| of.int(field) < 0);
    wrong.map(|field| invalid(&path.child(field), of.int(field), NEGATIVE)).collect()
}

/// Counts of `of` that may not be more than another one.
pub(super) fn not_above(of: &Value, fields: &[&str], limit: &str, path: &Path) -> ErrorList {
    let wrong = fields.iter().filter(|field| of.int(field) > of.int(limit));
    wrong
        .map(|field| {
            let said = if limit == "replicas" { "status.replicas" } else { limit };
            invalid(&path.child(field), of.int(field), &format!("cannot be greater than {said}"))
        })
        .collect()
}

pub(super) fn collisions(new: &Value, old: &Value) -> Option<FieldError> {
    let (now, before) = (new["status"].int("collisionCount"), old["status"].int("collisionCount"));
    let path = Path::new("status").child("collisionCount");
    (now < before).then(|| invalid(&path, now, "cannot be decremented"))
}

/// A label selector as upstream shows one that it rejects.
pub(super) fn rejected_selector(spec: &Value, path: &Path, detail: &str) -> FieldError {
    internal::invalid(&path.child("selector"), "metav1.LabelSelector", &spec["selector"], detail)
}

pub(super) fn selector_is_kept(new: &Value, old: &Value) -> ErrorList {
    let (new, old) = (&new["spec"], &old["spec"]);
    if same(&new["selector"], &old["selector"]) {
        return ErrorList::new();
    }
    vec![rejected_selector(new, &Path::new("spec"), IMMUTABLE)]
}

/// The selector, and whether the template's labels are what it selects.
pub(super) fn selector_and_labels(spec: &Value, path: &Path, words: &Words) -> ErrorList {
    let selector = spec.field("selector");
    let mut found = ErrorList::new();
    match selector {
        None => found.push(required(&path.child("selector"), "")),
        Some(selector) => {
            found.extend(validate_label_selector(Some(selector), &path.child("selector")));
            let empty =
                selector.entries("matchLabels").next().is_none() && selector.list("matchExpressions").is_empty();
            if empty {
                let detail = format!("empty selector is invalid for {}", words.empty_for);
                found.push(rejected_selector(spec, path, &detail));
            }
        }
    }
    match (LabelSelector::from_value(&spec["selector"]), words.unreadable) {
        (Err(_), Some(detail)) => found.push(rejected_selector(spec, path, detail)),
        (Err(_), None) => {}
        (Ok(selector), _) => {
            let labels = spec["template"]["metadata"].pairs("labels");
            let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            if !selector.matches(&labels) {
                found.push(other_labels(&spec["template"], &path.child("template")));
            }
        }
    }
    found
}

/// The template's labels are not what the selector wants.
pub(super) fn other_labels(template: &Value, path: &Path) -> FieldError {
    let labels = template["metadata"]["labels"].clone();
    invalid(&path.child("metadata").child("labels"), labels, "`selector` does not match template `labels`")
}

/// [`selector_and_labels`], and the template of Pods that run for good where the selector can be read.
pub(super) fn selector_and_template(spec: &Value, old: &Value, path: &Path, words: &Words) -> ErrorList {
    let mut found = selector_and_labels(spec, path, words);
    if LabelSelector::from_value(&spec["selector"]).is_ok() {
        found.extend(lasting_template(&spec["template"], &old["template"], &path.child("template"), words));
    }
    found
}

/// The template of Pods that run for good.
pub(super) fn lasting_template(template: &Value, old: &Value, path: &Path, words: &Words) -> ErrorList {
    let mut found = template::validate(template, old, path);
    found.extend(runs_for_good(template, path, words));
    found
}

pub(super) fn runs_for_good(template: &Value, path: &Path, words: &Words) -> ErrorList {
    let (spec, path) = (&template["spec"], path.child("spec"));
    let mut found = ErrorList::new();
    // Without a spec there is nothing that defaults could have filled.
    let policy = if spec.is_object() { spec.text("restartPolicy") } else { "Always" };
    if policy != "Always" {
        found.push(not_supported(&path.child("restartPolicy"), policy, &["Always"]));
    }
    if spec.has("activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {} is not Supported", words.deadline_in);
        found.push(forbidden(&path.child("activeDeadlineSeconds"), &detail));
    }
    found
}

/// `ValidatePositiveIntOrPercent`.
pub(in crate::kinds) fn int_or_percent(value: &Value, path: &Path) -> ErrorList {
    match value {
        Value::String(text) => names::errors(path, text, names::percent(text)).collect(),
        number if number.as_i64().unwrap_or_default() < 0 => vec![invalid(path, number.clone(), NEGATIVE)],
        _ => ErrorList::new(),
    }
}

/// The number, or that of the percentage.
pub(super) fn amount(value: &Value) -> i64 {
    match value.as_str() {
        Some(text) => text.strip_suffix('%').unwrap_or(text).parse().unwrap_or_default(),
        None => value.as_i64().unwrap_or_default(),
    }
}

/// `IsNotMoreThan100Percent`.
pub(in crate::kinds) fn at_most_all(value: &Value, path: &Path) -> ErrorList {
    let percent = value.as_str().filter(|text| names::percent(text).is_empty());
    match percent {
        Some(_) if amount(value) > 100 => vec![invalid(path, value.clone(), "must not be greater than 100%")],
        _ => ErrorList::new(),
    }
}

/// What an object is warned of whose Pods bear its name, with the template at `spec.template`.
pub(super) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    warnings_at(new, old, &["spec", "template"])
}

/// The same, with the template elsewhere.
pub(super) fn warnings_at(new: &Value, old: Option<&Value>, path: &[&str]) -> Vec<String> {
    let name = old.is_none().then(|| name_warning(crate::meta::name(new))).flatten();
    name.into_iter().chain(template_warnings(new, old, path)).collect()
}

/// Pods are named after it, so a DNS label is better.
fn name_warning(name: &str) -> Option<String> {
    let messages = names::dns_label(name);
    (!messages.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
            messages.join(" ")
        )
    })
}

/// The warnings of the Pod template: of a new object, and where an update counts.
pub(super) fn template_warnings(new: &Value, old: Option<&Value>, path: &[&str]) -> Vec<String> {
    if old.is_some_and(|old| crate::meta::generation(old) == crate::meta::generation(new)) {
        return Vec::new();
    }
    let template = path.iter().fold(new, |of, field| &of[*field]);
    let path = path.iter().fold(Path::default(), |of, field| of.child(field));
    template::warnings(template, &path)
}
