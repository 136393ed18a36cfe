//! `networking.k8s.io/v1` NetworkPolicy.

use crate::kinds::rows;
use crate::kinds::shared::set_default;
use crate::rules::Rules;
use crate::tree::{Tree, list_mut, object_mut};
use serde_json::{Value, json};

pub static RULES: Rules = Rules { default, ..rows::NETWORK_POLICY };

/// A policy speaks of incoming traffic, and of outgoing where it has rules for it.
fn default(policy: &mut Value) {
    let Some(spec) = object_mut(policy, "spec") else { return };
    if spec.list("policyTypes").is_empty() {
        let egress = !spec.list("egress").is_empty();
        spec["policyTypes"] = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    }
    for direction in ["ingress", "egress"] {
        for rule in list_mut(spec, direction) {
            for port in list_mut(rule, "ports") {
                set_default(port, "protocol", "TCP");
            }
        }
    }
}
