//! `autoscaling` HorizontalPodAutoscaler, both versions.

mod validate;

use super::rows;
use super::shared::set_default;
use super::workloads::checks::not_negative;
use crate::meta;
use crate::rules::Rules;
use crate::tree::{Tree, object_mut};
use schema::field::Path;
use serde_json::{Value, json};

pub static HORIZONTAL_POD_AUTOSCALER: Rules = Rules {
    default,
    validate: |new| validate::validate(new, &Value::Null),
    validate_update: validate::validate,
    validate_status_update: |new, _| {
        not_negative(&new["status"], &["currentReplicas", "desiredReplicas"], &Path::new("status"))
    },
    ..rows::HORIZONTAL_POD_AUTOSCALER
};

fn default(scaler: &mut Value) {
    let is_v1 = scaler.text("apiVersion") == "autoscaling/v1";
    let others = meta::annotation(scaler, "autoscaling.alpha.kubernetes.io/metrics").is_some();
    let Some(spec) = object_mut(scaler, "spec") else { return };
    set_default(spec, "minReplicas", 1);
    if is_v1 {
        // The version that is stored has its metrics defaulted.
        if !others {
            set_default(spec, "targetCPUUtilizationPercentage", 80);
        }
        return;
    }
    if spec.list("metrics").is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        spec["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    }
    let Some(behavior) = spec.get_mut("behavior").filter(|behavior| behavior.is_object()) else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    for (direction, policies, window) in
        [("scaleUp", json!([pods, percent]), Some(0)), ("scaleDown", json!([percent]), None)]
    {
        let Some(rules) = object_mut(behavior, direction) else { continue };
        set_default(rules, "selectPolicy", "Max");
        set_default(rules, "policies", policies);
        if let Some(window) = window {
            set_default(rules, "stabilizationWindowSeconds", window);
        }
    }
}
