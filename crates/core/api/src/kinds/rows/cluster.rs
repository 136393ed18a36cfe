//! Networking, admission, certificates, resources and the rest.

use super::{age, int_or_text, labels, name, or, selector};
use crate::human;
use crate::kinds::columns;
use crate::kinds::shared::{clear_status, keep_spec, keep_spec_and_meta, keep_status};
use crate::meta;
use crate::names;
use crate::rules::Rules;
use crate::tree::Tree;
use jiff::Timestamp;
use schema::field::{ErrorList, Path, forbidden, invalid};
use serde_json::{Value, json};

const WITH_STATUS: Rules = Rules {
    prepare_create: clear_status,
    prepare_update: keep_status,
    prepare_status_update: keep_spec,
    ..Rules::PLAIN
};
/// Kinds without a status that count their changes.
const COUNTED: Rules = Rules { generation: true, ..Rules::PLAIN };

pub static DEVICE_CLASS: Rules = Rules { validate_name: names::long_name, ..COUNTED };

pub static INGRESS: Rules = Rules { columns: columns::INGRESS, row: ingress, generation: true, ..WITH_STATUS };
pub static INGRESS_CLASS: Rules = Rules { columns: columns::INGRESS_CLASS, row: ingress_class, ..COUNTED };
pub static NETWORK_POLICY: Rules = Rules {
    columns: columns::NETWORK_POLICY,
    row: |policy, now| {
        let pods = selector(policy["spec"].field("podSelector"), "<none>");
        vec![name(policy), json!(pods), age(policy, now)]
    },
    ..COUNTED
};
pub static SERVICE_CIDR: Rules = Rules {
    prepare_status_update: keep_spec_and_meta,
    columns: columns::SERVICE_CIDR,
    row: |cidr, now| {
        let all = cidr["spec"].texts("cidrs").collect::<Vec<_>>().join(",");
        vec![name(cidr), json!(all), age(cidr, now)]
    },
    ..WITH_STATUS
};
pub static IP_ADDRESS: Rules = Rules { columns: columns::IPADDRESS, row: ip_address, ..Rules::PLAIN };
pub static POD_DISRUPTION_BUDGET: Rules = Rules {
    columns: columns::POD_DISRUPTION_BUDGET,
    row: disruption_budget,
    generation: true,
    unconditional_update: false,
    ..WITH_STATUS
};
pub static RESOURCE_QUOTA: Rules = Rules { columns: columns::RESOURCE_QUOTA, row: quota, ..WITH_STATUS };
pub static CONTROLLER_REVISION: Rules =
    Rules { columns: columns::CONTROLLER_REVISION, row: controller_revision, ..Rules::PLAIN };
pub static RUNTIME_CLASS: Rules = Rules {
    columns: columns::RUNTIME_CLASS,
    row: |class, now| vec![name(class), json!(class.text("handler")), age(class, now)],
    ..Rules::PLAIN
};
/// A request never changes; what became of it is told by whoever approves and signs (upstream
/// `registry/certificates/certificates/strategy.go`).
pub static CERTIFICATE_SIGNING_REQUEST: Rules = Rules {
    columns: columns::CERTIFICATE_SIGNING_REQUEST,
    row: signing_request,
    prepare_update: |new, old| {
        keep_spec(new, old);
        keep_status(new, old);
    },
    validate_status_update: |new, old| approval_changes(new, old, false),
    validate_name: names::path_segment_name,
    ..WITH_STATUS
};

/// `certificatesigningrequests/approval`: the conditions only.
pub fn prepare_approval(new: &mut Value, old: &Value) {
    keep_spec(new, old);
    let conditions = new["status"]["conditions"].take();
    keep_status(new, old);
    if !new["status"].is_object() {
        new["status"] = json!({});
    }
    new["status"]["conditions"] = conditions;
}

