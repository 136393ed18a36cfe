//! What a static Pod may not refer to, since no API server may be there (upstream `HasAPIObjectReference`).

use serde_json::Value;

/// The first thing of the API that the Pod's spec refers to, as upstream names it.
pub(super) fn of(spec: &Value) -> Option<String> {
    let named = |found: bool, what: &str| found.then(|| what.to_owned());
    let account = spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty());
    let containers: Vec<&Value> =
        api::kinds::core::pod::CONTAINER_LISTS.iter().flat_map(|list| items(&spec[*list])).collect();
    let volumes: Vec<&Value> = items(&spec["volumes"]).collect();
    let pulls = items(&spec["imagePullSecrets"]).next().is_some();
    let secrets = pulls || environment(&containers, "secret") || volumes.iter().any(|volume| has_secret(volume));
    let maps = environment(&containers, "configMap") || volumes.iter().any(|volume| has_map(volume));
    named(account, "serviceaccounts")
        .or_else(|| named(secrets, "secrets"))
        .or_else(|| named(maps, "configmaps"))
        .or_else(|| named(items(&spec["resourceClaims"]).next().is_some(), "resourceclaims"))
        .or_else(|| volumes.iter().find_map(|volume| of_volume(volume)))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Whether a container's environment draws on a `secret` or a `configMap`.
fn environment(containers: &[&Value], kind: &str) -> bool {
    containers.iter().any(|container| {
        let all = items(&container["envFrom"]).any(|from| from[format!("{kind}Ref")].is_object());
        all || items(&container["env"]).any(|env| env["valueFrom"][format!("{kind}KeyRef")].is_object())
    })
}

/// Volumes that name a Secret (upstream `VisitPodSecretNames`).
fn has_secret(volume: &Value) -> bool {
    let own = ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"];
    volume["secret"].is_object()
        || volume["azureFile"].is_object()
        || own.iter().any(|kind| volume[*kind]["secretRef"].is_object())
        || volume["csi"]["nodePublishSecretRef"].is_object()
        || items(&volume["projected"]["sources"]).any(|source| source["secret"].is_object())
}

fn has_map(volume: &Value) -> bool {
    volume["configMap"].is_object()
        || items(&volume["projected"]["sources"]).any(|source| source["configMap"].is_object())
}

fn of_volume(volume: &Value) -> Option<String> {
    let kinds = [
        ("csi", "csidrivers (via CSI volumes)"),
        ("glusterfs", "endpoints (via glusterFS volumes)"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ];
    let sources = [
        ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    let is = |value: &Value, kind: &str| !value[kind].is_null();
    let own = kinds.iter().find(|(kind, _)| is(volume, kind));
    let projected =
        || items(&volume["projected"]["sources"]).find_map(|source| sources.iter().find(|(kind, _)| is(source, kind)));
    own.or_else(projected).map(|(_, what)| (*what).to_owned())
}
