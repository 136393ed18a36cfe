//! From what the runtime says to CRI's messages.

use super::convert::NO_LOG;
use super::v1::{
    Container, ContainerMetadata, ContainerResources, ContainerState as CriState, ContainerStatus as CriStatus,
    ContainerUser, HugepageLimit, IdMapping, Image as CriImage, ImageSpec, Int64Value, LinuxContainerResources,
    LinuxContainerUser, LinuxPodSandboxStatus, Mount as CriMount, MountPropagation, Namespace,
    NamespaceMode as CriMode, NamespaceOption, PodIp, PodSandbox, PodSandboxMetadata, PodSandboxNetworkStatus,
    PodSandboxState, PodSandboxStatus, Signal, UserNamespace as CriUsers,
};
use crate::types::{
    ContainerState, ContainerStatus, Exit, Image, Mount, NamespaceMode, ProcessUser, Propagation, Resources,
    SandboxConfig, SandboxStatus, UserNamespace, UserRange,
};
use std::path::Path;

fn metadata(config: &SandboxConfig) -> Option<PodSandboxMetadata> {
    Some(PodSandboxMetadata {
        name: config.name.clone(),
        uid: config.uid.clone(),
        namespace: config.namespace.clone(),
        attempt: config.attempt,
    })
}

fn ready(sandbox: &SandboxStatus) -> i32 {
    if sandbox.ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }.into()
}

pub(super) fn sandbox(sandbox: &SandboxStatus) -> PodSandbox {
    PodSandbox {
        id: sandbox.id.clone(),
        metadata: metadata(&sandbox.config),
        state: ready(sandbox),
        created_at: sandbox.created_at_ns,
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: sandbox.config.runtime_handler.clone(),
    }
}

pub(super) fn sandbox_status(sandbox: &SandboxStatus) -> PodSandboxStatus {
    let config = &sandbox.config;
    let mut ips = sandbox.ips.iter().map(ToString::to_string);
    let options = NamespaceOption {
        network: mode(config.network),
        pid: mode(config.pid),
        ipc: mode(config.ipc),
        userns_options: users(&config.users),
        ..NamespaceOption::default()
    };
    PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: metadata(config),
        state: ready(sandbox),
        created_at: sandbox.created_at_ns,
        network: Some(PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| PodIp { ip }).collect(),
        }),
        linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(options) }) }),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: config.runtime_handler.clone(),
    }
}

/// Nothing for the node's own.
fn users(users: &UserNamespace) -> Option<CriUsers> {
    let UserNamespace::Pod(range) = users else { return None };
    let mapping = |of: fn(&UserRange) -> u32| -> Vec<IdMapping> {
        range.iter().map(|range| IdMapping { host_id: of(range), container_id: 0, length: range.length }).collect()
    };
    Some(CriUsers {
        mode: CriMode::Pod.into(),
        uids: mapping(|range| range.host_uid),
        gids: mapping(|range| range.host_gid),
    })
}

fn mode(mode: NamespaceMode) -> i32 {
    match mode {
        NamespaceMode::Pod => CriMode::Pod,
        NamespaceMode::Container => CriMode::Container,
        NamespaceMode::Node => CriMode::Node,
    }
    .into()
}

pub(super) fn state(state: ContainerState) -> CriState {
    match state {
        ContainerState::Created => CriState::ContainerCreated,
        ContainerState::Running => CriState::ContainerRunning,
        ContainerState::Exited => CriState::ContainerExited,
        ContainerState::Unknown => CriState::ContainerUnknown,
    }
}

fn spec(image: &str, container: &ContainerStatus) -> Option<ImageSpec> {
    Some(ImageSpec {
        image: image.to_owned(),
        user_specified_image: container.user_image.clone(),
        ..ImageSpec::default()
    })
}

pub(super) fn container(container: &ContainerStatus) -> Container {
    Container {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox_id.clone(),
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: container.attempt }),
        image: spec(&container.image_id, container),
        image_ref: container.image_id.clone(),
        state: state(container.state).into(),
        created_at: container.created_at_ns,
        labels: container.labels.clone(),
        annotations: container.annotations.clone(),
        image_id: container.image_id.clone(),
    }
}

