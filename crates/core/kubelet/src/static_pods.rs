//! Static Pods: from a manifest to a Pod as the node runs it, and from that to its mirror in the API (upstream
//! `pkg/kubelet/config/common.go`, `pkg/kubelet/pod/mirror_client.go`, `pkg/api/pod/util.go`).

mod references;

use api::meta;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schema::decode::{self, Decoded, Format};
use serde_json::{Value, json};

const SOURCE: &str = "kubernetes.io/config.source";
const SEEN: &str = "kubernetes.io/config.seen";
const HASH: &str = "kubernetes.io/config.hash";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// A manifest may be at most so long (upstream `maxConfigLength`).
pub const MAX_BYTES: u64 = 10 << 20;
/// `system-node-critical`
const NODE_CRITICAL: i64 = 2_000_001_000;
/// `terminationGracePeriodSeconds` where nothing is said.
const DEFAULT_GRACE_S: i64 = 30;

/// Where a manifest was found.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    File { path: &'a str, node: &'a str },
    Url { url: &'a str, node: &'a str },
}

impl Origin<'_> {
    fn node(self) -> String {
        match self {
            Self::File { node, .. } | Self::Url { node, .. } => node.to_lowercase(),
        }
    }

    /// As the annotation names it.
    fn source(self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Url { .. } => "http",
        }
    }
}

/// What a manifest gave.
#[derive(Debug, Default)]
pub struct Manifest {
    pub pods: Vec<Pod>,
    /// What its author should know: unknown fields, a priority that nobody will heed.
    pub warnings: Vec<String>,
}

/// Why a manifest gives no Pods, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(String);

/// Reads a manifest, YAML or JSON: of a file one Pod, of a URL one or a `PodList`.
///
/// # Errors
/// What is wrong with it; then nothing of it counts.
pub fn decode(bytes: &[u8], origin: Origin<'_>, now: Timestamp) -> Result<Manifest, Wrong> {
    let unparsed = |why: String| match origin {
        Origin::File { path, .. } => Wrong(format!("{path}: couldn't parse as pod({why}), please check config file")),
        Origin::Url { url, .. } => Wrong(format!("{url}: couldn't parse as single or multiple pods ({why})")),
    };
    let Decoded { value, strict } = decode::parse(bytes, Format::Yaml).map_err(|error| unparsed(error.0))?;
    let mut manifest = Manifest::default();
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    match (origin, text("apiVersion").as_str(), text("kind").as_str()) {
        (_, "v1", "Pod") => pod(Decoded { value, strict }, origin, now, &mut manifest)?,
        (Origin::Url { .. }, "v1", "PodList") => {
            for item in value["items"].as_array().into_iter().flatten() {
                let mut item = item.clone();
                item["apiVersion"] = json!("v1");
                item["kind"] = json!("Pod");
                pod(Decoded { value: item, strict: strict.clone() }, origin, now, &mut manifest)?;
            }
        }
        (_, _, "") => return Err(unparsed("Object 'Kind' is missing".to_owned())),
        (_, version, kind) => return Err(unparsed(format!("it is a {kind} of {version:?}, not a Pod of \"v1\""))),
    }
    Ok(manifest)
}

fn pod(decoded: Decoded, origin: Origin<'_>, now: Timestamp, manifest: &mut Manifest) -> Result<(), Wrong> {
    let invalid = |why: String| Wrong(format!("invalid pod: {why}"));
    let of = api::table::type_of("", "v1", "Pod").ok_or_else(|| invalid("there is no such kind".to_owned()))?;
    let rules = api::kinds::rules("", "Pod");
    let decoded = decode::normalize(api::table::table(), of, decoded).map_err(|error| invalid(error.0))?;
    let mut pod = decoded.value;
    decode::apply_defaults(api::table::table(), of, &mut pod);
    (rules.default)(&mut pod);
    if meta::name(&pod).is_empty() {
        return Err(invalid("name is needed for the pod".to_owned()));
    }
    settle(&mut pod, origin, now);
    let mut found = meta::validate_create(&pod, true, rules.validate_name);
    found.extend((rules.validate)(&pod));
    if !found.is_empty() {
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        let list = if let [one] = found.as_slice() { one.clone() } else { format!("[{}]", found.join(", ")) };
        return Err(invalid(list));
    }
    if let Some(resource) = references::of(&pod["spec"]) {
        return Err(Wrong(format!("static pods may not reference {resource}")));
    }
    (rules.prepare_create)(&mut pod);
    manifest.warnings.extend(decoded.strict);
    manifest.warnings.extend(priority_warning(&pod["spec"]).map(str::to_owned));
    manifest.pods.push(serde_json::from_value(pod).map_err(|error| invalid(error.to_string()))?);
    Ok(())
}