/// Nobody takes an approval, a denial or a failure back, and who signs does not approve.
pub fn approval_changes(new: &Value, old: &Value, approves: bool) -> ErrorList {
    let path = Path::new("status").child("conditions");
    let of = |csr: &Value, kind: &str| -> Vec<Value> {
        csr["status"].list("conditions").iter().filter(|condition| condition.text("type") == kind).cloned().collect()
    };
    let mut found = ErrorList::new();
    for kind in ["Approved", "Denied", "Failed"] {
        let (before, after) = (of(old, kind), of(new, kind));
        if after.len() < before.len() {
            let why = format!("updates may not remove a condition of type {kind:?}");
            found.push(forbidden(&path, &why));
        }
        if approves || kind == "Failed" {
            continue;
        }
        if after.len() > before.len() {
            found.push(forbidden(&path, &format!("updates may not add a condition of type {kind:?}")));
        } else if after.len() == before.len() && after != before {
            found.push(forbidden(&path, &format!("updates may not modify a condition of type {kind:?}")));
        }
    }
    if !of(new, "Approved").is_empty() && !of(new, "Denied").is_empty() {
        let why = "Approved and Denied conditions are mutually exclusive";
        found.push(invalid(&path, "Denied", why));
    }
    found
}
pub static CLUSTER_TRUST_BUNDLE: Rules = Rules {
    columns: columns::CLUSTER_TRUST_BUNDLE,
    row: |bundle, _| vec![name(bundle), or(bundle["spec"].text("signerName"), "<none>")],
    ..Rules::PLAIN
};
pub static POD_CERTIFICATE_REQUEST: Rules = Rules {
    prepare_status_update: keep_spec_and_meta,
    columns: columns::POD_CERTIFICATE_REQUEST,
    row: pod_certificate,
    unconditional_update: false,
    ..WITH_STATUS
};
pub static PRIORITY_LEVEL: Rules = Rules {
    prepare_status_update: keep_spec_and_meta,
    columns: columns::PRIORITY_LEVEL_CONFIGURATION,
    row: priority_level,
    generation: true,
    ..WITH_STATUS
};
/// APIService: nothing but a status of its own.
pub static STATUS_APART: Rules = WITH_STATUS;
/// CustomResourceDefinition, FlowSchema.
pub static STATUS_APART_COUNTED: Rules = Rules { generation: true, ..WITH_STATUS };
pub static STORAGE_VERSION_MIGRATION: Rules = Rules {
    prepare_status_update: keep_spec_and_meta,
    columns: columns::STORAGE_VERSION_MIGRATION,
    row: migration,
    unconditional_update: false,
    ..WITH_STATUS
};
pub static RESOURCE_CLAIM: Rules = Rules {
    prepare_status_update: keep_spec_and_meta,
    columns: columns::RESOURCE_CLAIM,
    row: resource_claim,
    ..WITH_STATUS
};
pub static RESOURCE_SLICE: Rules = Rules {
    columns: columns::RESOURCE_SLICE,
    row: |slice, now| {
        let spec = &slice["spec"];
        let (node, driver, pool) = (spec.text("nodeName"), spec.text("driver"), spec["pool"].text("name"));
        vec![name(slice), json!(node), json!(driver), json!(pool), age(slice, now)]
    },
    ..COUNTED
};
pub static DEVICE_TAINT_RULE: Rules = Rules {
    prepare_status_update: keep_spec_and_meta,
    columns: columns::DEVICE_TAINT_RULE,
    row: device_taint,
    generation: true,
    ..WITH_STATUS
};
pub static WEBHOOKS: Rules = Rules {
    columns: columns::VALIDATING_WEBHOOK_CONFIGURATION,
    row: |configuration, now| {
        vec![name(configuration), json!(configuration.list("webhooks").len()), age(configuration, now)]
    },
    ..COUNTED
};
pub static MUTATING_WEBHOOKS: Rules = Rules { columns: columns::MUTATING_WEBHOOK_CONFIGURATION, ..WEBHOOKS };
pub static VALIDATING_POLICY: Rules = Rules {
    columns: columns::VALIDATING_ADMISSION_POLICY,
    row: |policy, now| admission_policy(policy, "validations", now),
    prepare_status_update: keep_spec_and_meta,
    generation: true,
    ..WITH_STATUS
};
pub static MUTATING_POLICY: Rules = Rules {
    columns: columns::MUTATING_ADMISSION_POLICY,
    row: |policy, now| admission_policy(policy, "mutations", now),
    ..COUNTED
};
pub static VALIDATING_POLICY_BINDING: Rules =
    Rules { columns: columns::VALIDATING_ADMISSION_POLICY_BINDING, row: policy_binding, ..COUNTED };
