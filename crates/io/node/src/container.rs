//! From a container of a Pod to what the runtime is asked for (upstream `kuberuntime_container.go`,
//! `kuberuntime_sandbox.go`, `pkg/securitycontext`).

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, SELinuxOptions, SeccompProfile, SecurityContext as Security,
};
use kubelet::env::Sources;
use kubelet::resources::{CPU_PERIOD_US, Limits, Qos};
use runtime::types::{
    AppArmor, ContainerConfig, Image, Mount, NamespaceMode, PortMapping, Resources, SandboxConfig, Seccomp,
    SecurityContext, UserNamespace,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Labels by which a restarted minke (and `crictl`) finds its Pods and containers; upstream's.
pub(crate) const LABEL_CONTAINER: &str = "io.kubernetes.container.name";
pub(crate) const LABEL_POD: &str = "io.kubernetes.pod.name";
pub(crate) const LABEL_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const LABEL_UID: &str = "io.kubernetes.pod.uid";

/// Masked and read-only paths of the default `procMount` (upstream `securitycontext/util.go`).
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Finds a container in any of the three lists; ephemeral containers have the same fields.
pub(crate) fn find(pod: &Pod, name: &str) -> Option<Container> {
    let spec = pod.spec.as_ref()?;
    let regular = spec.init_containers.iter().flatten().chain(&spec.containers).find(|c| c.name == name);
    if let Some(container) = regular {
        return Some(container.clone());
    }
    let ephemeral = spec.ephemeral_containers.iter().flatten().find(|c| c.name == name)?;
    let mut value = serde_json::to_value(ephemeral).ok()?;
    value.as_object_mut()?.remove("targetContainerName");
    serde_json::from_value(value).ok()
}

/// `spec.containers{NAME}`: how events name a container.
pub(crate) fn field_path(pod: &Pod, name: &str) -> String {
    let spec = pod.spec.as_ref();
    let is_init = spec.is_some_and(|spec| spec.init_containers.iter().flatten().any(|c| c.name == name));
    let is_ephemeral = spec.is_some_and(|spec| spec.ephemeral_containers.iter().flatten().any(|c| c.name == name));
    let list = if is_init {
        "initContainers"
    } else if is_ephemeral {
        "ephemeralContainers"
    } else {
        "containers"
    };
    format!("spec.{list}{{{name}}}")
}

/// By which a Pod's sandbox and containers are known.
fn labels(pod: &Pod) -> BTreeMap<String, String> {
    let meta = &pod.metadata;
    let labels = [(LABEL_POD, &meta.name), (LABEL_NAMESPACE, &meta.namespace), (LABEL_UID, &meta.uid)];
    labels.into_iter().map(|(label, value)| (label.to_owned(), value.clone().unwrap_or_default())).collect()
}

/// What else others may read of a container (upstream `newContainerAnnotations`; its hash of the spec only the kubelet that
/// made it can use).
fn annotations(pod: &Pod, container: &Container, attempt: u32) -> BTreeMap<String, String> {
    let text = |text: &Option<String>| Some(text.clone().unwrap_or_default());
    let json = |value: Result<String, serde_json::Error>| value.ok();
    let pre_stop = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let ports = container.ports.as_ref().filter(|ports| !ports.is_empty());
    let grace_s = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let all = [
        ("container.restartCount", Some(attempt.to_string())),
        ("container.terminationMessagePath", text(&container.termination_message_path)),
        ("container.terminationMessagePolicy", text(&container.termination_message_policy)),
        ("container.preStopHandler", pre_stop.and_then(|handler| json(serde_json::to_string(handler)))),
        ("container.ports", ports.and_then(|ports| json(serde_json::to_string(ports)))),
        ("pod.deletionGracePeriod", pod.metadata.deletion_grace_period_seconds.map(|seconds| seconds.to_string())),
        ("pod.terminationGracePeriod", grace_s.map(|seconds| seconds.to_string())),
    ];
    all.into_iter().filter_map(|(name, value)| Some((format!("io.kubernetes.{name}"), value?))).collect()
}

/// `NS_NAME_UID`, the directory of a Pod's logs.
pub(crate) fn log_directory(pod_logs: &Path, pod: &Pod) -> PathBuf {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let meta = &pod.metadata;
    let name = format!("{}_{}_{}", part(&meta.namespace), part(&meta.name), part(&meta.uid));
    pod_logs.join(name)
}

pub(crate) fn sandbox(pod_logs: &Path, domain: &str, pod: &Pod, attempt: u32) -> Result<SandboxConfig, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let uid = meta.uid.clone().unwrap_or_default();
    let mode = |host: Option<bool>| if host == Some(true) { NamespaceMode::Node } else { NamespaceMode::Pod };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => NamespaceMode::Node,
        (_, Some(true)) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    // Host ports of init containers, sidecars among them, are not mapped (upstream `generatePodSandboxConfig`).
    let ports = spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
    Ok(SandboxConfig {
        name: meta.name.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        hostname: kubelet::files::kernel_hostname(pod, domain)?,
        attempt,
        log_directory: log_directory(pod_logs, pod),
        labels: meta.labels.clone().into_iter().flatten().chain(labels(pod)).collect(),
        annotations: meta.annotations.clone().unwrap_or_default(),
        network: mode(spec.host_network),
        ipc: mode(spec.host_ipc),
        pid,
        users: if spec.host_users == Some(false) { UserNamespace::Pod(None) } else { UserNamespace::Node },
        sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        cgroup_parent: Qos::of(pod).cgroup_parent(&uid),
        resources: resources(kubelet::resources::pod(pod), 0),
        port_mappings: ports.filter_map(port_mapping).collect(),
        runtime_handler: String::new(),
        uid,
    })
}

