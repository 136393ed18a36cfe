//! `resource.k8s.io/v1` ResourceClaim and ResourceClaimTemplate.

use crate::kinds::rows;
use crate::rules::Rules;
use crate::tree::{Tree, default_to, list_mut};
use serde_json::Value;

pub static CLAIM: Rules = Rules { default: |claim| default(claim, "/spec/devices"), ..rows::RESOURCE_CLAIM };
pub static TEMPLATE: Rules = Rules { default: |template| default(template, "/spec/spec/devices"), ..Rules::PLAIN };

fn default(claim: &mut Value, devices: &str) {
    let Some(devices) = claim.pointer_mut(devices) else { return };
    for request in list_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly") {
            default_request(exactly);
        }
        list_mut(request, "firstAvailable").iter_mut().for_each(default_request);
    }
}

/// One device, unless it says otherwise.
fn default_request(request: &mut Value) {
    if !request.is_object() {
        return;
    }
    default_to(request, "allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" {
        default_to(request, "count", 1);
    }
}
