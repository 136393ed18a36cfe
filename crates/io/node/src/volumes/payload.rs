//! Which files a volume of ConfigMaps, Secrets, Pod fields and tokens holds.

use super::objects::{ObjectError, TokenKey};
use super::{Volumes, fs_group};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume, VolumeProjection};
use kubelet::env::{Sources, field_value, resource_value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) data: Vec<u8>,
    pub(super) mode: u32,
    pub(super) owner: Option<u32>,
}

/// Files by path below the volume.
pub(super) type Payload = BTreeMap<String, File>;

const DEFAULT_MODE: i32 = 0o644;
/// Upstream's default for a projected token.
const TOKEN_SECONDS: i64 = 3600;

/// Mode and owner of what does not say its own.
#[derive(Clone, Copy)]
struct Defaults {
    mode: Option<i32>,
    user: Option<i64>,
}

impl Defaults {
    fn file(self, data: Vec<u8>, mode: Option<i32>, user: Option<i64>) -> File {
        let mode = mode.or(self.mode).unwrap_or(DEFAULT_MODE);
        File {
            data,
            mode: u32::try_from(mode).unwrap_or_default() & 0o7777,
            owner: user.or(self.user).and_then(|user| u32::try_from(user).ok()),
        }
    }
}

pub(super) async fn config_map(volumes: &Volumes, pod: &Pod, volume: &Volume) -> Result<Payload, String> {
    let source = volume.config_map.clone().unwrap_or_default();
    let optional = source.optional == Some(true);
    let map = fetch_config_map(volumes, pod, &source.name, optional).await?;
    let defaults = Defaults { mode: source.default_mode, user: source.default_user };
    of_config_map(&map, source.items.as_deref(), defaults, optional)
}

pub(super) async fn secret(volumes: &Volumes, pod: &Pod, volume: &Volume) -> Result<Payload, String> {
    let source = volume.secret.clone().unwrap_or_default();
    let optional = source.optional == Some(true);
    let secret = fetch_secret(volumes, pod, source.secret_name.as_deref().unwrap_or_default(), optional).await?;
    let defaults = Defaults { mode: source.default_mode, user: source.default_user };
    of_secret(&secret, source.items.as_deref(), defaults, optional)
}

pub(super) fn downward_api(volumes: &Volumes, pod: &Pod, volume: &Volume) -> Result<Payload, String> {
    let source = volume.downward_api.clone().unwrap_or_default();
    let defaults = Defaults { mode: source.default_mode, user: None };
    of_downward_api(volumes, pod, source.items.as_deref().unwrap_or_default(), defaults)
}

/// All sources are tried; their errors are told together.
pub(super) async fn projected(volumes: &Volumes, pod: &Pod, volume: &Volume) -> Result<Payload, String> {
    let source = volume.projected.clone().unwrap_or_default();
    let defaults = Defaults { mode: source.default_mode, user: source.default_user };
    let mut payload = Payload::new();
    let mut errors = Vec::new();
    for source in source.sources.iter().flatten() {
        match project(volumes, pod, source, defaults).await {
            Ok(files) => payload.extend(files),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(payload) } else { Err(aggregate(errors)) }
}

async fn project(
    volumes: &Volumes,
    pod: &Pod,
    source: &VolumeProjection,
    defaults: Defaults,
) -> Result<Payload, String> {
    if let Some(source) = &source.secret {
        let optional = source.optional == Some(true);
        let secret = fetch_secret(volumes, pod, &source.name, optional).await?;
        return of_secret(&secret, source.items.as_deref(), defaults, optional);
    }
    if let Some(source) = &source.config_map {
        let optional = source.optional == Some(true);
        let map = fetch_config_map(volumes, pod, &source.name, optional).await?;
        return of_config_map(&map, source.items.as_deref(), defaults, optional);
    }
    if let Some(source) = &source.downward_api {
        return of_downward_api(volumes, pod, source.items.as_deref().unwrap_or_default(), defaults);
    }
    if let Some(source) = &source.service_account_token {
        let key = TokenKey {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            service_account: pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
            pod_name: pod.metadata.name.clone().unwrap_or_default(),
            pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
            audience: source.audience.clone().unwrap_or_default(),
            expiration_seconds: source.expiration_seconds.unwrap_or(TOKEN_SECONDS),
        };
        let token = volumes.tokens.get(&*volumes.objects, key).await?;
        let user = source.user.or(defaults.user).or(sole_user(pod));
        // With a group, the group's bits are added to it afterwards.
        let mode = if user.is_some() || fs_group(pod).is_some() { Some(0o600) } else { None };
        return Ok(Payload::from([(source.path.clone(), defaults.file(token.into_bytes(), mode, user))]));
    }
    let fields = serde_json::to_value(source).unwrap_or_default();
    let name = fields.as_object().and_then(|fields| fields.keys().next().cloned()).unwrap_or_default();
    Err(format!("projected sources of type {name} are not supported by minke yet"))
}

/// The user of all containers, if they have the same (upstream `util.FsUserFrom`).
fn sole_user(pod: &Pod) -> Option<i64> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = spec.init_containers.iter().flatten().chain(&spec.containers).map(|container| {
        let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
        own.or(of_pod)
    });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first)
}

