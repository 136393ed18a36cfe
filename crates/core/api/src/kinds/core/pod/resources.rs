//! Sums of resources, as the scheduler and defaulting want them (upstream `component-helpers/resource`).

use super::is_sidecar;
use crate::tree::{Tree, quantity};
use schema::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

pub fn is_hugepages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether a resource may be given for the whole Pod.
pub fn is_pod_level(name: &str) -> bool {
    name == "cpu" || name == "memory" || is_hugepages(name)
}

/// `IsNativeResource`.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// `IsOvercommitAllowed`: limits may exceed requests.
pub fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_hugepages(name)
}

/// The quantities of a map of resources.
pub fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), quantity(value)?))).collect()
}

/// Adds `more` to `to`.
pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        to.entry(name.clone()).and_modify(|a| *a = a.add(amount)).or_insert(*amount);
    }
}

/// Lifts `to` to `more` where that is larger.
pub fn raise(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let slot = to.entry(name.clone()).or_insert(*amount);
        if *amount > *slot {
            *slot = *amount;
        }
    }
}

/// What containers need together: all main ones and sidecars, or an init container with the sidecars started before it
/// where that is more (KEP-753). `init` tells of each whether it is a sidecar.
pub fn together(main: impl Iterator<Item = Amounts>, init: impl Iterator<Item = (bool, Amounts)>) -> Amounts {
    let (mut total, mut sidecars, mut starting) = (Amounts::new(), Amounts::new(), Amounts::new());
    for own in main {
        add(&mut total, &own);
    }
    for (is_sidecar, own) in init {
        let mut beside = sidecars.clone();
        add(&mut beside, &own);
        if is_sidecar {
            add(&mut total, &own);
            sidecars.clone_from(&beside);
        }
        raise(&mut starting, &beside);
    }
    raise(&mut total, &starting);
    total
}

/// `PodRequests`: `total` of the containers, replaced by what is `given` for the whole Pod, plus overhead.
pub fn requests_of_pod(mut total: Amounts, given: Amounts, overhead: &Amounts) -> Amounts {
    total.extend(given.into_iter().filter(|(name, _)| is_pod_level(name)));
    add(&mut total, overhead);
    total
}

/// `PodLimits`: as [`requests_of_pod`], with overhead only where there is a limit.
pub fn limits_of_pod(mut total: Amounts, given: Amounts, overhead: &Amounts) -> Amounts {
    total.extend(given.into_iter().filter(|(name, _)| is_pod_level(name)));
    for (name, amount) in overhead {
        if let Some(limit) = total.get_mut(name).filter(|limit| !limit.is_zero()) {
            *limit = limit.add(amount);
        }
    }
    total
}

/// [`together`] for a Pod's spec. `kind` is `requests` or `limits`.
pub fn aggregate(spec: &Value, kind: &str) -> Amounts {
    let own = |container: &Value| amounts(&container["resources"][kind]);
    let init = spec.list("initContainers").iter().map(|container| (is_sidecar(container), own(container)));
    together(spec.list("containers").iter().map(own), init)
}

/// `PodRequests` and `PodLimits` of the spec.
pub fn of_pod(spec: &Value, kind: &str) -> Amounts {
    let (total, given, overhead) =
        (aggregate(spec, kind), amounts(&spec["resources"][kind]), amounts(&spec["overhead"]));
    if kind == "requests" { requests_of_pod(total, given, &overhead) } else { limits_of_pod(total, given, &overhead) }
}

/// `DefaultPodLevelResources`: where some resources are given for the whole Pod, the others follow from its containers.
pub fn default_pod_level(spec: &mut Value) {
    let given = &spec["resources"];
    if given.entries("requests").next().is_none() && given.entries("limits").next().is_none() {
        return;
    }
    let mut requests = amounts(&given["requests"]);
    let mut limits = amounts(&given["limits"]);
    let all_limits = aggregate(spec, "limits");
    for (name, amount) in &all_limits {
        if is_hugepages(name) && !requests.contains_key(name) {
            limits.entry(name.clone()).or_insert(*amount);
        }
    }
    for (name, amount) in aggregate(spec, "requests") {
        if is_pod_level(&name) && may_overcommit(&name) {
            requests.entry(name).or_insert(amount);
        }
    }
    for (name, amount) in &limits {
        if is_pod_level(name) {
            requests.entry(name.clone()).or_insert(*amount);
        }
    }
    let bounded = |name: &str| {
        super::CONTAINER_LISTS.iter().flat_map(|l| spec.list(l)).all(|c| c["resources"]["limits"].has(name))
    };
    for (name, request) in &requests {
        if is_pod_level(name)
            && !limits.contains_key(name)
            && bounded(name)
            && let Some(limit) = all_limits.get(name)
        {
            limits.insert(name.clone(), if request > limit { *request } else { *limit });
        }
    }
    let Some(given) = spec.get_mut("resources") else { return };
    for (kind, list) in [("requests", requests), ("limits", limits)] {
        if !list.is_empty() {
            given[kind] = list.into_iter().map(|(name, q)| (name, Value::from(q.canonical()))).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{aggregate, default_pod_level, of_pod};
    use serde_json::{Value, json};

    fn shown(amounts: &super::Amounts) -> Value {
        amounts.iter().map(|(name, amount)| (name.clone(), Value::from(amount.canonical()))).collect()
    }

    /// KEP-753's example: sidecars count with what runs beside them.
    #[test]
    fn init_containers_and_sidecars() {
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        let spec = json!({
            "initContainers": [
                {"resources": cpu("5")},
                {"resources": cpu("1"), "restartPolicy": "Always"},
                {"resources": cpu("6")},
                {"resources": cpu("2"), "restartPolicy": "Always"},
            ],
            "containers": [{"resources": cpu("1")}, {"resources": cpu("500m")}],
            "overhead": {"cpu": "100m", "memory": "1Mi"},
        });
        assert_eq!(shown(&aggregate(&spec, "requests")), json!({"cpu": "7"}));
        assert_eq!(shown(&of_pod(&spec, "requests")), json!({"cpu": "7100m", "memory": "1Mi"}));
    }

    #[test]
    fn what_is_not_given_for_the_whole_pod_follows_from_containers() {
        let mut spec = json!({
            "containers": [{"resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "1Gi"}}}],
            "resources": {"limits": {"memory": "2Gi"}},
        });
        default_pod_level(&mut spec);
        let wanted = json!({"limits": {"cpu": "200m", "memory": "2Gi"}, "requests": {"cpu": "100m", "memory": "2Gi"}});
        assert_eq!(spec["resources"], wanted);
    }
}
