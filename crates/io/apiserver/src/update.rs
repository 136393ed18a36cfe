//! `update` (PUT) and the common way of every change to a stored object: read, change, admit, validate, compare and
//! write (apiserver `registry/generic/registry/store.go` `Update`, `registry/rest/update.go`).

use crate::admission::{self, Operation};
use crate::call::{Answer, Call};
use crate::commit::Committed;
use crate::create::{self, Stamped, ensure_namespace, expected, refuse_invalid};
use crate::decode_body;
use crate::errors::{self, Result};
use crate::query::WriteOptions;
use crate::refusal::Refusal;
use crate::server::{self, ApiServer};
use crate::service_addresses::Held;
use crate::{convert, managed_fields, respond, stored};
use api::meta;
use api::object::Object;
use api::rules::Rules;
use schema::field::{self, Path};
use serde_json::Value;
use std::sync::Arc;

/// Which of a kind's rules a change goes by.
#[derive(Clone, Copy)]
pub(crate) struct Strategy {
    pub prepare: fn(&Rules, &mut Value, &Value),
    pub validate: fn(&Rules, &Value, &Value) -> field::ErrorList,
    /// A change by the main door: it may create.
    pub main: bool,
    /// Whether it counts up the generation, where the kind has one.
    pub counts: bool,
}

pub(crate) const MAIN: Strategy = Strategy {
    prepare: |rules, new, old| (rules.prepare_update)(new, old),
    validate: |rules, new, old| (rules.validate_update)(new, old),
    main: true,
    counts: true,
};

pub(crate) const STATUS: Strategy = Strategy {
    prepare: |rules, new, old| (rules.prepare_status_update)(new, old),
    validate: |rules, new, old| (rules.validate_status_update)(new, old),
    main: false,
    counts: false,
};

/// The strategy of the call's subresource.
pub(crate) fn strategy(call: &Call<'_>) -> Result<Strategy> {
    match call.subresource.map(|s| s.name) {
        None => Ok(MAIN),
        Some("status") => Ok(STATUS),
        Some(other) => crate::subresources::strategy(call, other),
    }
}

pub(crate) async fn update(call: &Call<'_>) -> Result<Answer> {
    let options = WriteOptions::parse(call.query, "UpdateOptions", false)?;
    let body = decode_body::body(call, expected(call), options.field_validation)?;
    check_name(call, &body)?;
    let strategy = strategy(call)?;
    let produce = |old: &Value| {
        let mut new = body.clone();
        managed_fields::updated(call, &mut new, old, &options);
        Ok(new)
    };
    let change_to = Change { strategy, absent: Absent::Create(&body), produce: &produce };
    change(call, &options, change_to).await
}

/// Name and namespace in a body must be the path's (apiserver `checkName`, `EnsureObjectNamespaceMatchesRequestNamespace`).
pub(crate) fn check_name(call: &Call<'_>, body: &Value) -> Result<()> {
    let name = meta::name(body);
    if !name.is_empty() && name != call.info.name {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.name
        )));
    }
    let namespace = meta::namespace(body);
    if !namespace.is_empty() && call.resource.namespaced && namespace != call.info.namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Makes an object, its managed fields among it, of the present one.
pub(crate) type Produce<'a> = &'a (dyn Fn(&Value) -> Result<Value> + Sync);

/// What becomes of a change where nothing is.
#[derive(Clone, Copy)]
pub(crate) enum Absent<'a> {
    NotFound,
    /// This is created where the kind allows that.
    Create(&'a Value),
    /// What this makes of nothing is created, its managed fields with it.
    Apply(&'a (dyn Fn() -> Result<Value> + Sync)),
}

/// A change to carry out.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    pub strategy: Strategy,
    pub absent: Absent<'a>,
    /// Makes the new object (of the request's version), again for each attempt.
    pub produce: Produce<'a>,
}

pub(crate) async fn change(call: &Call<'_>, options: &WriteOptions, change: Change<'_>) -> Result<Answer> {
    let Change { strategy, absent, produce } = change;
    let name = call.info.name.as_str();
    let rules = api::kinds::rules(call.resource.group, call.resource.kind);
    loop {
        let Some(entry) = call.server.current(call, name).await? else {
            return match absent {
                Absent::Create(body) if rules.create_on_update && strategy.main => {
                    create_by_update(call, body, options).await
                }
                Absent::Apply(make) if strategy.main => create_by_apply(call, make()?, options).await,
                _ => Err(call.not_found(name)),
            };
        };
        let old = convert::from_stored(call.resource, respond::tree_of(&entry.object)?);
        let produced = produce(&old)?;
        let (new, _held) = prepare(call, options, strategy, rules, produced, &old)?;
        match store(call, options, new, &old, &entry.object).await? {
            Stored::Answer(answer) => return Ok(answer),
            Stored::Moved => {}
        }
    }
}

