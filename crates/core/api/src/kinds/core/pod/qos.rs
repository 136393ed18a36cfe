//! The quality of service class (upstream `apis/core/helper/qos`).

use super::resources::is_pod_level;
use crate::tree::{Tree, quantity};
use serde_json::Value;

/// `Guaranteed`, `Burstable` or `BestEffort`, from the spec alone (`ComputePodQOS`).
pub fn class(spec: &Value) -> &'static str {
    let pod_level = &spec["resources"];
    let set = |list: &str| pod_level.entries(list).any(|(name, _)| is_pod_level(name));
    if set("requests") || set("limits") {
        return of_requirements(pod_level);
    }
    let mut found = None;
    for container in spec.list("initContainers").iter().chain(spec.list("containers")) {
        match (of_requirements(&container["resources"]), found) {
            ("Burstable", _) => return "Burstable",
            (class, None) => found = Some(class),
            (class, Some(before)) if class != before => return "Burstable",
            _ => {}
        }
    }
    found.unwrap_or("BestEffort")
}

fn of_requirements(requirements: &Value) -> &'static str {
    let (requests, limits) = (&requirements["requests"], &requirements["limits"]);
    let of_resource = |name: &str| {
        let (request, limit) = (quantity(&requests[name]), quantity(&limits[name]));
        let zero = |q: Option<schema::quantity::Quantity>| q.is_none_or(|q| q.is_zero());
        match (request, limit) {
            (r, l) if zero(r) && zero(l) => "BestEffort",
            (Some(r), Some(l)) if r.partial_cmp(&l) == Some(std::cmp::Ordering::Equal) => "Guaranteed",
            _ => "Burstable",
        }
    };
    match (of_resource("cpu"), of_resource("memory")) {
        (cpu, memory) if cpu == memory => cpu,
        _ => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::class;
    use serde_json::{Value, json};

    #[test]
    fn classes() {
        let both = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1024Mi"}});
        let cases: [(Value, &str); 7] = [
            (json!({"containers": [{}]}), "BestEffort"),
            (json!({"containers": [{"resources": both}]}), "Guaranteed"),
            (json!({"containers": [{"resources": both}, {}]}), "Burstable"),
            (json!({"containers": [{"resources": both}], "initContainers": [{}]}), "Burstable"),
            (json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}), "Burstable"),
            (json!({"containers": [{"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}}]}), "Burstable"),
            (json!({"containers": [{}], "resources": both}), "Guaranteed"),
        ];
        for (spec, wanted) in cases {
            assert_eq!(class(&spec), wanted, "{spec}");
        }
    }
}
