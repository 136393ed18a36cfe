//! `resource.k8s.io/v1` DeviceTaintRule and ResourceSlice: a taint without a time is as old as what brings it.

use crate::kinds::rows;
use crate::kinds::shared::set_default;
use crate::rules::Rules;
use crate::tree::list_mut;
use serde_json::Value;

pub static RULE: Rules = Rules {
    prepare_create: |rule| {
        (rows::DEVICE_TAINT_RULE.prepare_create)(rule);
        let now = rule["metadata"]["creationTimestamp"].clone();
        stamp_rule(rule, &now);
    },
    prepare_update: |new, old| {
        (rows::DEVICE_TAINT_RULE.prepare_update)(new, old);
        stamp_rule(new, &old["spec"]["taint"]["timeAdded"]);
    },
    ..rows::DEVICE_TAINT_RULE
};

pub static SLICE: Rules = Rules {
    prepare_create: |slice| {
        let now = slice["metadata"]["creationTimestamp"].clone();
        stamp_devices(slice, &now);
    },
    prepare_update: |new, old| stamp_devices(new, &old["metadata"]["creationTimestamp"]),
    ..rows::RESOURCE_SLICE
};

fn stamp_rule(rule: &mut Value, time: &Value) {
    if let Some(taint) = rule.pointer_mut("/spec/taint") {
        stamp(taint, time);
    }
}

fn stamp(taint: &mut Value, time: &Value) {
    if taint.is_object() && !time.is_null() {
        set_default(taint, "timeAdded", time.clone());
    }
}

fn stamp_devices(slice: &mut Value, time: &Value) {
    let Some(spec) = slice.get_mut("spec") else { return };
    for device in list_mut(spec, "devices") {
        list_mut(device, "taints").iter_mut().for_each(|taint| stamp(taint, time));
    }
}
