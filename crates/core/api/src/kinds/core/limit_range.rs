//! `v1` LimitRange (upstream `ValidateLimitRange`).

use super::pod::{container_resource_name, resource_name, resources};
use crate::names::{errors, qualified_name};
use crate::rules::Rules;
use crate::tree::{Tree, list_mut};
use schema::field::{ErrorList, Path, duplicate, forbidden, invalid, required};
use schema::quantity::{Quantity, Suffix};
use serde_json::Value;
use std::collections::BTreeSet;

pub static RULES: Rules =
    Rules { default, validate, validate_update: |new, _| validate(new), create_on_update: true, ..Rules::PLAIN };

const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];
/// Above it upstream compares whole values only.
const MILLI_MAX: i64 = i64::MAX / 1000;

/// A container's default limit is the maximum, its default request the limit, or else the minimum.
fn default(range: &mut Value) {
    let Some(spec) = range.get_mut("spec") else { return };
    for item in list_mut(spec, "limits") {
        if item.text("type") != "Container" {
            continue;
        }
        for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
            let amounts: Vec<(String, Value)> = item.entries(from).map(|(k, v)| (k.clone(), v.clone())).collect();
            for (name, amount) in amounts {
                if item[to].get(&name).is_none() {
                    item[to][name] = amount;
                }
            }
        }
    }
}

fn validate(range: &Value) -> ErrorList {
    let path = Path::new("spec").child("limits");
    let mut found = ErrorList::new();
    let mut types = BTreeSet::new();
    for (at, limit) in range["spec"].list("limits").iter().enumerate() {
        let (path, of) = (path.index(at), limit.text("type"));
        let messages = qualified_name(of);
        let at = path.child("type");
        if messages.is_empty() && !of.contains('/') && !TYPES.contains(&of) {
            found.push(invalid(&at, of, "must be a standard limit type or fully qualified"));
        }
        found.extend(errors(&at, of, messages));
        if !types.insert(of) {
            found.push(duplicate(&at, of));
        }
        found.extend(validate_limit(limit, &path));
    }
    found
}

fn validate_limit(limit: &Value, path: &Path) -> ErrorList {
    let of = limit.text("type");
    let mut found = ErrorList::new();
    let mut names = BTreeSet::new();
    for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let at = path.child(field);
        if field == "maxLimitRequestRatio" && of == "PersistentVolumeClaim" {
            let bounded = ["min", "max"].iter().any(|field| limit[*field].has("storage"));
            if !bounded {
                let detail = "either minimum or maximum storage value is required, but neither was provided";
                found.push(required(&path.child("limits"), detail));
            }
        }
        if of == "Pod" && field.starts_with("default") {
            if limit.entries(field).next().is_some() {
                found.push(forbidden(&at, "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for (name, _) in limit.entries(field) {
            let at = at.key(name);
            let by_container = matches!(of, "Pod" | "Container");
            found.extend(if by_container { container_resource_name(name, &at) } else { resource_name(name, &at) });
            names.insert(name.as_str());
        }
    }
    names.into_iter().for_each(|name| found.extend(validate_amounts(limit, name, path)));
    found
}

/// How the bounds and defaults of one resource agree.
fn validate_amounts(limit: &Value, name: &str, path: &Path) -> ErrorList {
    let of = |field: &str| {
        let given = limit[field].get(name).and_then(crate::tree::quantity);
        given.filter(|_| limit.text("type") != "Pod" || !field.starts_with("default"))
    };
    let (least, most, usual, request, ratio) =
        (of("min"), of("max"), of("default"), of("defaultRequest"), of("maxLimitRequestRatio"));
    let mut found = ErrorList::new();
    let mut ordered =
        |low: Option<Quantity>, high: Option<Quantity>, words: [&str; 2], field: &str, shown: Option<Quantity>| {
            if let (Some(low), Some(high), Some(shown)) = (low, high, shown)
                && low > high
            {
                let (low, high) = (low.canonical(), high.canonical());
                let detail = format!("{} value {low} is greater than {} value {high}", words[0], words[1]);
                found.push(invalid(&path.child(field).key(name), shown.canonical(), &detail));
            }
        };
    ordered(least, most, ["min", "max"], "min", least);
    ordered(least, request, ["min", "default request"], "defaultRequest", request);
    ordered(request, most, ["default request", "max"], "defaultRequest", request);
    ordered(request, usual, ["default request", "default limit"], "defaultRequest", request);
    // Upstream shows the bound, not the default.
    ordered(least, usual, ["min", "default"], "default", least);
    ordered(usual, most, ["default", "max"], "default", most);
    if let Some(ratio) = ratio {
        let at = path.child("maxLimitRequestRatio").key(name);
        let shown = ratio.canonical();
        if ratio < Quantity::from_value(1, Suffix::Decimal) {
            found.push(invalid(&at, shown.clone(), &format!("ratio {shown} is less than 1")));
        }
        if let (Some(least), Some(most)) = (least, most) {
            let [wanted, least, most] = numbers([ratio, least, most]);
            let possible = most / least;
            if wanted > possible {
                let detail = format!("ratio {shown} is greater than max/min = {possible:.6}");
                found.push(invalid(&at, shown, &detail));
            }
        }
    }
    if let (Some(usual), Some(request)) = (usual, request)
        && !resources::may_overcommit(name)
        && usual != request
    {
        let (usual, request) = (usual.canonical(), request.canonical());
        let detail = format!("default value {usual} must equal to defaultRequest value {request} in {name}");
        found.push(invalid(&path.child("defaultRequest").key(name), request, &detail));
    }
    found
}

/// Amounts as numbers that can be divided: in thousandths, unless one is too large for that.
#[expect(clippy::cast_precision_loss, reason = "upstream divides floats as well")]
fn numbers([ratio, least, most]: [Quantity; 3]) -> [f64; 3] {
    let small = [ratio, least, most].iter().all(|amount| amount.value() < MILLI_MAX);
    if small {
        [ratio.milli_value() as f64 / 1000.0, least.milli_value() as f64, most.milli_value() as f64]
    } else {
        [ratio, least, most].map(|amount| amount.value() as f64)
    }
}
