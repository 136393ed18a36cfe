//! What a node refuses a Pod for, beside what the scheduler's filters say (upstream `pkg/kubelet/sysctl`,
//! `lifecycle/predicate.go`).

use k8s_openapi::api::core::v1::Pod;

/// Sysctls that a Pod may set without harm to others, with the namespace that keeps them apart. Every supported kernel has them.
const SAFE_SYSCTLS: [(&str, &str); 14] = [
    ("kernel.shm_rmid_forced", "ipc"),
    ("net.ipv4.ip_local_port_range", "net"),
    ("net.ipv4.tcp_syncookies", "net"),
    ("net.ipv4.ping_group_range", "net"),
    ("net.ipv4.ip_unprivileged_port_start", "net"),
    ("net.ipv4.ip_local_reserved_ports", "net"),
    ("net.ipv4.tcp_keepalive_time", "net"),
    ("net.ipv4.tcp_fin_timeout", "net"),
    ("net.ipv4.tcp_keepalive_intvl", "net"),
    ("net.ipv4.tcp_keepalive_probes", "net"),
    ("net.ipv4.tcp_rmem", "net"),
    ("net.ipv4.tcp_wmem", "net"),
    ("net.ipv4.tcp_slow_start_after_idle", "net"),
    ("net.ipv4.tcp_notsent_lowat", "net"),
];
const OS_LABEL: &str = "kubernetes.io/os";
const OS: &str = "linux";

/// Reason and message; `None`: nothing in the Pod itself speaks against it.
pub fn refusal(pod: &Pod) -> Option<(&'static str, String)> {
    let spec = pod.spec.as_ref()?;
    let (host_network, host_ipc) = (spec.host_network == Some(true), spec.host_ipc == Some(true));
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    let forbidden = sysctls.map(|sysctl| normal(&sysctl.name)).find_map(|name| {
        let Some((_, namespace)) = SAFE_SYSCTLS.iter().find(|(safe, _)| *safe == name) else {
            return Some(format!("\"{name}\" not allowlisted"));
        };
        let shared = (*namespace == "ipc" && host_ipc) || (*namespace == "net" && host_network);
        shared.then(|| format!("\"{name}\" not allowed with host {namespace} enabled"))
    });
    if let Some(words) = forbidden {
        return Some(("SysctlForbidden", format!("forbidden sysctl: {words}")));
    }
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(OS_LABEL));
    if label.is_some_and(|label| label != OS) {
        let message = format!("Failed to admit pod as the `{OS_LABEL}` label doesn't match node label");
        return Some(("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    if spec.os.as_ref().is_some_and(|os| os.name != OS) {
        let message = "Failed to admit pod as the OS field doesn't match node OS".to_owned();
        return Some(("PodOSNotSupported", message));
    }
    None
}

/// `net/ipv4/x` and `net.ipv4.x` are the same: the first separator tells which is which.
fn normal(name: &str) -> String {
    if name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/') {
        let swap = |c| match c {
            '/' => '.',
            '.' => '/',
            c => c,
        };
        return name.chars().map(swap).collect();
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn of(spec: Value, labels: Value) -> String {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod: Pod = serde_json::from_value(json!({"metadata": {"labels": labels}, "spec": spec})).unwrap();
        refusal(&pod).map(|(reason, message)| format!("{reason}: {message}")).unwrap_or_default()
    }

    #[test]
    fn sysctls() {
        let set = |name: &str| json!({"sysctls": [{"name": name, "value": "1"}]});
        let sysctl = |name: &str| of(json!({"securityContext": set(name)}), json!({}));
        assert_eq!(sysctl("net.ipv4.tcp_syncookies") + &sysctl("net/ipv4/tcp_syncookies"), "");
        assert_eq!(sysctl("kernel.msgmax"), "SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowlisted");
        let host = of(json!({"hostIPC": true, "securityContext": set("kernel/shm_rmid_forced")}), json!({}));
        let words = "SysctlForbidden: forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host ipc enabled";
        assert_eq!(host, words);
    }

    #[test]
    fn operating_systems() {
        assert_eq!(of(json!({"os": {"name": "linux"}}), json!({OS_LABEL: "linux"})), "");
        let windows = of(json!({"os": {"name": "windows"}}), json!({}));
        assert_eq!(windows, "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS");
        assert!(of(json!({}), json!({OS_LABEL: "windows"})).starts_with("PodOSSelectorNodeLabelDoesNotMatch: "));
    }
}