async fn create_by_update(call: &Call<'_>, body: &Value, options: &WriteOptions) -> Result<Answer> {
    if !meta::uid(body).is_empty() {
        return Err(other_uid(call, meta::uid(body), ""));
    }
    let mut body = body.clone();
    meta::unset(&mut body, "resourceVersion");
    if meta::name(&body).is_empty() {
        meta::set(&mut body, "name", call.info.name.as_str());
    }
    create::create_decoded(call, body, options, Stamped::No).await
}

/// Applying to nothing creates (upstream `applyPatcher.createNewObject`).
async fn create_by_apply(call: &Call<'_>, body: Value, options: &WriteOptions) -> Result<Answer> {
    call.server.authorize_create(call)?;
    let name = call.info.name.as_str();
    let uid = meta::uid(&body);
    if !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(errors::conflict(call.resource.group, call.resource.plural, name, &why));
    }
    create::create_decoded(call, body, options, Stamped::Yes).await
}

/// Brings a produced object to what is stored: admission, metadata, the kind's rules.
fn prepare(
    call: &Call<'_>,
    options: &WriteOptions,
    strategy: Strategy,
    rules: &Rules,
    mut new: Value,
    old: &Value,
) -> Result<(Value, Option<Held>)> {
    let name = call.info.name.as_str();
    let namespace = call.namespace();
    let (group, plural) = (call.resource.group, call.resource.plural);
    let uid = meta::uid(&new);
    if !uid.is_empty() && uid != meta::uid(old) {
        return Err(other_uid(call, uid, meta::uid(old)));
    }
    let within = if plural == "namespaces" && group.is_empty() { name.to_owned() } else { namespace.clone() };
    let request = server::admission_request(call, Operation::Update, name, &within, Some(old), options.dry_run);
    call.warn_all(admission::mutate(&request, &mut new)?);
    create::refuse_escalation(call, &new, Some(old))?;
    check_revision(call, rules, &new, old)?;
    // An unconditional update goes on top of what is there.
    meta::set(&mut new, "resourceVersion", meta::resource_version(old));
    ensure_namespace(&mut new, &namespace)?;
    keep_system_fields(&mut new, old);
    let stamped = new["metadata"].get("managedFields").cloned();
    (strategy.prepare)(rules, &mut new, old);
    if plural == "devicetaintrules" {
        renew_taint(call, &mut new, old);
    }
    // Rules that leave the metadata as it was leave this all the same.
    match stamped {
        Some(stamped) => meta::set(&mut new, "managedFields", stamped),
        None => meta::unset(&mut new, "managedFields"),
    }
    if strategy.counts && rules.generation && counts(&new, old) {
        meta::set(&mut new, "generation", meta::generation(old) + 1);
    }
    let held = if strategy.main {
        Some(call.server.services.allocate(call, &mut new, Some(old), options.dry_run)?)
    } else {
        None
    };
    let mut found = meta::validate_update(&new, old);
    found.extend((strategy.validate)(rules, &new, old));
    refuse_invalid(call, name, &found)?;
    if strategy.counts {
        // A status brings no warnings about the rest.
        call.warn_all((rules.warnings)(&new, Some(old)));
        create::warn_unheeded(call, &new, Some(old));
        create::warn_missing_controller(call);
    }
    call.warn_all(admission::validate(&request, &new)?);
    keep_times(&mut new, old);
    Ok((new, held))
}

/// A taint whose effect changes counts from now, unless the client says otherwise (upstream
/// `deviceTaintRuleStrategy.PrepareForUpdate`).
fn renew_taint(call: &Call<'_>, new: &mut Value, old: &Value) {
    let (now, before) = (&new["spec"]["taint"], &old["spec"]["taint"]);
    if now["effect"] != before["effect"] && now["timeAdded"] == before["timeAdded"] {
        new["spec"]["taint"]["timeAdded"] = crate::world::rfc3339(call.now).into();
    }
}

/// A change of nothing but the times of managed fields is none (apiserver `IgnoreManagedFieldsTimestampsTransformer`).
fn keep_times(new: &mut Value, old: &Value) {
    fn entries(object: &Value) -> &[Value] {
        object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default()
    }
    fn fields<'a>(object: &'a Value, but: &'a str) -> impl Iterator<Item = (&'a String, &'a Value)> {
        object.as_object().into_iter().flatten().filter(move |(name, _)| *name != but)
    }
    let (ours, held) = (entries(new), entries(old));
    let same = ours.len() == held.len()
        && ours != held
        && ours.iter().zip(held).all(|(a, b)| fields(a, "time").eq(fields(b, "time")))
        && fields(&new["metadata"], "managedFields").eq(fields(&old["metadata"], "managedFields"))
        && fields(new, "metadata").eq(fields(old, "metadata"));
    if same {
        meta::set(new, "managedFields", held.to_vec());
    }
}

