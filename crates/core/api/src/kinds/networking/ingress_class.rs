//! `networking.k8s.io/v1` IngressClass.

use crate::kinds::rows;
use crate::kinds::shared::set_default;
use crate::rules::Rules;
use serde_json::Value;

pub static RULES: Rules = Rules { default, ..rows::INGRESS_CLASS };

fn default(class: &mut Value) {
    if let Some(parameters) = class.pointer_mut("/spec/parameters").filter(|parameters| parameters.is_object()) {
        set_default(parameters, "scope", "Cluster");
    }
}
