//! `flowcontrol.apiserver.k8s.io/v1` FlowSchema and PriorityLevelConfiguration.

use super::rows;
use super::shared::{keep_spec_and_meta, set_default};
use crate::rules::Rules;
use crate::tree::{default_to, object_mut};
use serde_json::Value;

pub static FLOW_SCHEMA: Rules = Rules {
    default: |schema| {
        if let Some(spec) = object_mut(schema, "spec") {
            default_to(spec, "matchingPrecedence", 1000);
        }
    },
    prepare_status_update: keep_spec_and_meta,
    ..rows::STATUS_APART_COUNTED
};

pub static PRIORITY_LEVEL: Rules = Rules { default, ..rows::PRIORITY_LEVEL };

fn default(level: &mut Value) {
    for (of, shares) in [("/spec/exempt", 0), ("/spec/limited", 30)] {
        if let Some(of) = level.pointer_mut(of).filter(|of| of.is_object()) {
            set_default(of, "nominalConcurrencyShares", shares);
            set_default(of, "lendablePercent", 0);
        }
    }
    if let Some(queuing) = level.pointer_mut("/spec/limited/limitResponse/queuing").filter(|q| q.is_object()) {
        for (field, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
            default_to(queuing, field, value);
        }
    }
}