pub static MUTATING_POLICY_BINDING: Rules =
    Rules { columns: columns::MUTATING_ADMISSION_POLICY_BINDING, ..VALIDATING_POLICY_BINDING };

fn ingress(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &ingress["spec"];
    let rules = spec.list("rules");
    let mut hosts: Vec<&str> = Vec::new();
    let mut more = false;
    for host in rules.iter().map(|rule| rule.text("host")) {
        more |= hosts.len() == 3;
        if !more && !host.is_empty() {
            hosts.push(host);
        }
    }
    let mut shown = if hosts.is_empty() { "*".to_owned() } else { hosts.join(",") };
    if more {
        shown = format!("{shown} + {} more...", rules.len() - 3);
    }
    let given = ingress["status"]["loadBalancer"].list("ingress").iter();
    let addresses: std::collections::BTreeSet<&str> = given
        .map(|one| if one.text("ip").is_empty() { one.text("hostname") } else { one.text("ip") })
        .filter(|address| !address.is_empty())
        .collect();
    vec![
        name(ingress),
        or(spec.text("ingressClassName"), "<none>"),
        json!(shown),
        json!(addresses.into_iter().collect::<Vec<_>>().join(",")),
        json!(if spec.list("tls").is_empty() { "80" } else { "80, 443" }),
        age(ingress, now),
    ]
}

fn ingress_class(class: &Value, now: Timestamp) -> Vec<Value> {
    let default = meta::annotation(class, "ingressclass.kubernetes.io/is-default-class") == Some("true");
    let called = format!("{}{}", meta::name(class), if default { " (default)" } else { "" });
    let parameters = class["spec"].field("parameters").map_or_else(
        || "<none>".to_owned(),
        |parameters| {
            let group = parameters.text_opt("apiGroup").map_or_else(String::new, |group| format!(".{group}"));
            format!("{}{group}/{}", parameters.text("kind"), parameters.text("name"))
        },
    );
    vec![json!(called), json!(class["spec"].text("controller")), json!(parameters), age(class, now)]
}

/// Upstream gives three cells under two columns.
fn ip_address(address: &Value, now: Timestamp) -> Vec<Value> {
    let parent = address["spec"].field("parentRef").map_or_else(
        || "<none>".to_owned(),
        |parent| {
            let group = parent.text("group");
            let mut shown = parent.text("resource").to_lowercase();
            if !group.is_empty() {
                shown = format!("{shown}.{}", group.to_lowercase());
            }
            for part in [parent.text("namespace"), parent.text("name")].into_iter().filter(|part| !part.is_empty()) {
                shown = format!("{shown}/{part}");
            }
            shown
        },
    );
    vec![name(address), json!(parent), age(address, now)]
}

fn disruption_budget(budget: &Value, now: Timestamp) -> Vec<Value> {
    let amount = |field: &str| budget["spec"].field(field).map_or_else(|| "N/A".to_owned(), int_or_text);
    let allowed = budget["status"].int("disruptionsAllowed");
    vec![name(budget), json!(amount("minAvailable")), json!(amount("maxUnavailable")), json!(allowed), age(budget, now)]
}

