//! Validation of a Job's status (upstream `validateJobStatus`, `getStatusValidationOptions`): rules that an old status
//! breaks already are not held against a new one that leaves them alone.

use super::checks::not_negative;
use super::indexes;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, duplicate, invalid, invalid_without_value, required};
use serde_json::Value;

/// Whether a condition is there with status True.
fn is(job: &Value, condition: &str) -> bool {
    let mut all = job["status"].list("conditions").iter();
    all.any(|one| one.text("type") == condition && one.text("status") == "True")
}

fn is_finished(job: &Value) -> bool {
    is(job, "Complete") || is(job, "Failed")
}

pub(super) fn update(new: &Value, old: &Value) -> ErrorList {
    let (status, before, path) = (&new["status"], &old["status"], Path::new("status"));
    let mut found = not_negative(status, &["active", "succeeded", "failed", "ready", "terminating"], &path);
    found.extend(uncounted(&status["uncountedTerminatedPods"], &path.child("uncountedTerminatedPods")));
    found.extend(ends(new, old, &path));
    found.extend(index_lists(new, old, &path));
    if status.int("ready") > status.int("active") && status.field("ready") != before.field("ready") {
        found.push(invalid(&path.child("ready"), status.int("ready"), "cannot set more ready pods than active"));
    }
    let conditions = path.child("conditions");
    let met = is(new, "SuccessCriteriaMet");
    for (wrong, detail) in [
        (met && is(new, "Failed"), "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (met && is(new, "FailureTarget"), "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
        (
            new["spec"].has("successPolicy") && !met && is(new, "Complete"),
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
    ] {
        if wrong {
            found.push(invalid_without_value(&conditions, detail));
        }
    }
    found.extend(steps_back(new, old, &path));
    found
}

fn uncounted(pods: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for list in ["succeeded", "failed"] {
        for (at, uid) in pods.texts(list).enumerate() {
            let path = path.child(list).index(at);
            if uid.is_empty() {
                found.push(invalid(&path, uid, "must not be empty"));
            } else if seen.contains(&uid) {
                found.push(duplicate(&path, uid));
            } else {
                seen.push(uid);
            }
        }
    }
    found
}

/// What the conditions that end a Job ask of the rest.
fn ends(new: &Value, old: &Value, path: &Path) -> ErrorList {
    let status = &new["status"];
    let mut found = ErrorList::new();
    let (complete, failed) = (is(new, "Complete"), is(new, "Failed"));
    let (now_complete, now_failed) = (complete && !is(old, "Complete"), failed && !is(old, "Failed"));
    let now_finished = is_finished(new) && !is_finished(old);
    let conditions = path.child("conditions");
    let mut refuse = |wrong: bool, detail: &str| {
        if wrong {
            found.push(invalid_without_value(&conditions, detail));
        }
    };
    refuse(complete && failed && (now_complete || now_failed), "cannot set Complete=True and Failed=true conditions");
    refuse(now_complete && is(new, "FailureTarget"), "cannot set Complete=True and FailureTarget=true conditions");
    let ended = path.child("completionTime");
    let time = status.field("completionTime");
    let changed = time != old["status"].field("completionTime");
    if let Some(time) = time.filter(|_| changed) {
        if !complete {
            let detail = "cannot set completionTime when there is no Complete=True condition";
            found.push(invalid(&ended, time.clone(), detail));
        }
        if status.text_opt("startTime").is_some_and(|start| time.as_str().is_some_and(|end| end < start)) {
            found.push(invalid(&ended, time.clone(), "must be equal to or after `startTime`"));
        }
    } else if time.is_none() && now_complete {
        found.push(required(&ended, "completionTime is required for Complete jobs"));
    }
    let mut refuse = |wrong: bool, detail: &str| {
        if wrong {
            found.push(invalid_without_value(&conditions, detail));
        }
    };
    refuse(
        now_failed && !is(new, "FailureTarget"),
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    refuse(
        now_complete && !is(new, "SuccessCriteriaMet"),
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
    if now_finished {
        if status.int("active") > 0 {
            found.push(invalid(&path.child("active"), status.int("active"), "active>0 is invalid for finished job"));
        }
        if !status.has("startTime") {
            found.push(required(&path.child("startTime"), "startTime is required for finished job"));
        }
        if status.int("terminating") > 0 {
            let detail = "terminating>0 is invalid for finished job";
            found.push(invalid(&path.child("terminating"), status.int("terminating"), detail));
        }
    }
    found
}

fn index_lists(new: &Value, old: &Value, path: &Path) -> ErrorList {
    let (spec, status, before) = (&new["spec"], &new["status"], &old["status"]);
    let mut found = ErrorList::new();
    let completions = spec.int_opt("completions");
    for field in ["completedIndexes", "failedIndexes"] {
        let text = status.text(field);
        if text == before.text(field) {
            continue;
        }
        if let Some(Err(why)) = completions.map(|completions| indexes::count(text, completions)) {
            found.push(invalid(&path.child(field), text, &format!("error parsing {field}: {why}")));
        }
    }
    let (completed, failed) = (status.text("completedIndexes"), status.text_opt("failedIndexes"));
    if !completed.is_empty() && completed != before.text("completedIndexes") && spec.text("completionMode") != "Indexed"
    {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        found.push(invalid(&path.child("completedIndexes"), completed, detail));
    }
    if let Some(failed) = failed.filter(|failed| before.text_opt("failedIndexes") != Some(failed))
        && !spec.has("backoffLimitPerIndex")
    {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        found.push(invalid(&path.child("failedIndexes"), failed, detail));
    }
    found
}

/// What no update takes back.
fn steps_back(new: &Value, old: &Value, path: &Path) -> ErrorList {
    let (status, before) = (&new["status"], &old["status"]);
    let mut found = ErrorList::new();
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if is(old, condition) && !is(new, condition) {
            let detail = format!("cannot disable the terminal {condition}=True condition");
            found.push(invalid_without_value(&path.child("conditions"), &detail));
        }
    }
    for counter in ["failed", "succeeded"] {
        if status.int(counter) < before.int(counter) {
            let detail = format!("cannot decrease the {counter} counter");
            found.push(invalid(&path.child(counter), status.int(counter), &detail));
        }
    }
    for (field, free, detail) in [
        ("completionTime", !status.has("completionTime"), "field is immutable"),
        ("startTime", new["spec"].flag("suspend"), "field is immutable for unsuspended job once set"),
    ] {
        if before.has(field) && status.field(field) != before.field(field) && !free {
            found.push(invalid(&path.child(field), status[field].clone(), detail));
        }
    }
    if is(old, "SuccessCriteriaMet") && !is(new, "SuccessCriteriaMet") {
        let detail = "cannot disable the SuccessCriteriaMet=True condition";
        found.push(invalid_without_value(&path.child("conditions"), detail));
    }
    found
}
