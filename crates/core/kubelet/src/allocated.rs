//! What a Pod's containers are given together, as the status shows it (component-helpers `resource.PodRequests`, KEP-753,
//! KEP-2837).

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use schema::quantity::Quantity;
use std::collections::BTreeMap;

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Quantity>;
type List = BTreeMap<String, Text>;

fn amounts(list: Option<&List>) -> Amounts {
    let list = list.into_iter().flatten();
    list.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(&text.0).ok()?))).collect()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let total = sum.get(name).map_or(*amount, |old| old.add(amount));
        sum.insert(name.clone(), total);
    }
}

fn raise(largest: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if largest.get(name).is_none_or(|old| old < amount) {
            largest.insert(name.clone(), *amount);
        }
    }
}

/// The sum of the containers that run together, or the largest init container with the sidecars started before it; Pod-level
/// amounts win; overhead comes on top.
fn together(pod: &Pod, of: impl Fn(&ResourceRequirements) -> Option<&List>) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let own = |container: &Container| amounts(container.resources.as_ref().and_then(&of));
    let (mut sum, mut sidecars, mut largest) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in &spec.containers {
        add(&mut sum, &own(container));
    }
    for container in spec.init_containers.iter().flatten() {
        let mut beside = sidecars.clone();
        add(&mut beside, &own(container));
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.clone_from(&beside);
        }
        raise(&mut largest, &beside);
    }
    add(&mut sum, &sidecars);
    raise(&mut sum, &largest);
    sum.extend(amounts(spec.resources.as_ref().and_then(&of)));
    add(&mut sum, &amounts(spec.overhead.as_ref()));
    sum
}

/// What a Pod asks a node for.
pub fn requested(pod: &Pod) -> Amounts {
    together(pod, |resources| resources.requests.as_ref())
}

fn list(amounts: &Amounts) -> Option<List> {
    let list: List = amounts.iter().map(|(name, amount)| (name.clone(), Text(amount.canonical()))).collect();
    Some(list).filter(|list| !list.is_empty())
}

/// `status.allocatedResources`.
pub fn requests(pod: &Pod) -> Option<List> {
    list(&requested(pod))
}

/// `status.resources`. Until the API has the Pod as running this is what the spec gives, afterwards what its cgroup is set
/// to: processor and memory, and a limit only if every container has one (upstream `convertToAPIPodLevelResourcesStatus`).
pub fn resources(pod: &Pod, runs: bool) -> ResourceRequirements {
    let mut limits = together(pod, |resources| resources.limits.as_ref());
    let mut requests = requested(pod);
    if runs {
        let spec = pod.spec.as_ref();
        let all =
            || spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        let has = |list: Option<&ResourceRequirements>, name: &str| {
            list.and_then(|r| r.limits.as_ref()).is_some_and(|limits| limits.contains_key(name))
        };
        let in_cgroup = |name: &str| name == "cpu" || name == "memory";
        let pod_level = spec.and_then(|spec| spec.resources.as_ref());
        requests.retain(|name, _| in_cgroup(name));
        limits.retain(|name, _| {
            in_cgroup(name) && (has(pod_level, name) || all().all(|c| has(c.resources.as_ref(), name)))
        });
    }
    ResourceRequirements { limits: list(&limits), requests: list(&requests), claims: None }
}
