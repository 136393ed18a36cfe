//! Warnings of a new Pod (upstream `api/pod/warnings.go`, `WarningsOnCreate`).

use super::CONTAINER_LISTS;
use super::prepare::apparmor_of_annotation;
use crate::addresses;
use crate::names;
use crate::tree::{Tree, quantity};
use schema::field::Path;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// `WarningsOnCreate`; on update upstream warns only of addresses in a new status.
pub fn warnings(pod: &Value, old: Option<&Value>) -> Vec<String> {
    if let Some(old) = old {
        return if pod["status"] == old["status"] { Vec::new() } else { super::status::status_warnings(pod) };
    }
    let mut found = Vec::new();
    let messages = names::dns_label(pod["metadata"].text("name"));
    if !messages.is_empty() {
        found.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
            messages.join(" ")
        ));
    }
    found.extend(of_spec(&Path::default(), &pod["spec"], &pod["metadata"]));
    found
}

fn deprecated_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => "deprecated since v1.22; use Taints and Tolerations instead",
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

/// `warningsForPodSpecAndMeta`; `root` is empty for a Pod and the template's path for a template.
pub fn of_spec(root: &Path, spec: &Value, metadata: &Value) -> Vec<String> {
    let path = root.child("spec");
    let annotations = &metadata["annotations"];
    let annotation_path = root.child("metadata").child("annotations");
    let mut found = node_selection(spec, &path);
    for (key, text) in [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
        ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ] {
        if annotations.has(key) {
            found.push(format!("{}: {text}", annotation_path.key(key)));
        }
    }
    found.extend(volumes(spec, &path));
    found.extend(overlapping_paths(spec.list("volumes")));
    found.extend(repeated(spec, &path));
    for name in ["memory", "ephemeral-storage"] {
        found.extend(fractional(&spec["overhead"], name, &path.child("overhead")));
    }
    let seccomp = "seccomp.security.alpha.kubernetes.io/pod";
    let text = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    if !spec["securityContext"].has("seccompProfile") && annotations.has(seccomp) {
        found.push(format!("{}: {text}", annotation_path.key(seccomp)));
    }
    for list in CONTAINER_LISTS {
        for (i, container) in spec.list(list).iter().enumerate() {
            let seccomp = format!("container.{}", seccomp.replace("/pod", &format!("/{}", container.text("name"))));
            if !container["securityContext"].has("seccompProfile") && annotations.has(&seccomp) {
                found.push(format!("{}: {text}", annotation_path.key(&seccomp)));
            }
            found.extend(apparmor(root, spec, container, annotations));
            found.extend(container_warnings(container, &path.child(list).index(i)));
        }
    }
    found.extend(ports(spec, &path));
    if spec.int("terminationGracePeriodSeconds") < 0 {
        let at = path.child("terminationGracePeriodSeconds");
        found.push(format!("{at}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    found.extend(pod_affinity(spec, &path.child("affinity")));
    for (i, server) in spec["dnsConfig"].texts("nameservers").enumerate() {
        found.extend(addresses::ip_warning(&path.child("dnsConfig").child("nameservers").index(i), server));
    }
    for (i, alias) in spec.list("hostAliases").iter().enumerate() {
        found.extend(addresses::ip_warning(&path.child("hostAliases").index(i).child("ip"), alias.text("ip")));
    }
    found
}

/// Templates are told here of AppArmor annotations, Pods while they are prepared.
fn apparmor(root: &Path, spec: &Value, container: &Value, annotations: &Value) -> Option<String> {
    let key = format!("container.apparmor.security.beta.kubernetes.io/{}", container.text("name"));
    let annotation = annotations.text_opt(&key)?;
    let of_pod = spec["securityContext"].field("appArmorProfile");
    let same = of_pod.is_some() && of_pod == apparmor_of_annotation(annotation).as_ref();
    if root.as_str().is_empty() || same || container["securityContext"].has("appArmorProfile") {
        return None;
    }
    let at = root.child("metadata").child("annotations").key(&key);
    Some(format!("{at}: deprecated since v1.30; use the \"appArmorProfile\" field instead"))
}

fn node_selection(spec: &Value, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (key, _) in spec.pairs("nodeSelector") {
        if let Some(text) = deprecated_label(key) {
            found.push(format!("{}: {text}", path.child("nodeSelector").key(key)));
        }
    }
    let affinity = &spec["affinity"]["nodeAffinity"];
    let at = path.child("affinity").child("nodeAffinity");
    let field = "requiredDuringSchedulingIgnoredDuringExecution";
    for (i, term) in affinity[field].list("nodeSelectorTerms").iter().enumerate() {
        found.extend(node_term(term, false, &at.child(field).child("nodeSelectorTerms").index(i)));
    }
    let field = "preferredDuringSchedulingIgnoredDuringExecution";
    for (i, term) in affinity.list(field).iter().enumerate() {
        found.extend(node_term(&term["preference"], true, &at.child(field).index(i).child("preference")));
    }
    for (i, constraint) in spec.list("topologySpreadConstraints").iter().enumerate() {
        let at = path.child("topologySpreadConstraints").index(i);
        let key = constraint.text("topologyKey");
        if let Some(text) = deprecated_label(key) {
            found.push(format!("{}: {key} is {text}", at.child("topologyKey")));
        }
        found.extend(null_selector(constraint, &at));
    }
    found
}

fn node_term(term: &Value, values: bool, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (i, expression) in term.list("matchExpressions").iter().enumerate() {
        let at = path.child("matchExpressions").index(i);
        let key = expression.text("key");
        if let Some(text) = deprecated_label(key) {
            found.push(format!("{}: {key} is {text}", at.child("key")));
        }
        for (j, value) in expression.texts("values").enumerate().filter(|_| values) {
            let messages = names::label_value(value);
            let at = at.child("values").index(j);
            found.extend(messages.iter().map(|text| format!("{at}: {value} is invalid, {text}")));
        }
    }
    found
}

fn null_selector(term: &Value, path: &Path) -> Option<String> {
    let at = path.child("labelSelector");
    (!term.has("labelSelector")).then(|| format!("{at}: a null labelSelector results in matching no pod"))
}

fn pod_affinity(spec: &Value, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = &spec["affinity"][kind];
        let field = "requiredDuringSchedulingIgnoredDuringExecution";
        for (i, term) in affinity.list(field).iter().enumerate() {
            found.extend(null_selector(term, &path.child(kind).child(field).index(i)));
        }
        let field = "preferredDuringSchedulingIgnoredDuringExecution";
        for (i, weighted) in affinity.list(field).iter().enumerate() {
            let at = path.child(kind).child(field).index(i).child("podAffinityTerm");
            found.extend(null_selector(&weighted["podAffinityTerm"], &at));
        }
    }
    found
}

fn volumes(spec: &Value, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (i, volume) in spec.list("volumes").iter().enumerate() {
        let at = path.child("volumes").index(i);
        let mut old = |field: &str, shown: &str, text: &str| {
            if volume.has(field) {
                found.push(format!("{}: deprecated in {text}", at.child(shown)));
            }
        };
        old("photonPersistentDisk", "photonPersistentDisk", "v1.11, non-functional in v1.16+");
        old("gitRepo", "gitRepo", "v1.11, and disabled by default in v1.33+");
        old("scaleIO", "scaleIO", "v1.16, non-functional in v1.22+");
        old("flocker", "flocker", "v1.22, non-functional in v1.25+");
        old("storageos", "storageOS", "v1.22, non-functional in v1.25+");
        old("quobyte", "quobyte", "v1.22, non-functional in v1.25+");
        old("glusterfs", "glusterfs", "v1.25, non-functional in v1.26+");
        let claim = &volume["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"];
        let resources = at.child("ephemeral").child("volumeClaimTemplate").child("spec").child("resources");
        for kind in ["requests", "limits"] {
            found.extend(fractional(&claim[kind], "storage", &resources.child(kind)));
        }
        let mut old = |field: &str, text: &str| {
            if volume.has(field) {
                found.push(format!("{}: deprecated in {text}", at.child(field)));
            }
        };
        old("cephfs", "v1.28, non-functional in v1.31+");
        old("rbd", "v1.28, non-functional in v1.31+");
    }
    found
}

fn fractional(list: &Value, name: &str, path: &Path) -> Option<String> {
    let amount = quantity(&list[name]).filter(|q| q.milli_value() % 1000 != 0)?;
    let at = path.key(name);
    Some(format!("{at}: fractional byte value \"{}\" is invalid, must be an integer", amount.canonical()))
}

fn repeated(spec: &Value, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, alias) in spec.list("hostAliases").iter().enumerate() {
        let ip = alias.text("ip");
        if !seen.insert(ip) {
            found.push(format!("{}: duplicate ip \"{ip}\"", path.child("hostAliases").index(i).child("ip")));
        }
    }
    let secrets = spec.list("imagePullSecrets");
    let at = |i: usize| path.child("imagePullSecrets").index(i).child("name");
    let mut seen = BTreeSet::new();
    for (i, secret) in secrets.iter().enumerate() {
        let name = secret.text("name");
        if !seen.insert(name) {
            found.push(format!("{}: duplicate name \"{name}\"", at(i)));
        }
    }
    let empty = secrets.iter().enumerate().filter(|(_, s)| s.text("name").is_empty());
    found.extend(empty.map(|(i, _)| format!("{}: invalid empty name \"\"", at(i))));
    found
}

fn container_warnings(container: &Value, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in ["memory", "ephemeral-storage"] {
        for kind in ["limits", "requests"] {
            found.extend(fractional(&container["resources"][kind], name, &path.child("resources").child(kind)));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, variable) in container.list("env").iter().enumerate() {
        let name = variable.text("name");
        if seen.insert(name) {
            continue;
        }
        let reference = format!("$({name})");
        let value = variable.text("value");
        if variable.has("valueFrom") || value == reference || !value.contains(&reference) {
            let at = path.child("env").index(i);
            found.push(format!("{at}: hides previous definition of \"{name}\", which may be dropped when using apply"));
        }
    }
    found
}

fn ports(spec: &Value, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let all: Vec<(Path, &Value)> = CONTAINER_LISTS
        .iter()
        .flat_map(|list| spec.list(list).iter().enumerate().map(move |(i, c)| (list, i, c)))
        .flat_map(|(list, i, c)| {
            let at = path.child(list).index(i).child("ports");
            c.list("ports").iter().enumerate().map(move |(j, port)| (at.index(j), port))
        })
        .collect();
    for (i, (at, port)) in all.iter().enumerate() {
        let (ip, host) = (port.text("hostIP"), port.int("hostPort"));
        if !ip.is_empty() && host == 0 {
            found.push(format!(
                "{at}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{ip}}}",
                port.text("name"),
                port.int("containerPort"),
                port.text("protocol")
            ));
        }
        for (other_at, other) in &all[..i] {
            let same = ["containerPort", "protocol"].iter().all(|f| port.field(f) == other.field(f));
            if !same {
                continue;
            }
            let (other_ip, other_host) = (other.text("hostIP"), other.int("hostPort"));
            let kind = if ip == other_ip && host == other_host {
                "duplicate"
            } else if host == 0 || other_host == 0 {
                "overlapping"
            } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            found.push(format!("{at}: {kind} port definition with {other_at}"));
        }
    }
    let mut names: BTreeMap<&str, &Path> = BTreeMap::new();
    for (at, port) in &all {
        let name = port.text("name");
        if name.is_empty() {
            continue;
        }
        match names.get(name) {
            Some(other) => found.push(format!(
                "{at}: duplicate port name \"{name}\" with {other}, services and probes that select ports by name will use {other}"
            )),
            None => {
                names.insert(name, at);
            }
        }
    }
    found
}

/// A path that a volume writes, and what writes it there (empty where it goes without saying).
#[derive(Clone, PartialEq)]
struct Written {
    path: String,
    source: String,
}

impl Written {
    fn shown(&self) -> String {
        match self.source.as_str() {
            "" => format!("\"{}\"", self.path),
            source => format!("\"{}\" ({source})", self.path),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let inside = |a: &str, b: &str| format!("{a}/").starts_with(&format!("{b}/"));
        !self.path.is_empty()
            && !other.path.is_empty()
            && (inside(&self.path, &other.path) || inside(&other.path, &self.path))
    }
}

fn items(source: &Value, of: &str) -> Vec<Written> {
    let path = |item: &Value| item.text("path").trim_end_matches('/').to_owned();
    source.list("items").iter().map(|item| Written { path: path(item), source: of.to_owned() }).collect()
}

/// `warningsForOverlappingVirtualPaths`.
fn overlapping_paths(volumes: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for volume in volumes {
        let name = volume.text("name");
        let mut check = |kind: &str, all: Vec<Written>| {
            for (i, one) in all.iter().enumerate() {
                for other in all[..i].iter().filter(|other| one.overlaps(other)) {
                    let body = format!("{} with {}", one.shown(), other.shown());
                    found.push(format!("volume \"{name}\" ({kind}): overlapping paths: {body}"));
                }
            }
        };
        if let Some(source) = volume.field("configMap") {
            check(&format!("ConfigMap \"{}\"", source.text("name")), items(source, ""));
        }
        if let Some(source) = volume.field("secret") {
            check(&format!("Secret \"{}\"", source.text("secretName")), items(source, ""));
        }
        if let Some(source) = volume.field("downwardAPI") {
            check("DownwardAPI", items(source, ""));
        }
        let sources = volume["projected"].list("sources");
        let none = sources.iter().filter(|s| s.as_object().is_none_or(serde_json::Map::is_empty)).count();
        check("Projected", sources.iter().flat_map(projected).collect());
        found.extend((0..none).map(|_| format!("volume \"{name}\" (Projected) has no sources provided")));
    }
    found
}

fn projected(source: &Value) -> Vec<Written> {
    let one = |path: &str, of: String| Written { path: path.trim_end_matches('/').to_owned(), source: of };
    if let Some(keys) = source.field("configMap").filter(|s| s.has("items")) {
        return items(keys, &format!("ConfigMap \"{}\"", keys.text("name")));
    }
    if let Some(keys) = source.field("secret").filter(|s| s.has("items")) {
        return items(keys, &format!("Secret \"{}\"", keys.text("name")));
    }
    if let Some(downward) = source.field("downwardAPI").filter(|s| s.has("items")) {
        return items(downward, "DownwardAPI");
    }
    if let Some(token) = source.field("serviceAccountToken") {
        return vec![one(token.text("path"), "ServiceAccountToken".to_owned())];
    }
    if let Some(bundle) = source.field("clusterTrustBundle") {
        let name = bundle.text_opt("name").unwrap_or_else(|| bundle.text("signerName"));
        return vec![one(bundle.text("path"), format!("ClusterTrustBundle \"{name}\""))];
    }
    let certificate = &source["podCertificate"];
    [("certificateChainPath", "chain"), ("keyPath", "key"), ("credentialBundlePath", "credential bundle")]
        .into_iter()
        .filter(|(field, _)| !certificate.text(field).is_empty())
        .map(|(field, word)| one(certificate.text(field), format!("PodCertificate {word}")))
        .collect()
}
