//! Validation of security contexts and their annotations of old (upstream `ValidateSecurityContext`,
//! `validatePodSpecSecurityContext`).

mod windows;

use super::CONTAINER_LISTS;
use super::validate::Lenient;
use super::volumes::descending;
use crate::internal;
use crate::names;
use crate::tree::Tree;
use schema::field::{ErrorList, FieldError, Path, duplicate, forbidden, invalid, not_supported, required, too_long};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) use windows::{linux_only, windows_host_process, windows_only};

fn id(found: &mut ErrorList, context: &Value, field: &str, path: &Path) {
    if let Some(id) = context.int_opt(field) {
        found.extend(names::user_id(id).iter().map(|message| invalid(&path.child(field), id, message)));
    }
}

fn word(found: &mut ErrorList, context: &Value, field: &str, path: &Path, allowed: &[&str]) {
    if let Some(value) = context.text_opt(field).filter(|v| !allowed.contains(v)) {
        found.push(not_supported(&path.child(field), value, allowed));
    }
}

/// `validatePodSpecSecurityContext`.
pub(super) fn pod(spec: &Value, path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    let Some(context) = spec.field("securityContext") else { return found };
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(&mut found, context, field, path);
    }
    for (i, group) in context.list("supplementalGroups").iter().enumerate() {
        let group = group.as_i64().unwrap_or_default();
        let at = path.child("supplementalGroups").index(i);
        found.extend(names::user_id(group).iter().map(|message| invalid(&at, group, message)));
    }
    found.extend(sysctls(context, spec, &path.child("sysctls"), lenient));
    word(&mut found, context, "fsGroupChangePolicy", path, &["Always", "OnRootMismatch"]);
    found.extend(seccomp_profile(context.field("seccompProfile"), &path.child("seccompProfile")));
    found.extend(windows::options(context.field("windowsOptions"), &path.child("windowsOptions")));
    found.extend(apparmor_profile(context.field("appArmorProfile"), &path.child("appArmorProfile")));
    word(&mut found, context, "supplementalGroupsPolicy", path, &["Merge", "Strict"]);
    word(&mut found, context, "seLinuxChangePolicy", path, &["MountOption", "Recursive"]);
    found
}

/// `ValidateSecurityContext`, of a cluster that allows privileged containers.
pub(super) fn container(context: &Value, path: &Path, host_users: bool, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    if context.is_null() {
        return found;
    }
    id(&mut found, context, "runAsUser", path);
    id(&mut found, context, "runAsGroup", path);
    word(&mut found, context, "procMount", path, &["Default", "Unmasked"]);
    if host_users && context.text("procMount") == "Unmasked" {
        let text = "`hostUsers` must be false to use `Unmasked`";
        found.push(invalid(&path.child("procMount"), "Unmasked", text));
    }
    found.extend(seccomp_profile(context.field("seccompProfile"), &path.child("seccompProfile")));
    if context.flag_opt("allowPrivilegeEscalation") == Some(false) {
        if context.flag("privileged") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            found.push(internal::invalid(path, "SecurityContext", context, text));
        }
        let admin = context["capabilities"].texts("add").filter(|c| *c == "CAP_SYS_ADMIN");
        for _ in admin.filter(|_| !lenient.admin_without_escalation) {
            let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            found.push(internal::invalid(path, "SecurityContext", context, text));
        }
    }
    found.extend(windows::options(context.field("windowsOptions"), &path.child("windowsOptions")));
    found.extend(apparmor_profile(context.field("appArmorProfile"), &path.child("appArmorProfile")));
    found
}

/// What old Pods may keep: CAP_SYS_ADMIN without escalation.
pub(super) fn is_admin_without_escalation(context: &Value) -> bool {
    !context.flag("allowPrivilegeEscalation") && context["capabilities"].texts("add").any(|c| c == "CAP_SYS_ADMIN")
}