fn quota(quota: &Value, now: Timestamp) -> Vec<Value> {
    let status = &quota["status"];
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in status.pairs("hard") {
        let used = status["used"].text_opt(resource).unwrap_or("0");
        let of = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        of.push(format!("{resource}: {used}/{hard}"));
    }
    vec![name(quota), json!(requests.join(", ")), json!(limits.join(", ")), age(quota, now)]
}

fn controller_revision(revision: &Value, now: Timestamp) -> Vec<Value> {
    let owner = meta::owner_references(revision).iter().find(|owner| owner.flag("controller"));
    let owner = owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let kind = owner.text("kind").to_lowercase();
            match owner.text("apiVersion").split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", owner.text("name")),
                None => format!("{kind}/{}", owner.text("name")),
            }
        },
    );
    vec![name(revision), json!(owner), json!(revision.int("revision")), age(revision, now)]
}

fn signing_request(request: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&request["spec"], &request["status"]);
    let has = |of: &str| status.list("conditions").iter().any(|condition| condition.text("type") == of);
    let mut state = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !status.text("certificate").is_empty() {
        state.push_str(",Issued");
    }
    let duration = spec.int_opt("expirationSeconds").map_or_else(|| "<none>".to_owned(), human::duration);
    vec![
        name(request),
        age(request, now),
        or(spec.text("signerName"), "<none>"),
        json!(spec.text("username")),
        json!(duration),
        json!(state),
    ]
}

fn pod_certificate(request: &Value, _: Timestamp) -> Vec<Value> {
    let spec = &request["spec"];
    let mut conditions = request["status"].list("conditions").iter().map(|condition| condition.text("type"));
    let state = conditions.rfind(|of| matches!(*of, "Issued" | "Denied" | "Failed")).unwrap_or("Pending");
    vec![
        name(request),
        json!(spec.text("podName")),
        json!(spec.text("serviceAccountName")),
        json!(spec.text("nodeName")),
        json!(spec.text("signerName")),
        json!(state),
        json!(labels(&spec["unverifiedUserAnnotations"])),
    ]
}

fn priority_level(level: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &level["spec"];
    let queuing = &spec["limited"]["limitResponse"]["queuing"];
    let or_none = |value: &Value| if value.is_null() { json!("<none>") } else { value.clone() };
    vec![
        name(level),
        json!(spec.text("type")),
        or_none(&spec["limited"]["nominalConcurrencyShares"]),
        or_none(&queuing["queues"]),
        or_none(&queuing["handSize"]),
        or_none(&queuing["queueLengthLimit"]),
        age(level, now),
    ]
}

fn resource_claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let deleted = meta::deletion_timestamp(claim).is_some();
    let status = &claim["status"];
    let mut states = Vec::new();
    if deleted {
        states.push("deleted");
    }
    if status.has("allocation") {
        states.push("allocated");
        if !status.list("reservedFor").is_empty() {
            states.push("reserved");
        }
    } else if !deleted {
        states.push("pending");
    }
    vec![name(claim), json!(states.join(",")), age(claim, now)]
}

fn migration(migration: &Value, _: Timestamp) -> Vec<Value> {
    let resource = &migration["spec"]["resource"];
    let shown = match resource.text("group") {
        "" => resource.text("resource").to_owned(),
        group => format!("{}.{group}", resource.text("resource")),
    };
    let mut conditions = migration["status"].list("conditions").iter().filter(|c| c.text("status") == "True");
    let state = conditions.rfind(|c| matches!(c.text("type"), "Running" | "Failed" | "Succeeded"));
    vec![name(migration), json!(shown), json!(state.map_or("Unknown", |condition| condition.text("type")))]
}

fn device_taint(rule: &Value, now: Timestamp) -> Vec<Value> {
    let taint = &rule["spec"]["taint"];
    vec![
        name(rule),
        json!(taint.text("key")),
        json!(taint.text("value")),
        json!(taint.text("effect")),
        json!(human::age(&taint["timeAdded"], now)),
        age(rule, now),
    ]
}

