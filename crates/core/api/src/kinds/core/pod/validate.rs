//! Validation of a Pod as a whole (upstream `ValidatePodCreate`, `validatePodMetadataAndSpec`, `ValidatePodSpec`).

use super::containers::Containers;
use super::{CONTAINER_LISTS, containers, requirements, scheduling, security, volumes};
use crate::addresses;
use crate::names::{self, NEGATIVE};
use crate::tree::Tree;
use schema::field::{ErrorList, Path, duplicate, forbidden, invalid, not_supported, required, too_long};
use serde_json::Value;

/// What an old object may keep although it would be refused today (upstream `PodValidationOptions`).
#[derive(Debug, Default, Clone, Copy)]
pub struct Lenient {
    pub selector_values: bool,
    pub node_affinity_values: bool,
    pub spread_selectors: bool,
    pub spread_label_keys: bool,
    pub token_paths: bool,
    pub host_sysctls: bool,
    pub hugepage_sizes: bool,
    pub deletion_cost: bool,
    pub restart_container_of_init: bool,
    pub devices_in_user_namespace: bool,
    pub host_network_in_user_namespace: bool,
    pub toleration_comparison: bool,
    pub empty_image_reference: bool,
    pub admin_without_escalation: bool,
}

impl Lenient {
    /// Upstream `GetValidationOptionsFromPodSpecAndMeta`.
    pub fn towards(old: &Value) -> Self {
        let spec = &old["spec"];
        let containers = || CONTAINER_LISTS.iter().flat_map(|list| spec.list(list));
        let own_users = spec.flag_opt("hostUsers") == Some(false);
        let (selector_values, node_affinity_values) = scheduling::has_invalid_values(spec);
        let (spread_selectors, spread_label_keys) = scheduling::has_invalid_spread(spec);
        let restarting = |c: &&Value| {
            !super::is_sidecar(c)
                && c.list("resizePolicy").iter().any(|p| p.text("restartPolicy") == "RestartContainer")
        };
        Self {
            selector_values,
            node_affinity_values,
            spread_selectors,
            spread_label_keys,
            token_paths: volumes::has_non_local_token_path(spec),
            host_sysctls: security::has_host_sysctl(spec),
            hugepage_sizes: requirements::has_indivisible_hugepages(spec),
            deletion_cost: deletion_cost_error(&old["metadata"]["annotations"]),
            restart_container_of_init: spec.list("initContainers").iter().any(|c| restarting(&c)),
            devices_in_user_namespace: own_users && containers().any(|c| !c.list("volumeDevices").is_empty()),
            host_network_in_user_namespace: own_users && spec.flag("hostNetwork"),
            toleration_comparison: spec.list("tolerations").iter().any(|t| matches!(t.text("operator"), "Lt" | "Gt")),
            empty_image_reference: spec
                .list("volumes")
                .iter()
                .any(|v| v.has("image") && v["image"].text("reference").is_empty()),
            admin_without_escalation: containers()
                .any(|c| security::is_admin_without_escalation(&c["securityContext"])),
        }
    }
}

