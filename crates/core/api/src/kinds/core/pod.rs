//! `v1` Pod (upstream `registry/core/pod`, `apis/core/v1/defaults.go`, `apis/core/validation`, `api/pod`,
//! `printers/internalversion`).

pub mod columns;
mod containers;
pub mod defaults;
mod mounts;
pub mod prepare;
mod probes;
pub mod qos;
mod requirements;
pub mod resources;
mod scheduling;
mod security;
pub mod status;
pub mod subresources;
pub mod template;
pub mod update;
pub mod validate;
mod volumes;
pub mod warnings;

use crate::meta;
use crate::rules::Rules;
use crate::tree::Tree;
use schema::field::{ErrorList, Path};
use schema::quantity::Quantity;
use serde_json::Value;
use validate::Lenient;

pub static RULES: Rules = Rules {
    default: defaults::pod,
    prepare_create: prepare::create,
    prepare_update: prepare::update,
    prepare_status_update: prepare::status_update,
    validate: validate::create,
    validate_update: update::update,
    validate_status_update: status::status_update,
    warnings: warnings::warnings,
    prepare_warnings: prepare::warnings,
    selectable,
    columns: columns::COLUMNS,
    row: columns::row,
    row_conditions: columns::row_conditions,
    generation: true,
    grace_period_s,
    ..Rules::PLAIN
};

/// Upstream `ToSelectableFields`.
fn selectable(pod: &Value) -> Vec<(&'static str, String)> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let ip = status.list("podIPs").first().map_or("", |ip| ip.text("ip"));
    vec![
        ("spec.nodeName", spec.text("nodeName").to_owned()),
        ("spec.restartPolicy", spec.text("restartPolicy").to_owned()),
        ("spec.schedulerName", spec.text("schedulerName").to_owned()),
        ("spec.serviceAccountName", spec.text("serviceAccountName").to_owned()),
        ("spec.hostNetwork", spec.flag("hostNetwork").to_string()),
        ("status.phase", status.text("phase").to_owned()),
        ("status.podIP", ip.to_owned()),
        ("status.nominatedNodeName", status.text("nominatedNodeName").to_owned()),
    ]
}

/// Upstream `CheckGracefulDelete`: a Pod without node, or one that has ended, goes at once.
fn grace_period_s(pod: &Value, asked: Option<i64>) -> Option<i64> {
    let spec = &pod["spec"];
    let ended = matches!(pod["status"].text("phase"), "Failed" | "Succeeded");
    if spec.text("nodeName").is_empty() || ended {
        return Some(0);
    }
    let period = asked.unwrap_or_else(|| spec.int("terminationGracePeriodSeconds"));
    Some(if period < 0 { 1 } else { period })
}

/// Whether an init container is a sidecar.
pub fn is_sidecar(container: &Value) -> bool {
    container.text("restartPolicy") == "Always"
}

/// A mirror of a static Pod.
pub fn is_mirror(pod: &Value) -> bool {
    meta::annotation(pod, "kubernetes.io/config.mirror").is_some()
}

/// The lists of containers of a Pod's spec in upstream's order of visiting.
pub const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// `ValidatePersistentVolumeClaimSpec` of a new claim.
pub(in crate::kinds) fn claim_spec(spec: &Value, path: &Path) -> ErrorList {
    volumes::claim::claim_spec(spec, path)
}

/// `ValidateContainerResourceRequirements` without claims.
pub(in crate::kinds) fn container_resources(requirements: &Value, path: &Path) -> ErrorList {
    requirements::container(requirements, &[], path, Lenient::default())
}

pub(in crate::kinds) fn container_resource_name(name: &str, path: &Path) -> ErrorList {
    requirements::container_resource_name(name, path)
}

/// `ValidateResourceQuantityValue`.
pub(in crate::kinds) fn quantity_value(name: &str, amount: Quantity, path: &Path) -> ErrorList {
    requirements::quantity_value(name, amount, path)
}

pub(in crate::kinds) fn resource_name(name: &str, path: &Path) -> ErrorList {
    requirements::resource_name(name, path)
}

/// `ValidateTolerations` of new ones.
pub(in crate::kinds) fn tolerations(tolerations: &[Value], path: &Path) -> ErrorList {
    scheduling::tolerations(tolerations, path, Lenient::default())
}

/// Upstream's `field.NewPath("")`, which prints as `[]`.
fn nowhere() -> Path {
    Path::default().key("")
}

#[cfg(test)]
mod tests {
    use super::{grace_period_s, selectable};
    use serde_json::json;

    #[test]
    fn grace_periods() {
        let bound =
            json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}});
        let mut ended = bound.clone();
        ended["status"]["phase"] = "Succeeded".into();
        let unbound = json!({"spec": {"terminationGracePeriodSeconds": 30}});
        for (pod, asked, wanted) in [
            (&bound, None, 30),
            (&bound, Some(5), 5),
            (&bound, Some(0), 0),
            (&bound, Some(-3), 1),
            (&ended, Some(5), 0),
            (&unbound, None, 0),
            (&unbound, Some(5), 0),
        ] {
            assert_eq!(grace_period_s(pod, asked), Some(wanted), "{pod} {asked:?}");
        }
    }

    #[test]
    fn selectable_fields_are_always_there() {
        let fields = selectable(&json!({"spec": {"hostNetwork": true}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}}));
        let value = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str());
        assert_eq!(value("spec.hostNetwork"), Some("true"));
        assert_eq!(value("status.podIP"), Some("10.0.0.1"));
        assert_eq!(value("spec.nodeName"), Some(""));
    }
}
