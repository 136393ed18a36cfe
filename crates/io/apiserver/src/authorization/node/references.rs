//! What a Pod refers to by name (upstream `pkg/api/pod` `VisitPodSecretNames`, `VisitPodConfigmapNames`).

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod, PodSpec, Volume};

/// Objects in the Pod's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
}

pub(super) fn is_mirror(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"))
}

pub(super) fn refers(pod: &Pod, to: Reference, name: &str) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let is = |found: Option<&String>| found.is_some_and(|found| found == name);
    match to {
        Reference::ServiceAccount => is(spec.service_account_name.as_ref()),
        Reference::Secret => {
            let pulls = spec.image_pull_secrets.iter().flatten();
            pulls.into_iter().any(|secret| secret.name == name)
                || environment(
                    spec,
                    |env| env_secret(env) == Some(name),
                    |from| from.secret_ref.as_ref().is_some_and(|secret| secret.name == name),
                )
                || spec.volumes.iter().flatten().any(|volume| volume_secrets(volume).contains(&name))
        }
        Reference::ConfigMap => {
            environment(
                spec,
                |env| env_config_map(env) == Some(name),
                |from| from.config_map_ref.as_ref().is_some_and(|map| map.name == name),
            ) || spec.volumes.iter().flatten().any(|volume| volume_config_maps(volume).contains(&name))
        }
        Reference::Claim => spec.volumes.iter().flatten().any(|volume| claim_of(pod, volume).as_deref() == Some(name)),
        Reference::ResourceClaim => {
            let named = spec.resource_claims.iter().flatten().any(|claim| is(claim.resource_claim_name.as_ref()));
            let statuses = pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
            named || statuses.into_iter().any(|claim| is(claim.resource_claim_name.as_ref()))
        }
    }
}

/// Whether any container's environment matches.
fn environment(spec: &PodSpec, env: impl Fn(&EnvVar) -> bool, from: impl Fn(&EnvFromSource) -> bool) -> bool {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let plain = containers.map(|c| (&c.env, &c.env_from));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| (&c.env, &c.env_from));
    plain
        .chain(ephemeral)
        .any(|(variables, sources)| variables.iter().flatten().any(&env) || sources.iter().flatten().any(&from))
}

fn env_secret(env: &EnvVar) -> Option<&str> {
    Some(env.value_from.as_ref()?.secret_key_ref.as_ref()?.name.as_str())
}

fn env_config_map(env: &EnvVar) -> Option<&str> {
    Some(env.value_from.as_ref()?.config_map_key_ref.as_ref()?.name.as_str())
}

fn volume_secrets(volume: &Volume) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    found.extend(volume.secret.as_ref().and_then(|v| v.secret_name.as_deref()));
    found.extend(volume.azure_file.as_ref().map(|v| v.secret_name.as_str()));
    let projected = volume.projected.iter().flat_map(|v| v.sources.iter().flatten());
    found.extend(projected.filter_map(|source| Some(source.secret.as_ref()?.name.as_str())));
    let references = [
        volume.cephfs.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.cinder.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.csi.as_ref().and_then(|v| v.node_publish_secret_ref.as_ref()),
        volume.flex_volume.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.iscsi.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.scale_io.as_ref().map(|v| &v.secret_ref),
        volume.storageos.as_ref().and_then(|v| v.secret_ref.as_ref()),
    ];
    found.extend(references.into_iter().flatten().map(|reference| reference.name.as_str()));
    found
}

fn volume_config_maps(volume: &Volume) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    found.extend(volume.config_map.as_ref().map(|v| v.name.as_str()));
    let projected = volume.projected.iter().flat_map(|v| v.sources.iter().flatten());
    found.extend(projected.filter_map(|source| Some(source.config_map.as_ref()?.name.as_str())));
    found
}

fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(claim.claim_name.clone());
    }
    volume.ephemeral.as_ref()?;
    Some(format!("{}-{}", pod.metadata.name.as_deref()?, volume.name))
}
