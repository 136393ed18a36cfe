//! Validation of resources: names, amounts, claims (upstream `validateResourceRequirements`, `validatePodResources`).

use super::resources::{aggregate, amounts, is_hugepages, is_native, is_pod_level, may_overcommit};
use super::validate::Lenient;
use super::{CONTAINER_LISTS, nowhere};
use crate::internal;
use crate::names;
use crate::tree::{Tree, quantity};
use schema::field::{ErrorList, FieldError, Path, duplicate, forbidden, invalid, not_found, not_supported, required};
use schema::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeSet;

const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

const WHOLE: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// `validateResourceName`.
pub(super) fn resource_name(name: &str, path: &Path) -> ErrorList {
    let found: ErrorList = names::errors(path, name, names::qualified_name(name)).collect();
    let standard = STANDARD.contains(&name) || is_hugepages(name) || name.starts_with("requests.hugepages-");
    if found.is_empty() && !name.contains('/') && !standard {
        return vec![invalid(path, name, "must be a standard resource type or fully qualified")];
    }
    found
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// `ValidateContainerResourceName`.
pub(super) fn container_resource_name(name: &str, path: &Path) -> ErrorList {
    let mut found = resource_name(name, path);
    if !name.contains('/') {
        if !["cpu", "memory", "ephemeral-storage"].contains(&name) && !is_hugepages(name) {
            found.push(invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        found.push(invalid(path, name, "doesn't follow extended resource name standard"));
    }
    found
}

fn pod_resource_name(name: &str, path: &Path) -> ErrorList {
    let found = resource_name(name, path);
    if found.is_empty() && !is_pod_level(name) {
        return vec![not_supported(path, name, &["cpu", "hugepages-", "memory"])];
    }
    found
}

/// `ValidateResourceQuantityValue`.
pub(super) fn quantity_value(name: &str, amount: Quantity, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    if amount.signum() < 0 {
        found.push(invalid(path, amount.canonical(), names::NEGATIVE));
    }
    if (WHOLE.contains(&name) || is_extended(name)) && amount.milli_value() % 1000 != 0 {
        found.push(invalid(path, amount.canonical(), "must be an integer"));
    }
    found
}

fn is_divisible(name: &str, amount: Quantity) -> bool {
    let Some(size) = name.strip_prefix("hugepages-").and_then(|s| Quantity::parse(s).ok()) else { return false };
    !size.is_zero() && size.signum() > 0 && size.milli_value() % 1000 == 0 && amount.value() % size.value() == 0
}

fn hugepages_error(name: &str, amount: Quantity, path: &Path, lenient: Lenient) -> Option<FieldError> {
    if !is_hugepages(name) || lenient.hugepage_sizes || is_divisible(name, amount) {
        return None;
    }
    let text = format!("{} is not positive integer multiple of {name}", amount.canonical());
    Some(invalid(path, amount.canonical(), &text))
}

/// Whether an old Pod has amounts of huge pages that are refused today. (Upstream does not look at those of the whole Pod.)
pub(super) fn has_indivisible_hugepages(spec: &Value) -> bool {
    let containers = CONTAINER_LISTS.iter().flat_map(|l| spec.list(l)).map(|c| &c["resources"]);
    containers
        .flat_map(|r| [&r["limits"], &r["requests"]])
        .chain(std::iter::once(&spec["overhead"]))
        .flat_map(amounts)
        .any(|(name, amount)| is_hugepages(&name) && !is_divisible(&name, amount))
}

/// `ValidateContainerResourceRequirements`; `claims` are the names of the Pod's resource claims.
pub(super) fn container(requirements: &Value, claims: &[&str], path: &Path, lenient: Lenient) -> ErrorList {
    validate(requirements, container_resource_name, claims, path, lenient)
}

fn validate(
    requirements: &Value,
    check_name: fn(&str, &Path) -> ErrorList,
    claims: &[&str],
    path: &Path,
    lenient: Lenient,
) -> ErrorList {
    let mut found = ErrorList::new();
    let (limits, requests) = (amounts(&requirements["limits"]), amounts(&requirements["requests"]));
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    for (name, amount) in &limits {
        let at = limits_path.key(name);
        found.extend(check_name(name, &at));
        found.extend(quantity_value(name, *amount, &at));
        found.extend(hugepages_error(name, *amount, &at, lenient));
    }
    for (name, amount) in &requests {
        let at = requests_path.key(name);
        found.extend(check_name(name, &at));
        found.extend(quantity_value(name, *amount, &at));
        match limits.get(name) {
            Some(limit) if *amount != *limit && amount_differs(*amount, *limit) && !may_overcommit(name) => {
                let text = format!("must be equal to {name} limit of {}", limit.canonical());
                found.push(invalid(&requests_path, amount.canonical(), &text));
            }
            Some(limit) if *amount > *limit => {
                let text = format!("must be less than or equal to {name} limit of {}", limit.canonical());
                found.push(invalid(&requests_path, amount.canonical(), &text));
            }
            None if !may_overcommit(name) => {
                found.push(required(&limits_path, "Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
        found.extend(hugepages_error(name, *amount, &at, lenient));
    }
    let any = |test: fn(&str) -> bool| limits.keys().chain(requests.keys()).any(|name| test(name));
    if any(is_hugepages) && !any(|name| name == "cpu" || name == "memory") {
        found.push(forbidden(path, "HugePages require cpu or memory"));
    }
    found.extend(claim_references(requirements.list("claims"), claims, &path.child("claims")));
    found
}

fn amount_differs(a: Quantity, b: Quantity) -> bool {
    a.partial_cmp(&b) != Some(std::cmp::Ordering::Equal)
}

/// `validateResourceClaimNames`.
fn claim_references(references: &[Value], claims: &[&str], path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (i, reference) in references.iter().enumerate() {
        let at = path.index(i);
        let (name, request) = (reference.text("name"), reference.text("request"));
        if name.is_empty() {
            found.push(required(&at, ""));
            continue;
        }
        if seen.contains(name) {
            found.push(duplicate(&at, name));
        } else {
            let mut key = name.to_owned();
            if !request.is_empty() {
                found.extend(names::errors(&at.child("request"), request, names::dns_label(request)));
                key = format!("{name}/{request}");
            }
            if seen.contains(&key) {
                found.push(duplicate(&at, key.clone()));
            } else if request.is_empty() {
                let parts = seen.iter().filter(|k| k.split_once('/').is_some_and(|(claim, _)| claim == name));
                found.extend(parts.map(|_| duplicate(&at, name)));
            }
            seen.insert(key);
        }
        if !claims.contains(&name) {
            let mut error = not_found(&at, name);
            error.message.push_str(": must be one of the names in pod.spec.resourceClaims");
            if claims.is_empty() {
                error.message.push_str(" which is empty");
            } else {
                error.message.push_str(": ");
                error.message.push_str(&claims.join(", "));
            }
            found.push(error);
        }
    }
    found
}

/// The names of a Pod's resource claims, sorted.
pub(super) fn claim_names(spec: &Value) -> Vec<&str> {
    let names: BTreeSet<&str> = spec.list("resourceClaims").iter().map(|c| c.text("name")).collect();
    names.into_iter().filter(|n| !n.is_empty()).collect()
}

/// `validatePodResourceClaims`.
pub(super) fn pod_claims(spec: &Value, metadata: Option<&Value>, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let mut seen = BTreeSet::new();
    let mirror = metadata.is_some_and(|m| m["annotations"].has("kubernetes.io/config.mirror"));
    for (i, claim) in spec.list("resourceClaims").iter().enumerate() {
        if mirror {
            found.push(forbidden(&nowhere(), "static pods do not support resource claims"));
            continue;
        }
        let at = path.index(i);
        let name = claim.text("name");
        if name.is_empty() {
            found.push(required(&at.child("name"), ""));
        } else if seen.contains(name) {
            found.push(duplicate(&at.child("name"), name));
        } else {
            found.extend(names::errors(&at.child("name"), name, names::dns_label(name)));
            seen.insert(name);
        }
        let fields = ["resourceClaimName", "resourceClaimTemplateName"];
        let text = match fields.iter().filter(|f| claim.has(f)).count() {
            0 => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            1 => "",
            _ => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
        };
        if !text.is_empty() {
            found.push(internal::invalid(&at, "PodResourceClaim", claim, text));
        }
        for field in fields {
            if let Some(name) = claim.text_opt(field) {
                found.extend(names::errors(&at.child(field), name, names::dns_subdomain(name)));
            }
        }
    }
    found
}

/// `validatePodResources`: what is given for the whole Pod.
pub(super) fn pod_level(spec: &Value, path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    let Some(given) = spec.field("resources") else { return found };
    let at = path.child("resources");
    if spec["os"].text("name") == "windows" {
        return vec![forbidden(&at, "may not be set for a windows pod")];
    }
    if given.has("claims") {
        found.push(forbidden(&at.child("claims"), "claims may not be set for Resources at pod-level"));
    }
    found.extend(validate(given, pod_resource_name, &claim_names(spec), &at, lenient));
    for (kind, only_hugepages) in [("requests", false), ("limits", true)] {
        let word = if only_hugepages { "limits" } else { "requests" };
        for (name, sum) in aggregate(spec, kind) {
            let Some(whole) = quantity(&given[kind][&name]).filter(|_| !only_hugepages || is_hugepages(&name)) else {
                continue;
            };
            if sum > whole {
                let text =
                    format!("must be greater than or equal to aggregate container {word} of {}", sum.canonical());
                found.push(invalid(&at.child(kind).key(&name), whole.canonical(), &text));
            }
        }
    }
    for (i, container) in spec.list("containers").iter().enumerate() {
        for (name, limit) in amounts(&container["resources"]["limits"]) {
            if let Some(whole) = quantity(&given["limits"][&name]).filter(|whole| limit > *whole) {
                let at = at.child("containers").index(i).key(&name).child("limits");
                let text = format!("must be less than or equal to pod limits of {}", whole.canonical());
                found.push(invalid(&at, limit.canonical(), &text));
            }
        }
    }
    found
}
