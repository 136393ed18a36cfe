//! Event, as `v1` and as `events.k8s.io/v1`: one kind, two spellings of its fields.

use crate::human;
use crate::kinds::columns;
use crate::meta;
use crate::names::{IMMUTABLE, dns_subdomain_name, qualified_name};
use crate::rules::Rules;
use crate::tree::{Tree, same};
use jiff::Timestamp;
use schema::field::{ErrorList, Path, invalid, required};
use serde_json::{Value, json};

const MAX_LENGTH: usize = 128;
const MAX_MESSAGE: usize = 1024;

/// `v1`
pub static CORE: Rules = Rules {
    validate: |event| validate_common(event, &CORE_NAMES),
    validate_update: |new, _| validate_common(new, &CORE_NAMES),
    selectable: |event| selectable(event, &CORE_NAMES),
    columns: columns::EVENT,
    row: |event, now| row(event, now, &CORE_NAMES),
    create_on_update: true,
    // Upstream checks no metadata in this version.
    validate_name: |_, _| Vec::new(),
    ..Rules::PLAIN
};

/// `events.k8s.io/v1`
pub static EVENTS: Rules = Rules {
    validate: validate_events,
    validate_update: update_events,
    selectable: |event| selectable(event, &EVENTS_NAMES),
    row: |event, now| row(event, now, &EVENTS_NAMES),
    validate_name: dns_subdomain_name,
    ..CORE
};

/// What a version calls its fields.
struct Names {
    object: &'static str,
    message: &'static str,
    reporter: &'static str,
    source: &'static str,
    first: &'static str,
    last: &'static str,
    count: &'static str,
}

const CORE_NAMES: Names = Names {
    object: "involvedObject",
    message: "message",
    reporter: "reportingComponent",
    source: "source",
    first: "firstTimestamp",
    last: "lastTimestamp",
    count: "count",
};

const EVENTS_NAMES: Names = Names {
    object: "regarding",
    message: "note",
    reporter: "reportingController",
    source: "deprecatedSource",
    first: "deprecatedFirstTimestamp",
    last: "deprecatedLastTimestamp",
    count: "deprecatedCount",
};

fn selectable(event: &Value, names: &Names) -> Vec<(&'static str, String)> {
    let object = &event[names.object];
    let component = event[names.source].text("component");
    let source = if component.is_empty() { event.text(names.reporter) } else { component };
    vec![
        ("involvedObject.kind", object.text("kind").to_owned()),
        ("involvedObject.namespace", object.text("namespace").to_owned()),
        ("involvedObject.name", object.text("name").to_owned()),
        ("involvedObject.uid", object.text("uid").to_owned()),
        ("involvedObject.apiVersion", object.text("apiVersion").to_owned()),
        ("involvedObject.resourceVersion", object.text("resourceVersion").to_owned()),
        ("involvedObject.fieldPath", object.text("fieldPath").to_owned()),
        ("reason", event.text("reason").to_owned()),
        ("reportingComponent", event.text(names.reporter).to_owned()),
        ("source", source.to_owned()),
        ("type", event.text("type").to_owned()),
    ]
}

fn row(event: &Value, now: Timestamp, names: &Names) -> Vec<Value> {
    let age = |time: &Value| human::age(time, now);
    let first = if event.has(names.first) { age(&event[names.first]) } else { age(&event["eventTime"]) };
    let mut last = if event.has(names.last) { age(&event[names.last]) } else { first.clone() };
    let mut count = event.int(names.count);
    if let Some(series) = event.field("series") {
        last = age(&series["lastObservedTime"]);
        count = series.int("count");
    } else if count == 0 {
        count = 1;
    }
    let object = &event[names.object];
    let kind = object.text("kind").to_lowercase();
    let target = if object.text("name").is_empty() { kind } else { format!("{kind}/{}", object.text("name")) };
    let or = |a: &str, b: &str| if a.is_empty() { b.to_owned() } else { a.to_owned() };
    let source = &event[names.source];
    let component = or(source.text("component"), event.text(names.reporter));
    let instance = or(source.text("host"), event.text("reportingInstance"));
    let source = if instance.is_empty() { component } else { format!("{component}, {instance}") };
    vec![
        json!(last),
        json!(event.text("type")),
        json!(event.text("reason")),
        json!(target),
        json!(object.text("fieldPath")),
        json!(source),
        json!(event.text(names.message).trim()),
        json!(first),
        json!(count),
        json!(meta::name(event)),
    ]
}

