//! Security options of Windows, and what the two operating systems exclude.

use crate::kinds::core::pod::CONTAINER_LISTS;
use crate::names;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, forbidden, invalid};
use serde_json::Value;

fn containers<'a>(spec: &'a Value, path: &'a Path) -> impl Iterator<Item = (&'a Value, Path)> {
    CONTAINER_LISTS.iter().flat_map(move |list| {
        spec.list(list).iter().enumerate().map(move |(i, container)| (container, path.child(list).index(i)))
    })
}

/// `validateLinux`.
pub(in crate::kinds::core::pod) fn linux_only(spec: &Value, path: &Path) -> ErrorList {
    let text = "windows options cannot be set for a linux pod";
    let mut found = ErrorList::new();
    if spec["securityContext"].has("windowsOptions") {
        found.push(forbidden(&path.child("securityContext").child("windowsOptions"), text));
    }
    for (container, at) in containers(spec, path) {
        if container["securityContext"].has("windowsOptions") {
            found.push(forbidden(&at.child("securityContext").child("windowsOptions"), text));
        }
    }
    found
}

/// `validateWindows`.
pub(in crate::kinds::core::pod) fn windows_only(spec: &Value, path: &Path) -> ErrorList {
    let text = "cannot be set for a windows pod";
    let mut found = ErrorList::new();
    let given = |value: &Value, field: &str| match value.field(field) {
        Some(Value::Bool(set)) => *set || !matches!(field, "hostPID" | "hostIPC"),
        Some(Value::Array(items)) => !items.is_empty(),
        other => other.is_some(),
    };
    let of_pod = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ];
    for field in of_pod.iter().filter(|f| given(&spec["securityContext"], f)) {
        found.push(forbidden(&path.child("securityContext").child(field), text));
    }
    for field in ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"].iter().filter(|f| given(spec, f)) {
        found.push(forbidden(&path.child(field), text));
    }
    let of_container = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    for (container, at) in containers(spec, path) {
        for field in of_container.iter().filter(|f| given(&container["securityContext"], f)) {
            found.push(forbidden(&at.child("securityContext").child(field), text));
        }
    }
    found
}

/// `validateWindowsHostProcessPod`.
pub(in crate::kinds::core::pod) fn windows_host_process(spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let host_process = |value: &Value| value["securityContext"]["windowsOptions"].flag_opt("hostProcess");
    let of_pod = host_process(spec);
    let (mut all, mut on_host) = (0, 0);
    for (container, at) in containers(spec, path) {
        all += 1;
        let own = host_process(container);
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            let at = at.child("securityContext").child("windowsOptions").child("hostProcess");
            let text = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            found.push(invalid(&at, own, &text));
        }
        if own.or(of_pod) == Some(true) {
            on_host += 1;
        }
    }
    if on_host > 0 {
        if on_host != all {
            let text = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
            found.push(invalid(path, "", text));
        }
        if !spec.flag("hostNetwork") {
            let text = "hostNetwork must be true if pod contains any hostProcess containers";
            found.push(invalid(&path.child("hostNetwork"), false, text));
        }
    }
    found
}

/// `validateWindowsSecurityContextOptions`.
pub(super) fn options(options: Option<&Value>, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let Some(options) = options else { return found };
    if let Some(name) = options.text_opt("gmsaCredentialSpecName") {
        found.extend(names::errors(&path.child("gmsaCredentialSpecName"), name, names::dns_subdomain(name)));
    }
    if let Some(spec) = options.text_opt("gmsaCredentialSpec") {
        let at = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            found.push(invalid(&at, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > 64 * 1024 {
            found.push(invalid(&at, spec, "gmsaCredentialSpec size must be under 64 KiB"));
        }
    }
    if let Some(name) = options.text_opt("runAsUserName") {
        let at = path.child("runAsUserName");
        found.extend(user_name(name).iter().map(|text| invalid(&at, name, &format!("runAsUserName{text}"))));
    }
    found
}

/// What is wrong with `DOMAIN\user`; each message goes on from `runAsUserName`.
fn user_name(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec![" cannot be an empty string"];
    }
    if name.bytes().any(|b| b.is_ascii_control()) {
        return vec![" cannot contain control characters"];
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec![" cannot contain more than one backslash"],
    };
    let mut messages = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            messages.push("'s Domain length must be under 256 characters");
        }
        let net_bios = !domain.is_empty()
            && domain.chars().count() <= 15
            && !domain.starts_with('.')
            && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|']);
        if !net_bios && !is_dns_domain(domain) {
            messages.push("'s Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        messages.push("'s User cannot be empty");
    } else if user.len() > 104 {
        messages.push("'s User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        messages.push("'s User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        messages.push("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
    messages
}

fn is_dns_domain(domain: &str) -> bool {
    let label = |part: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        part.len() <= 63
            && edge(part.bytes().next())
            && edge(part.bytes().next_back())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    domain.split('.').all(label)
}
