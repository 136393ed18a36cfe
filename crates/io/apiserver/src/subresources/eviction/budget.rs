//! What a PodDisruptionBudget says to an eviction, and taking one disruption from it (upstream `checkAndDecrement`).

use crate::call::Call;
use crate::commit::Committed;
use crate::errors::{self, Result};
use crate::lookup::{GroupResource, Lookup};
use crate::refusal::Refusal;
use crate::{respond, selector, stored, world};
use api::meta;
use api::tree::Tree;
use serde_json::{Value, json};

const BUDGETS: GroupResource = GroupResource::new("policy", "poddisruptionbudgets");
/// Upstream's `MaxDisruptedPodSize`: so many evictions may wait for the controller to notice them.
const UNNOTICED_MAX: usize = 2000;
/// Upstream's `EvictionsRetry`.
const ATTEMPTS: usize = 20;
const VIOLATED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

pub(super) enum Verdict {
    /// No budget speaks of the Pod, or one disruption has been taken from it.
    Granted,
    /// The Pod is not ready, so the named budget does not count it.
    NotCounted(String),
}

/// Asks the one budget that selects the Pod.
///
/// # Errors
/// The budget's refusal.
pub(super) async fn ask(call: &Call<'_>, pod: &Value, dry_run: bool) -> Result<Verdict> {
    let labels = meta::labels(pod);
    let mut budgets = Vec::new();
    for object in call.server.caches.list(BUDGETS, &call.info.namespace) {
        let budget = respond::tree_of(&object)?;
        if selector::matches(&budget["spec"]["selector"], &labels) {
            budgets.push(budget);
        }
    }
    let budget = match budgets.as_slice() {
        [] => return Ok(Verdict::Granted),
        [budget] => budget,
        _ => {
            return Err(errors::plain(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let name = meta::name(budget);
    if is_not_counted(budget, pod) {
        return Ok(Verdict::NotCounted(name.to_owned()));
    }
    take(call, name, meta::name(pod), dry_run).await?;
    Ok(Verdict::Granted)
}

fn is_not_counted(budget: &Value, pod: &Value) -> bool {
    let is_ready = |condition: &Value| condition.text("type") == "Ready" && condition.text("status") == "True";
    if pod["status"].list("conditions").iter().any(is_ready) {
        return false;
    }
    let status = &budget["status"];
    let wanted = status.int("desiredHealthy");
    budget["spec"].text("unhealthyPodEvictionPolicy") == "AlwaysAllow"
        || (wanted > 0 && status.int("currentHealthy") >= wanted)
}

/// Takes one disruption for the named Pod, against the budget as it is now.
async fn take(call: &Call<'_>, name: &str, pod: &str, dry_run: bool) -> Result<()> {
    let resource = api::resource::find("policy", "v1", "poddisruptionbudgets").ok_or_else(errors::no_such_resource)?;
    let cache = call.server.caches.of(resource).ok_or_else(errors::no_such_resource)?;
    let key = resource.key(&call.info.namespace, name);
    for _ in 0..ATTEMPTS {
        call.server.caches.fresh().await?;
        let entry = cache.get(&key).ok_or_else(|| Refusal::not_found(resource.group, resource.plural, name))?;
        let mut budget = respond::tree_of(&entry.object)?;
        check(&budget)?;
        if dry_run {
            return Ok(());
        }
        decrement(&mut budget, pod, &world::rfc3339(call.now));
        if let Committed::Done(_) = call.server.put(&key, entry.object.revision, stored::encode(&budget)).await? {
            return Ok(());
        }
    }
    Err(errors::timeout(&format!("couldn't update PodDisruptionBudget {} due to conflicts", errors::quoted(name)), 10))
}

/// The budget's controller has not told yet what it thinks of the present spec.
pub(super) fn not_observed(name: &str) -> Refusal {
    let message = format!("The disruption budget {name} is still being processed by the server.");
    errors::too_many_requests(VIOLATED, 10).with_cause("DisruptionBudget", &message, "")
}

fn check(budget: &Value) -> Result<()> {
    let (name, status) = (meta::name(budget), &budget["status"]);
    if status.int("observedGeneration") < meta::generation(budget) {
        return Err(not_observed(name));
    }
    let forbidden = |why: &str, more: &str| {
        let message = format!("The disruption budget {name} does not allow evicting pods currently: {more}");
        let refusal = Refusal::forbidden("policy", "poddisruptionbudget", name, why);
        Err(refusal.with_cause("DisruptionBudget", &message, ""))
    };
    let allowed = status.int("disruptionsAllowed");
    if allowed < 0 {
        let why = "pdb disruptions allowed is negative";
        return forbidden(why, why);
    }
    if status.entries("disruptedPods").count() > UNNOTICED_MAX {
        return forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            "too many pending evictions not confirmed by PDB controller",
        );
    }
    if allowed == 0 {
        return Err(errors::too_many_requests(VIOLATED, 0).with_cause(
            "DisruptionBudget",
            &exhausted(name, status),
            "",
        ));
    }
    Ok(())
}

fn exhausted(name: &str, status: &Value) -> String {
    let (healthy, wanted) = (status.int("currentHealthy"), status.int("desiredHealthy"));
    let condition = status.list("conditions").iter().find(|c| c.text("type") == "DisruptionAllowed");
    let said = condition.filter(|c| c.text("status") == "False" && !c.text("message").is_empty());
    match said {
        Some(c) if c.text("reason") == "SyncFailed" => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            c.text("message")
        ),
        _ if healthy <= wanted => {
            format!("The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently")
        }
        Some(c) => format!(
            "The disruption budget {name} does not allow evicting pods currently ({}): {}",
            c.text("reason"),
            c.text("message")
        ),
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

fn decrement(budget: &mut Value, pod: &str, now: &str) {
    let status = &mut budget["status"];
    let left = status.int("disruptionsAllowed") - 1;
    status["disruptionsAllowed"] = left.into();
    status["disruptedPods"][pod] = now.into();
    if left > 0 {
        return;
    }
    let condition = json!({
        "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "observedGeneration": status["observedGeneration"], "lastTransitionTime": now,
    });
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    if let Some(all) = status["conditions"].as_array_mut() {
        all.retain(|one| one.text("type") != "DisruptionAllowed");
        all.push(condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upstream's `checkAndDecrement` by cases.
    #[test]
    fn budgets() {
        let budget = |status: Value| json!({"metadata": {"name": "b", "generation": 2}, "status": status});
        let condition =
            |reason: &str| json!([{"type": "DisruptionAllowed", "status": "False", "reason": reason, "message": "m"}]);
        let cause = |status: Value| match check(&budget(status)) {
            Ok(()) => "granted".to_owned(),
            Err(refusal) => format!("{} {}", refusal.code, refusal.details["causes"][0]["message"]),
        };
        let lines = [
            cause(json!({"observedGeneration": 1, "disruptionsAllowed": 1})),
            cause(json!({"observedGeneration": 2, "disruptionsAllowed": -1})),
            cause(json!({"observedGeneration": 2, "desiredHealthy": 2, "currentHealthy": 2})),
            cause(json!({"observedGeneration": 2, "currentHealthy": 2, "conditions": condition("SyncFailed")})),
            cause(json!({"observedGeneration": 2, "currentHealthy": 2, "conditions": condition("Other")})),
            cause(json!({"observedGeneration": 2, "currentHealthy": 2})),
            cause(json!({"observedGeneration": 2, "disruptionsAllowed": 1})),
        ];
        expect_test::expect![[r#"
            429 "The disruption budget b is still being processed by the server."
            403 "The disruption budget b does not allow evicting pods currently: pdb disruptions allowed is negative"
            429 "The disruption budget b needs 2 healthy pods and has 2 currently"
            429 "The disruption budget b does not allow evicting pods currently because it failed sync: m"
            429 "The disruption budget b does not allow evicting pods currently (Other): m"
            429 "The disruption budget b does not allow evicting pods currently"
            granted"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn the_last_disruption_closes_the_budget() {
        let mut budget = json!({"status": {"observedGeneration": 2, "disruptionsAllowed": 2}});
        decrement(&mut budget, "p", "t");
        assert_eq!(
            budget["status"],
            json!({"observedGeneration": 2, "disruptionsAllowed": 1, "disruptedPods": {"p": "t"}})
        );
        decrement(&mut budget, "q", "t");
        assert_eq!(budget["status"]["disruptedPods"], json!({"p": "t", "q": "t"}));
        assert_eq!(budget["status"]["conditions"][0]["reason"], "InsufficientPods");
    }

    #[test]
    fn pods_that_are_not_ready_may_be_free() {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let unready = json!({"status": {}});
        let of = |policy: &str, healthy: i64, wanted: i64| json!({"spec": {"unhealthyPodEvictionPolicy": policy}, "status": {"currentHealthy": healthy, "desiredHealthy": wanted}});
        for (budget, pod, free) in [
            (of("AlwaysAllow", 0, 2), &ready, false),
            (of("AlwaysAllow", 0, 2), &unready, true),
            (of("IfHealthyBudget", 2, 2), &unready, true),
            (of("IfHealthyBudget", 1, 2), &unready, false),
            (of("IfHealthyBudget", 0, 0), &unready, false),
        ] {
            assert_eq!(is_not_counted(&budget, pod), free, "{budget}");
        }
    }
}
