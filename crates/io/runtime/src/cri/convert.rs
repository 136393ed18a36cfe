//! From CRI's messages to what the runtime is asked for.

use super::grpc::Refusal;
use super::v1::security_profile::ProfileType;
use super::v1::{
    ContainerConfig as CriContainer, DnsConfig, LinuxContainerResources, LinuxContainerSecurityContext,
    Mount as CriMount, MountPropagation, NamespaceMode as CriMode, PodSandboxConfig, PortMapping as CriPort, Protocol,
    SeLinuxOption, SecurityProfile, Signal, SupplementalGroupsPolicy, UserNamespace as CriUsers,
};
use crate::types::{
    AppArmor, ContainerConfig, Mount, NamespaceMode, PortMapping, Propagation, Resources, SandboxConfig, Seccomp,
    SecurityContext, UserNamespace, UserRange,
};
use std::path::PathBuf;

/// Files that containers of a sandbox made through CRI see in `/etc`, as containerd's do.
pub(super) const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Where logs go that nobody wants.
pub(super) const NO_LOG: &str = "/dev/null";

/// What stands in those files. The kubelet mounts its own over them.
pub(super) fn files(config: &PodSandboxConfig) -> Vec<(&'static str, String)> {
    let host = mode_of_network(config) == CriMode::Node;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let hostname = hostname(config);
    let resolv = config.dns_config.as_ref().map_or_else(|| read("/etc/resolv.conf"), resolv_conf);
    vec![
        (
            FILES[0],
            if host {
                read("/etc/hosts")
            } else {
                format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.0.1\t{hostname}\n")
            },
        ),
        (FILES[1], format!("{hostname}\n")),
        (FILES[2], resolv),
    ]
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

fn hostname(config: &PodSandboxConfig) -> String {
    if config.hostname.is_empty() {
        return rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
    config.hostname.clone()
}

fn mode_of_network(config: &PodSandboxConfig) -> CriMode {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    security.and_then(|security| security.namespace_options.as_ref()).map_or(CriMode::Pod, |options| options.network())
}

pub(super) fn sandbox(config: PodSandboxConfig, runtime_handler: String) -> Result<SandboxConfig, Refusal> {
    let hostname = hostname(&config);
    let metadata = config.metadata.ok_or_else(|| Refusal::invalid("sandbox config must include metadata"))?;
    refuse(config.windows.is_some(), "windows")?;
    if !config.log_directory.is_empty() && !config.log_directory.starts_with('/') {
        return Err(Refusal::invalid(format!("log_directory {:?} is not absolute", config.log_directory)));
    }
    if metadata.uid.contains('/') {
        return Err(Refusal::invalid(format!("metadata.uid {:?} has a slash", metadata.uid)));
    }
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let namespaces = security.namespace_options.unwrap_or_default();
    let shared = |mode: CriMode, name: &str| match mode {
        CriMode::Pod => Ok(NamespaceMode::Pod),
        CriMode::Node => Ok(NamespaceMode::Node),
        mode => Err(Refusal::invalid(format!("a sandbox's {name} namespace cannot be {}", mode.as_str_name()))),
    };
    let cgroup_parent = match linux.cgroup_parent.trim_matches('/') {
        "" => format!("cri/pod{}_{}_{}", metadata.namespace, metadata.name, metadata.uid).replace("..", "_"),
        parent => parent.to_owned(),
    };
    // `overhead` is for runtimes that make a machine per Pod; the sandbox's own user, groups, labels and profiles are those of
    // a pause container, which there is none of.
    Ok(SandboxConfig {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
        hostname,
        log_directory: PathBuf::from(config.log_directory),
        labels: config.labels,
        annotations: config.annotations,
        runtime_handler,
        network: shared(namespaces.network(), "network")?,
        ipc: shared(namespaces.ipc(), "ipc")?,
        pid: pid(namespaces.pid())?,
        users: users(namespaces.userns_options)?,
        sysctls: linux.sysctls,
        cgroup_parent,
        resources: linux.resources.map(resources).transpose()?.unwrap_or_default(),
        port_mappings: config
            .port_mappings
            .iter()
            .filter(|port| port.host_port != 0)
            .map(port)
            .collect::<Result<_, _>>()?,
    })
}

/// One range for users and one for groups, of one length and from 0 on, as the kubelet gives them.
fn users(options: Option<CriUsers>) -> Result<UserNamespace, Refusal> {
    let Some(options) = options else { return Ok(UserNamespace::Node) };
    match (options.mode(), options.uids.as_slice(), options.gids.as_slice()) {
        (CriMode::Node, [], []) => Ok(UserNamespace::Node),
        (CriMode::Pod, [uids], [gids])
            if uids.length == gids.length && (uids.container_id, gids.container_id) == (0, 0) =>
        {
            let range = UserRange { host_uid: uids.host_id, host_gid: gids.host_id, length: uids.length };
            Ok(UserNamespace::Pod(Some(range)))
        }
        _ => Err(Refusal::unimplemented("userns_options other than one range of users and one of groups from 0 on")),
    }
}

fn pid(mode: CriMode) -> Result<NamespaceMode, Refusal> {
    match mode {
        CriMode::Pod => Ok(NamespaceMode::Pod),
        CriMode::Container => Ok(NamespaceMode::Container),
        CriMode::Node => Ok(NamespaceMode::Node),
        CriMode::Target => Err(Refusal::unimplemented("the pid namespace of a target container")),
    }
}

fn port(port: &CriPort) -> Result<PortMapping, Refusal> {
    let number = |of: i32| u16::try_from(of).map_err(|_| Refusal::invalid(format!("{of} is no port")));
    let host_ip = match port.host_ip.as_str() {
        "" => None,
        ip => Some(ip.parse().map_err(|_| Refusal::invalid(format!("host_ip {ip:?} is no address")))?),
    };
    Ok(PortMapping {
        protocol: Protocol::as_str_name(&port.protocol()).to_owned(),
        container_port: number(port.container_port)?,
        host_port: number(port.host_port)?,
        host_ip,
    })
}

fn refuse(is_set: bool, what: &str) -> Result<(), Refusal> {
    if is_set { Err(Refusal::unimplemented(what)) } else { Ok(()) }
}

pub(super) fn resources(of: LinuxContainerResources) -> Result<Resources, Refusal> {
    let swap = of.memory_swap_limit_in_bytes;
    refuse(swap != 0 && swap != of.memory_limit_in_bytes, "memory_swap_limit_in_bytes other than the memory limit")?;
    let unsigned = |value: i64, name: &str| {
        u64::try_from(value).map_err(|_| Refusal::invalid(format!("{name} must not be negative")))
    };
    Ok(Resources {
        cpu_period_us: unsigned(of.cpu_period, "cpu_period")?,
        cpu_quota_us: of.cpu_quota,
        cpu_shares: unsigned(of.cpu_shares, "cpu_shares")?,
        memory_limit_bytes: of.memory_limit_in_bytes,
        oom_score_adj: i32::try_from(of.oom_score_adj)
            .map_err(|_| Refusal::invalid("oom_score_adj is out of range"))?,
        cpuset_cpus: of.cpuset_cpus,
        cpuset_mems: of.cpuset_mems,
        pids_limit: 0,
        hugepage_limits: of.hugepage_limits.into_iter().map(|limit| (limit.page_size, limit.limit)).collect(),
        unified: of.unified,
    })
}

/// A privileged container needs a sandbox that says it may have one.
pub(super) fn check_privileged(config: &CriContainer, sandbox: Option<&PodSandboxConfig>) -> Result<(), Refusal> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let privileged = security.is_some_and(|security| security.privileged);
    let of_sandbox = sandbox.and_then(|sandbox| sandbox.linux.as_ref()?.security_context.as_ref());
    if privileged && !of_sandbox.is_some_and(|security| security.privileged) {
        return Err(Refusal::invalid("no privileged container allowed in sandbox"));
    }
    Ok(())
}

/// `image_id` is the caller's to fill in.
pub(super) fn container(config: CriContainer, sandbox: &SandboxConfig) -> Result<ContainerConfig, Refusal> {
    let stop_signal = match config.stop_signal() {
        Signal::RuntimeDefault => String::new(),
        signal => signal.as_str_name().trim_start_matches("SIGNAL_").replace("PLUS", "+").replace("MINUS", "-"),
    };
    let metadata = config.metadata.ok_or_else(|| Refusal::invalid("container config must include metadata"))?;
    refuse(config.windows.is_some(), "windows")?;
    refuse(!config.cdi_devices.is_empty(), "CDI_devices")?;
    let linux = config.linux.unwrap_or_default();
    let image = config.image.unwrap_or_default();
    let user_image = if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
    let env = |variable: super::v1::KeyValue| {
        let value = String::from_utf8(variable.value.into());
        let value = value.map_err(|_| Refusal::invalid(format!("the value of {} is no UTF-8", variable.key)))?;
        Ok((variable.key, value))
    };
    let devices = config.devices.into_iter();
    let no_log = config.log_path.is_empty() || sandbox.log_directory.as_os_str().is_empty();
    Ok(ContainerConfig {
        name: metadata.name,
        attempt: metadata.attempt,
        image_id: String::new(),
        user_image,
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        envs: config.envs.into_iter().map(env).collect::<Result<_, Refusal>>()?,
        mounts: config.mounts.into_iter().map(mount).collect::<Result<_, _>>()?,
        devices: devices.map(|d| (d.host_path.into(), d.container_path.into(), d.permissions)).collect(),
        labels: config.labels,
        annotations: config.annotations,
        log_path: if no_log { NO_LOG.into() } else { config.log_path.into() },
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: linux.resources.map(resources).transpose()?.unwrap_or_default(),
        security: security(linux.security_context.unwrap_or_default(), sandbox.pid)?,
        stop_signal,
    })
}

fn mount(mount: CriMount) -> Result<Mount, Refusal> {
    refuse(!mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty(), "a mount's uidMappings and gidMappings")?;
    refuse(!mount.mount_options.is_empty(), "a mount's mount_options")?;
    let propagation = match mount.propagation() {
        MountPropagation::PropagationPrivate => Propagation::Private,
        MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    };
    if mount.recursive_read_only && !(mount.readonly && propagation == Propagation::Private) {
        return Err(Refusal::invalid("recursive_read_only needs readonly and private propagation"));
    }
    Ok(Mount {
        container_path: mount.container_path.into(),
        host_path: mount.host_path.into(),
        readonly: mount.readonly,
        recursive_readonly: mount.recursive_read_only,
        propagation,
        image: mount.image.map(|image| image.image).filter(|image| !image.is_empty()),
        image_sub_path: mount.image_sub_path,
    })
}

// The old ways to name a profile are read only to be refused.
#[allow(deprecated)]
fn security(of: LinuxContainerSecurityContext, sandbox_pid: NamespaceMode) -> Result<SecurityContext, Refusal> {
    let strict_groups = of.supplemental_groups_policy() == SupplementalGroupsPolicy::Strict;
    if let Some(namespaces) = &of.namespace_options
        && pid(namespaces.pid())? != sandbox_pid
    {
        return Err(Refusal::unimplemented("a pid namespace of another mode than the sandbox's"));
    }
    refuse(!of.apparmor_profile.is_empty(), "apparmor_profile")?;
    refuse(!of.seccomp_profile_path.is_empty(), "seccomp_profile_path")?;
    let capabilities = of.capabilities.unwrap_or_default();
    refuse(!capabilities.add_ambient_capabilities.is_empty(), "add_ambient_capabilities")?;
    if of.run_as_group.is_some() && of.run_as_user.is_none() && of.run_as_username.is_empty() {
        return Err(Refusal::invalid("run_as_group without run_as_user or run_as_username"));
    }
    Ok(SecurityContext {
        privileged: of.privileged,
        add_capabilities: capabilities.add_capabilities,
        drop_capabilities: capabilities.drop_capabilities,
        run_as_user: of.run_as_user.map(|user| user.value),
        run_as_username: of.run_as_username,
        run_as_group: of.run_as_group.map(|group| group.value),
        supplemental_groups: of.supplemental_groups,
        strict_groups,
        readonly_rootfs: of.readonly_rootfs,
        no_new_privs: of.no_new_privs,
        seccomp: if of.privileged { Seccomp::Unconfined } else { seccomp(of.seccomp.as_ref()) },
        apparmor: apparmor(of.apparmor.as_ref()),
        selinux_label: of.selinux_options.map(label).unwrap_or_default(),
        masked_paths: of.masked_paths,
        readonly_paths: of.readonly_paths,
    })
}

fn seccomp(profile: Option<&SecurityProfile>) -> Seccomp {
    match profile.map(|profile| (profile.profile_type(), &profile.localhost_ref)) {
        Some((ProfileType::RuntimeDefault, _)) => Seccomp::RuntimeDefault,
        Some((ProfileType::Localhost, path)) => Seccomp::Localhost(path.into()),
        Some((ProfileType::Unconfined, _)) | None => Seccomp::Unconfined,
    }
}

fn apparmor(profile: Option<&SecurityProfile>) -> AppArmor {
    match profile.map(|profile| (profile.profile_type(), &profile.localhost_ref)) {
        Some((ProfileType::RuntimeDefault, _)) => AppArmor::RuntimeDefault,
        Some((ProfileType::Localhost, name)) => AppArmor::Localhost(name.clone()),
        Some((ProfileType::Unconfined, _)) | None => AppArmor::Unconfined,
    }
}

fn label(options: SeLinuxOption) -> String {
    let SeLinuxOption { user, role, r#type, level } = options;
    let parts = [user, role, r#type, level];
    if parts.iter().all(String::is_empty) { String::new() } else { parts.join(":") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, deprecated)]
    use super::super::grpc::Code;
    use super::super::v1::{
        Capability, CdiDevice, ContainerMetadata, IdMapping, Int64Value, LinuxContainerConfig, LinuxPodSandboxConfig,
        LinuxSandboxSecurityContext, NamespaceOption, PodSandboxMetadata,
    };
    use super::*;

    fn sandbox(config: PodSandboxConfig) -> Result<SandboxConfig, Refusal> {
        super::sandbox(config, String::new())
    }

    fn pod() -> PodSandboxConfig {
        let metadata = PodSandboxMetadata { name: "p".into(), namespace: "n".into(), uid: "u".into(), attempt: 1 };
        PodSandboxConfig { metadata: Some(metadata), log_directory: "/logs".into(), ..PodSandboxConfig::default() }
    }

    fn with_security(security: LinuxSandboxSecurityContext) -> PodSandboxConfig {
        let linux = LinuxPodSandboxConfig { security_context: Some(security), ..LinuxPodSandboxConfig::default() };
        PodSandboxConfig { linux: Some(linux), ..pod() }
    }

    fn of_namespaces(options: NamespaceOption) -> PodSandboxConfig {
        with_security(LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() })
    }

    #[test]
    fn a_sandbox_keeps_what_is_said() {
        let config = sandbox(pod()).unwrap();
        assert_eq!((config.name.as_str(), config.attempt, config.cgroup_parent.as_str()), ("p", 1, "cri/podn_p_u"));
        assert_eq!(
            (config.network, config.pid, config.ipc),
            (NamespaceMode::Pod, NamespaceMode::Pod, NamespaceMode::Pod)
        );
        assert!(!config.hostname.is_empty());
        let node = CriMode::Node.into();
        let host = NamespaceOption { network: node, pid: node, ipc: node, ..NamespaceOption::default() };
        let config = sandbox(of_namespaces(host)).unwrap();
        assert_eq!((config.network, config.pid), (NamespaceMode::Node, NamespaceMode::Node));
        let ports = [(80, 8080, ""), (81, 0, ""), (53, 53, "127.0.0.1")];
        let ports = ports.map(|(container_port, host_port, ip)| CriPort {
            container_port,
            host_port,
            host_ip: ip.into(),
            protocol: Protocol::Udp.into(),
        });
        let config = sandbox(PodSandboxConfig { port_mappings: ports.into(), ..pod() }).unwrap();
        let ports: Vec<_> = config.port_mappings.iter().map(|p| (p.host_port, p.host_ip.is_some())).collect();
        assert_eq!(ports, [(8080, false), (53, true)]);
    }

    #[test]
    fn users_come_as_one_range() {
        let of = |host_id| vec![IdMapping { host_id, container_id: 0, length: 65536 }];
        let options = CriUsers { mode: CriMode::Pod.into(), uids: of(100_000), gids: of(200_000) };
        let namespaces = NamespaceOption { userns_options: Some(options.clone()), ..NamespaceOption::default() };
        let range = UserRange { host_uid: 100_000, host_gid: 200_000, length: 65536 };
        assert_eq!(sandbox(of_namespaces(namespaces)).unwrap().users, UserNamespace::Pod(Some(range)));
        let two = CriUsers { uids: [of(1), of(2)].concat(), ..options.clone() };
        let node = CriUsers { mode: CriMode::Node.into(), ..options };
        assert!(users(Some(two)).is_err() && users(Some(node)).is_err());
        assert_eq!(users(None), Ok(UserNamespace::Node));
    }

    #[test]
    fn what_a_sandbox_cannot_have_is_refused_by_name() {
        let target = NamespaceOption { pid: CriMode::Target.into(), ..NamespaceOption::default() };
        let container = NamespaceOption { network: CriMode::Container.into(), ..NamespaceOption::default() };
        let user = NamespaceOption { userns_options: Some(CriUsers::default()), ..NamespaceOption::default() };
        for (config, code, word) in [
            (PodSandboxConfig { metadata: None, ..pod() }, Code::InvalidArgument, "metadata"),
            (PodSandboxConfig { log_directory: "logs".into(), ..pod() }, Code::InvalidArgument, "log_directory"),
            (PodSandboxConfig { windows: Some(Default::default()), ..pod() }, Code::Unimplemented, "windows"),
            (of_namespaces(target), Code::Unimplemented, "target"),
            (of_namespaces(container), Code::InvalidArgument, "network"),
            (of_namespaces(user), Code::Unimplemented, "userns_options"),
        ] {
            let refusal = sandbox(config).unwrap_err();
            assert!(refusal.code == code && refusal.message.contains(word), "{refusal:?}");
        }
    }

    fn c() -> CriContainer {
        let metadata = ContainerMetadata { name: "c".into(), attempt: 2 };
        CriContainer { metadata: Some(metadata), log_path: "c/2.log".into(), ..CriContainer::default() }
    }

    fn secured(security: LinuxContainerSecurityContext) -> CriContainer {
        let linux = LinuxContainerConfig { resources: None, security_context: Some(security) };
        CriContainer { linux: Some(linux), ..c() }
    }

    #[test]
    fn a_container_keeps_what_is_said() {
        let of = sandbox(pod()).unwrap();
        let config = CriContainer { stop_signal: Signal::Sigrtminplus3.into(), ..c() };
        let config = container(config, &of).unwrap();
        assert_eq!((config.name.as_str(), config.attempt, config.stop_signal.as_str()), ("c", 2, "SIGRTMIN+3"));
        assert_eq!(config.log_path, PathBuf::from("c/2.log"));
        let silent = SandboxConfig { log_directory: PathBuf::new(), ..of.clone() };
        assert_eq!(container(c(), &silent).unwrap().log_path, PathBuf::from(NO_LOG));
        let user = LinuxContainerSecurityContext {
            run_as_user: Some(Int64Value { value: 7 }),
            seccomp: Some(SecurityProfile::default()),
            apparmor: Some(SecurityProfile { profile_type: ProfileType::Localhost.into(), localhost_ref: "x".into() }),
            selinux_options: Some(SeLinuxOption { r#type: "spc_t".into(), ..SeLinuxOption::default() }),
            ..Default::default()
        };
        let config = container(secured(user), &of).unwrap();
        let security = config.security;
        assert_eq!((security.run_as_user, security.seccomp), (Some(7), Seccomp::RuntimeDefault));
        assert_eq!((security.apparmor, security.selinux_label), (AppArmor::Localhost("x".into()), "::spc_t:".into()));
    }

    #[test]
    fn what_a_container_cannot_have_is_refused_by_name() {
        let of = sandbox(pod()).unwrap();
        let security = |change: fn(&mut LinuxContainerSecurityContext)| {
            let mut security = LinuxContainerSecurityContext::default();
            change(&mut security);
            secured(security)
        };
        let mount = |change: fn(&mut CriMount)| {
            let mut mount = CriMount { container_path: "/m".into(), host_path: "/".into(), ..CriMount::default() };
            change(&mut mount);
            CriContainer { mounts: vec![mount], ..c() }
        };
        for (config, word) in [
            (CriContainer { metadata: None, ..c() }, "metadata"),
            (CriContainer { cdi_devices: vec![CdiDevice::default()], ..c() }, "CDI_devices"),
            (mount(|m| m.uid_mappings.push(IdMapping::default())), "uidMappings"),
            (mount(|m| m.mount_options.push("noexec".into())), "mount_options"),
            (mount(|m| m.recursive_read_only = true), "recursive_read_only"),
            (security(|s| s.seccomp_profile_path = "unconfined".into()), "seccomp_profile_path"),
            (security(|s| s.apparmor_profile = "localhost/x".into()), "apparmor_profile"),
            (security(|s| s.run_as_group = Some(Int64Value { value: 1 })), "run_as_group"),
            (
                security(|s| {
                    let add_ambient_capabilities = vec!["CHOWN".into()];
                    s.capabilities = Some(Capability { add_ambient_capabilities, ..Default::default() });
                }),
                "add_ambient_capabilities",
            ),
            (
                security(|s| {
                    let pid = CriMode::Container.into();
                    s.namespace_options = Some(NamespaceOption { pid, ..Default::default() });
                }),
                "pid namespace",
            ),
        ] {
            let refusal = container(config, &of).unwrap_err();
            assert!(refusal.message.contains(word), "{refusal:?}");
        }
        assert!(check_privileged(&security(|s| s.privileged = true), Some(&pod())).is_err());
        let may = with_security(LinuxSandboxSecurityContext { privileged: true, ..Default::default() });
        assert!(check_privileged(&security(|s| s.privileged = true), Some(&may)).is_ok());
    }

    #[test]
    fn swap_is_the_memory_limit_or_refused() {
        let of = |memory, swap| LinuxContainerResources {
            memory_limit_in_bytes: memory,
            memory_swap_limit_in_bytes: swap,
            ..LinuxContainerResources::default()
        };
        assert!(resources(of(5, 0)).is_ok() && resources(of(5, 5)).is_ok());
        assert!(resources(of(5, 10)).unwrap_err().message.contains("memory_swap_limit_in_bytes"));
        let negative = LinuxContainerResources { cpu_shares: -1, ..LinuxContainerResources::default() };
        assert!(resources(negative).is_err());
    }

    #[test]
    fn resolv_conf_is_written_as_containerd_does() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let dns =
            DnsConfig { servers: words(&["10.0.0.1"]), searches: words(&["a", "b"]), options: words(&["ndots:5"]) };
        assert_eq!(resolv_conf(&dns), "search a b\nnameserver 10.0.0.1\noptions ndots:5\n");
    }
}
