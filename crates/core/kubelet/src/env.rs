//! A container's environment, command and arguments: sources resolved, `$(VAR)` expanded
//! (upstream `kubelet_pods.go` makeEnvironmentVariables, `third_party/forked/golang/expansion`).

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};
use schema::quantity::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Everything a container's environment may draw from.
#[derive(Debug, Default)]
pub struct Sources {
    /// By name, in the Pod's namespace; absent: it does not exist.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// Services of the Pod's namespace, and `default/kubernetes`.
    pub services: Vec<Arc<Service>>,
    pub node_name: String,
    pub host_ips: Vec<IpAddr>,
    pub pod_ips: Vec<IpAddr>,
    /// What `resourceFieldRef` gives where the container sets no limit.
    pub allocatable: BTreeMap<String, String>,
    /// By volume and path in it: where the file lies on the node, and what it holds, if it can be read.
    pub files: BTreeMap<(String, String), (String, Option<String>)>,
}

/// The files in volumes that a container's environment refers to: volume and path.
pub fn files(container: &Container) -> BTreeSet<(String, String)> {
    let from = container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()?.file_key_ref.as_ref());
    from.map(|reference| (reference.volume_name.clone(), reference.path.clone())).collect()
}

/// The names of ConfigMaps and Secrets that a container's environment refers to.
pub fn references(container: &Container) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut config_maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for from in container.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for from in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
        config_maps.extend(from.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

/// The environment in the order upstream gives it. The error is what a `CreateContainerConfigError` says.
pub fn environment(pod: &Pod, container: &Container, sources: &Sources) -> Result<Vec<(String, String)>, String> {
    let service_env = service_environment(pod, sources);
    let mut from = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match sources.config_maps.get(&reference.name) {
                Some(map) => {
                    from.extend(map.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone())));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("configmap \"{}\" not found", reference.name)),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match sources.secrets.get(&reference.name) {
                Some(secret) => {
                    let text = |v: &k8s_openapi::ByteString| String::from_utf8_lossy(&v.0).into_owned();
                    from.extend(secret.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), text(v))));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("secret \"{}\" not found", reference.name)),
            }
        }
    }
    let mut own: Vec<(String, String)> = Vec::new();
    let mut known = from.clone();
    for variable in container.env.iter().flatten() {
        let value = if let Some(value) = variable.value.as_ref().filter(|value| !value.is_empty()) {
            Some(expand(value, |name| known.get(name).or_else(|| service_env.get(name)).cloned()))
        } else if let Some(source) = &variable.value_from {
            value_from(pod, container, source, sources)?
        } else {
            Some(String::new())
        };
        let Some(value) = value else { continue };
        known.insert(variable.name.clone(), value.clone());
        own.retain(|(name, _)| *name != variable.name);
        own.push((variable.name.clone(), value));
    }
    let mut all: Vec<_> = service_env.into_iter().filter(|(name, _)| !known.contains_key(name)).collect();
    all.extend(from.into_iter().filter(|(name, _)| !own.iter().any(|(n, _)| n == name)));
    all.extend(own);
    Ok(all)
}

/// `None`: an optional source that is not there.
fn value_from(
    pod: &Pod,
    container: &Container,
    source: &k8s_openapi::api::core::v1::EnvVarSource,
    sources: &Sources,
) -> Result<Option<String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        return field_value(pod, &field.field_path, sources).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return resource_value(pod, container, reference, sources).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        return match sources.config_maps.get(&reference.name) {
            None if optional => Ok(None),
            None => Err(format!("configmap \"{}\" not found", reference.name)),
            Some(map) => match map.data.as_ref().and_then(|data| data.get(&reference.key)) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", reference.key, reference.name)),
            },
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        return match sources.secrets.get(&reference.name) {
            None if optional => Ok(None),
            None => Err(format!("secret \"{}\" not found", reference.name)),
            Some(secret) => match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
                Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {} in Secret {namespace}/{}", reference.key, reference.name)),
            },
        };
    }
    if let Some(reference) = &source.file_key_ref {
        let key = (reference.volume_name.clone(), reference.path.clone());
        let Some((path, content)) = sources.files.get(&key) else {
            return Err(format!("cannot find the volume \"{}\" referenced by FileKeyRef", reference.volume_name));
        };
        let value = content.as_deref().map(|content| crate::env_file::value(content, &reference.key));
        let Some(Ok(value)) = value else { return Err("couldn't parse env file".to_owned()) };
        return match value {
            Some(value) => Ok(Some(value)),
            None if reference.optional == Some(true) => Ok(None),
            None => Err(format!("environment variable key \"{}\" not found in file \"{path}\"", reference.key)),
        };
    }
    Err(format!("invalid environment source of variable in container {}", container.name))
}

