//! Validation of `apps/v1` Deployment.

use super::checks::{self, Words, amount, at_most_all, int_or_percent, not_above, not_negative, selector_and_template};
use crate::internal;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, forbidden, invalid};
use serde_json::Value;

/// Upstream's words are those of its ReplicaSet.
pub(super) const WORDS: Words =
    Words { empty_for: "deployment", unreadable: Some("invalid label selector"), deadline_in: "ReplicaSet" };

pub(super) fn validate(deployment: &Value, old: &Value) -> ErrorList {
    let (spec, path) = (&deployment["spec"], Path::new("spec"));
    let mut found = not_negative(spec, &["replicas"], &path);
    found.extend(selector_and_template(spec, &old["spec"], &path, &WORDS));
    found.extend(strategy(&spec["strategy"], &path.child("strategy")));
    found.extend(not_negative(spec, &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], &path));
    if let Some(deadline) = spec.int_opt("progressDeadlineSeconds").filter(|it| *it <= spec.int("minReadySeconds")) {
        found.push(invalid(&path.child("progressDeadlineSeconds"), deadline, "must be greater than minReadySeconds"));
    }
    found
}

fn strategy(strategy: &Value, path: &Path) -> ErrorList {
    let rolling = strategy.field("rollingUpdate");
    let path_of_rolling = path.child("rollingUpdate");
    match strategy.text("type") {
        "Recreate" => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            rolling.map(|_| forbidden(&path_of_rolling, detail)).into_iter().collect()
        }
        "RollingUpdate" => rolling.map_or_else(ErrorList::new, |rolling| roll(rolling, &path_of_rolling)),
        _ => vec![internal::not_supported(path, "DeploymentStrategy", strategy, &["Recreate", "RollingUpdate"])],
    }
}

fn roll(rolling: &Value, path: &Path) -> ErrorList {
    let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
    let at = path.child("maxUnavailable");
    let mut found = int_or_percent(unavailable, &at);
    found.extend(int_or_percent(surge, &path.child("maxSurge")));
    if amount(unavailable) == 0 && amount(surge) == 0 {
        found.push(invalid(&at, unavailable.clone(), "may not be 0 when `maxSurge` is 0"));
    }
    found.extend(at_most_all(unavailable, &at));
    found
}

pub(super) fn update(new: &Value, old: &Value) -> ErrorList {
    let mut found = validate(new, old);
    found.extend(checks::selector_is_kept(new, old));
    found
}

pub(super) fn status(new: &Value, old: &Value) -> ErrorList {
    let (status, path) = (&new["status"], Path::new("status"));
    let counts = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    let mut found = not_negative(status, &counts, &path);
    found.extend(not_above(status, &["updatedReplicas", "readyReplicas", "availableReplicas"], "replicas", &path));
    found.extend(not_above(status, &["availableReplicas"], "readyReplicas", &path));
    found.extend(checks::collisions(new, old));
    found
}
