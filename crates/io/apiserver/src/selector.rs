//! `LabelSelector` objects (`matchLabels`, `matchExpressions`) of a spec.

use serde_json::Value;
use std::collections::BTreeMap;

/// Whether a selector chooses these labels; no selector chooses nothing, an empty one everything.
pub(crate) fn matches(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    if !selector.is_object() {
        return false;
    }
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let all_equal = equal.into_iter().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str());
    all_equal && selector["matchExpressions"].as_array().into_iter().flatten().all(|term| expression(term, labels))
}

fn expression(term: &Value, labels: &BTreeMap<String, String>) -> bool {
    let present = term["key"].as_str().and_then(|key| labels.get(key));
    let listed =
        |value: &String| term["values"].as_array().is_some_and(|values| values.iter().any(|v| v == value.as_str()));
    match term["operator"].as_str() {
        Some("In") => present.is_some_and(listed),
        Some("NotIn") => !present.is_some_and(listed),
        Some("Exists") => present.is_some(),
        Some("DoesNotExist") => present.is_none(),
        _ => false,
    }
}
