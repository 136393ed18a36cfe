//! `v1` LimitRange (its defaults; its validation is not here yet).

use crate::rules::Rules;
use crate::tree::{Tree, list_mut};
use serde_json::Value;

pub static RULES: Rules = Rules { default, create_on_update: true, ..Rules::PLAIN };

/// A container's default limit is the maximum, its default request the limit, or else the minimum.
fn default(range: &mut Value) {
    let Some(spec) = range.get_mut("spec") else { return };
    for item in list_mut(spec, "limits") {
        if item.text("type") != "Container" {
            continue;
        }
        for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
            let amounts: Vec<(String, Value)> = item.entries(from).map(|(k, v)| (k.clone(), v.clone())).collect();
            for (name, amount) in amounts {
                if item[to].get(&name).is_none() {
                    item[to][name] = amount;
                }
            }
        }
    }
}
