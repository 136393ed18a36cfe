//! What a Pod is given: the sums of its containers, and what of it can be changed while it runs (component-helpers
//! `resource.PodRequests`, KEP-753, KEP-1287, KEP-2837).

use api::kinds::core::pod::resources::{Amounts, limits_of_pod, requests_of_pod, together};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use schema::quantity::Quantity;
use std::collections::BTreeMap;

type List = BTreeMap<String, Text>;

fn amounts(list: Option<&List>) -> Amounts {
    let list = list.into_iter().flatten();
    list.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(&text.0).ok()?))).collect()
}

fn sum(spec: &PodSpec, of: impl Fn(&ResourceRequirements) -> Option<&List>) -> (Amounts, Amounts, Amounts) {
    let own = |container: &Container| amounts(container.resources.as_ref().and_then(&of));
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|container| (container.restart_policy.as_deref() == Some("Always"), own(container)));
    let total = together(spec.containers.iter().map(own), init);
    (total, amounts(spec.resources.as_ref().and_then(&of)), amounts(spec.overhead.as_ref()))
}

/// What a Pod's containers ask for together.
pub(crate) fn of_containers(spec: &PodSpec) -> Amounts {
    sum(spec, |resources| resources.requests.as_ref()).0
}

/// What a Pod asks a node for.
pub fn requested(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let (total, given, overhead) = sum(spec, |resources| resources.requests.as_ref());
    requests_of_pod(total, given, &overhead)
}

/// What a Pod may use, where each of its containers is limited.
pub(crate) fn limited(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let (total, given, overhead) = sum(spec, |resources| resources.limits.as_ref());
    limits_of_pod(total, given, &overhead)
}

/// Whether the Pod as a whole is limited: every container is, or the Pod itself.
pub(crate) fn is_limited(spec: &PodSpec, name: &str) -> bool {
    let has = |resources: Option<&ResourceRequirements>| {
        amounts(resources.and_then(|resources| resources.limits.as_ref()))
            .get(name)
            .is_some_and(|limit| !limit.is_zero())
    };
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    has(spec.resources.as_ref()) || all.all(|container| has(container.resources.as_ref()))
}

fn list(amounts: &Amounts) -> Option<List> {
    let list: List = amounts.iter().map(|(name, amount)| (name.clone(), Text(amount.canonical()))).collect();
    Some(list).filter(|list| !list.is_empty())
}

/// An amount less the overhead that came on top of it.
pub(crate) fn without(amount: &Text, overhead: Option<&Text>) -> Text {
    let parse = |text: &Text| Quantity::parse(&text.0).ok();
    let less = overhead.and_then(parse).zip(parse(amount)).map(|(overhead, amount)| amount.sub(&overhead));
    less.map_or_else(|| amount.clone(), |less| Text(less.canonical()))
}

/// `status.allocatedResources`.
pub fn requests(pod: &Pod) -> Option<List> {
    list(&requested(pod))
}

/// `status.resources`. Until the API has the Pod as running this is what the spec gives, afterwards what its cgroup is set
/// to: processor and memory, and a limit only if every container has one (upstream `convertToAPIPodLevelResourcesStatus`).
pub fn resources(pod: &Pod, runs: bool) -> ResourceRequirements {
    let (mut limits, mut requests) = (limited(pod), requested(pod));
    if runs {
        let in_cgroup = |name: &str| name == "cpu" || name == "memory";
        requests.retain(|name, _| in_cgroup(name));
        limits.retain(|name, _| in_cgroup(name) && pod.spec.as_ref().is_some_and(|spec| is_limited(spec, name)));
    }
    ResourceRequirements { limits: list(&limits), requests: list(&requests), claims: None }
}

/// What of a container's resources can be changed while it runs. Zero: nothing said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    pub cpu_request_milli: i64,
    pub cpu_limit_milli: i64,
    pub memory_request_bytes: i64,
    pub memory_limit_bytes: i64,
}

impl Sizes {
    /// A container without a limit of its own has the Pod's (upstream `kubeutil.GetLimits`).
    pub fn of(whole: Option<&ResourceRequirements>, own: Option<&ResourceRequirements>) -> Self {
        let amount = |resources: Option<&ResourceRequirements>, limit: bool, name: &str| {
            let list = if limit { &resources?.limits } else { &resources?.requests };
            Quantity::parse(&list.as_ref()?.get(name)?.0).ok().filter(|amount| !amount.is_zero())
        };
        let limit = |name: &str| amount(own, true, name).or_else(|| amount(whole, true, name));
        Self {
            cpu_request_milli: amount(own, false, "cpu").map_or(0, |amount| amount.milli_value()),
            cpu_limit_milli: limit("cpu").map_or(0, |amount| amount.milli_value()),
            memory_request_bytes: amount(own, false, "memory").map_or(0, |amount| amount.value()),
            memory_limit_bytes: limit("memory").map_or(0, |amount| amount.value()),
        }
    }
}

/// `wanted` with processor and memory as `given`: what a container has while a change of it is under way.
pub(crate) fn actual(wanted: &ResourceRequirements, given: &ResourceRequirements) -> ResourceRequirements {
    let mix = |wanted: &Option<List>, given: &Option<List>| {
        let mut list = wanted.clone()?;
        for name in ["cpu", "memory"] {
            if let (Some(slot), Some(amount)) = (list.get_mut(name), given.iter().find_map(|given| given.get(name))) {
                slot.clone_from(amount);
            }
        }
        Some(list)
    };
    ResourceRequirements {
        limits: mix(&wanted.limits, &given.limits),
        requests: mix(&wanted.requests, &given.requests),
        claims: wanted.claims.clone(),
    }
}

/// Whether two say the same, however it is written.
pub(crate) fn same(a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>) -> bool {
    let lists = |resources: Option<&ResourceRequirements>| {
        let resources = resources.cloned().unwrap_or_default();
        (amounts(resources.limits.as_ref()), amounts(resources.requests.as_ref()))
    };
    a == b || lists(a) == lists(b)
}

/// Whether `after` asks for more processor or memory than `before`.
pub(crate) fn asks_more(before: &Pod, after: &Pod) -> bool {
    let (before, after) = (requested(before), requested(after));
    let zero = Quantity::ZERO;
    let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or(zero);
    ["cpu", "memory"].iter().any(|name| of(&after, name) > of(&before, name))
}
