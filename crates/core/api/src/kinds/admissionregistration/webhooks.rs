//! `admissionregistration.k8s.io/v1` ValidatingWebhookConfiguration and MutatingWebhookConfiguration.

use super::validate::webhooks;
use crate::kinds::rows;
use crate::kinds::shared::{default_service_port, set_default};
use crate::rules::Rules;
use crate::tree::{default_to, list_mut};
use serde_json::{Value, json};

pub static VALIDATING: Rules = Rules {
    default: |all| default(all, false),
    validate: |new| webhooks(new, &Value::Null),
    validate_update: webhooks,
    unconditional_update: false,
    ..rows::WEBHOOKS
};
pub static MUTATING: Rules = Rules {
    default: |all| default(all, true),
    validate: |new| webhooks(new, &Value::Null),
    validate_update: webhooks,
    unconditional_update: false,
    ..rows::MUTATING_WEBHOOKS
};

fn default(configuration: &mut Value, mutating: bool) {
    for webhook in list_mut(configuration, "webhooks") {
        set_default(webhook, "failurePolicy", "Fail");
        set_default(webhook, "matchPolicy", "Equivalent");
        set_default(webhook, "namespaceSelector", json!({}));
        set_default(webhook, "objectSelector", json!({}));
        set_default(webhook, "timeoutSeconds", 10);
        if mutating {
            set_default(webhook, "reinvocationPolicy", "Never");
        }
        default_scopes(webhook, "rules");
        default_service_port(webhook, "/clientConfig/service");
    }
}

/// Rules speak of all scopes unless they say one.
pub(super) fn default_scopes(of: &mut Value, list: &str) {
    for rule in list_mut(of, list) {
        default_to(rule, "scope", "*");
    }
}
