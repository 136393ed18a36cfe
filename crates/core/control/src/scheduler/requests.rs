//! What Pods ask for and what they hold: processor time in thousandths, everything else in units (component-helpers
//! `resource.PodRequests`).

use api::kinds::core::pod::resources::{self, raise, together};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use schema::quantity::{Quantity, Suffix};
use std::collections::BTreeMap;

pub(super) type Amounts = BTreeMap<String, i64>;
type List = BTreeMap<String, Text>;

/// What the scores count for a container that asks for nothing (upstream `util/pod_resources.go`).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

fn exact(list: Option<&List>) -> resources::Amounts {
    let list = list.into_iter().flatten();
    list.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(&text.0).ok()?))).collect()
}

fn in_units(amounts: resources::Amounts) -> Amounts {
    let unit = |name: &str, amount: Quantity| if name == "cpu" { amount.milli_value() } else { amount.value() };
    amounts.into_iter().map(|(name, amount)| (name.clone(), unit(&name, amount))).collect()
}

pub(super) fn amounts(list: Option<&List>) -> Amounts {
    in_units(exact(list))
}

fn own(container: &Container) -> Option<&List> {
    container.resources.as_ref()?.requests.as_ref()
}

/// What a Pod asks a node for: the containers that run together, or the largest init container with the sidecars before it;
/// Pod-level requests win; overhead comes on top.
pub(super) fn of(pod: &Pod) -> Amounts {
    in_units(asked(pod, |container| exact(own(container))))
}

/// As [`of`], with something assumed for containers that ask for nothing, so that they are spread too.
pub(super) fn scored(pod: &Pod) -> Amounts {
    in_units(asked(pod, |container| assumed(exact(own(container)))))
}

/// What a Pod on a node holds there: while it is resized, the largest of what it asks for, was granted and has; what can
/// never be granted does not count (KEP-1287).
pub(super) fn held(pod: &Pod) -> Amounts {
    in_units(largest(pod, |amounts| amounts))
}

/// As [`held`], with [`scored`]'s assumption.
pub(super) fn held_scored(pod: &Pod) -> Amounts {
    in_units(largest(pod, assumed))
}

fn assumed(mut own: resources::Amounts) -> resources::Amounts {
    own.entry("cpu".to_owned()).or_insert(Quantity::from_milli(DEFAULT_MILLI_CPU, Suffix::Decimal));
    own.entry("memory".to_owned()).or_insert(Quantity::from_value(DEFAULT_MEMORY, Suffix::Binary));
    own
}

fn largest(pod: &Pod, and: fn(resources::Amounts) -> resources::Amounts) -> resources::Amounts {
    let status = pod.status.as_ref();
    let mut conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
    let infeasible = conditions
        .any(|condition| condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible"));
    let whole = status.and_then(|status| {
        let actual = status.resources.as_ref()?.requests.as_ref()?;
        Some([status.allocated_resources.as_ref()?, actual])
    });
    let statuses: Vec<_> = status
        .into_iter()
        .flat_map(|status| [&status.container_statuses, &status.init_container_statuses])
        .flatten()
        .flatten()
        .collect();
    let of = |pick: fn(&ContainerStatus) -> Option<&List>| {
        asked(pod, |container| {
            let status = statuses.iter().find(|status| status.name == container.name);
            and(exact(status.and_then(|status| pick(status)).or_else(|| own(container).filter(|_| !infeasible))))
        })
    };
    let mut held =
        if infeasible { resources::Amounts::new() } else { asked(pod, |container| and(exact(own(container)))) };
    match whole {
        Some(lists) => lists.into_iter().for_each(|list| raise(&mut held, &exact(Some(list)))),
        None => {
            raise(&mut held, &of(|status| status.allocated_resources.as_ref()));
            raise(&mut held, &of(|status| status.resources.as_ref()?.requests.as_ref()));
        }
    }
    held
}

fn asked(pod: &Pod, own: impl Fn(&Container) -> resources::Amounts) -> resources::Amounts {
    let Some(spec) = &pod.spec else { return resources::Amounts::new() };
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|container| (container.restart_policy.as_deref() == Some("Always"), own(container)));
    let given = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    resources::requests_of_pod(
        together(spec.containers.iter().map(&own), init),
        exact(given),
        &exact(spec.overhead.as_ref()),
    )
}
