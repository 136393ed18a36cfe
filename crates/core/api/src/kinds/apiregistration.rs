//! `apiregistration.k8s.io/v1` APIService.

use super::rows;
use super::shared::{default_service_port, keep_spec_and_meta};
use crate::meta;
use crate::names::{self, dns_1035_label, dns_subdomain, errors, port_number};
use crate::rules::Rules;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, invalid, not_supported, required};
use serde_json::Value;

pub static API_SERVICE: Rules = Rules {
    default: |service| default_service_port(service, "/spec/service"),
    validate,
    validate_update: |new, _| validate(new),
    validate_status_update: |new, _| validate_status(new),
    validate_name: names::path_segment_name,
    unconditional_update: false,
    prepare_status_update: keep_spec_and_meta,
    ..rows::STATUS_APART
};

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;

fn validate(service: &Value) -> ErrorList {
    let (spec, path) = (&service["spec"], Path::new("spec"));
    let mut found = name(service);
    let (group, version) = (spec.text("group"), spec.text("version"));
    if group.is_empty() && version != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        found.push(required(&path.child("group"), detail));
    } else if !group.is_empty() {
        found.extend(errors(&path.child("group"), group, dns_subdomain(group)));
    }
    found.extend(errors(&path.child("version"), version, dns_1035_label(version)));
    for (field, most) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
        let priority = spec.int(field);
        if priority <= 0 || priority > most {
            found.push(invalid(&path.child(field), priority, &format!("must be positive and less than {most}")));
        }
    }
    let (bundle, insecure) = (spec.text("caBundle"), spec.flag("insecureSkipTLSVerify"));
    let at_insecure = path.child("insecureSkipTLSVerify");
    let Some(behind) = spec.field("service") else {
        if !bundle.is_empty() {
            // In base64 four characters are three bytes.
            let bytes = bundle.len() / 4 * 3 - bundle.bytes().filter(|b| *b == b'=').count();
            let detail = "local APIServices may not have a caBundle";
            found.push(invalid(&path.child("caBundle"), format!("{bytes} bytes"), detail));
        }
        if insecure {
            found.push(invalid(&at_insecure, true, "local APIServices may not have insecureSkipTLSVerify"));
        }
        return found;
    };
    let at = path.child("service");
    for field in ["namespace", "name"] {
        if behind.text(field).is_empty() {
            found.push(required(&at.child(field), ""));
        }
    }
    let port = behind.int("port");
    let messages = port_number(port);
    if !messages.is_empty() {
        found.push(invalid(&at.child("port"), port, &format!("port is not valid: {}", messages.join(", "))));
    }
    if insecure && !bundle.is_empty() {
        found.push(invalid(&at_insecure, true, "may not be true if caBundle is present"));
    }
    found
}

fn validate_status(service: &Value) -> ErrorList {
    let known = ["True", "False", "Unknown"];
    let path = Path::new("status").child("conditions");
    let all = service["status"].list("conditions").iter().enumerate();
    let wrong = all.filter(|(_, condition)| !known.contains(&condition.text("status")));
    wrong.map(|(at, one)| not_supported(&path.index(at).child("status"), one.text("status"), &known)).collect()
}

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