async fn fetch_config_map(volumes: &Volumes, pod: &Pod, name: &str, optional: bool) -> Result<Arc<ConfigMap>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match volumes.objects.config_map(namespace, name).await {
        Ok(map) => Ok(map),
        Err(ObjectError::NotFound) if optional => Ok(Arc::default()),
        Err(ObjectError::NotFound) => Err(format!("configmap \"{name}\" not found")),
        Err(ObjectError::Failed(words)) => Err(words),
    }
}

async fn fetch_secret(volumes: &Volumes, pod: &Pod, name: &str, optional: bool) -> Result<Arc<Secret>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match volumes.objects.secret(namespace, name).await {
        Ok(secret) => Ok(secret),
        Err(ObjectError::NotFound) if optional => Ok(Arc::default()),
        Err(ObjectError::NotFound) => Err(format!("secret \"{name}\" not found")),
        Err(ObjectError::Failed(words)) => Err(words),
    }
}

fn of_config_map(
    map: &ConfigMap,
    items: Option<&[KeyToPath]>,
    defaults: Defaults,
    optional: bool,
) -> Result<Payload, String> {
    let text = map.data.iter().flatten().map(|(key, value)| (key, value.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, ByteString(value))| (key, value.as_slice()));
    // Text counts where a key is in both.
    let all: BTreeMap<&String, &[u8]> = binary.chain(text).collect();
    select(&all, items, defaults, optional, "configmap references non-existent config key")
}

fn of_secret(
    secret: &Secret,
    items: Option<&[KeyToPath]>,
    defaults: Defaults,
    optional: bool,
) -> Result<Payload, String> {
    let all = secret.data.iter().flatten().map(|(key, ByteString(value))| (key, value.as_slice())).collect();
    select(&all, items, defaults, optional, "references non-existent secret key")
}

/// All keys, or those that `items` name under their paths.
fn select(
    all: &BTreeMap<&String, &[u8]>,
    items: Option<&[KeyToPath]>,
    defaults: Defaults,
    optional: bool,
    missing: &str,
) -> Result<Payload, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let file = |(key, data): (&&String, &&[u8])| ((*key).clone(), defaults.file(data.to_vec(), None, None));
        return Ok(all.iter().map(file).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match all.get(&item.key) {
            Some(data) => drop(payload.insert(item.path.clone(), defaults.file(data.to_vec(), item.mode, item.user))),
            None if optional => {}
            None => return Err(format!("{missing}: {}", item.key)),
        }
    }
    Ok(payload)
}

fn of_downward_api(
    volumes: &Volumes,
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    defaults: Defaults,
) -> Result<Payload, String> {
    let sources = Sources { allocatable: volumes.allocatable.clone(), ..Sources::default() };
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let mut payload = Payload::new();
    let mut errors = Vec::new();
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref, containers.first()) {
            (Some(field), _, _) if field.field_path.starts_with("metadata.") => {
                field_value(pod, &field.field_path, &sources)
            }
            (Some(field), _, _) => Err(format!("unsupported fieldPath: {}", field.field_path)),
            // The reference names its container: validation has seen to it.
            (None, Some(resource), Some(container)) => resource_value(pod, container, resource, &sources),
            (None, _, _) => Ok(String::new()),
        };
        match value {
            Ok(value) => {
                drop(payload.insert(item.path.clone(), defaults.file(value.into_bytes(), item.mode, item.user)))
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(payload) } else { Err(aggregate(errors)) }
}

/// Several errors in one, as upstream's `NewAggregate`: each once.
fn aggregate(errors: Vec<String>) -> String {
    let mut once: Vec<String> = Vec::new();
    for error in errors {
        if !once.contains(&error) {
            once.push(error);
        }
    }
    if once.len() == 1 { once.concat() } else { format!("[{}]", once.join(", ")) }
}