fn is_sysctl_name(name: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let segment = |part: &str| {
        edge(part.bytes().next())
            && edge(part.bytes().next_back())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

/// A sysctl of a namespace that this Pod shares with the host.
fn host_sysctl(name: &str, spec: &Value) -> Option<&'static str> {
    // `a/b.c` and `a.b/c`: the first separator tells which of the two is the separator.
    let dotted = match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name.replace('/', "\u{0}").replace('.', "/").replace('\u{0}', "."),
        _ => name.to_owned(),
    };
    let is = |prefix: &str| dotted.starts_with(prefix) && dotted != prefix;
    if spec.flag("hostNetwork") && is("net.") {
        return Some("may not be specified when 'hostNetwork' is true");
    }
    let ipc =
        ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| dotted.starts_with(p)) || dotted == "kernel.sem";
    (spec.flag("hostIPC") && ipc).then_some("may not be specified when 'hostIPC' is true")
}

/// Whether an old Pod has sysctls that are refused today.
pub(super) fn has_host_sysctl(spec: &Value) -> bool {
    spec["securityContext"].list("sysctls").iter().any(|s| host_sysctl(s.text("name"), spec).is_some())
}

fn sysctls(context: &Value, spec: &Value, path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (i, sysctl) in context.list("sysctls").iter().enumerate() {
        let at = path.index(i).child("name");
        let name = sysctl.text("name");
        if name.is_empty() {
            found.push(required(&at, ""));
        } else if !is_sysctl_name(name) {
            let text = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            found.push(invalid(&at, name, text));
        } else if seen.contains(name) {
            found.push(duplicate(&at, name));
        }
        if let Some(text) = host_sysctl(name, spec).filter(|_| !lenient.host_sysctls) {
            found.push(invalid(&at, name, text));
        }
        seen.insert(name);
    }
    found
}

/// `validateSeccompProfileField`.
fn seccomp_profile(profile: Option<&Value>, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let Some(profile) = profile else { return found };
    let types = ["Localhost", "RuntimeDefault", "Unconfined"];
    let of = profile.text("type");
    if of.is_empty() {
        found.push(required(&path.child("type"), "type is required when seccompProfile is set"));
    } else if !types.contains(&of) {
        found.push(not_supported(&path.child("type"), of, &types));
    }
    let at = path.child("localhostProfile");
    match profile.text_opt("localhostProfile") {
        None if of == "Localhost" => found.push(required(&at, "must be set when seccomp type is Localhost")),
        Some(file) if of == "Localhost" => found.extend(descending(file, &at)),
        Some(_) => {
            let text = "can only be set when seccomp type is Localhost";
            found.push(internal::invalid(&at, "SeccompProfile", profile, text));
        }
        None => {}
    }
    found
}