/// Upstream `legacyValidateEvent`; paths are those of its internal type in either version.
fn validate_common(event: &Value, names: &Names) -> ErrorList {
    let mut found = ErrorList::new();
    let (own, of) = (meta::namespace(event), event[names.object].text("namespace"));
    let mismatch = || {
        let path = Path::new("involvedObject").child("namespace");
        invalid(&path, of, "does not match event.namespace")
    };
    if !event.has("eventTime") {
        let wrong = if of.is_empty() { !matches!(own, "" | "default") } else { own != of };
        if wrong {
            found.push(mismatch());
        }
        return found;
    }
    if of.is_empty() && !matches!(own, "default" | "kube-system") {
        found.push(mismatch());
    }
    let reporter = event.text(names.reporter);
    let path = Path::new(names.reporter);
    if reporter.is_empty() {
        found.push(required(&path, ""));
    }
    found.extend(qualified_name(reporter).iter().map(|message| invalid(&path, reporter, message)));
    for field in ["reportingInstance", "action", "reason"] {
        let text = event.text(field);
        if text.is_empty() {
            found.push(required(&Path::new(field), ""));
        }
        if text.len() > MAX_LENGTH {
            found.push(invalid(&Path::new(field), "", &format!("can have at most {MAX_LENGTH} characters")));
        }
    }
    if event.text(names.message).len() > MAX_MESSAGE {
        found.push(invalid(&Path::new("message"), "", &format!("can have at most {MAX_MESSAGE} characters")));
    }
    found
}

fn validate_events(event: &Value) -> ErrorList {
    let mut found = validate_common(event, &EVENTS_NAMES);
    found.extend(validate_series(event));
    if !event.has("eventTime") {
        found.push(required(&Path::new("eventTime"), ""));
    }
    let of = event.text("type");
    if !matches!(of, "Normal" | "Warning") {
        found.push(invalid(&Path::new("type"), "", &format!("has invalid value: {of}")));
    }
    let source = &event["deprecatedSource"];
    let unset = [
        (event.has("deprecatedFirstTimestamp"), "firstTimestamp"),
        (event.has("deprecatedLastTimestamp"), "lastTimestamp"),
        (event.int("deprecatedCount") != 0, "count"),
        (!source.text("component").is_empty() || !source.text("host").is_empty(), "source"),
    ];
    for (_, field) in unset.into_iter().filter(|(set, _)| *set) {
        found.push(invalid(&Path::new(field), "", "needs to be unset"));
    }
    found
}

fn validate_series(event: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    if let Some(series) = event.field("series") {
        if series.int("count") < 2 {
            found.push(invalid(&Path::new("series.count"), "", "should be at least 2"));
        }
        if !series.has("lastObservedTime") {
            found.push(required(&Path::new("series.lastObservedTime"), ""));
        }
    }
    found
}

/// Once told, an event of this version only counts on (upstream `ValidateEventUpdate`).
fn update_events(new: &Value, old: &Value) -> ErrorList {
    let mut found = validate_common(new, &EVENTS_NAMES);
    if !same(&new["series"], &old["series"]) {
        found.extend(validate_series(new));
    }
    let kept = [
        ("regarding", "involvedObject"),
        ("reason", "reason"),
        ("note", "message"),
        ("deprecatedSource", "source"),
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
        ("reason", "reason"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingController", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ];
    for (field, told_as) in kept {
        if !same(&new[field], &old[field]) {
            found.push(invalid(&Path::new(told_as), new[field].clone(), IMMUTABLE));
        }
    }
    found
}
