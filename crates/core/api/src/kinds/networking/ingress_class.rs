//! `networking.k8s.io/v1` IngressClass.

use super::ingress::validate_resource;
use crate::kinds::rows;
use crate::kinds::shared::set_default;
use crate::names::{IMMUTABLE, dns_label, domain_prefixed_path, errors};
use crate::rules::Rules;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, forbidden, invalid, not_supported, required, too_long};
use serde_json::Value;

pub static RULES: Rules = Rules { default, validate, validate_update: update, ..rows::INGRESS_CLASS };

const CONTROLLER_MAX: usize = 250;

fn default(class: &mut Value) {
    if let Some(parameters) = class.pointer_mut("/spec/parameters").filter(|parameters| parameters.is_object()) {
        set_default(parameters, "scope", "Cluster");
    }
}

fn validate(class: &Value) -> ErrorList {
    let (spec, path) = (&class["spec"], Path::new("spec"));
    let (controller, at) = (spec.text("controller"), path.child("controller"));
    let mut found = ErrorList::new();
    if controller.len() > CONTROLLER_MAX {
        found.push(too_long(&at, CONTROLLER_MAX));
    }
    found.extend(domain_prefixed_path(&at, controller));
    let Some(parameters) = spec.field("parameters") else { return found };
    let path = path.child("parameters");
    found.extend(validate_resource(parameters, &path));
    let at = path.child("namespace");
    match (parameters.text("scope"), parameters.text_opt("namespace")) {
        ("Namespace", None) => found.push(required(&at, "`parameters.scope` is set to 'Namespace'")),
        ("Namespace", Some(namespace)) => found.extend(errors(&at, namespace, dns_label(namespace))),
        ("Cluster", Some(_)) => found.push(forbidden(&at, "`parameters.scope` is set to 'Cluster'")),
        ("Cluster", None) => {}
        (scope, _) => found.push(not_supported(&path.child("scope"), scope, &["Cluster", "Namespace"])),
    }
    found
}

fn update(new: &Value, old: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    let controller = new["spec"].text("controller");
    if controller != old["spec"].text("controller") {
        found.push(invalid(&Path::new("spec").child("controller"), controller, IMMUTABLE));
    }
    found.extend(validate(new));
    found
}
