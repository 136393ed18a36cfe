//! What Pods ask for: processor time in thousandths, everything else in units (component-helpers `resource.PodRequests`).

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use schema::quantity::Quantity;
use std::collections::BTreeMap;

pub(super) type Amounts = BTreeMap<String, i64>;

/// What the scores count for a container that asks for nothing (upstream `util/pod_resources.go`).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

pub(super) fn amounts(list: Option<&BTreeMap<String, Text>>) -> Amounts {
    let list = list.into_iter().flatten();
    list.filter_map(|(name, text)| {
        let quantity = Quantity::parse(&text.0).ok()?;
        Some((name.clone(), if name == "cpu" { quantity.milli_value() } else { quantity.value() }))
    })
    .collect()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let total = sum.entry(name.clone()).or_default();
        *total = total.saturating_add(*amount);
    }
}

fn raise(largest: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let old = largest.entry(name.clone()).or_default();
        *old = (*old).max(*amount);
    }
}

/// What a Pod asks a node for: the containers that run together, or the largest init container with the sidecars before it;
/// Pod-level requests win; overhead comes on top.
pub(super) fn of(pod: &Pod) -> Amounts {
    sum(pod, |container| amounts(container.resources.as_ref().and_then(|resources| resources.requests.as_ref())))
}

/// As [`of`], with something assumed for containers that ask for nothing, so that they are spread too.
pub(super) fn scored(pod: &Pod) -> Amounts {
    sum(pod, |container| {
        let mut own = amounts(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
        own.entry("cpu".to_owned()).or_insert(DEFAULT_MILLI_CPU);
        own.entry("memory".to_owned()).or_insert(DEFAULT_MEMORY);
        own
    })
}

fn sum(pod: &Pod, own: impl Fn(&Container) -> Amounts) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
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
    sum.extend(amounts(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref())));
    add(&mut sum, &amounts(spec.overhead.as_ref()));
    sum
}