/// A `fieldRef` of the downward API, for variables and volumes.
pub fn field_value(pod: &Pod, path: &str, sources: &Sources) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    if let Some((field, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match field {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "spec.nodeName" => sources.node_name.clone(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" => first(&sources.host_ips),
        "status.hostIPs" => join(&sources.host_ips),
        "status.podIP" => first(&sources.pod_ips),
        "status.podIPs" => join(&sources.pod_ips),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `key="value"` lines, sorted, values quoted as Go's `%q`.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let quoted = |(key, value): (&String, &String)| format!("{key}={}", serde_json::Value::from(value.as_str()));
    map.into_iter().flatten().map(quoted).collect::<Vec<_>>().join("\n")
}

/// A `resourceFieldRef`: the container's own limit or request, else the node's allocatable; divided, rounded up.
pub fn resource_value(
    pod: &Pod,
    container: &Container,
    reference: &k8s_openapi::api::core::v1::ResourceFieldSelector,
    sources: &Sources,
) -> Result<String, String> {
    let named = reference.container_name.as_deref().filter(|name| !name.is_empty());
    let spec = pod.spec.as_ref();
    let all = spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
    let container = match named {
        Some(name) => all.into_iter().find(|c| c.name == name).ok_or(format!("container {name} not found"))?,
        None => container,
    };
    let Some((list, resource)) = reference.resource.split_once('.') else {
        return Err(format!("unsupported container resource : {}", reference.resource));
    };
    let resources = container.resources.as_ref();
    let own = match list {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(format!("unsupported container resource : {}", reference.resource)),
    };
    let own = own.and_then(|list| list.get(resource)).map(|quantity| quantity.0.as_str());
    let text = own.or_else(|| sources.allocatable.get(resource).map(String::as_str).filter(|_| list == "limits"));
    let parse = |text: &str| Quantity::parse(text).map_err(|error| error.to_string());
    let value = parse(text.unwrap_or("0"))?;
    let divisor = reference.divisor.as_ref().map(|q| q.0.as_str()).filter(|d| !matches!(*d, "" | "0")).unwrap_or("1");
    let divisor = parse(divisor)?;
    let (value, divisor) = match resource {
        "cpu" => (value.milli_value(), divisor.milli_value()),
        _ => (value.value(), divisor.value()),
    };
    Ok(value.div_ceil_signed(divisor).to_string())
}

trait DivCeil {
    fn div_ceil_signed(self, divisor: i64) -> i64;
}

impl DivCeil for i64 {
    fn div_ceil_signed(self, divisor: i64) -> i64 {
        let divisor = divisor.max(1);
        self.div_euclid(divisor) + i64::from(self.rem_euclid(divisor) != 0)
    }
}

/// `{SVC}_SERVICE_HOST`, `_SERVICE_PORT[_NAME]`, docker-link style variables (upstream `pkg/kubelet/envvars`):
/// of every Service of the namespace unless `enableServiceLinks: false`, and always of `default/kubernetes`.
fn service_environment(pod: &Pod, sources: &Sources) -> BTreeMap<String, String> {
    let links = pod.spec.as_ref().is_none_or(|spec| spec.enable_service_links != Some(false));
    let mut env = BTreeMap::new();
    for service in &sources.services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let own = links && Some(namespace) == pod.metadata.namespace.as_deref();
        let master = namespace == "default" && name == "kubernetes";
        let Some(spec) = service.spec.as_ref().filter(|_| own || master) else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !matches!(*ip, "" | "None")) else { continue };
        let prefix = name.replace('-', "_").to_uppercase();
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        env.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        env.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        let url = |port: i32, protocol: &str| format!("{}://{host}:{port}", protocol.to_lowercase());
        let protocol_of =
            |port: &k8s_openapi::api::core::v1::ServicePort| port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        env.insert(format!("{prefix}_PORT"), url(first.port, &protocol_of(first)));
        for port in ports {
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let port_name = port_name.replace('-', "_").to_uppercase();
                env.insert(format!("{prefix}_SERVICE_PORT_{port_name}"), port.port.to_string());
            }
            let protocol = protocol_of(port);
            let link = format!("{prefix}_PORT_{}_{protocol}", port.port);
            env.insert(link.clone(), url(port.port, &protocol));
            env.insert(format!("{link}_PROTO"), protocol.to_lowercase());
            env.insert(format!("{link}_PORT"), port.port.to_string());
            env.insert(format!("{link}_ADDR"), ip.to_owned());
        }
    }
    env
}

