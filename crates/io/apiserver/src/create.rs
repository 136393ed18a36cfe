//! `create`: decode, fill in, admit, validate, store (apiserver `registry/rest/create.go`).

use crate::admission::{self, Operation};
use crate::authorization::escalation;
use crate::call::{Answer, Call};
use crate::commit::Committed;
use crate::decode_body::{self, Expected};
use crate::errors::{self, Result};
use crate::query::WriteOptions;
use crate::refusal::Refusal;
use crate::server::{self, ApiServer};
use crate::{convert, managed_fields, stored, world};
use api::meta;
use schema::field::ErrorList;
use serde_json::Value;
use std::time::Duration;

/// Names drawn from `generateName` before giving up (upstream `RetryGenerateName`).
const NAME_ATTEMPTS: usize = 8;
/// How long a create waits for what a controller is about to make (upstream's service account admission asks ten times).
const AWAITED_AT_MOST: Duration = Duration::from_secs(1);
/// Room that `generateName` leaves for the suffix (upstream `names/generate.go`).
const GENERATED_BASE_MAX: usize = 58;

pub(crate) async fn create(call: &Call<'_>) -> Result<Answer> {
    let options = WriteOptions::parse(call.query, "CreateOptions", false)?;
    let body = decode_body::body(call, expected(call), options.field_validation)?;
    create_decoded(call, body, &options, Stamped::No).await
}

/// Whether an object that is to be created has its managed fields already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamped {
    Yes,
    No,
}