fn port_mapping(port: &k8s_openapi::api::core::v1::ContainerPort) -> Option<PortMapping> {
    Some(PortMapping {
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        container_port: port.container_port.try_into().ok()?,
        host_port: port.host_port.filter(|port| *port > 0)?.try_into().ok()?,
        host_ip: port.host_ip.as_ref().and_then(|ip| ip.parse().ok()),
    })
}

pub(crate) fn resources(limits: Limits, oom_score_adj: i32) -> Resources {
    Resources {
        cpu_period_us: if limits.cpu_quota_us > 0 { CPU_PERIOD_US } else { 0 },
        cpu_quota_us: limits.cpu_quota_us,
        cpu_shares: limits.cpu_shares,
        memory_limit_bytes: limits.memory_limit_bytes,
        oom_score_adj,
        ..Resources::default()
    }
}

/// One attempt of one container.
pub(crate) struct Attempt<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    pub(crate) image: &'a Image,
    pub(crate) sources: &'a Sources,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) node_memory_bytes: i64,
}

/// What the runtime is asked for. The error is that of a `CreateContainerConfigError`.
pub(crate) fn config(of: Attempt<'_>) -> Result<ContainerConfig, String> {
    let Attempt { pod, container, attempt, image, sources, mounts, node_memory_bytes } = of;
    let envs = kubelet::env::environment(pod, container, sources)?;
    let (command, args) = kubelet::env::command(container, &envs);
    let mut labels = labels(pod);
    labels.insert(LABEL_CONTAINER.to_owned(), container.name.clone());
    let oom_score_adj = kubelet::resources::oom_score_adj(pod, container, node_memory_bytes);
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let sizes = kubelet::allocated::Sizes::of(whole, container.resources.as_ref());
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt,
        image_id: image.id.clone(),
        user_image: container.image.clone().unwrap_or_default(),
        command,
        args,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs,
        mounts,
        devices: Vec::new(),
        labels,
        annotations: annotations(pod, container, attempt),
        log_path: PathBuf::from(&container.name).join(format!("{attempt}.log")),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        resources: resources(kubelet::resources::container(sizes), oom_score_adj),
        security: security(pod, container, image)?,
        stop_signal: String::new(),
    })
}

/// The container's security context over the Pod's; refuses root where `runAsNonRoot` forbids it.
fn security(pod: &Pod, container: &Container, image: &Image) -> Result<SecurityContext, String> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    check_non_root(pod, container, image, own.run_as_non_root.or(of_pod.run_as_non_root), run_as_user)?;
    let privileged = own.privileged == Some(true);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |paths: &[&str]| {
        if unmasked { Vec::new() } else { paths.iter().map(|path| (*path).to_owned()).collect() }
    };
    let mut groups = of_pod.supplemental_groups.unwrap_or_default();
    groups.extend(of_pod.fs_group);
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    Ok(SecurityContext {
        privileged,
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        run_as_user,
        run_as_username: String::new(),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        supplemental_groups: groups,
        strict_groups: of_pod.supplemental_groups_policy.as_deref() == Some("Strict"),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        no_new_privs: no_new_privs(&own),
        apparmor: apparmor(own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref())),
        selinux_label: selinux(own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref())),
        seccomp: if privileged { Seccomp::Unconfined } else { seccomp(profile) },
        masked_paths: paths(MASKED),
        readonly_paths: paths(READONLY),
    })
}

/// Upstream `AddNoNewPrivileges`.
fn no_new_privs(own: &Security) -> bool {
    own.allow_privilege_escalation == Some(false)
}

fn seccomp(profile: Option<&SeccompProfile>) -> Seccomp {
    match profile.map(|profile| (profile.type_.as_str(), profile.localhost_profile.as_deref())) {
        Some(("RuntimeDefault", _)) => Seccomp::RuntimeDefault,
        Some(("Localhost", Some(path))) => Seccomp::Localhost(PathBuf::from(path)),
        _ => Seccomp::Unconfined,
    }
}

fn apparmor(profile: Option<&AppArmorProfile>) -> AppArmor {
    match profile.map(|profile| (profile.type_.as_str(), profile.localhost_profile.clone())) {
        Some(("RuntimeDefault", _)) => AppArmor::RuntimeDefault,
        Some(("Localhost", Some(name))) => AppArmor::Localhost(name),
        _ => AppArmor::Unconfined,
    }
}

fn selinux(options: Option<&SELinuxOptions>) -> String {
    let Some(options) = options else { return String::new() };
    let parts = [&options.user, &options.role, &options.type_, &options.level];
    parts.map(|part| part.clone().unwrap_or_default()).join(":")
}

/// Upstream `verifyRunAsNonRoot`.
fn check_non_root(
    pod: &Pod,
    container: &Container,
    image: &Image,
    non_root: Option<bool>,
    run_as_user: Option<i64>,
) -> Result<(), String> {
    if non_root != Some(true) {
        return Ok(());
    }
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let meta = &pod.metadata;
    let whose = format!(
        "(pod: \"{}_{}({})\", container: {})",
        part(&meta.name),
        part(&meta.namespace),
        part(&meta.uid),
        container.name
    );
    match run_as_user {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {whose}")),
        Some(_) => Ok(()),
        None => {
            let user = image.user.split(':').next().unwrap_or_default();
            match user.parse::<i64>() {
                Ok(0) => Err(format!("container has runAsNonRoot and image will run as root {whose}")),
                Ok(_) => Ok(()),
                Err(_) if user.is_empty() => {
                    Err(format!("container has runAsNonRoot and image will run as root {whose}"))
                }
                Err(_) => Err(format!(
                    "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root {whose}"
                )),
            }
        }
    }
}