fn admission_policy(policy: &Value, counted: &str, now: Timestamp) -> Vec<Value> {
    let spec = &policy["spec"];
    let parameters = spec
        .field("paramKind")
        .map_or_else(|| "<unset>".to_owned(), |kind| format!("{}/{}", kind.text("apiVersion"), kind.text("kind")));
    vec![name(policy), json!(spec.list(counted).len()), json!(parameters), age(policy, now)]
}

fn policy_binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &binding["spec"];
    let parameters = spec.field("paramRef").map_or_else(
        || "<unset>".to_owned(),
        |reference| match (reference.text("namespace"), reference.text("name")) {
            (_, "") => "<unset>".to_owned(),
            ("", name) => format!("*/{name}"),
            (namespace, name) => format!("{namespace}/{name}"),
        },
    );
    vec![name(binding), json!(spec.text("policyName")), json!(parameters), age(binding, now)]
}

/// `cpu: 10%/60%, …`: at most two targets and how many more.
fn hpa_metrics(spec: &Value, status: &Value) -> String {
    // autoscaling/v1 has this one target.
    if let Some(wanted) = spec.int_opt("targetCPUUtilizationPercentage") {
        let reached = status.int_opt("currentCPUUtilizationPercentage");
        let reached = reached.map_or_else(|| "<unknown>".to_owned(), |percent| format!("{percent}%"));
        return format!("cpu: {reached}/{wanted}%");
    }
    let all: Vec<String> = spec
        .list("metrics")
        .iter()
        .enumerate()
        .map(|(at, metric)| hpa_metric(metric, status.list("currentMetrics").get(at).unwrap_or(&Value::Null)))
        .collect();
    if all.is_empty() {
        return "<none>".to_owned();
    }
    let shown = all.iter().take(2).map(String::as_str).collect::<Vec<_>>().join(", ");
    if all.len() > 2 { format!("{shown} + {} more...", all.len() - 2) } else { shown }
}

fn hpa_metric(metric: &Value, current: &Value) -> String {
    let (field, named) = match metric.text("type") {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let (target, now) = (&metric[field]["target"], &current[field]["current"]);
    let read = |of: &str| now.text_opt(of).unwrap_or("<unknown>").to_owned();
    let percent =
        |value: Option<i64>, absent: &str| value.map_or_else(|| absent.to_owned(), |value| format!("{value}%"));
    if named {
        let prefix = metric[field].text("name");
        return match target.text_opt("averageValue") {
            Some(wanted) => format!("{prefix}: {}/{wanted}", read("averageValue")),
            None => {
                let reached = percent(now.int_opt("averageUtilization"), "<unknown>");
                format!("{prefix}: {reached}/{}", percent(target.int_opt("averageUtilization"), "<auto>"))
            }
        };
    }
    match target.text_opt("averageValue") {
        Some(wanted) if field == "pods" => format!("{}/{wanted}", read("averageValue")),
        Some(wanted) => format!("{}/{wanted} (avg)", read("averageValue")),
        None => format!("{}/{}", read("value"), target.text_opt("value").unwrap_or("0")),
    }
}

pub static HORIZONTAL_POD_AUTOSCALER: Rules = Rules {
    columns: columns::HORIZONTAL_POD_AUTOSCALER,
    row: |scaler, now| {
        let (spec, status) = (&scaler["spec"], &scaler["status"]);
        let target = &spec["scaleTargetRef"];
        vec![
            name(scaler),
            json!(format!("{}/{}", target.text("kind"), target.text("name"))),
            json!(hpa_metrics(spec, status)),
            json!(spec.int_opt("minReplicas").map_or_else(|| "<unset>".to_owned(), |pods| pods.to_string())),
            json!(spec.int("maxReplicas")),
            json!(status.int("currentReplicas")),
            age(scaler, now),
        ]
    },
    generation: true,
    ..WITH_STATUS
};