/// `ValidateAppArmorProfileField`.
fn apparmor_profile(profile: Option<&Value>, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let Some(profile) = profile else { return found };
    let at = path.child("localhostProfile");
    let file = profile.text_opt("localhostProfile");
    match (profile.text("type"), file) {
        ("Localhost", None) => found.push(required(&at, "must be set when AppArmor type is Localhost")),
        ("Localhost", Some(file)) => {
            if file.trim() != file {
                found.push(invalid(&at, file, "must not be padded with whitespace"));
            } else if file.is_empty() {
                found.push(required(&at, "must be set when AppArmor type is Localhost"));
            }
            if file.len() > 4095 {
                found.push(too_long(&at, 4095));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(file)) => {
            found.push(invalid(&at, file, "can only be set when AppArmor type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => found.push(required(&path.child("type"), "type is required when appArmorProfile is set")),
        (other, _) => {
            found.push(not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]));
        }
    }
    found
}

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";

/// `ValidateSeccompPodAnnotations`.
pub(super) fn seccomp_annotations(annotations: &Value, path: &Path) -> ErrorList {
    let check = |profile: &str, path: &Path| match profile {
        "runtime/default" | "docker/default" | "unconfined" => ErrorList::new(),
        _ => match profile.strip_prefix("localhost/") {
            Some(file) => descending(file, path),
            None => vec![invalid(path, profile, "must be a valid seccomp profile")],
        },
    };
    let mut found = ErrorList::new();
    if let Some(profile) = annotations.text_opt(SECCOMP_POD) {
        found.extend(check(profile, &path.child(SECCOMP_POD)));
    }
    for (key, profile) in annotations.as_object().into_iter().flatten() {
        if key.starts_with(SECCOMP_CONTAINER) {
            found.extend(check(profile.as_str().unwrap_or_default(), &path.child(key)));
        }
    }
    found
}

/// `ValidateAppArmorPodAnnotations`.
pub(super) fn apparmor_annotations(annotations: &Value, spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for (key, profile) in annotations.as_object().into_iter().flatten() {
        let Some(name) = key.strip_prefix(APPARMOR_CONTAINER) else { continue };
        if !CONTAINER_LISTS.iter().flat_map(|l| spec.list(l)).any(|c| c.text("name") == name) {
            found.push(invalid(&path.key(key), name, "container not found"));
        }
        let profile = profile.as_str().unwrap_or_default();
        if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with("localhost/") {
            let text = format!("invalid AppArmor profile name: \"{profile}\"");
            found.push(invalid(&path.key(key), profile, &text));
        }
    }
    found
}

/// Whether an annotation of old says the same as a profile field; `kind` is `seccomp` or `apparmor`.
fn annotation_matches(annotation: &str, profile: &Value, kind: &str, path: &Path) -> Option<FieldError> {
    let same = match profile.text("type") {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => annotation == "runtime/default" || (kind == "seccomp" && annotation == "docker/default"),
        "Localhost" => match annotation.strip_prefix("localhost/") {
            Some(file) if profile.text_opt("localhostProfile") != Some(file) => {
                let text = format!("{kind} profile in annotation and field must match");
                return Some(forbidden(&path.child("localhostProfile"), &text));
            }
            found => found.is_some(),
        },
        _ => true,
    };
    (!same).then(|| forbidden(&path.child("type"), &format!("{kind} type in annotation and field must match")))
}

/// `validateSeccompAnnotationsAndFields`.
pub(super) fn seccomp_annotations_match(annotations: &Value, spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let own = spec["securityContext"].field("seccompProfile");
    if let (Some(profile), Some(annotation)) = (own, annotations.text_opt(SECCOMP_POD)) {
        let at = path.child("securityContext").child("seccompProfile");
        found.extend(annotation_matches(annotation, profile, "seccomp", &at));
    }
    for list in CONTAINER_LISTS {
        for (i, container) in spec.list(list).iter().enumerate() {
            let key = format!("{SECCOMP_CONTAINER}{}", container.text("name"));
            let profile = container["securityContext"].field("seccompProfile");
            if let (Some(profile), Some(annotation)) = (profile, annotations.text_opt(&key)) {
                let at = path.child(list).index(i).child("securityContext").child("seccompProfile");
                found.extend(annotation_matches(annotation, profile, "seccomp", &at));
            }
        }
    }
    found
}

/// `validateAppArmorAnnotationsAndFieldsMatchOnCreate`.
pub(super) fn apparmor_annotations_match(annotations: &Value, spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    if spec["os"].text("name") == "windows" {
        return found;
    }
    let of_pod = spec["securityContext"].field("appArmorProfile");
    for list in CONTAINER_LISTS {
        for (i, container) in spec.list(list).iter().enumerate() {
            let key = format!("{APPARMOR_CONTAINER}{}", container.text("name"));
            let profile = container["securityContext"].field("appArmorProfile").or(of_pod);
            if let (Some(profile), Some(annotation)) = (profile, annotations.text_opt(&key)) {
                let at = path.child(list).index(i).child("securityContext").child("appArmorProfile");
                found.extend(annotation_matches(annotation, profile, "apparmor", &at));
            }
        }
    }
    found
}
