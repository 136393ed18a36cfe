//! Fields that minke stores and does not act upon.

use crate::Cause;
use k8s_openapi::api::core::v1::Pod;

/// What admission gives every Pod (DefaultTolerationSeconds) is nobody's wish.
const ADMISSIONS: [(&str, i64); 2] = [("node.kubernetes.io/not-ready", 300), ("node.kubernetes.io/unreachable", 300)];

/// Fields of a Pod on minke that have no effect; the least specific of all causes, and none on another cluster.
pub fn unheeded(pod: &Pod) -> Option<Cause> {
    let mut pod = pod.clone();
    if let Some(tolerations) = pod.spec.as_mut().and_then(|spec| spec.tolerations.as_mut()) {
        tolerations.retain(|own| {
            let (key, seconds) = (own.key.as_deref().unwrap_or_default(), own.toleration_seconds.unwrap_or_default());
            !ADMISSIONS.contains(&(key, seconds))
        });
    }
    let tree = serde_json::to_value(&pod).ok()?;
    let fields = api::marks::unheeded("Pod", &tree, None);
    let evidence: Vec<String> = fields.iter().map(|field| format!("{}: {}", field.path, field.why)).collect();
    let what = match fields.as_slice() {
        [] => return None,
        [one] => format!("minke does not act on `{}`", one.path),
        many => format!("minke does not act on {} fields of this Pod", many.len()),
    };
    let fix = "remove what has no effect here, or run the Pod on a cluster that acts on it".to_owned();
    Some(Cause { what, evidence, fix })
}