/// Expands `$(NAME)`; `$$` is a dollar; what is unknown or malformed stays as it is.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// `command` and `args` with the container's environment put in.
pub fn command(container: &Container, environment: &[(String, String)]) -> (Vec<String>, Vec<String>) {
    let lookup = |name: &str| environment.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let expand_all = |list: &Option<Vec<String>>| list.iter().flatten().map(|text| expand(text, lookup)).collect();
    (expand_all(&container.command), expand_all(&container.args))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn expansion_follows_upstreams_table() {
        let known = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "E" => Some(String::new()),
            _ => None,
        };
        for (text, expanded) in [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("$(nope)", "$(nope)"),
            ("a$(A)b$(E)c", "a1bc"),
            ("$(A", "$(A"),
            ("$$$$(A)", "$$(A)"),
            ("$$$(A)", "$1"),
            ("100%$", "100%$"),
            ("$A", "$A"),
        ] {
            assert_eq!(expand(text, known), expanded, "{text}");
        }
    }

    fn pod(container: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"b": "2", "a": "x\"y"}},
            "spec": {"containers": [container]},
        }))
        .unwrap()
    }

    fn resolve(container: &serde_json::Value, sources: &Sources) -> Result<Vec<(String, String)>, String> {
        let pod = pod(container);
        environment(&pod, &pod.spec.as_ref().unwrap().containers[0], sources)
    }

    #[test]
    fn sources_in_order_and_references_between_variables() {
        let map: ConfigMap = serde_json::from_value(json!({"data": {"k": "from map", "X": "map"}})).unwrap();
        let sources = Sources {
            config_maps: BTreeMap::from([("m".to_owned(), Arc::new(map))]),
            pod_ips: vec!["10.0.0.7".parse().unwrap()],
            ..Sources::default()
        };
        let container = json!({"name": "c",
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "no", "optional": true}}],
        "env": [
            {"name": "ONE", "value": "1"},
            {"name": "TWO", "value": "$(ONE)2 $(P_X) $(LATER)"},
            {"name": "LATER", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}},
            {"name": "LABELS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ]});
        let env = resolve(&container, &sources).unwrap();
        let expected = [
            ("P_X", "map"),
            ("P_k", "from map"),
            ("ONE", "1"),
            ("TWO", "12 map $(LATER)"),
            ("LATER", "from map"),
            ("LABELS", "x\"y"),
            ("IP", "10.0.0.7"),
        ];
        assert_eq!(env, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn missing_sources_are_named_as_upstream_names_them() {
        let from = |source: serde_json::Value| json!({"name": "c", "env": [{"name": "A", "valueFrom": source}]});
        let secret: Secret = serde_json::from_value(json!({"data": {}})).unwrap();
        let sources = Sources { secrets: BTreeMap::from([("s".to_owned(), Arc::new(secret))]), ..Sources::default() };
        for (container, message) in [
            (from(json!({"secretKeyRef": {"name": "s", "key": "zzz"}})), "couldn't find key zzz in Secret ns/s"),
            (from(json!({"configMapKeyRef": {"name": "m", "key": "k"}})), "configmap \"m\" not found"),
            (json!({"name": "c", "envFrom": [{"secretRef": {"name": "t"}}]}), "secret \"t\" not found"),
        ] {
            assert_eq!(resolve(&container, &sources).unwrap_err(), message);
        }
    }

    #[test]
    fn services_are_linked_as_docker_did() {
        let service = |namespace: &str, name: &str| -> Arc<Service> {
            let spec = json!({"clusterIP": "10.1.2.3", "ports": [{"name": "web-a", "port": 80}]});
            let object = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
            Arc::new(serde_json::from_value(object).unwrap())
        };
        let services = vec![service("ns", "my-db"), service("default", "kubernetes"), service("other", "x")];
        let env = resolve(&json!({"name": "c"}), &Sources { services, ..Sources::default() }).unwrap();
        let names: Vec<_> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert!(names.contains(&"MY_DB_PORT_80_TCP=tcp://10.1.2.3:80".to_owned()), "{names:?}");
        assert!(names.contains(&"KUBERNETES_SERVICE_PORT_WEB_A=80".to_owned()), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with('X')), "{names:?}");
    }
}
