//! Defaults of a Pod (upstream `apis/core/v1/defaults.go` and `zz_generated.defaults.go`).
//!
//! All are repeated here, also those that the table knows as static: setting what is set changes nothing.

use super::CONTAINER_LISTS;
use crate::tree::{self, Tree, default_to, list_mut, object_mut};
use serde_json::{Map, Value, json};

const FILE_MODE: i64 = 0o644;

/// `SetObjectDefaults_Pod`.
pub fn pod(pod: &mut Value) {
    let Some(spec) = object_mut(pod, "spec") else { return };
    if spec.int("terminationGracePeriodSeconds") < 0 {
        spec["terminationGracePeriodSeconds"] = 1.into();
    }
    for list in ["containers", "initContainers"] {
        for container in list_mut(spec, list) {
            requests_from_limits(container);
        }
    }
    if !spec.has("enableServiceLinks") {
        spec["enableServiceLinks"] = true.into();
    }
    if spec.flag("hostNetwork") {
        for list in ["containers", "initContainers"] {
            for container in list_mut(spec, list) {
                for port in list_mut(container, "ports") {
                    let own = port.int("containerPort");
                    if own != 0 {
                        default_to(port, "hostPort", own);
                    }
                }
            }
        }
    }
    pod_spec(spec);
    if let Some(status) = pod.get_mut("status").filter(|s| s.is_object()) {
        pod_status(status);
    }
}

/// Limits without request are requests. Only of Pods, not of templates.
fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container["resources"].map_opt("limits").cloned() else { return };
    let Some(resources) = object_mut(container, "resources") else { return };
    if let Some(requests) = object_mut(resources, "requests").and_then(Value::as_object_mut) {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

/// `SetDefaults_PodStatus`: `podIP` and the first of `podIPs` are the same.
fn pod_status(status: &mut Value) {
    let ip = status.text("podIP").to_owned();
    let first = status.list("podIPs").first().map(|ip| ip.text("ip").to_owned());
    match first {
        None if ip.is_empty() => {}
        Some(first) if ip.is_empty() => status["podIP"] = first.into(),
        Some(first) if first == ip => {}
        _ => status["podIPs"] = json!([{ "ip": ip }]),
    }
}

/// `SetDefaults_PodSpec` and what lies below it: shared by Pods and templates of Pods.
pub fn pod_spec(spec: &mut Value) {
    let account = match spec.text("serviceAccountName") {
        "" => spec.text("serviceAccount").to_owned(),
        name => name.to_owned(),
    };
    if account.is_empty() {
        tree::remove(spec, "serviceAccount");
    } else {
        spec["serviceAccountName"] = account.clone().into();
        spec["serviceAccount"] = account.into();
    }
    default_to(spec, "dnsPolicy", "ClusterFirst");
    default_to(spec, "restartPolicy", "Always");
    object_mut(spec, "securityContext");
    if !spec.has("terminationGracePeriodSeconds") {
        spec["terminationGracePeriodSeconds"] = 30.into();
    }
    default_to(spec, "schedulerName", "default-scheduler");
    for volume in list_mut(spec, "volumes") {
        default_volume(volume);
    }
    for list in CONTAINER_LISTS {
        for container in list_mut(spec, list) {
            default_container(container);
        }
    }
    resource_list(spec.get_mut("overhead"));
    resource_requirements(spec.get_mut("resources"));
}

/// `SetDefaults_ResourceList`: quantities are rounded up to thousandths.
pub fn resource_list(list: Option<&mut Value>) {
    for (_, value) in list.and_then(Value::as_object_mut).into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        let finer = text.ends_with(['n', 'u']) || text.ends_with("e-6") || text.ends_with("e-9");
        if !finer {
            continue;
        }
        if let Some(quantity) = tree::quantity(value) {
            let suffix = if text.contains('e') { "e-3" } else { "m" };
            let rounded = Value::from(format!("{}{suffix}", quantity.milli_value()));
            if let Some(rounded) = tree::quantity(&rounded) {
                *value = rounded.canonical().into();
            }
        }
    }
}

/// [`resource_list`] of limits and requests.
pub fn resource_requirements(requirements: Option<&mut Value>) {
    if let Some(requirements) = requirements {
        resource_list(requirements.get_mut("limits"));
        resource_list(requirements.get_mut("requests"));
    }
}

fn default_volume(volume: &mut Value) {
    let Some(map) = volume.as_object_mut() else { return };
    if !map.iter().any(|(name, source)| name != "name" && !source.is_null()) {
        map.insert("emptyDir".to_owned(), Value::Object(Map::new()));
        return;
    }
    if let Some(image) = volume.get_mut("image").filter(|v| v.is_object()) {
        let policy = pull_policy(image.text("reference"));
        default_to(image, "pullPolicy", policy);
    }
    if let Some(path) = volume.get_mut("hostPath").filter(|v| v.is_object() && !v.has("type")) {
        path["type"] = "".into();
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        let Some(source) = volume.get_mut(name).filter(|v| v.is_object()) else { continue };
        if !source.has("defaultMode") {
            source["defaultMode"] = FILE_MODE.into();
        }
        default_downward_items(source);
        for projection in list_mut(source, "sources") {
            if let Some(downward) = projection.get_mut("downwardAPI") {
                default_downward_items(downward);
            }
            if let Some(token) = projection.get_mut("serviceAccountToken").filter(|t| !t.has("expirationSeconds"))
                && token.is_object()
            {
                token["expirationSeconds"] = 3600.into();
            }
        }
    }
    for (name, field, default) in [
        ("iscsi", "iscsiInterface", "default"),
        ("rbd", "pool", "rbd"),
        ("rbd", "user", "admin"),
        ("rbd", "keyring", "/etc/ceph/keyring"),
        ("scaleIO", "storageMode", "ThinProvisioned"),
        ("scaleIO", "fsType", "xfs"),
    ] {
        if let Some(source) = volume.get_mut(name).filter(|v| v.is_object()) {
            default_to(source, field, default);
        }
    }
    if let Some(disk) = volume.get_mut("azureDisk").filter(|v| v.is_object()) {
        for (field, default) in [
            ("cachingMode", json!("ReadWrite")),
            ("fsType", json!("ext4")),
            ("readOnly", json!(false)),
            ("kind", json!("Shared")),
        ] {
            if !disk.has(field) {
                disk[field] = default;
            }
        }
    }
    let claim =
        volume.get_mut("ephemeral").and_then(|e| e.get_mut("volumeClaimTemplate")).and_then(|t| t.get_mut("spec"));
    if let Some(claim) = claim.filter(|c| c.is_object()) {
        if !claim.has("volumeMode") {
            claim["volumeMode"] = "Filesystem".into();
        }
        resource_requirements(claim.get_mut("resources"));
    }
}

