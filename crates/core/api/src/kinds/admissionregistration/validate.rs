//! Validation of webhooks (upstream `apis/admissionregistration/validation`, apiserver `util/webhook`). Expressions are
//! not compiled yet.

use crate::meta::validate_label_selector;
use crate::names::{dns_1035_label, dns_subdomain, errors, port_number, qualified_name};
use crate::tree::Tree;
use schema::field::{ErrorList, Path, duplicate, invalid, not_supported, required};
use serde_json::Value;

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
const FORM: &str = "; desired format: https://host[/path]";

/// The webhooks of a configuration; of what `old` breaks already less is asked.
pub(super) fn webhooks(configuration: &Value, old: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    let before = old.list("webhooks");
    let unique = |hooks: &[Value]| {
        let mut names: Vec<&str> = hooks.iter().map(|hook| hook.text("name")).collect();
        names.sort_unstable();
        names.windows(2).all(|pair| pair[0] != pair[1])
    };
    let free_of_effects = before.iter().all(|hook| matches!(hook.text("sideEffects"), "None" | "NoneOnDryRun"));
    let known_review = before.iter().all(|hook| hook.texts("admissionReviewVersions").any(|v| REVIEWS.contains(&v)));
    let hooks = configuration.list("webhooks");
    for (at, hook) in hooks.iter().enumerate() {
        let path = Path::new("webhooks").index(at);
        found.extend(webhook(hook, free_of_effects, &path));
        found.extend(review_versions(hook, known_review, &path.child("admissionReviewVersions")));
        let taken = hooks[..at].iter().any(|other| other.text("name") == hook.text("name"));
        if taken && unique(before) && !hook.text("name").is_empty() {
            found.push(duplicate(&path.child("name"), hook.text("name")));
        }
    }
    found
}

fn webhook(hook: &Value, free_of_effects: bool, path: &Path) -> ErrorList {
    let mut found = full_name(hook.text("name"), &path.child("name"));
    for (at, rule) in hook.list("rules").iter().enumerate() {
        found.extend(validate_rule(rule, &path.child("rules").index(at)));
    }
    let effects: &[&str] =
        if free_of_effects { &["None", "NoneOnDryRun"] } else { &["None", "NoneOnDryRun", "Some", "Unknown"] };
    let mut one_of = |field: &str, known: &[&str]| {
        if let Some(value) = hook.text_opt(field).filter(|value| !known.contains(value)) {
            found.push(not_supported(&path.child(field), value, known));
        }
    };
    one_of("failurePolicy", &["Fail", "Ignore"]);
    one_of("matchPolicy", &["Equivalent", "Exact"]);
    one_of("sideEffects", effects);
    if !hook.has("sideEffects") {
        found.push(required(&path.child("sideEffects"), &format!("must specify one of {}", effects.join(", "))));
    }
    if let Some(timeout) = hook.int_opt("timeoutSeconds").filter(|timeout| !(1..=30).contains(timeout)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        found.push(invalid(&path.child("timeoutSeconds"), timeout, detail));
    }
    for field in ["namespaceSelector", "objectSelector"] {
        found.extend(validate_label_selector(hook.field(field), &path.child(field)));
    }
    if let Some(policy) = hook.text_opt("reinvocationPolicy").filter(|policy| !matches!(*policy, "IfNeeded" | "Never"))
    {
        found.push(not_supported(&path.child("reinvocationPolicy"), policy, &["IfNeeded", "Never"]));
    }
    let (client, at) = (&hook["clientConfig"], path.child("clientConfig"));
    match (client.text_opt("url"), client.field("service")) {
        (Some(url), None) => found.extend(validate_url(url, &at.child("url"))),
        (None, Some(service)) => found.extend(validate_service(service, &at.child("service"))),
        _ => found.push(required(&at, "exactly one of url or service is required")),
    }
    found.extend(conditions(hook.list("matchConditions"), &path.child("matchConditions")));
    found
}

/// `IsFullyQualifiedName`.
fn full_name(name: &str, path: &Path) -> ErrorList {
    if name.is_empty() {
        return vec![required(path, "")];
    }
    let messages = dns_subdomain(name);
    if messages.is_empty() && name.split('.').count() < 3 {
        return vec![invalid(path, name, "should be a domain with at least three segments separated by dots")];
    }
    errors(path, name, messages).collect()
}

fn review_versions(hook: &Value, known: bool, path: &Path) -> ErrorList {
    let versions: Vec<&str> = hook.texts("admissionReviewVersions").collect();
    if versions.is_empty() {
        return vec![required(path, &format!("must specify one of {}", REVIEWS.join(", ")))];
    }
    let mut found = ErrorList::new();
    for (at, version) in versions.iter().enumerate() {
        if versions[..at].contains(version) {
            found.push(invalid(&path.index(at), *version, "duplicate version"));
        } else {
            found.extend(errors(&path.index(at), version, dns_1035_label(version)));
        }
    }
    if known && !versions.iter().any(|version| REVIEWS.contains(version)) {
        let detail = format!("must include at least one of {}", REVIEWS.join(", "));
        found.push(invalid(path, hook["admissionReviewVersions"].clone(), &detail));
    }
    found
}

