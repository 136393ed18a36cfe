//! PodSecurity: namespaces name a policy level that Pods must keep (`enforce`) or are told about (`warn`).
//!
//! A change of a namespace's labels does not look at the Pods that are there already.

mod checks;

use super::pod::{items, text};
use super::{Operation, Request};
use crate::lookup::GroupResource;
use crate::refusal::Refusal;
use checks::Level;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::Value;

const NAMESPACES: GroupResource = GroupResource::new("", "namespaces");
const PREFIX: &str = "pod-security.kubernetes.io/";
/// `latest`, and any version not known yet.
const LATEST: u32 = 37;

/// A level with the version of its rules, and how both are told: `baseline:v1.25`.
struct Policy {
    level: Level,
    version: u32,
    shown: String,
}

impl Policy {
    fn of(namespace: &Namespace, mode: &str) -> Option<Self> {
        let labels = namespace.metadata.labels.as_ref()?;
        let level = labels.get(&format!("{PREFIX}{mode}"))?;
        let version = labels.get(&format!("{PREFIX}{mode}-version")).map_or("latest", String::as_str);
        let number = version.strip_prefix("v1.").and_then(|number| number.parse().ok()).unwrap_or(LATEST);
        let shown = format!("{level}:{version}");
        let level = match level.as_str() {
            "baseline" => Level::Baseline,
            "privileged" => return None,
            // What is no level is taken for the strictest.
            _ => Level::Restricted,
        };
        Some(Self { level, version: number.min(LATEST), shown })
    }

    /// What the Pod does that it may not.
    fn violation(&self, metadata: &Value, spec: &Value) -> Option<String> {
        let found = checks::run(self.level, self.version, metadata, spec);
        let told: Vec<String> = found
            .into_iter()
            .map(|(reason, detail)| if detail.is_empty() { reason } else { format!("{reason} ({detail})") })
            .collect();
        (!told.is_empty()).then(|| format!("violate PodSecurity {:?}: {}", self.shown, told.join(", ")))
    }
}

pub(super) fn validate(request: &Request<'_>, new: &Value) -> Result<Vec<String>, Refusal> {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    let Some((metadata, spec)) = template(request, new).filter(|_| writes) else {
        return Ok(Vec::new());
    };
    let Some(namespace) = request.get::<Namespace>(NAMESPACES, "", request.namespace) else {
        return Ok(Vec::new());
    };
    let is_pod = request.group.is_empty() && request.resource == "pods";
    if is_pod
        && let Some(violation) = Policy::of(&namespace, "enforce").and_then(|policy| policy.violation(metadata, spec))
    {
        return Err(request.forbidden(new, &violation.replacen("violate ", "violates ", 1)));
    }
    let warned = Policy::of(&namespace, "warn").and_then(|policy| policy.violation(metadata, spec));
    Ok(warned.map(|violation| format!("would {violation}")).into_iter().collect())
}

/// Metadata and spec of the Pod, or of the Pods that the object will make.
fn template<'a>(request: &Request<'_>, new: &'a Value) -> Option<(&'a Value, &'a Value)> {
    let of = |template: &'a Value| template["spec"].is_object().then(|| (&template["metadata"], &template["spec"]));
    match (request.group, request.resource, request.subresource) {
        ("", "pods", "" | "ephemeralcontainers") => {
            if request.old.is_some_and(|old| !is_significant(old, new)) {
                return None;
            }
            of(new)
        }
        ("", "replicationcontrollers", "")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets", "")
        | ("batch", "jobs", "") => of(&new["spec"]["template"]),
        ("", "podtemplates", "") => of(&new["template"]),
        ("batch", "cronjobs", "") => of(&new["spec"]["jobTemplate"]["spec"]["template"]),
        _ => None,
    }
}

/// Of what may be changed in a Pod, images, added containers and annotations matter.
fn is_significant(old: &Value, new: &Value) -> bool {
    let image = |container: &Value| text(container, "image").to_owned();
    let images = |pod: &Value| -> Vec<String> {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(|list| items(&pod["spec"], list).map(image).collect::<Vec<_>>())
            .collect()
    };
    images(old) != images(new) || old["metadata"]["annotations"] != new["metadata"]["annotations"]
}
