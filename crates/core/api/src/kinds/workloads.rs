//! Defaults and columns of the kinds that make Pods; the validation of each has a file of its own.

pub(super) mod checks;
mod cron_job;
mod daemon_set;
mod deployment;
mod indexes;
mod job;
mod job_status;
mod replica_set;
mod schedule;
mod stateful_set;

use super::columns;
use super::rows::{self, labels};
use super::shared::{clear_status, default_template, default_template_spec, keep_spec, keep_status, set_default};
use crate::human;
use crate::kinds::core::pod::template;
use crate::meta;
use crate::names;
use crate::rules::Rules;
use crate::tree::{Tree, default_to, keep, list_mut, object_mut, same};
use jiff::Timestamp;
use schema::field::Path;
use serde_json::{Value, json};

const BASE: Rules = Rules {
    prepare_create: |object| {
        clear_status(object);
        prepare_template(object, &Value::Null);
    },
    prepare_update: |new, old| {
        keep_status(new, old);
        prepare_template(new, old);
    },
    prepare_status_update: keep_spec,
    generation: true,
    ..Rules::PLAIN
};

pub static DEPLOYMENT: Rules = Rules {
    default: default_deployment,
    prepare_update: |new, old| {
        keep_status(new, old);
        if new["metadata"].field("annotations") != old["metadata"].field("annotations") {
            meta::set(new, "generation", meta::generation(old) + 1);
        }
    },
    prepare_status_update: |new, old| {
        keep_spec(new, old);
        if let Some(metadata) = meta::metadata_mut(new) {
            keep(metadata, &old["metadata"], "labels");
        }
    },
    columns: columns::DEPLOYMENT,
    row: deployment,
    validate: |new| deployment::validate(new, &Value::Null),
    validate_update: deployment::update,
    validate_status_update: deployment::status,
    warnings: checks::warnings,
    ..BASE
};
pub static REPLICA_SET: Rules = Rules {
    default: default_replicas,
    columns: columns::REPLICA_SET,
    row: replicas,
    validate: |new| replica_set::validate(new, &Value::Null),
    validate_update: replica_set::update,
    validate_status_update: replica_set::status,
    warnings: checks::warnings,
    ..BASE
};
pub static REPLICATION_CONTROLLER: Rules = Rules {
    default: default_replication_controller,
    columns: columns::REPLICATION_CONTROLLER,
    row: replicas,
    validate: |new| replica_set::controller(new, &Value::Null),
    validate_update: replica_set::controller,
    validate_status_update: replica_set::status,
    warnings: checks::warnings,
    ..BASE
};
pub static STATEFUL_SET: Rules = Rules {
    default: default_stateful_set,
    columns: columns::STATEFUL_SET,
    row: stateful_set,
    validate: |new| stateful_set::validate(new, &Value::Null),
    validate_update: stateful_set::update,
    validate_status_update: stateful_set::status,
    warnings: stateful_set::warnings,
    validate_name: names::dns_label_name,
    ..BASE
};
pub static DAEMON_SET: Rules = Rules {
    default: default_daemon_set,
    prepare_create: |set| {
        clear_status(set);
        let counted = daemon_set::template_generation(set).max(1);
        daemon_set::set_template_generation(set, counted);
    },
    prepare_update: |new, old| {
        keep_status(new, old);
        let changed = !same(&new["spec"]["template"], &old["spec"]["template"]);
        daemon_set::set_template_generation(new, daemon_set::template_generation(old) + i64::from(changed));
    },
    prepare_status_update: |new, old| {
        keep_spec(new, old);
        daemon_set::set_template_generation(new, daemon_set::template_generation(old));
    },
    columns: columns::DAEMON_SET,
    row: daemon_set,
    validate: |new| daemon_set::validate(new, &Value::Null),
    validate_update: daemon_set::update,
    validate_status_update: daemon_set::status,
    warnings: daemon_set::warnings,
    ..BASE
};
pub static JOB: Rules = Rules {
    default: default_job,
    prepare_create: prepare_job,
    columns: columns::JOB,
    row: job,
    validate: job::create,
    validate_update: job::update,
    validate_status_update: job_status::update,
    warnings: checks::warnings,
    ..BASE
};
pub static CRON_JOB: Rules = Rules {
    default: default_cron_job,
    columns: columns::CRON_JOB,
    row: cron_job,
    validate: cron_job::create,
    validate_update: cron_job::validate,
    warnings: cron_job::warnings,
    ..BASE
};
pub static POD_TEMPLATE: Rules = Rules {
    default: default_template,
    columns: columns::POD_TEMPLATE,
    row: pod_template,
    prepare_create: |object| prepare_template_at(object, &Value::Null, "/template"),
    prepare_update: |new, old| prepare_template_at(new, old, "/template"),
    validate: |new| template::validate(&new["template"], &Value::Null, &Path::new("template")),
    validate_update: |new, old| template::validate(&new["template"], &old["template"], &Path::new("template")),
    warnings: |new, old| checks::template_warnings(new, old, &["template"]),
    generation: true,
    ..Rules::PLAIN
};

