//! `apiregistration.k8s.io/v1` APIService.

use super::rows;
use super::shared::{default_service_port, keep_spec_and_meta};
use crate::meta;
use crate::names;
use crate::rules::Rules;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, invalid};
use serde_json::Value;

pub static API_SERVICE: Rules = Rules {
    default: |service| default_service_port(service, "/spec/service"),
    validate: name,
    validate_name: names::path_segment_name,
    unconditional_update: false,
    prepare_status_update: keep_spec_and_meta,
    ..rows::STATUS_APART
};

/// It is named after what it serves.
fn name(service: &Value) -> ErrorList {
    let spec = &service["spec"];
    let wanted = format!("{}.{}", spec.text("version"), spec.text("group"));
    let detail = format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\"");
    [("generateName", meta::generate_name(service)), ("name", meta::name(service))]
        .into_iter()
        .filter(|(_, own)| !own.is_empty() && *own != wanted)
        .map(|(field, own)| invalid(&Path::new("metadata").child(field), own, &detail))
        .collect()
}