/// The body names another object of that name, in the words of upstream's storage (`NewInvalidObjError`).
fn other_uid(call: &Call<'_>, wanted: &str, present: &str) -> Refusal {
    let name = &call.info.name;
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {present}",
        call.key(name)
    );
    errors::conflict(call.resource.group, call.resource.plural, name, &why)
}

/// Optimistic locking: the object's `resourceVersion` is the present one, or absent where the kind allows that.
fn check_revision(call: &Call<'_>, rules: &Rules, new: &Value, old: &Value) -> Result<()> {
    let wanted = meta::resource_version(new);
    let name = call.info.name.as_str();
    if wanted.is_empty() || wanted == "0" {
        if rules.unconditional_update {
            return Ok(());
        }
        let path = Path::new("metadata").child("resourceVersion");
        let found = vec![field::invalid(&path, 0, "must be specified for an update")];
        // Upstream's store knows the resource, not the kind.
        return Err(errors::invalid(call.resource.group, call.resource.plural, name, &found));
    }
    if wanted == meta::resource_version(old) {
        return Ok(());
    }
    Err(errors::conflict(call.resource.group, call.resource.plural, name, errors::MODIFIED))
}

/// What no update changes.
fn keep_system_fields(new: &mut Value, old: &Value) {
    for field in ["generation", "uid", "creationTimestamp", "selfLink"] {
        match old["metadata"].get(field) {
            Some(value) => meta::set(new, field, value.clone()),
            None => meta::unset(new, field),
        }
    }
    match old["metadata"].get("deletionTimestamp") {
        Some(value) => meta::set(new, "deletionTimestamp", value.clone()),
        // A client cannot begin a deletion.
        None => meta::unset(new, "deletionTimestamp"),
    }
    if new["metadata"].get("deletionGracePeriodSeconds").is_none()
        && let Some(value) = old["metadata"].get("deletionGracePeriodSeconds")
    {
        meta::set(new, "deletionGracePeriodSeconds", value.clone());
    }
    if meta::name(new).is_empty() {
        meta::set(new, "name", meta::name(old));
    }
}

/// Whether anything but metadata and status differs.
fn counts(new: &Value, old: &Value) -> bool {
    let parts = |tree: &Value| -> Vec<(String, Value)> {
        let fields = tree.as_object().into_iter().flatten();
        fields
            .filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status" | "kind" | "apiVersion"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    parts(new) != parts(old)
}

pub(crate) enum Stored {
    Answer(Answer),
    /// Somebody else was quicker: read again.
    Moved,
}

/// Writes the new object in the old one's place; one that was only waiting for its finalizers goes.
pub(crate) async fn store(
    call: &Call<'_>,
    options: &WriteOptions,
    new: Value,
    old: &Value,
    entry: &Arc<Object>,
) -> Result<Stored> {
    let finished = is_finished(&new, old);
    let to_store = convert::to_stored(call.resource, call.stored()?, new);
    let bytes = stored::encode(&to_store);
    if !finished && bytes == *entry.parts().0 {
        return Ok(Stored::Answer(Answer::Object { code: 200, object: entry.clone() }));
    }
    if options.dry_run {
        let object = ApiServer::written(&entry.namespace, &entry.name, entry.revision, bytes);
        return Ok(Stored::Answer(Answer::Object { code: 200, object }));
    }
    let key = call.key(&entry.name);
    let committed = if finished {
        call.server.remove(&key, entry.revision).await?
    } else {
        call.server.put(&key, entry.revision, bytes.clone()).await?
    };
    Ok(match committed {
        Committed::Done(revision) => {
            let object = ApiServer::written(&entry.namespace, &entry.name, revision, bytes);
            Stored::Answer(Answer::Object { code: 200, object })
        }
        Committed::Moved => Stored::Moved,
    })
}

/// An object under deletion without grace whose last finalizer goes, goes itself (`deleteWithoutFinalizers`).
/// Namespaces have finalizers in their spec as well; those go by `/finalize`.
fn is_finished(new: &Value, old: &Value) -> bool {
    let in_spec = |object: &Value| {
        object["kind"] == "Namespace" && object["spec"]["finalizers"].as_array().is_some_and(|all| !all.is_empty())
    };
    let held = |object: &Value| meta::finalizers(object).next().is_some() || in_spec(object);
    held(old)
        && !held(new)
        && meta::deletion_timestamp(old).is_some()
        && meta::deletion_grace_period_s(new).unwrap_or(0) == 0
}
