//! `pods/eviction`: a delete that disruption budgets may forbid (upstream `registry/core/pod/storage/eviction.go`).

use crate::call::{Answer, Call};
use crate::decode_body::{self, Expected};
use crate::delete;
use crate::delete_options::DeleteOptions;
use crate::errors::{self, Result};
use crate::lookup::{GroupResource, Lookup};
use crate::query::WriteOptions;
use crate::refusal::Refusal;
use crate::{respond, selector};
use api::meta;
use serde_json::{Value, json};

const BUDGETS: GroupResource = GroupResource::new("policy", "poddisruptionbudgets");

pub(super) async fn evict(call: &Call<'_>) -> Result<Answer> {
    let options = WriteOptions::parse(call.query, "CreateOptions", false)?;
    let of = api::table::type_of("policy", "v1", "Eviction").ok_or_else(errors::no_such_resource)?;
    let expected = Expected { group: "policy", version: "v1", kind: "Eviction", of };
    let eviction = decode_body::body(call, expected, options.field_validation)?;
    let name = call.info.name.as_str();
    if !meta::name(&eviction).is_empty() && meta::name(&eviction) != name {
        return Err(Refusal::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut delete_options = DeleteOptions::of(&eviction["deleteOptions"])?;
    delete_options.dry_run |= options.dry_run;
    let entry = call.server.current(call, name).await?.ok_or_else(|| call.not_found(name))?;
    let pod = respond::tree_of(&entry.object)?;
    if !goes_anyway(&pod) {
        check_budgets(call, &pod)?;
    }
    delete::delete_named(call, name, &delete_options).await?;
    let tree = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Answer::Tree { code: 201, tree })
}

/// Pods that have ended, wait or are being deleted are no disruption.
fn goes_anyway(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
        || meta::deletion_timestamp(pod).is_some()
}

fn check_budgets(call: &Call<'_>, pod: &Value) -> Result<()> {
    let labels = meta::labels(pod);
    let mut budgets = Vec::new();
    for object in call.server.caches.list(BUDGETS, &call.info.namespace) {
        let budget = respond::tree_of(&object)?;
        if selector::matches(&budget["spec"]["selector"], &labels) {
            budgets.push(budget);
        }
    }
    match budgets.as_slice() {
        [] => Ok(()),
        [budget] => check_budget(budget, pod),
        _ => Err(errors::plain(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )),
    }
}

fn check_budget(budget: &Value, pod: &Value) -> Result<()> {
    let name = meta::name(budget);
    let ready = pod["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
    let status = &budget["status"];
    if !ready && budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" {
        return Ok(());
    }
    let (healthy, wanted) =
        (status["currentHealthy"].as_i64().unwrap_or(0), status["desiredHealthy"].as_i64().unwrap_or(0));
    if !ready && healthy >= wanted && wanted > 0 {
        return Ok(());
    }
    let refused = |cause: String, seconds: u64| {
        let mut refusal =
            errors::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", seconds);
        if refusal.details.is_null() {
            refusal.details = json!({});
        }
        refusal.details["causes"] = json!([{"reason": "DisruptionBudget", "message": cause}]);
        Err(refusal)
    };
    if status["observedGeneration"].as_i64().unwrap_or(0) < meta::generation(budget) {
        return refused(format!("The disruption budget {name} is still being processed by the server."), 10);
    }
    if status["disruptionsAllowed"].as_i64().unwrap_or(0) <= 0 {
        return refused(
            format!("The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently"),
            0,
        );
    }
    Ok(())
}
