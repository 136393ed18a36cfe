//! Sees to it that a container's image is there, and those of the image volumes it mounts (KEP-4639).

use crate::{Shared, container};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kubelet::machine::images::pulled;
use kubelet::pod::{ContainerName, Input, PodEvent, PullFailure};
use runtime::types::{Auth, Image, RuntimeError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An image that is there.
struct Present {
    image: Image,
    took: Duration,
    /// No registry was asked.
    before: bool,
}

/// The answer to `EnsureImage`.
pub(crate) async fn ensure(shared: &Shared, pod: &Arc<Pod>, name: ContainerName, image: &str) -> Input {
    let container = container::find(pod, &name.0).unwrap_or_default();
    let policy = container.image_pull_policy.as_deref();
    let own = match fetch(shared, pod, &container::field_path(pod, &name.0), image, policy).await {
        Ok(own) => own,
        Err(failure) => return Input::ImageFailed { container: name, volume: None, failure },
    };
    let mounts = container.volume_mounts.iter().flatten();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mounted = volumes.filter(|volume| mounts.clone().any(|mount| mount.name == volume.name));
    for source in mounted.filter_map(|volume| volume.image.as_ref()) {
        let image = source.reference.as_deref().unwrap_or_default();
        match fetch(shared, pod, "", image, source.pull_policy.as_deref()).await {
            Ok(found) => {
                let message = pulled(image, found.before, found.image.size_bytes, found.took, found.took);
                tell(shared, pod, false, "Pulled", message, "");
            }
            Err(failure) => return Input::ImageFailed { container: name, volume: Some(image.to_owned()), failure },
        }
    }
    let Present { image, took, before } = own;
    Input::ImageReady {
        container: name,
        image_ref: image.repo_digests.first().cloned().unwrap_or_else(|| image.id.clone()),
        image_id: image.id,
        size_bytes: image.size_bytes,
        took,
        waited: took,
        present: before,
    }
}

async fn fetch(
    shared: &Shared,
    pod: &Arc<Pod>,
    field_path: &str,
    image: &str,
    policy: Option<&str>,
) -> Result<Present, PullFailure> {
    let began = Instant::now();
    let status = shared.runtime.image_status(image).await.map_err(|error| match error {
        RuntimeError::InvalidImageName(message) => PullFailure::InvalidName(message),
        error => PullFailure::Pull(error.to_string()),
    })?;
    let present = |image: Image, before: bool| Present { image, took: began.elapsed(), before };
    match (policy.unwrap_or("IfNotPresent"), status) {
        ("Never", None) => Err(PullFailure::Never),
        ("Never" | "IfNotPresent", Some(found)) => Ok(present(found, true)),
        (_, imported) => {
            tell(shared, pod, false, "Pulling", format!("Pulling image \"{image}\""), field_path);
            let auths = credentials(shared, pod, image).await;
            match (shared.runtime.pull_image(image, &auths).await, imported) {
                (Ok(found), _) => Ok(present(found, false)),
                (Err(RuntimeError::Unreachable(why)), Some(found)) => {
                    // One imported by hand is used although the policy asks for the registry's.
                    let message = format!(
                        "No registry of image \"{image}\" can be reached, so the image on this node is used: {why}"
                    );
                    tell(shared, pod, true, "ImportedImageUsed", message, field_path);
                    Ok(present(found, true))
                }
                (Err(error), _) => Err(PullFailure::Pull(error.to_string())),
            }
        }
    }
}

fn tell(shared: &Shared, pod: &Arc<Pod>, warning: bool, reason: &'static str, message: String, field_path: &str) {
    let event = PodEvent { warning, reason: reason.into(), message, field_path: field_path.to_owned() };
    shared.events.pod(pod, &event);
}

/// From the Pod's `imagePullSecrets` (admission has added the ServiceAccount's). A Secret that is missing is
/// passed over, as upstream does.
async fn credentials(shared: &Shared, pod: &Pod, image: &str) -> Vec<Auth> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut auths = Vec::new();
    for reference in pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten()) {
        let Ok(secret) = shared.client.get::<Secret>(namespace, &reference.name).await else { continue };
        let data = secret.data.clone().unwrap_or_default();
        for key in [".dockerconfigjson", ".dockercfg"] {
            if let Some(config) = data.get(key) {
                let found = kubelet::credentials::matching(&config.0, image);
                auths.extend(found.into_iter().map(|found| Auth {
                    username: found.username,
                    password: found.password,
                    identity_token: found.identity_token,
                }));
            }
        }
    }
    auths
}