/// Name, UID, annotations and tolerations that a static Pod gets (upstream `applyDefaults`).
fn settle(pod: &mut Value, origin: Origin<'_>, now: Timestamp) {
    if pod["metadata"]["uid"].as_str().unwrap_or_default().is_empty() {
        let place = match origin {
            Origin::File { path, node } => format!("host:{node}file:{path}"),
            Origin::Url { url, .. } => format!("url:{url}"),
        };
        let uid = format!("{:032x}", fnv128a(&[pod.to_string().as_bytes(), place.as_bytes()]));
        meta::set(pod, "uid", uid);
    }
    let name = format!("{}-{}", meta::name(pod), origin.node());
    meta::set(pod, "name", name);
    if meta::namespace(pod).is_empty() {
        meta::set(pod, "namespace", "default");
    }
    pod["spec"]["nodeName"] = match origin {
        Origin::File { node, .. } | Origin::Url { node, .. } => json!(node),
    };
    let uid = pod["metadata"]["uid"].clone();
    let annotations = &mut pod["metadata"]["annotations"];
    annotations[HASH] = uid;
    annotations[SOURCE] = json!(origin.source());
    annotations[SEEN] = json!(format!("{now:.9}"));
    let toleration = json!({"operator": "Exists", "effect": "NoExecute"});
    if let Origin::File { .. } = origin {
        match pod["spec"]["tolerations"].as_array_mut() {
            Some(list) if list.contains(&toleration) => {}
            Some(list) => list.push(toleration),
            None => pod["spec"]["tolerations"] = json!([toleration]),
        }
    }
}

/// FNV-1a of 128 bits, of the pieces in a row.
fn fnv128a(pieces: &[&[u8]]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
    let bytes = pieces.iter().flat_map(|piece| piece.iter());
    bytes.fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// Upstream `getStaticPodPriorityWarning`.
fn priority_warning(spec: &Value) -> Option<&'static str> {
    let class = spec["priorityClassName"].as_str().unwrap_or_default();
    match (spec["priority"].as_i64(), class) {
        (None, "") | (Some(NODE_CRITICAL), "system-node-critical") => None,
        (None, _) => Some(
            "Static pod has priorityClassName and nil priority. Kubelet will not use priorityClassName, and mirror pod \
             creation may fail.",
        ),
        (Some(_), "") => Some(
            "Static pod has priority without priorityClassName. Mirror pod creation may fail if the default priority \
             class doesn't match the given priority.",
        ),
        (Some(_), _) => Some(
            "Static pod has a priority other than 2000001000 or a priorityClassName other than system-node-critical. \
             Mirror pod may be attempted to be evicted from the node ineffectively.",
        ),
    }
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether the Pod comes from a manifest of this node.
pub fn is_static(pod: &Pod) -> bool {
    matches!(annotation(pod, SOURCE), Some("file" | "http")) && !is_mirror(pod)
}

/// Tells where the Pod comes from: `file`, `http`, `api`.
pub fn set_source(pod: &mut Pod, source: &str) {
    pod.metadata.annotations.get_or_insert_default().insert(SOURCE.to_owned(), source.to_owned());
}

/// Whether the Pod only shows a static one in the API.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Whether `mirror` shows `pod` as it is.
pub fn is_mirror_of(mirror: &Pod, pod: &Pod) -> bool {
    let same = mirror.metadata.name == pod.metadata.name && mirror.metadata.namespace == pod.metadata.namespace;
    same && annotation(mirror, MIRROR).is_some() && annotation(mirror, MIRROR) == annotation(pod, HASH)
}

/// Whether the node holds on to the Pod before others: static Pods, their mirrors, and those of a critical priority
/// (upstream `IsCriticalPod`).
pub fn is_critical(pod: &Pod) -> bool {
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority);
    is_static(pod) || is_mirror(pod) || priority.is_some_and(|priority| priority >= 2_000_000_000)
}

/// The mirror as it is created: owned by the Node, without what the API server sets.
pub fn mirror(pod: &Pod, node: &str, node_uid: &str) -> Value {
    let mut mirror = json!(pod);
    mirror["metadata"]["annotations"][MIRROR] = json!(annotation(pod, HASH));
    mirror["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": true}]);
    for (part, field) in [("metadata", "uid"), ("metadata", "resourceVersion")] {
        if let Some(fields) = mirror[part].as_object_mut() {
            fields.remove(field);
        }
    }
    if let Some(fields) = mirror.as_object_mut() {
        fields.remove("status");
    }
    mirror
}

/// The Pod as it is once its manifest is gone: it ends as a deleted one does.
pub fn ending(pod: &Pod, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    let asked = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let seconds = asked.unwrap_or(DEFAULT_GRACE_S).max(1);
    let at = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    pod.metadata.deletion_timestamp = Some(Time(at));
    pod.metadata.deletion_grace_period_seconds = Some(seconds);
    pod
}

#[cfg(test)]
mod tests;
