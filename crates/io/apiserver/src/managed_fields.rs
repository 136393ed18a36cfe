//! `metadata.managedFields` at the doors of the server: who writes, through which door, and what the kind resets there.
//! The rules themselves are `schema::apply`.

use crate::call::Call;
use crate::convert;
use crate::errors::{self, Result};
use crate::query::WriteOptions;
use crate::refusal::Refusal;
use crate::world;
use api::resource::Resource;
use api::tree::Tree;
use schema::apply::{self, Applied, ApplyError, Filter, Version, Writer};
use schema::decode::{self, Decoded};
use serde_json::{Value, json};

/// Stamps a new object; call it with the object as decoded and defaulted, before admission changes it.
pub(crate) fn created(call: &Call<'_>, object: &mut Value, options: &WriteOptions) {
    with_writer(call, options, |writer| apply::update(writer, &empty(call.resource), object));
}

/// Stamps a changed object against the stored one, before admission.
pub(crate) fn updated(call: &Call<'_>, object: &mut Value, old: &Value, options: &WriteOptions) {
    with_writer(call, options, |writer| apply::update(writer, old, object));
}

/// Applies a configuration to an object; with `None` to one that is not there yet. The outcome has its managed fields and is
/// not in normal form.
pub(crate) fn applied(
    call: &Call<'_>,
    live: Option<&Value>,
    configuration: &Value,
    options: &WriteOptions,
) -> Result<Applied> {
    let empty = live.is_none().then(|| empty(call.resource));
    let live = live.or(empty.as_ref()).unwrap_or(&Value::Null);
    with_writer(call, options, |writer| apply_as(call, writer, live, configuration))
}

/// As [`applied`], of a writer of one's own.
pub(crate) fn apply_as(call: &Call<'_>, writer: &Writer<'_>, live: &Value, configuration: &Value) -> Result<Applied> {
    let force = call.query.flag("force");
    apply::apply(writer, live, configuration, force).map_err(|error| match error {
        ApplyError::Conflicts(conflicts) => {
            let causes: Vec<Value> = conflicts
                .iter()
                .map(|conflict| {
                    let message = format!("conflict with {}", conflict.manager.shown());
                    json!({"reason": "FieldManagerConflict", "message": message, "field": conflict.path})
                })
                .collect();
            let message = apply::conflict_message(&conflicts);
            Refusal { code: 409, reason: "Conflict", message, details: json!({"causes": causes}) }
        }
        ApplyError::Untyped(why) => {
            let metadata = &configuration["metadata"];
            errors::plain(format!(
                "failed to create typed patch object ({}/{}; {}): {why}",
                metadata.text("namespace"),
                metadata.text("name"),
                group_version_kind(configuration)
            ))
        }
    })
}

/// `apps/v1, Kind=Deployment`, `/v1, Kind=Pod`.
pub(crate) fn group_version_kind(object: &Value) -> String {
    let (version, kind) = (object.text("apiVersion"), object.text("kind"));
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    // Without a version upstream knows nothing of the group, either.
    format!("{group}/{version}, Kind={kind}")
}

/// What Go's empty object of the kind holds; in it nothing is new.
fn empty(resource: &Resource) -> Value {
    let empty = json!({"kind": resource.kind, "apiVersion": resource.api_version()});
    let decoded =
        decode::normalize(api::table::table(), resource.of, Decoded { value: empty.clone(), strict: Vec::new() });
    decoded.map_or(empty, |decoded| decoded.value)
}

fn with_writer<T>(call: &Call<'_>, options: &WriteOptions, act: impl FnOnce(&Writer<'_>) -> T) -> T {
    let subresource = call.subresource.map(|s| s.name).unwrap_or_default();
    act(&Writer {
        table: api::table::table(),
        of: call.resource.of,
        api_version: &call.resource.api_version(),
        subresource,
        manager: &manager(call, options),
        now: &world::rfc3339(call.now),
        filter: filter(call.resource, subresource),
        in_version: &|object, version| in_version(call, object, version),
    })
}

/// An object of the call's resource in another version that is served.
fn in_version(call: &Call<'_>, object: &Value, version: &str) -> Option<Version> {
    let of = |version: &str| {
        let mut all = api::table::resources().iter();
        all.find(|r| r.storage == call.resource.storage && r.api_version() == version)
    };
    let (from, to) = (of(object.text("apiVersion"))?, of(version)?);
    let stored = convert::to_stored(from, call.stored().ok()?, object.clone());
    let object = convert::from_stored(to, stored);
    let decoded = decode::normalize(api::table::table(), to.of, Decoded { value: object, strict: Vec::new() }).ok()?;
    Some(Version { of: to.of, object: decoded.value })
}

/// Kinds whose status door leaves the metadata alone.
const METADATA_KEPT: [&str; 10] = [
    "validatingadmissionpolicies",
    "apiservices",
    "flowschemas",
    "prioritylevelconfigurations",
    "servicecidrs",
    "devicetaintrules",
    "resourceclaims",
    "volumeattachments",
    "storageversionmigrations",
    "podcertificaterequests",
];

/// What the kind resets at a door (upstream `GetResetFields` of its strategies).
fn filter(resource: &Resource, subresource: &str) -> Option<Filter> {
    use Filter::{Only, Without};
    Some(match (resource.plural, subresource) {
        ("certificatesigningrequests", "") => Without(&[&["f:spec"], &["f:status"]]),
        ("certificatesigningrequests", "status") => Without(&[&["f:spec"], &["f:status", "f:conditions"]]),
        ("certificatesigningrequests", "approval") => Without(&[&["f:spec"], &["f:status", "f:certificate"]]),
        ("pods", "status") => {
            Without(&[&["f:spec"], &["f:metadata", "f:deletionTimestamp"], &["f:metadata", "f:ownerReferences"]])
        }
        ("pods", "ephemeralcontainers") => Only(&[&["f:spec", "f:ephemeralContainers"]]),
        ("pods", "resize") => Only(&[
            &["f:spec", "f:containers", "*", "f:resources"],
            &["f:spec", "f:containers", "*", "f:resizePolicy"],
            &["f:spec", "f:initContainers", "*", "f:resources"],
            &["f:spec", "f:initContainers", "*", "f:resizePolicy"],
        ]),
        ("deployments", "status") => Without(&[&["f:spec"], &["f:metadata", "f:labels"]]),
        (_, "finalize") => Without(&[&["f:status"]]),
        (plural, "status") if METADATA_KEPT.contains(&plural) => Without(&[&["f:spec"], &["f:metadata"]]),
        (_, "status") => Without(&[&["f:spec"]]),
        (_, "") if resource.subresources.iter().any(|s| s.name == "status") => Without(&[&["f:status"]]),
        _ => return None,
    })
}

/// The name that a change is recorded under: the option, or the client's program.
pub(crate) fn manager(call: &Call<'_>, options: &WriteOptions) -> String {
    if !options.field_manager.is_empty() {
        return options.field_manager.clone();
    }
    let program = call.header("user-agent").split('/').next().unwrap_or_default();
    let printable: String = program.chars().filter(|c| !c.is_control()).collect();
    let mut end = printable.len().min(128);
    while !printable.is_char_boundary(end) {
        end -= 1;
    }
    printable[..end].to_owned()
}