/// The kind that the call's resource speaks.
pub(crate) fn expected(call: &Call<'_>) -> Expected<'static> {
    let r = call.resource;
    Expected { group: r.group, version: r.version, kind: r.kind, of: r.of }
}

/// Creates an object that has been decoded and defaulted, in the request's version.
pub(crate) async fn create_decoded(
    call: &Call<'_>,
    body: Value,
    options: &WriteOptions,
    stamped: Stamped,
) -> Result<Answer> {
    let generated = meta::name(&body).is_empty() && !meta::generate_name(&body).is_empty();
    let attempts = if generated { NAME_ATTEMPTS } else { 1 };
    let mut refusal = None;
    for _ in 0..attempts {
        match attempt(call, &body, options, stamped).await {
            Err(taken) if taken.reason == "AlreadyExists" => refusal = Some(taken),
            other => return other,
        }
    }
    Err(refusal.unwrap_or_else(errors::no_such_resource))
}

async fn attempt(call: &Call<'_>, body: &Value, options: &WriteOptions, stamped: Stamped) -> Result<Answer> {
    let mut object = body.clone();
    let namespace = call.namespace();
    ensure_namespace(&mut object, &namespace)?;
    fill(call, &mut object);
    let kind_rules = api::kinds::rules(call.resource.group, call.resource.kind);
    let generated = generate_name(call, &mut object);
    if generated {
        // Some defaults follow the name (a namespace's label).
        (kind_rules.default)(&mut object);
    }
    let name = meta::name(&object).to_owned();
    // A new namespace is in itself, for admission.
    let within = if call.resource.plural == "namespaces" && call.resource.group.is_empty() {
        name.clone()
    } else {
        namespace.clone()
    };
    let request = server::admission_request(call, Operation::Create, &name, &within, None, options.dry_run);
    if stamped == Stamped::No {
        managed_fields::created(call, &mut object, options);
    }
    if let Some((resource, namespace, name)) = admission::waits_for(&request, &object) {
        call.server.caches.wait_for_object(resource, &namespace, name, AWAITED_AT_MOST).await;
    }
    call.warn_all(admission::mutate(&request, &mut object)?);
    refuse_escalation(call, &object, None)?;
    call.warn_all((kind_rules.prepare_warnings)(&object));
    // Held until the write is done.
    let _held = call.server.services.allocate(call, &mut object, None, options.dry_run)?;
    (kind_rules.prepare_create)(&mut object);
    if kind_rules.generation {
        meta::set(&mut object, "generation", 1);
    }
    let mut found = meta::validate_create(&object, call.resource.namespaced, kind_rules.validate_name);
    found.extend((kind_rules.validate)(&object));
    refuse_invalid(call, &name, &found)?;
    call.warn_all((kind_rules.warnings)(&object, None));
    call.warn_all(admission::validate(&request, &object)?);
    warn_missing_controller(call);
    warn_unheeded(call, body, None);
    if options.dry_run {
        // Only storing would look at it.
        if !meta::resource_version(body).is_empty() {
            meta::set(&mut object, "resourceVersion", meta::resource_version(body));
        }
        return dry(call, object, &name, generated).await;
    }
    let to_store = convert::to_stored(call.resource, call.stored()?, object);
    let bytes = stored::encode(&to_store);
    let key = call.key(&name);
    match call.server.put(&key, 0, bytes.clone()).await? {
        Committed::Done(revision) => {
            Ok(Answer::Object { code: 201, object: ApiServer::written(&namespace, &name, revision, bytes) })
        }
        Committed::Moved => Err(taken(call, &name, generated)),
    }
}

async fn dry(call: &Call<'_>, object: Value, name: &str, generated: bool) -> Result<Answer> {
    if call.server.current(call, name).await?.is_some() {
        return Err(taken(call, name, generated));
    }
    Ok(Answer::Tree { code: 201, tree: object })
}

fn taken(call: &Call<'_>, name: &str, generated: bool) -> Refusal {
    let (group, resource) = (call.resource.group, call.resource.plural);
    if generated {
        errors::generated_name_taken(group, resource, name)
    } else {
        errors::already_exists(group, resource, name)
    }
}

/// The object's namespace is the request's; another one is refused (apiserver
/// `EnsureObjectNamespaceMatchesRequestNamespace`).
pub(crate) fn ensure_namespace(object: &mut Value, namespace: &str) -> Result<()> {
    let own = meta::namespace(object);
    if own == namespace {
        return Ok(());
    }
    if namespace.is_empty() {
        meta::unset(object, "namespace");
    } else if own.is_empty() {
        meta::set(object, "namespace", namespace);
    } else {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// System fields of a new object.
fn fill(call: &Call<'_>, object: &mut Value) {
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        meta::unset(object, field);
    }
    meta::set(object, "uid", world::uid(&*call.server.world));
    meta::set(object, "creationTimestamp", world::rfc3339(call.now));
    if call.resource.plural == "certificatesigningrequests" {
        tell_requestor(call, object);
    }
}

/// Who asks for a certificate is told by the server (upstream `registry/certificates/certificates`).
fn tell_requestor(call: &Call<'_>, request: &mut Value) {
    let Some(spec) = request.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in ["username", "uid", "groups", "extra"] {
        spec.remove(field);
    }
    let user = call.user;
    spec.insert("username".to_owned(), user.name.as_str().into());
    if !user.uid.is_empty() {
        spec.insert("uid".to_owned(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        spec.insert("groups".to_owned(), user.groups.clone().into());
    }
    if !user.extra.is_empty() {
        spec.insert("extra".to_owned(), serde_json::json!(user.extra));
    }
}

fn generate_name(call: &Call<'_>, object: &mut Value) -> bool {
    let base = meta::generate_name(object);
    if base.is_empty() || !meta::name(object).is_empty() {
        return false;
    }
    let kept: String = base.chars().take(GENERATED_BASE_MAX).collect();
    let name = format!("{kept}{}", world::name_suffix(call.server.world.random()));
    meta::set(object, "name", name);
    true
}

/// Nobody grants through RBAC what they do not hold. `new` is as admission left it.
pub(crate) fn refuse_escalation(call: &Call<'_>, new: &Value, old: Option<&Value>) -> Result<()> {
    if call.resource.group != escalation::GROUP {
        return Ok(());
    }
    let namespace = call.namespace();
    let write = escalation::Write {
        user: call.user,
        resource: call.resource.plural,
        namespace: &namespace,
        path_name: &call.info.name,
        new,
        old,
    };
    escalation::check(&write, &call.server.authorizer, &call.server.caches)
}

pub(crate) fn refuse_invalid(call: &Call<'_>, name: &str, found: &ErrorList) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    Err(errors::invalid(call.kind_group(), call.resource.kind, name, found))
}

/// Fields of the request that nobody acts upon are told; on an update those that are new or others.
pub(crate) fn warn_unheeded(call: &Call<'_>, new: &Value, old: Option<&Value>) {
    if !call.resource.group.is_empty() {
        return;
    }
    let tell = |of: &str| {
        for field in api::marks::unheeded(of, new, old) {
            call.warn(format!("{}: stored, but minke does not act on it yet: {}", field.path, field.why));
        }
    };
    tell(call.resource.kind);
    if let Some(subresource) = call.subresource {
        tell(&format!("{}/{}", call.resource.kind, subresource.name));
    }
}

/// A write that nobody will act upon says so.
pub(crate) fn warn_missing_controller(call: &Call<'_>) {
    let (group, plural) = (call.resource.group, call.resource.plural);
    if let Some(controller) = crate::missing_controllers::needed(group, plural)
        && !call.server.has_controller(controller)
    {
        call.warn(format!(
            "minke stores {} but does not act on them yet: it has no {controller} controller",
            call.resource.qualified()
        ));
    }
}
