//! LimitRanger: a namespace's LimitRanges give containers their default resources and bound what is asked for.

use super::pod::{CONTAINER_LISTS, items, text};
use super::{Operation, Request};
use crate::authorization::rbac::aggregate;
use crate::lookup::GroupResource;
use crate::refusal::Refusal;
use api::kinds::core::pod::resources::of_pod;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;
use schema::quantity::Quantity;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const RANGES: GroupResource = GroupResource::new("", "limitranges");
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
type Amounts = BTreeMap<String, Quantity>;

fn ranges(request: &Request<'_>) -> Vec<Arc<LimitRange>> {
    let creates = request.operation == Operation::Create && request.subresource.is_empty();
    let applies = match (request.group, request.resource) {
        ("", "pods") => creates || (request.operation == Operation::Update && request.subresource == "resize"),
        ("", "persistentvolumeclaims") => {
            request.subresource.is_empty() && matches!(request.operation, Operation::Create | Operation::Update)
        }
        _ => false,
    };
    let ending = request.old.is_some_and(|old| !old["metadata"]["deletionTimestamp"].is_null());
    if applies && !ending { request.list(RANGES, request.namespace) } else { Vec::new() }
}

fn limits(range: &LimitRange) -> impl Iterator<Item = &LimitRangeItem> {
    range.spec.iter().flat_map(|spec| &spec.limits)
}

pub(super) fn mutate(request: &Request<'_>, new: &mut Value) {
    if request.resource == "pods" {
        ranges(request).iter().for_each(|range| fill(range, new));
    }
}

pub(super) fn validate(request: &Request<'_>, new: &Value) -> Result<(), Refusal> {
    ranges(request).iter().try_for_each(|range| judge(request, range, new))
}

fn fill(range: &LimitRange, pod: &mut Value) {
    let mut defaults: [(&str, BTreeMap<String, String>); 2] =
        [("requests", BTreeMap::new()), ("limits", BTreeMap::new())];
    for item in limits(range).filter(|item| item.type_ == "Container") {
        for (to, from) in defaults.iter_mut().zip([&item.default_request, &item.default]) {
            to.1.extend(from.iter().flatten().map(|(name, amount)| (name.clone(), amount.0.clone())));
        }
    }
    let mut told = Vec::new();
    for list in ["containers", "initContainers"] {
        let what = if list == "containers" { "container" } else { "init container" };
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for (field, defaults) in &defaults {
                let present = container["resources"][field].as_object().cloned().unwrap_or_default();
                let missing: Vec<(&String, &String)> =
                    defaults.iter().filter(|(name, _)| !present.contains_key(*name)).collect();
                if missing.is_empty() {
                    continue;
                }
                let mut amounts: Map<String, Value> = present;
                amounts.extend(missing.iter().map(|(name, amount)| ((*name).clone(), Value::from(amount.as_str()))));
                container["resources"][field] = Value::Object(amounts);
                let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
                let kind = if *field == "requests" { "request" } else { "limit" };
                told.push(format!("{} {kind} for {what} {}", names.join(", "), text(container, "name")));
            }
        }
    }
    if told.is_empty() {
        return;
    }
    if !pod["metadata"]["annotations"].is_object() {
        pod["metadata"]["annotations"] = json!({});
    }
    pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", told.join("; ")).into();
}