fn validate_rule(rule: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for (list, others) in [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let (items, at) = (rule.list(list), path.child(list));
        if items.is_empty() {
            found.push(required(&at, ""));
        }
        if items.len() > 1 && rule.texts(list).any(|item| item == "*") {
            let detail = format!("if '*' is present, must not specify other {others}");
            found.push(invalid(&at, rule[list].clone(), &detail));
        }
        for (index, item) in rule.texts(list).enumerate() {
            match list {
                "operations" if !OPERATIONS.contains(&item) => {
                    found.push(not_supported(&at.index(index), item, &OPERATIONS));
                }
                "apiVersions" if item.is_empty() => found.push(required(&at.index(index), "")),
                _ => {}
            }
        }
    }
    found.extend(resources(rule, &path.child("resources")));
    if let Some(scope) = rule.text_opt("scope").filter(|scope| !SCOPES.contains(scope)) {
        found.push(not_supported(&path.child("scope"), scope, &SCOPES));
    }
    found
}

fn resources(rule: &Value, path: &Path) -> ErrorList {
    let all: Vec<&str> = rule.texts("resources").collect();
    let mut found = ErrorList::new();
    if all.is_empty() {
        found.push(required(path, ""));
    }
    for (at, one) in all.iter().enumerate() {
        if one.is_empty() {
            found.push(required(&path.index(at), ""));
        }
        let Some((resource, subresource)) = one.split_once('/') else { continue };
        for wide in [format!("{resource}/*"), format!("*/{subresource}")] {
            if all[..at].contains(&wide.as_str()) {
                let detail = format!("if '{wide}' is present, must not specify {one}");
                found.push(invalid(&path.index(at), *one, &detail));
            }
        }
    }
    if all.len() > 1 && all.contains(&"*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        found.push(invalid(path, rule["resources"].clone(), detail));
    }
    // Upstream remembers only the last one without a subresource.
    let plain = all.iter().rfind(|one| !one.is_empty() && !one.contains('/')).is_some_and(|one| *one != "*");
    if all.contains(&"*") && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        found.push(invalid(path, rule["resources"].clone(), detail));
    }
    found
}

fn validate_url(url: &str, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if scheme != "https" {
        found.push(invalid(path, scheme, &format!("'https' is the only allowed URL scheme{FORM}")));
    }
    if host.is_empty() {
        found.push(invalid(path, host, &format!("host must be specified{FORM}")));
    }
    for (part, what) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            found.push(invalid(path, part, what));
        }
    }
    found
}

fn validate_service(service: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    // Upstream takes the one for the other here.
    for (field, told) in [("namespace", "name"), ("name", "namespace")] {
        if service.text(field).is_empty() {
            found.push(required(&path.child(told), ""));
        }
    }
    let port = service.int("port");
    let messages = port_number(port);
    if !messages.is_empty() {
        found.push(invalid(&path.child("port"), port, &format!("port is not valid: {}", messages.join(", "))));
    }
    let (text, path) = (service.text("path"), path.child("path"));
    if matches!(text, "" | "/") {
        return found;
    }
    if text == "//" {
        found.push(invalid(&path, text, "segment[0] may not be empty"));
        return found;
    }
    if !text.starts_with('/') {
        found.push(invalid(&path, text, "must start with a '/'"));
    }
    let mut segments = text.chars();
    segments.next();
    let segments = segments.as_str();
    for (at, segment) in segments.strip_suffix('/').unwrap_or(segments).split('/').enumerate() {
        if segment.is_empty() {
            found.push(invalid(&path, text, &format!("segment[{at}] may not be empty")));
            continue;
        }
        let messages = dns_subdomain(segment);
        found.extend(messages.iter().map(|message| invalid(&path, text, &format!("segment[{at}]: {message}"))));
    }
    found
}

fn conditions(all: &[Value], path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for (at, condition) in all.iter().enumerate() {
        let (name, index) = (condition.text("name"), path.index(at));
        if condition.text("expression").trim().is_empty() {
            found.push(required(&index.child("expression"), ""));
        }
        if name.is_empty() {
            found.push(required(&index.child("name"), ""));
        } else {
            found.extend(errors(&index.child("name"), name, qualified_name(name)));
        }
        if !name.is_empty() && all[..at].iter().any(|other| other.text("name") == name) {
            found.push(duplicate(&index.child("name"), name));
        }
    }
    found
}
