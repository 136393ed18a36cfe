//! `admissionregistration.k8s.io/v1` ValidatingAdmissionPolicy, MutatingAdmissionPolicy and their bindings.

use super::webhooks::default_scopes;
use crate::kinds::rows;
use crate::kinds::shared::set_default;
use crate::rules::Rules;
use crate::tree::object_mut;
use serde_json::{Value, json};

pub static VALIDATING: Rules = Rules { default, unconditional_update: false, ..rows::VALIDATING_POLICY };
pub static MUTATING: Rules = Rules { default, unconditional_update: false, ..rows::MUTATING_POLICY };
pub static VALIDATING_BINDING: Rules =
    Rules { default: default_binding, unconditional_update: false, ..rows::VALIDATING_POLICY_BINDING };
pub static MUTATING_BINDING: Rules =
    Rules { default: default_binding, unconditional_update: false, ..rows::MUTATING_POLICY_BINDING };

fn default(policy: &mut Value) {
    if let Some(spec) = object_mut(policy, "spec") {
        set_default(spec, "failurePolicy", "Fail");
        default_match(spec, "matchConstraints");
    }
}

fn default_binding(binding: &mut Value) {
    if let Some(spec) = object_mut(binding, "spec") {
        default_match(spec, "matchResources");
    }
}

/// `SetDefaults_MatchResources`.
fn default_match(spec: &mut Value, field: &str) {
    let Some(of) = spec.get_mut(field).filter(|of| of.is_object()) else { return };
    set_default(of, "matchPolicy", "Equivalent");
    set_default(of, "namespaceSelector", json!({}));
    set_default(of, "objectSelector", json!({}));
    default_scopes(of, "resourceRules");
    default_scopes(of, "excludeResourceRules");
}