fn judge(request: &Request<'_>, range: &LimitRange, object: &Value) -> Result<(), Refusal> {
    let mut problems = Vec::new();
    for item in limits(range) {
        match (request.resource, item.type_.as_str()) {
            ("pods", "Container") => {
                // Containers come before init containers here.
                for container in CONTAINER_LISTS.into_iter().rev().flat_map(|list| items(&object["spec"], list)) {
                    let of = |field: &str| amounts(&container["resources"][field]);
                    problems.extend(bounds(item, &of("requests"), &of("limits")));
                }
            }
            ("pods", "Pod") => {
                let mut spec = object["spec"].clone();
                // Overhead is the runtime class's, not the Pod's own wish.
                spec["overhead"] = Value::Null;
                problems.extend(bounds(item, &of_pod(&spec, "requests"), &of_pod(&spec, "limits")));
            }
            ("persistentvolumeclaims", "PersistentVolumeClaim") => {
                problems.extend(claim_bounds(item, &amounts(&object["spec"]["resources"]["requests"])));
            }
            _ => {}
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(request.forbidden(object, &aggregate(&problems))) }
}

fn amounts(list: &Value) -> Amounts {
    let parsed = |(name, amount): (&String, &Value)| Some((name.clone(), Quantity::parse(amount.as_str()?).ok()?));
    list.as_object().into_iter().flatten().filter_map(parsed).collect()
}

fn wire(list: Option<&BTreeMap<String, Wire>>) -> impl Iterator<Item = (&str, Quantity)> {
    let all = list.into_iter().flatten();
    all.filter_map(|(name, amount)| Some((name.as_str(), Quantity::parse(&amount.0).ok()?)))
}

fn bounds(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts) -> Vec<String> {
    let of = &item.type_;
    let mut problems = Vec::new();
    for (name, least) in wire(item.min.as_ref()) {
        let head = format!("minimum {name} usage per {of} is {}", least.canonical());
        problems.extend(match (requests.get(name), limits.get(name)) {
            (None, _) => Some(format!("{head}.  No request is specified")),
            (Some(request), _) if *request < least => Some(format!("{head}, but request is {}", request.canonical())),
            (_, Some(limit)) if *limit < least => Some(format!("{head}, but limit is {}", limit.canonical())),
            _ => None,
        });
    }
    for (name, most) in wire(item.max.as_ref()) {
        let head = format!("maximum {name} usage per {of} is {}", most.canonical());
        problems.extend(match (requests.get(name), limits.get(name)) {
            (_, None) => Some(format!("{head}.  No limit is specified")),
            (_, Some(limit)) if *limit > most => Some(format!("{head}, but limit is {}", limit.canonical())),
            (Some(request), _) if *request > most => Some(format!("{head}, but request is {}", request.canonical())),
            _ => None,
        });
    }
    for (name, ratio) in wire(item.max_limit_request_ratio.as_ref()) {
        problems.extend(ratio_problem(name, of, ratio, requests.get(name), limits.get(name)));
    }
    problems
}

fn ratio_problem(
    name: &str,
    of: &str,
    ratio: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {of} is {}", ratio.canonical());
    let Some(request) = request.filter(|request| !request.is_zero()) else {
        return Some(format!("{head}, but no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
        return Some(format!("{head}, but no limit is specified or limit is 0"));
    };
    // limit/request > ratio, without leaving whole numbers.
    let exceeds =
        i128::from(limit.milli_value()) * 1000 > i128::from(request.milli_value()) * i128::from(ratio.milli_value());
    #[allow(clippy::cast_precision_loss)]
    let shown = limit.milli_value() as f64 / request.milli_value() as f64;
    exceeds.then(|| format!("{head}, but provided ratio is {shown:.6}"))
}

fn claim_bounds(item: &LimitRangeItem, requests: &Amounts) -> Vec<String> {
    let of = &item.type_;
    let mut problems = Vec::new();
    for (what, list) in [("minimum", item.min.as_ref()), ("maximum", item.max.as_ref())] {
        for (name, bound) in wire(list) {
            let head = format!("{what} {name} usage per {of} is {}", bound.canonical());
            let outside = |request: &Quantity| if what == "minimum" { *request < bound } else { *request > bound };
            problems.extend(match requests.get(name) {
                None => Some(format!("{head}.  No request is specified")),
                Some(request) if outside(request) => Some(format!("{head}, but request is {}", request.canonical())),
                Some(_) => None,
            });
        }
    }
    problems
}