/// Drops what this version has off from the template, wherever the kind has it.
fn prepare_template(object: &mut Value, old: &Value) {
    for at in ["/spec/template", "/spec/jobTemplate/spec/template"] {
        prepare_template_at(object, old, at);
    }
}

fn prepare_template_at(object: &mut Value, old: &Value, at: &str) {
    if let Some(own) = object.pointer_mut(at).filter(|own| own.is_object()) {
        template::prepare(own, old.pointer(at).unwrap_or(&Value::Null));
    }
}

fn with_spec(object: &mut Value, fill: impl FnOnce(&mut Value)) {
    if let Some(spec) = object_mut(object, "spec") {
        fill(spec);
        default_template(spec);
    }
}

fn default_replicas(object: &mut Value) {
    with_spec(object, |spec| set_default(spec, "replicas", 1));
}

/// Selector and labels come from the template where they are not given.
fn default_replication_controller(controller: &mut Value) {
    let of_template = controller["spec"]["template"]["metadata"]["labels"].clone();
    if of_template.is_object() {
        if controller["spec"].entries("selector").next().is_none() {
            controller["spec"]["selector"] = of_template.clone();
        }
        if controller["metadata"].entries("labels").next().is_none() {
            meta::set(controller, "labels", of_template);
        }
    }
    default_replicas(controller);
}