/// `ValidatePodCreate` without the generic checks of metadata, which go before.
pub fn create(pod: &Value) -> ErrorList {
    let mut found = annotations_and_spec(pod, Lenient::default());
    let spec = &pod["spec"];
    let path = Path::new("spec");
    if !spec.list("ephemeralContainers").is_empty() {
        found.push(forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !spec.text("nodeName").is_empty() && !spec.list("schedulingGates").is_empty() {
        found.push(forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared"));
    }
    let annotations = &pod["metadata"]["annotations"];
    found.extend(security::seccomp_annotations_match(annotations, spec, &path));
    found.extend(security::apparmor_annotations_match(annotations, spec, &path));
    found
}

/// `validatePodMetadataAndSpec` behind its `ValidateObjectMeta`.
pub fn annotations_and_spec(pod: &Value, lenient: Lenient) -> ErrorList {
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    let path = Path::new("spec");
    let mut found = annotations(&metadata["annotations"], spec, &Path::new("metadata").child("annotations"), lenient);
    found.extend(pod_spec(spec, Some(metadata), &path, lenient));
    if spec.text("serviceAccountName").is_empty() {
        for (i, volume) in spec.list("volumes").iter().enumerate() {
            for (j, source) in volume["projected"].list("sources").iter().enumerate() {
                if source.has("serviceAccountToken") {
                    let at = path.child("volumes").index(i).child("projected").child("sources").index(j);
                    let text = "must not be specified when serviceAccountName is not set";
                    found.push(forbidden(&at.child("serviceAccountToken"), text));
                }
            }
        }
    }
    let grace = spec.int("terminationGracePeriodSeconds");
    if grace < 0 {
        found.push(invalid(&path.child("terminationGracePeriodSeconds"), grace, NEGATIVE));
    }
    for list in ["containers", "initContainers"] {
        for (i, container) in spec.list(list).iter().enumerate() {
            found.extend(containers::image_spaces(container, &path.child(list).index(i)));
        }
    }
    found
}

fn deletion_cost_error(annotations: &Value) -> bool {
    match annotations.text_opt("controller.kubernetes.io/pod-deletion-cost") {
        None => false,
        Some(cost) => {
            let plain = !cost.starts_with('+') && (cost == "0" || !cost.trim_start_matches('-').starts_with('0'));
            !plain || cost.parse::<i32>().is_err()
        }
    }
}

/// `ValidatePodSpecificAnnotations`.
pub fn annotations(annotations: &Value, spec: &Value, path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    let mirror = "kubernetes.io/config.mirror";
    if let Some(value) = annotations.text_opt(mirror).filter(|_| spec.text("nodeName").is_empty()) {
        let text = "must set spec.nodeName if mirror pod annotation is set";
        found.push(invalid(&path.key(mirror), value, text));
    }
    let tolerations = "scheduler.alpha.kubernetes.io/tolerations";
    if let Some(text) = annotations.text_opt(tolerations).filter(|t| !t.is_empty()) {
        match serde_json::from_str::<Value>(text) {
            Ok(parsed) if parsed.is_array() || parsed.is_null() => {
                let list = parsed.as_array().map_or(&[][..], Vec::as_slice);
                found.extend(scheduling::tolerations(list, &path.child(tolerations), lenient));
            }
            Ok(_) => {
                let text = "json: cannot unmarshal object into Go value of type []v1.Toleration";
                found.push(invalid(path, tolerations, text));
            }
            Err(error) => found.push(invalid(path, tolerations, &error.to_string())),
        }
    }
    if !lenient.deletion_cost && deletion_cost_error(annotations) {
        let cost = "controller.kubernetes.io/pod-deletion-cost";
        found.push(invalid(&path.key(cost), annotations.text(cost), "must be a 32bit integer"));
    }
    found.extend(security::seccomp_annotations(annotations, path));
    found.extend(security::apparmor_annotations(annotations, spec, path));
    found
}

/// `ValidatePodSpec`; `metadata` is absent in templates.
pub fn pod_spec(spec: &Value, metadata: Option<&Value>, path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    if !spec.has("terminationGracePeriodSeconds") {
        found.push(required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let (known_volumes, volume_errors) = volumes::volumes(spec, metadata, &path.child("volumes"), lenient);
    found.extend(volume_errors);
    found.extend(requirements::pod_claims(spec, metadata, &path.child("resourceClaims")));
    let all = Containers { spec, volumes: &known_volumes, lenient };
    found.extend(all.main(&path.child("containers")));
    found.extend(all.init(&path.child("initContainers")));
    found.extend(all.ephemeral(&path.child("ephemeralContainers")));
    found.extend(requirements::pod_level(spec, path, lenient));
    found.extend(host_network_ports(spec, metadata.is_some(), path));
    word(&mut found, spec, "restartPolicy", path, &["Always", "OnFailure", "Never"]);
    word(&mut found, spec, "dnsPolicy", path, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    found.extend(crate::meta::validate_labels(&spec["nodeSelector"], &path.child("nodeSelector")));
    found.extend(security::pod(spec, &path.child("securityContext"), lenient));
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        found.push(invalid(&path.child("shareProcessNamespace"), true, text));
    }
    found.extend(scheduling::affinity(&spec["affinity"], &path.child("affinity"), lenient));
    found.extend(dns_config(spec, &path.child("dnsConfig")));
    for (i, gate) in spec.list("readinessGates").iter().enumerate() {
        let at = path.child("readinessGates").index(i).child("conditionType");
        found.extend(crate::meta::validate_label_name(gate.text("conditionType"), &at));
    }
    found.extend(scheduling::gates(spec.list("schedulingGates"), &path.child("schedulingGates")));
    let spread = path.child("topologySpreadConstraints");
    found.extend(scheduling::topology_spread(spec.list("topologySpreadConstraints"), &spread, lenient));
    found.extend(security::windows_host_process(spec, path));
    found.extend(user_namespace(spec, path, lenient));
    found.extend(hostname_override(spec, path));
    found.extend(scalars(spec, path, lenient));
    found.extend(operating_system(spec, path));
    scheduling_group(spec, path, &mut found);
    found.extend(volumes::file_key_refs(spec, path));
    found
}

/// A field that must have one of the listed words.
fn word(found: &mut ErrorList, spec: &Value, name: &str, path: &Path, allowed: &[&str]) {
    match spec.text(name) {
        "" => found.push(required(&path.child(name), "")),
        value if allowed.contains(&value) => {}
        value => found.push(not_supported(&path.child(name), value, allowed)),
    }
}

fn scalars(spec: &Value, path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    let mut named = |name: &str, check: fn(&str) -> Vec<String>| {
        let value = spec.text(name);
        if !value.is_empty() {
            found.extend(names::errors(&path.child(name), value, check(value)));
        }
    };
    named("serviceAccountName", names::dns_subdomain);
    named("nodeName", names::dns_subdomain);
    if let Some(deadline) = spec.int_opt("activeDeadlineSeconds") {
        let max = i64::from(i32::MAX);
        if !(1..=max).contains(&deadline) {
            found.push(invalid(&path.child("activeDeadlineSeconds"), deadline, &names::in_range(1, max)));
        }
    }
    let mut named = |name: &str, check: fn(&str) -> Vec<String>| {
        let value = spec.text(name);
        if !value.is_empty() {
            found.extend(names::errors(&path.child(name), value, check(value)));
        }
    };
    named("hostname", names::dns_label);
    named("subdomain", names::dns_label);
    found.extend(scheduling::tolerations(spec.list("tolerations"), &path.child("tolerations"), lenient));
    for (i, alias) in spec.list("hostAliases").iter().enumerate() {
        let at = path.child("hostAliases").index(i);
        found.extend(addresses::legacy_ip(&at.child("ip"), alias.text("ip"), &[]));
        for (j, name) in alias.texts("hostnames").enumerate() {
            found.extend(names::errors(&at.child("hostnames").index(j), name, names::dns_subdomain(name)));
        }
    }
    let priority_class = spec.text("priorityClassName");
    if !priority_class.is_empty() {
        let messages = names::dns_subdomain(priority_class);
        found.extend(names::errors(&path.child("priorityClassName"), priority_class, messages));
    }
    if let Some(class) = spec.text_opt("runtimeClassName") {
        found.extend(names::errors(&path.child("runtimeClassName"), class, names::dns_subdomain(class)));
    }
    if spec.has("preemptionPolicy") {
        word(&mut found, spec, "preemptionPolicy", path, &["PreemptLowerPriority", "Never"]);
    }
    if spec.has("overhead") {
        let limits = serde_json::json!({ "limits": spec["overhead"] });
        let at = path.child("overhead");
        found.extend(requirements::container(&limits, &[], &at, lenient));
    }
    found
}

fn host_network_ports(spec: &Value, is_pod: bool, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    if !spec.flag("hostNetwork") {
        return found;
    }
    for (i, container) in spec.list("containers").iter().enumerate() {
        for (j, port) in container.list("ports").iter().enumerate() {
            let (host, own) = (port.int("hostPort"), port.int("containerPort"));
            if (is_pod || host != 0) && host != own {
                let at = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                found.push(invalid(&at, host, "must match `containerPort` when `hostNetwork` is true"));
            }
        }
    }
    found
}

fn dns_config(spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let config = spec.field("dnsConfig");
    if spec.text("dnsPolicy") == "None" {
        match config {
            None => return vec![required(path, "must provide `dnsConfig` when `dnsPolicy` is None")],
            Some(config) if config.list("nameservers").is_empty() => {
                let text = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                return vec![required(&path.child("nameservers"), text)];
            }
            Some(_) => {}
        }
    }
    let Some(config) = config else { return found };
    let servers = path.child("nameservers");
    if config.list("nameservers").len() > 3 {
        found.push(invalid(&servers, config["nameservers"].clone(), "must not have more than 3 nameservers"));
    }
    for (i, server) in config.texts("nameservers").enumerate() {
        found.extend(addresses::legacy_ip(&servers.index(i), server, &[]));
    }
    let searches = path.child("searches");
    if config.list("searches").len() > 32 {
        found.push(invalid(&searches, config["searches"].clone(), "must not have more than 32 search paths"));
    }
    let length: usize = config.texts("searches").map(|s| s.len() + 1).sum();
    if length > 2048 + 1 {
        let text = "must not have more than 2048 characters (including spaces) in the search list";
        found.push(invalid(&searches, config["searches"].clone(), text));
    }
    for (i, search) in config.texts("searches").enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        found.extend(names::errors(&searches.index(i), search, names::dns_subdomain_underscore(search)));
    }
    for (i, option) in config.list("options").iter().enumerate() {
        if option.text("name").is_empty() {
            found.push(required(&path.child("options").index(i), "must not be empty"));
        }
    }
    found
}

fn user_namespace(spec: &Value, path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    if spec.flag_opt("hostUsers") != Some(false) {
        return found;
    }
    let text = "when `hostUsers` is false";
    if spec.flag("hostNetwork") && !lenient.host_network_in_user_namespace {
        found.push(forbidden(&path.child("hostNetwork"), text));
    }
    if spec.flag("hostPID") {
        found.push(forbidden(&path.child("HostPID"), text));
    }
    if spec.flag("hostIPC") {
        found.push(forbidden(&path.child("HostIPC"), text));
    }
    if !lenient.devices_in_user_namespace {
        for list in CONTAINER_LISTS {
            for (i, container) in spec.list(list).iter().enumerate() {
                if !container.list("volumeDevices").is_empty() {
                    found.push(forbidden(&path.child(list).index(i).child("volumeDevices"), text));
                }
            }
        }
    }
    found
}

fn hostname_override(spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let Some(name) = spec.text_opt("hostnameOverride") else { return found };
    let at = path.child("hostnameOverride");
    if spec.flag("setHostnameAsFQDN") {
        found.push(forbidden(&at, "may not be specified when setHostnameAsFQDN is true"));
    }
    if spec.flag("hostNetwork") {
        found.push(forbidden(&at, "may not be specified when hostNetwork is true"));
    }
    if name.len() > 64 {
        found.push(too_long(&at, 64));
    }
    found.extend(names::errors(&at, name, names::dns_subdomain(name)));
    found
}

fn operating_system(spec: &Value, path: &Path) -> ErrorList {
    let Some(os) = spec.field("os") else { return ErrorList::new() };
    match os.text("name") {
        "" => vec![required(&path.child("os").child("name"), "")],
        "linux" => security::linux_only(spec, path),
        "windows" => security::windows_only(spec, path),
        other => vec![not_supported(&path.child("os"), other, &["linux", "windows"])],
    }
}

fn scheduling_group(spec: &Value, path: &Path, found: &mut ErrorList) {
    let Some(group) = spec.field("schedulingGroup") else { return };
    let at = path.child("schedulingGroup");
    match group.text_opt("podGroupName") {
        None => found.push(invalid(&at.child("podGroupName"), Value::Null, "must specify one of: `podGroupName`")),
        Some(name) => found.extend(names::errors(&at.child("podGroupName"), name, names::dns_subdomain(name))),
    }
    if !spec.list("evictionResponders").is_empty() {
        found.push(forbidden(&at, "may not be set when evictionResponders is set"));
    }
}

/// Host ports that two containers of a list both claim.
pub fn host_port_conflicts<'a>(containers: impl Iterator<Item = (usize, &'a Value)>, path: &Path) -> ErrorList {
    let mut seen = std::collections::BTreeSet::new();
    let mut found = ErrorList::new();
    for (i, container) in containers {
        for (j, port) in container.list("ports").iter().enumerate() {
            let host = port.int("hostPort");
            if host == 0 {
                continue;
            }
            let key = format!("{}/{}/{host}", port.text("protocol"), port.text("hostIP"));
            if !seen.insert(key.clone()) {
                found.push(duplicate(&path.index(i).child("ports").index(j).child("hostPort"), key));
            }
        }
    }
    found
}
