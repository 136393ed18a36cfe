//! Whether a container that ended is started again (upstream `pkg/api/v1/pod/util.go`, KEP-5307).

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// What the policies and rules say about an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Stay,
    Restart,
    /// `restartPolicyRules` with `RestartAllContainers` (KEP-5532).
    RestartAll,
}

/// The container's rules come first, then its own policy, then the Pod's.
pub fn verdict(container: &Container, spec: &PodSpec, exit_code: i32) -> Verdict {
    if container.restart_policy.is_some() {
        let rule = container.restart_policy_rules.iter().flatten().find(|rule| {
            rule.exit_codes.as_ref().is_some_and(|codes| {
                let named = codes.values.iter().flatten().any(|code| *code == exit_code);
                match codes.operator.as_str() {
                    "In" => named,
                    "NotIn" => !named,
                    _ => false,
                }
            })
        });
        match rule.map(|rule| rule.action.as_str()) {
            Some("Restart") => return Verdict::Restart,
            Some("RestartAllContainers") => return Verdict::RestartAll,
            _ => {}
        }
    }
    let policy = container.restart_policy.as_deref().or(spec.restart_policy.as_deref());
    let again = match policy {
        Some("Never") => false,
        Some("OnFailure") => exit_code != 0,
        _ => true,
    };
    if again { Verdict::Restart } else { Verdict::Stay }
}

/// Whether a container that is killed for its probe is started again: rules need an exit code, so only policies count.
pub fn after_probe(container: &Container, spec: &PodSpec) -> bool {
    container.restart_policy.as_deref().or(spec.restart_policy.as_deref()) != Some("Never")
}

/// Whether any rule of the Pod could restart all containers, which adds a condition.
pub fn could_restart_all(spec: &PodSpec) -> bool {
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all.flat_map(|container| container.restart_policy_rules.iter().flatten())
        .any(|rule| rule.action == "RestartAllContainers")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use Verdict::{Restart, RestartAll, Stay};
    use serde_json::json;

    fn check(pod: &str, container: serde_json::Value, expected: [Verdict; 3]) {
        let mut container = container;
        container["name"] = json!("c");
        let container: Container = serde_json::from_value(container).unwrap();
        let spec = PodSpec { restart_policy: Some(pod.to_owned()), ..PodSpec::default() };
        assert_eq!([0, 1, 42].map(|code| verdict(&container, &spec, code)), expected, "{pod} {container:?}");
    }

    #[test]
    fn policies() {
        check("Always", json!({}), [Restart, Restart, Restart]);
        check("OnFailure", json!({}), [Stay, Restart, Restart]);
        check("Never", json!({}), [Stay, Stay, Stay]);
        check("Never", json!({"restartPolicy": "Always"}), [Restart, Restart, Restart]);
        check("Always", json!({"restartPolicy": "Never"}), [Stay, Stay, Stay]);
        check("Never", json!({"restartPolicy": "OnFailure"}), [Stay, Restart, Restart]);
    }

    #[test]
    fn rules_come_before_policies() {
        let rule = |operator: &str, action: &str| json!([{"action": action, "exitCodes": {"operator": operator, "values": [42]}}]);
        check(
            "Always",
            json!({"restartPolicy": "Never", "restartPolicyRules": rule("In", "Restart")}),
            [Stay, Stay, Restart],
        );
        check(
            "Always",
            json!({"restartPolicy": "Never", "restartPolicyRules": rule("NotIn", "Restart")}),
            [Restart, Restart, Stay],
        );
        check(
            "Never",
            json!({"restartPolicy": "Never", "restartPolicyRules": rule("In", "RestartAllContainers")}),
            [Stay, Stay, RestartAll],
        );
    }
}
