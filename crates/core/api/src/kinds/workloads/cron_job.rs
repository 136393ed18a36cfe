//! Validation of `batch/v1` CronJob.

use super::checks::{self, not_negative, rejected_selector};
use super::{job, schedule};
use crate::meta;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, invalid, not_supported, required};
use serde_json::Value;

/// A Job's name is the CronJob's and eleven characters more.
const NAME_MAX: usize = 52;

pub(super) fn create(cron_job: &Value) -> ErrorList {
    let mut found = validate(cron_job, &Value::Null);
    let name = meta::name(cron_job);
    if name.len() > NAME_MAX {
        let detail = format!("must be no more than {NAME_MAX} characters");
        found.push(invalid(&Path::new("metadata").child("name"), name, &detail));
    }
    found
}

pub(super) fn validate(cron_job: &Value, old: &Value) -> ErrorList {
    let (spec, before, path) = (&cron_job["spec"], &old["spec"], Path::new("spec"));
    let mut found = ErrorList::new();
    let at = path.child("schedule");
    match spec.text("schedule") {
        "" => found.push(required(&at, "")),
        text => {
            found.extend(schedule::check(text).err().map(|why| invalid(&at, text, &why)));
            let kept = before.text("schedule").contains("TZ");
            if text.contains("TZ") && !kept {
                found.push(invalid(&at, text, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
            } else if text.contains("TZ") && spec.has("timeZone") {
                found.push(invalid(&at, text, "cannot use both timeZone field and TZ or CRON_TZ in schedule"));
            }
        }
    }
    found.extend(not_negative(spec, &["startingDeadlineSeconds"], &path));
    if let Some(zone) = spec.text_opt("timeZone").filter(|zone| before.text_opt("timeZone") != Some(zone)) {
        found.extend(time_zone(zone, &path.child("timeZone")));
    }
    let (policy, at) = (spec.text("concurrencyPolicy"), path.child("concurrencyPolicy"));
    match policy {
        "Allow" | "Forbid" | "Replace" => {}
        "" => found.push(required(&at, "")),
        other => found.push(not_supported(&at, other, &["Allow", "Forbid", "Replace"])),
    }
    let at = path.child("jobTemplate").child("spec");
    let template = &spec["jobTemplate"]["spec"];
    found.extend(job::validate(template, &before["jobTemplate"]["spec"], &at));
    if template.has("selector") {
        found.push(rejected_selector(template, &at, "`selector` will be auto-generated"));
    }
    if template.flag("manualSelector") {
        found.push(not_supported(&at.child("manualSelector"), true, &["nil", "false"]));
    }
    found.extend(not_negative(spec, &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"], &path));
    found
}

/// The form of a zone's name; whether there is such a zone only the controller can tell.
fn time_zone(zone: &str, path: &Path) -> ErrorList {
    if zone.is_empty() {
        return vec![invalid(path, zone, "timeZone must be nil or non-empty string")];
    }
    let bad = |part: &str| {
        let fits = (1..=14).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'));
        matches!(part, "." | "..") || part.starts_with('-') || !fits
    };
    if zone.split('/').any(bad) {
        return vec![invalid(path, zone, &format!("unknown time zone {zone}"))];
    }
    if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        return vec![invalid(path, zone, detail)];
    }
    ErrorList::new()
}

pub(super) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut found = checks::warnings_at(new, old, &["spec", "jobTemplate", "spec", "template"]);
    if old.is_some() && new["spec"].text("schedule").contains("TZ") {
        found.push(
            "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                .to_owned(),
        );
    }
    found
}
