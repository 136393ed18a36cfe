//! Pods that use more of the node's disk than they may (upstream `localStorageEviction`): emptyDir volumes over their limit,
//! Pods and containers over their limits of ephemeral storage.

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use schema::quantity::Quantity;
use std::collections::BTreeMap;

const RESOURCE: &str = "ephemeral-storage";

/// What a Pod has on the node's disk, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Local {
    /// All of it.
    pub pod: u64,
    pub volumes: BTreeMap<String, u64>,
    /// Logs and writable layer of each container.
    pub containers: BTreeMap<String, u64>,
}

/// The limit that the Pod has exceeded: the metric's signal, and the message.
pub fn over_limit(pod: &Pod, local: &Local) -> Option<(&'static str, String)> {
    let spec = pod.spec.as_ref()?;
    for volume in spec.volumes.iter().flatten() {
        let Some(directory) = &volume.empty_dir else { continue };
        // The kernel limits those in memory.
        if directory.medium.as_deref() == Some("Memory") {
            continue;
        }
        let limit = directory.size_limit.as_ref().and_then(parsed).filter(|(bytes, _)| *bytes > 0);
        let used = local.volumes.get(&volume.name).copied().unwrap_or_default();
        if let Some((_, text)) = limit.filter(|(bytes, _)| used > *bytes) {
            let name = &volume.name;
            return Some((
                "emptydirfs.limit",
                format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{}\". ", text.canonical()),
            ));
        }
    }
    let regular = spec.containers.iter();
    let sidecars = spec.init_containers.iter().flatten().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let limited: Vec<_> = regular.chain(sidecars).filter_map(|one| Some((&one.name, limit(one)?))).collect();
    let total = limited.iter().fold(Quantity::ZERO, |total, (_, limit)| total.add(limit));
    if !limited.is_empty() && local.pod > bytes(&total) {
        return Some((
            "ephemeralpodfs.limit",
            format!("Pod ephemeral local storage usage exceeds the total limit of containers {}. ", total.canonical()),
        ));
    }
    let over = |(name, limit): &&(&String, Quantity)| {
        local.containers.get(*name).is_some_and(|used| *used > bytes(limit)) && !limit.is_zero()
    };
    let (name, limit) = limited.iter().find(over)?;
    Some((
        "ephemeralcontainerfs.limit",
        format!("Container {name} exceeded its local ephemeral storage limit \"{}\". ", limit.canonical()),
    ))
}

fn limit(container: &Container) -> Option<Quantity> {
    Quantity::parse(&container.resources.as_ref()?.limits.as_ref()?.get(RESOURCE)?.0).ok()
}

fn parsed(text: &Text) -> Option<(u64, Quantity)> {
    let quantity = Quantity::parse(&text.0).ok()?;
    Some((bytes(&quantity), quantity))
}

fn bytes(quantity: &Quantity) -> u64 {
    u64::try_from(quantity.value()).unwrap_or_default()
}
