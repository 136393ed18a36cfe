//! `networking.k8s.io/v1` Ingress (upstream `apis/networking/validation`).

use crate::addresses::{host_name, legacy_ip, parse_ip};
use crate::kinds::rows;
use crate::meta;
use crate::names::{dns_label, dns_subdomain, errors, in_range, path_segment_name, port_name, wildcard_dns_subdomain};
use crate::rules::Rules;
use crate::tree::Tree;
use schema::field::{ErrorList, FieldError, Path, invalid, not_supported, required};
use serde_json::Value;

pub static RULES: Rules = Rules {
    validate: |ingress| {
        let mut found = validate(ingress);
        found.extend(class_twice(ingress));
        found
    },
    validate_update: |new, _| validate(new),
    validate_status_update: validate_status,
    warnings: |new, old| {
        let deprecated = old.is_none() && meta::annotation(new, CLASS).is_some();
        let deprecated = deprecated && !new["spec"].has("ingressClassName");
        if !deprecated {
            return Vec::new();
        }
        vec![format!("annotation \"{CLASS}\" is deprecated, please use 'spec.ingressClassName' instead")]
    },
    ..rows::INGRESS
};

const CLASS: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const BAD_IN_PATH: [&str; 6] = ["//", "/./", "/../", "%2f", "%2F", "%2e"];
const BAD_AT_END: [&str; 2] = ["/..", "/."];

fn validate(ingress: &Value) -> ErrorList {
    let (spec, path) = (&ingress["spec"], Path::new("spec"));
    let mut found = ErrorList::new();
    let rules = spec.list("rules");
    if rules.is_empty() && !spec.has("defaultBackend") {
        // Upstream shows the rules there are not.
        found.push(invalid(&path, Value::Null, "either `defaultBackend` or `rules` must be specified"));
    }
    if let Some(backend) = spec.field("defaultBackend") {
        found.extend(validate_backend(backend, &path.child("defaultBackend")));
    }
    for (at, rule) in rules.iter().enumerate() {
        found.extend(validate_rule(rule, &path.child("rules").index(at)));
    }
    for (at, tls) in spec.list("tls").iter().enumerate() {
        let path = path.child("tls").index(at);
        for (at, host) in tls.texts("hosts").enumerate() {
            let messages = if host.contains('*') { wildcard_dns_subdomain(host) } else { dns_subdomain(host) };
            found.extend(errors(&path.child("hosts").index(at), host, messages));
        }
        let secret = tls.text("secretName");
        if !secret.is_empty() {
            found.extend(errors(&path.child("secretName"), secret, dns_subdomain(secret)));
        }
    }
    if let Some(class) = spec.text_opt("ingressClassName") {
        found.extend(errors(&path.child("ingressClassName"), class, dns_subdomain(class)));
    }
    found
}

/// The old annotation and the field tell the same.
fn class_twice(ingress: &Value) -> Option<FieldError> {
    let (old, new) = (meta::annotation(ingress, CLASS)?, ingress["spec"].text_opt("ingressClassName")?);
    let path = Path::new("annotations").child(CLASS);
    (old != new).then(|| invalid(&path, old, "must match `ingressClassName` when both are specified"))
}

fn validate_rule(rule: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let (host, at) = (rule.text("host"), path.child("host"));
    if !host.is_empty() {
        if parse_ip(host).is_some() {
            found.push(invalid(&at, host, "must be a DNS name, not an IP address"));
        }
        let messages = if host.contains('*') { wildcard_dns_subdomain(host) } else { dns_subdomain(host) };
        found.extend(errors(&at, host, messages));
    }
    let Some(http) = rule.field("http") else { return found };
    let path = path.child("http").child("paths");
    if http.list("paths").is_empty() {
        found.push(required(&path, ""));
    }
    for (at, of) in http.list("paths").iter().enumerate() {
        found.extend(validate_path(of, &path.index(at)));
    }
    found
}

fn validate_path(of: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let Some(kind) = of.text_opt("pathType") else {
        return vec![required(&path.child("pathType"), "pathType must be specified")];
    };
    let (text, at) = (of.text("path"), path.child("path"));
    match kind {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                found.push(invalid(&at, text, "must be an absolute path"));
            }
            for bad in BAD_IN_PATH.into_iter().filter(|bad| text.contains(bad)) {
                found.push(invalid(&at, text, &format!("must not contain '{bad}'")));
            }
            for bad in BAD_AT_END.into_iter().filter(|bad| text.ends_with(bad)) {
                found.push(invalid(&at, text, &format!("cannot end with '{bad}'")));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                found.push(invalid(&at, text, "must be an absolute path"));
            }
        }
        other => found.push(not_supported(&path.child("pathType"), other, &PATH_TYPES)),
    }
    found.extend(validate_backend(&of["backend"], &path.child("backend")));
    found
}

fn validate_backend(backend: &Value, path: &Path) -> ErrorList {
    let (service, resource) = (backend.field("service"), backend.field("resource"));
    let mut found = ErrorList::new();
    match (service, resource) {
        (Some(_), Some(_)) => return vec![invalid(path, "", "cannot set both resource and service backends")],
        (None, None) => return vec![invalid(path, "", "resource or service backend is required")],
        (None, Some(resource)) => found.extend(validate_resource(resource, &path.child("resource"))),
        (Some(service), None) => {
            let (name, at) = (service.text("name"), path.child("service"));
            if name.is_empty() {
                found.push(required(&at.child("name"), ""));
            } else {
                found.extend(errors(&at.child("name"), name, dns_label(name)));
            }
            let (named, number) = (service["port"].text("name"), service["port"].int("number"));
            let at = at.child("port");
            match (named.is_empty(), number) {
                (true, 0) => found.push(required(path, "port name or number is required")),
                (true, number) if !(1..=65535).contains(&number) => {
                    found.push(invalid(&at.child("number"), number, &in_range(1, 65535)));
                }
                (true, _) => {}
                (false, 0) => found.extend(errors(&at.child("name"), named, port_name(named))),
                (false, _) => found.push(invalid(path, "", "cannot set both port name & port number")),
            }
        }
    }
    found
}

/// `validateIngressTypedLocalObjectReference`.
pub(super) fn validate_resource(resource: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    if let Some(group) = resource.text_opt("apiGroup") {
        found.extend(errors(&path.child("apiGroup"), group, dns_subdomain(group)));
    }
    for field in ["kind", "name"] {
        match resource.text(field) {
            "" => found.push(required(&path.child(field), "")),
            text => found.extend(errors(&path.child(field), text, path_segment_name(text, false))),
        }
    }
    found
}

fn validate_status(new: &Value, old: &Value) -> ErrorList {
    let of = |ingress: &Value| ingress["status"]["loadBalancer"].list("ingress").to_vec();
    let before = of(old);
    let kept: Vec<&str> = before.iter().map(|one| one.text("ip")).collect();
    let mut found = ErrorList::new();
    for (at, one) in of(new).iter().enumerate() {
        let path = Path::new("status").child("loadBalancer").child("ingress").index(at);
        let (ip, host) = (one.text("ip"), one.text("hostname"));
        if !ip.is_empty() {
            found.extend(legacy_ip(&path.child("ip"), ip, &kept));
        }
        if !host.is_empty() {
            found.extend(host_name(&path.child("hostname"), host));
        }
    }
    found
}
