//! Collects what a container's environment and configuration draw from.

use crate::Shared;
use client::transport::CallError;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};
use kubelet::env::{Sources, files, references};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Reads the ConfigMaps, Secrets and Services that `container` needs. What does not exist is left out; what cannot be
/// read is the error.
pub(crate) async fn collect(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    pod_ips: Vec<IpAddr>,
) -> Result<Sources, CallError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let (config_map_names, secret_names) = references(container);
    let mut sources = Sources {
        node_name: shared.config.name.clone(),
        host_ips: shared.config.addresses.clone(),
        pod_ips,
        allocatable: crate::register::allocatable(&shared.config),
        ..Sources::default()
    };
    for name in config_map_names {
        if let Some(object) = optional(shared.client.get::<ConfigMap>(namespace, &name).await)? {
            sources.config_maps.insert(name, object);
        }
    }
    for name in secret_names {
        if let Some(object) = optional(shared.client.get::<Secret>(namespace, &name).await)? {
            sources.secrets.insert(name, object);
        }
    }
    for (volume, path) in files(container) {
        if let Some(file) = shared.volumes.file(pod, &volume, &path).await {
            sources.files.insert((volume, path), file);
        }
    }
    sources.services = match services(shared, pod, namespace).await {
        // A static Pod starts without an API server (upstream `makeEnvironmentVariables`).
        Err(CallError::Unreachable(_)) if kubelet::static_pods::is_static(pod) => Vec::new(),
        services => services?,
    };
    Ok(sources)
}

async fn services(shared: &Shared, pod: &Pod, namespace: &str) -> Result<Vec<Arc<Service>>, CallError> {
    let links = pod.spec.as_ref().is_none_or(|spec| spec.enable_service_links != Some(false));
    let mut services = BTreeMap::new();
    let mut add = |service: Arc<Service>| {
        let meta = &service.metadata;
        services.insert((meta.namespace.clone(), meta.name.clone()), service);
    };
    if links {
        shared.client.list::<Service>(namespace).await?.into_iter().for_each(&mut add);
    }
    optional(shared.client.get::<Service>("default", "kubernetes").await)?.into_iter().for_each(&mut add);
    Ok(services.into_values().collect())
}

fn optional<T>(result: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