fn default_deployment(deployment: &mut Value) {
    with_spec(deployment, |spec| {
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        set_default(spec, "progressDeadlineSeconds", 600);
        let Some(strategy) = object_mut(spec, "strategy") else { return };
        default_to(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = object_mut(strategy, "rollingUpdate")
        {
            set_default(rolling, "maxUnavailable", "25%");
            set_default(rolling, "maxSurge", "25%");
        }
    });
}

fn default_stateful_set(set: &mut Value) {
    with_spec(set, |spec| {
        default_to(spec, "podManagementPolicy", "OrderedReady");
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        if let Some(retention) = object_mut(spec, "persistentVolumeClaimRetentionPolicy") {
            default_to(retention, "whenDeleted", "Retain");
            default_to(retention, "whenScaled", "Retain");
        }
        let Some(strategy) = object_mut(spec, "updateStrategy") else { return };
        default_to(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = object_mut(strategy, "rollingUpdate")
        {
            set_default(rolling, "partition", 0);
            set_default(rolling, "maxUnavailable", 1);
        }
    });
    if set["spec"].is_object() {
        for claim in list_mut(&mut set["spec"], "volumeClaimTemplates") {
            claim["apiVersion"] = "v1".into();
            claim["kind"] = "PersistentVolumeClaim".into();
            if let Some(spec) = object_mut(claim, "spec") {
                set_default(spec, "volumeMode", "Filesystem");
            }
            if let Some(status) = object_mut(claim, "status") {
                default_to(status, "phase", "Pending");
            }
        }
    }
}

fn default_daemon_set(set: &mut Value) {
    let counted = daemon_set::template_generation(set);
    daemon_set::set_template_generation(set, counted);
    with_spec(set, |spec| {
        set_default(spec, "revisionHistoryLimit", 10);
        let Some(strategy) = object_mut(spec, "updateStrategy") else { return };
        default_to(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = object_mut(strategy, "rollingUpdate")
        {
            set_default(rolling, "maxUnavailable", 1);
            set_default(rolling, "maxSurge", 0);
        }
    });
}

fn default_job_spec(spec: &mut Value) {
    if !spec.has("completions") && !spec.has("parallelism") {
        spec["completions"] = 1.into();
    }
    set_default(spec, "parallelism", 1);
    let limit = if spec.has("backoffLimitPerIndex") { i32::MAX } else { 6 };
    set_default(spec, "backoffLimit", limit);
    set_default(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    let policy = if spec.has("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    set_default(spec, "podReplacementPolicy", policy);
    set_default(spec, "manualSelector", false);
    default_failure_policy(spec);
}

/// Conditions that a failure policy looks for hold unless it says otherwise.
fn default_failure_policy(job_spec: &mut Value) {
    let Some(policy) = job_spec.get_mut("podFailurePolicy") else { return };
    for rule in list_mut(policy, "rules") {
        for pattern in list_mut(rule, "onPodConditions") {
            default_to(pattern, "status", "True");
        }
    }
}

fn default_job(job: &mut Value) {
    with_spec(job, default_job_spec);
    // Without labels of its own a Job takes its template's.
    let of_template = job["spec"]["template"]["metadata"]["labels"].clone();
    if of_template.is_object() && job["metadata"].entries("labels").next().is_none() {
        meta::set(job, "labels", of_template);
    }
}

/// A Job finds its Pods by its own uid unless it brings a selector (`generateSelector`).
fn prepare_job(job: &mut Value) {
    (BASE.prepare_create)(job);
    if job["spec"].flag("manualSelector") {
        return;
    }
    let (name, uid) = (meta::name(job).to_owned(), meta::uid(job).to_owned());
    let shared = job["metadata"]["labels"] == job["spec"]["template"]["metadata"]["labels"];
    let Some(spec) = object_mut(job, "spec") else { return };
    if !spec.has("selector") {
        spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    }
    let labels = object_mut(spec, "template")
        .and_then(|template| object_mut(template, "metadata"))
        .and_then(|metadata| object_mut(metadata, "labels"));
    let Some(labels) = labels else { return };
    for (key, value) in [("controller-uid", &uid), ("job-name", &name)] {
        for prefix in ["", "batch.kubernetes.io/"] {
            labels[format!("{prefix}{key}")] = value.as_str().into();
        }
    }
    let labels = labels.clone();
    if shared {
        meta::set(job, "labels", labels);
    }
}

fn default_cron_job(job: &mut Value) {
    let Some(spec) = object_mut(job, "spec") else { return };
    default_to(spec, "concurrencyPolicy", "Allow");
    set_default(spec, "suspend", false);
    set_default(spec, "successfulJobsHistoryLimit", 3);
    set_default(spec, "failedJobsHistoryLimit", 1);
    let Some(job) = spec.pointer_mut("/jobTemplate/spec") else { return };
    default_failure_policy(job);
    if let Some(template) = job.get_mut("template") {
        default_template_spec(template);
    }
}

/// Names and images of a template's containers.
fn containers(template: &Value) -> [Value; 2] {
    let all = template["spec"].list("containers");
    let joined = |field: &str| all.iter().map(|container| container.text(field)).collect::<Vec<_>>().join(",");
    [json!(joined("name")), json!(joined("image"))]
}

fn age(object: &Value, now: Timestamp) -> Value {
    json!(human::age(&object["metadata"]["creationTimestamp"], now))
}

fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = containers(&spec["template"]);
    vec![
        json!(meta::name(object)),
        json!(format!("{}/{}", status.int("readyReplicas"), spec.int("replicas"))),
        json!(status.int("updatedReplicas")),
        json!(status.int("availableReplicas")),
        age(object, now),
        names,
        images,
        json!(rows::selector(spec.field("selector"), "")),
    ]
}

fn replicas(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = containers(&spec["template"]);
    let selector = if object.text("kind") == "ReplicationController" {
        labels(&spec["selector"])
    } else {
        rows::selector(spec.field("selector"), "<none>")
    };
    vec![
        json!(meta::name(object)),
        json!(spec.int("replicas")),
        json!(status.int("replicas")),
        json!(status.int("readyReplicas")),
        age(object, now),
        names,
        images,
        json!(selector),
    ]
}

fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(&object["spec"]["template"]);
    let ready = format!("{}/{}", object["status"].int("readyReplicas"), object["spec"].int("replicas"));
    vec![json!(meta::name(object)), json!(ready), age(object, now), names, images]
}

fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = containers(&spec["template"]);
    vec![
        json!(meta::name(object)),
        json!(status.int("desiredNumberScheduled")),
        json!(status.int("currentNumberScheduled")),
        json!(status.int("numberReady")),
        json!(status.int("updatedNumberScheduled")),
        json!(status.int("numberAvailable")),
        json!(labels(&spec["template"]["spec"]["nodeSelector"])),
        age(object, now),
        names,
        images,
        json!(rows::selector(spec.field("selector"), "<none>")),
    ]
}

fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let succeeded = status.int("succeeded");
    let completions = match (spec.int_opt("completions"), spec.int("parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let time = |field: &str| status.text_opt(field).and_then(|at| at.parse::<Timestamp>().ok());
    let duration =
        time("startTime").map_or_else(String::new, |start| human::since(start, time("completionTime").unwrap_or(now)));
    let has = |of: &str| {
        status
            .list("conditions")
            .iter()
            .any(|condition| condition.text("type") == of && condition.text("status") == "True")
    };
    let state = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if meta::deletion_timestamp(object).is_some() {
        "Terminating"
    } else {
        ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|of| has(of)).unwrap_or("Running")
    };
    let [names, images] = containers(&spec["template"]);
    vec![
        json!(meta::name(object)),
        json!(state),
        json!(completions),
        json!(duration),
        age(object, now),
        names,
        images,
        json!(rows::selector(spec.field("selector"), "<none>")),
    ]
}

fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let job = &spec["jobTemplate"]["spec"];
    let [names, images] = containers(&job["template"]);
    let suspended = spec.flag_opt("suspend").map_or("<unset>", |suspended| if suspended { "True" } else { "False" });
    let last = status.field("lastScheduleTime").map_or_else(|| "<none>".to_owned(), |last| human::age(last, now));
    vec![
        json!(meta::name(object)),
        json!(spec.text("schedule")),
        json!(spec.text_opt("timeZone").unwrap_or("<none>")),
        json!(suspended),
        json!(status.list("active").len()),
        json!(last),
        age(object, now),
        names,
        images,
        json!(rows::selector(job.field("selector"), "<none>")),
    ]
}

fn pod_template(object: &Value, _: Timestamp) -> Vec<Value> {
    let [names, images] = containers(&object["template"]);
    vec![json!(meta::name(object)), names, images, json!(labels(&object["template"]["metadata"]["labels"]))]
}
