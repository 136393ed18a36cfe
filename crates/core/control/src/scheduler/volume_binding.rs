//! `VolumeBinding`, as far as no node can change it: claims are there and bound.

use super::Cluster;
use k8s_openapi::api::core::v1::Pod;

/// Why no node will do.
pub(super) fn pre_filter(cluster: &Cluster, pod: &Pod) -> Option<String> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let mut unbound = false;
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let (name, ephemeral) = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => (claim.claim_name.clone(), false),
            (None, Some(_)) => (format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name), true),
            (None, None) => continue,
        };
        let Some(claim) = cluster.claims.get(&(namespace.clone(), name.clone())) else {
            return Some(if ephemeral {
                format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
            } else {
                format!("persistentvolumeclaim \"{name}\" not found")
            });
        };
        let volume_name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Lost") {
            return Some(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume_name}\""
            ));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Some(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        unbound |= volume_name.is_empty() || phase != Some("Bound");
    }
    unbound.then(|| "pod has unbound immediate PersistentVolumeClaims".to_owned())
}