fn default_downward_items(source: &mut Value) {
    for item in list_mut(source, "items") {
        default_field_ref(item.get_mut("fieldRef"));
    }
}

fn default_field_ref(reference: Option<&mut Value>) {
    if let Some(reference) = reference.filter(|r| r.is_object()) {
        default_to(reference, "apiVersion", "v1");
    }
}

fn default_container(container: &mut Value) {
    let policy = pull_policy(container.text("image"));
    default_to(container, "imagePullPolicy", policy);
    default_to(container, "terminationMessagePath", "/dev/termination-log");
    default_to(container, "terminationMessagePolicy", "File");
    for port in list_mut(container, "ports") {
        default_to(port, "protocol", "TCP");
    }
    for variable in list_mut(container, "env") {
        if let Some(from) = variable.get_mut("valueFrom") {
            default_field_ref(from.get_mut("fieldRef"));
            if let Some(file) = from.get_mut("fileKeyRef").filter(|f| f.is_object() && !f.has("optional")) {
                file["optional"] = false.into();
            }
        }
    }
    resource_requirements(container.get_mut("resources"));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(name).filter(|p| p.is_object()) else { continue };
        for (field, default) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            default_to(probe, field, default);
        }
        default_http_get(probe);
        if let Some(grpc) = probe.get_mut("grpc").filter(|g| g.is_object() && !g.has("service")) {
            grpc["service"] = "".into();
        }
    }
    if let Some(lifecycle) = container.get_mut("lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.get_mut(name) {
                default_http_get(handler);
            }
        }
    }
}

fn default_http_get(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet").filter(|g| g.is_object()) {
        default_to(get, "path", "/");
        default_to(get, "scheme", "HTTP");
    }
}

/// Always for `latest`, said or meant; else IfNotPresent, also where the name is none (validation tells later).
fn pull_policy(image: &str) -> &'static str {
    if tag_of(image).as_deref() == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// Upstream's `ParseImageName`: the tag, `latest` where there is neither tag nor digest; `None` without a tag.
fn tag_of(image: &str) -> Option<String> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let path_start = name.rfind('/').map_or(0, |slash| slash + 1);
    let (repository, tag) = match name[path_start..].split_once(':') {
        Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag)),
        None => (name, None),
    };
    let tag_ok = tag.is_none_or(|t| {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        t.len() <= 128 && t.bytes().next().is_some_and(word) && t.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
    });
    let digest_ok = digest.is_none_or(|d| d.split_once(':').is_some_and(|(_, hex)| hex.len() >= 32));
    if !tag_ok || !digest_ok || !is_repository(repository) {
        return None;
    }
    match (tag, digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, Some(_)) => None,
        (None, None) => Some("latest".to_owned()),
    }
}

/// `[domain/]path`, where the path is lower case.
fn is_repository(name: &str) -> bool {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => ("", name),
    };
    let component = |part: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(part.bytes().next())
            && edge(part.bytes().next_back())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
            && !["..", "___", "._", "_.", ".-", "-.", "_-", "-_"].iter().any(|two| part.contains(two))
    };
    let bare_id = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
    (domain.is_empty() || is_domain(domain)) && path.split('/').all(component) && path.len() <= 247 && !bare_id
}

/// `host[:port]`.
fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (domain, "0"),
    };
    let label = |part: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        edge(part.bytes().next())
            && edge(part.bytes().next_back())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_ok = address.map_or_else(
        || host.split('.').all(label),
        |v6| !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
    );
    host_ok && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/a/nginx:1", "IfNotPresent"),
            ("nginx@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "IfNotPresent"),
            ("Nginx", "IfNotPresent"),
            ("", "IfNotPresent"),
            ("REGISTRY/nginx", "Always"),
            ("../x", "IfNotPresent"),
            ("[::1]:5000/x", "Always"),
            ("a..b", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn defaulting_twice_changes_nothing() {
        let mut once = json!({"spec": {
            "serviceAccount": "a", "hostNetwork": true, "volumes": [{"name": "v"}, {"name": "h", "hostPath": {"path": "/"}}],
            "containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}},
                "livenessProbe": {"httpGet": {"port": 80}}}],
        }});
        pod(&mut once);
        let mut twice = once.clone();
        pod(&mut twice);
        assert_eq!(once, twice);
        assert_eq!(once["spec"]["serviceAccountName"], "a");
        assert_eq!(once["spec"]["volumes"][0]["emptyDir"], json!({}));
        let container = &once["spec"]["containers"][0];
        assert_eq!(container["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
        assert_eq!(container["resources"]["requests"], json!({"cpu": "1"}));
    }
}