/// `image`: what the runtime has of its image now, for the names it is shown by.
pub(super) fn container_status(container: &ContainerStatus, image: Option<&Image>) -> CriStatus {
    let name = image.and_then(|image| image.repo_tags.first()).unwrap_or(&container.image_id);
    let digest = image.and_then(|image| image.repo_digests.first()).unwrap_or(&container.image_id);
    let exit = container.exit.as_ref();
    let (reason, message) = exit.map(why).unwrap_or_default();
    CriStatus {
        id: container.id.clone(),
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: container.attempt }),
        state: state(container.state).into(),
        created_at: container.created_at_ns,
        started_at: container.started_at_ns,
        finished_at: exit.map_or(0, |exit| exit.finished_at_ns),
        exit_code: exit.map_or(0, |exit| exit.code),
        image: spec(name, container),
        image_ref: digest.clone(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        labels: container.labels.clone(),
        annotations: container.annotations.clone(),
        mounts: container.config.mounts.iter().map(mount).collect(),
        log_path: if container.log_path == Path::new(NO_LOG) { String::new() } else { text(&container.log_path) },
        resources: Some(ContainerResources { linux: Some(resources(&container.resources)), windows: None }),
        image_id: container.image_id.clone(),
        user: container.user.as_ref().map(user),
        stop_signal: signal(&container.config.stop_signal),
    }
}

/// As containerd says it.
fn why(exit: &Exit) -> (&'static str, &'static str) {
    match exit {
        Exit { unknown: true, .. } => ("Unknown", "nobody saw it end"),
        Exit { oom_killed: true, .. } => ("OOMKilled", ""),
        Exit { code: 0, .. } => ("Completed", ""),
        Exit { code: 128, signal: 0, .. } => ("StartError", ""),
        _ => ("Error", ""),
    }
}

fn signal(name: &str) -> i32 {
    let name = name.replace('+', "PLUS").replace('-', "MINUS");
    Signal::from_str_name(&format!("SIGNAL_{name}")).unwrap_or_default().into()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn mount(mount: &Mount) -> CriMount {
    let propagation = match mount.propagation {
        Propagation::Private => MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => MountPropagation::PropagationBidirectional,
    };
    CriMount {
        container_path: text(&mount.container_path),
        host_path: text(&mount.host_path),
        readonly: mount.readonly,
        propagation: propagation.into(),
        recursive_read_only: mount.recursive_readonly,
        image: mount.image.clone().map(|image| ImageSpec { image, ..ImageSpec::default() }),
        image_sub_path: mount.image_sub_path.clone(),
        ..CriMount::default()
    }
}

fn resources(of: &Resources) -> LinuxContainerResources {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    LinuxContainerResources {
        cpu_period: signed(of.cpu_period_us),
        cpu_quota: of.cpu_quota_us,
        cpu_shares: signed(of.cpu_shares),
        memory_limit_in_bytes: of.memory_limit_bytes,
        oom_score_adj: of.oom_score_adj.into(),
        cpuset_cpus: of.cpuset_cpus.clone(),
        cpuset_mems: of.cpuset_mems.clone(),
        hugepage_limits: of
            .hugepage_limits
            .iter()
            .map(|(page_size, limit)| HugepageLimit { page_size: page_size.clone(), limit: *limit })
            .collect(),
        unified: of.unified.clone(),
        memory_swap_limit_in_bytes: 0,
    }
}

fn user(user: &ProcessUser) -> ContainerUser {
    let supplemental_groups = user.supplemental_groups.iter().map(|group| i64::from(*group)).collect();
    ContainerUser {
        linux: Some(LinuxContainerUser { uid: user.uid.into(), gid: user.gid.into(), supplemental_groups }),
    }
}

pub(super) fn image(image: Image) -> CriImage {
    let user = image.user.split(':').next().unwrap_or_default();
    let uid = user.parse().ok().map(|value| Int64Value { value });
    let username = if uid.is_none() { user.to_owned() } else { String::new() };
    CriImage {
        id: image.id,
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        size: image.size_bytes,
        uid,
        username,
        spec: None,
        pinned: image.pinned,
    }
}
