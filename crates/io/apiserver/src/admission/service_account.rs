//! ServiceAccount: a Pod runs as an account of its namespace and finds that account's token mounted.

use super::namespace_lifecycle;
use super::pod::{self, CONTAINER_LISTS, items, push, text};
use super::{Operation, Request};
use crate::lookup::{GroupResource, Lookup};
use crate::refusal::Refusal;
use crate::world::name_suffix;
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::{Value, json};
use std::sync::Arc;

const ACCOUNTS: GroupResource = GroupResource::new("", "serviceaccounts");
const TOKEN_VOLUME: &str = "kube-api-access-";
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Upstream's `WarnOnlyBoundTokenExpirationSeconds`.
const TOKEN_LIFETIME_S: i64 = 3607;

/// An account that a controller is about to make (`default` of a young namespace) and this Pod needs: resource,
/// namespace and name. Upstream asks again for a second; here the caller waits for the watch cache to show it.
pub fn waits_for(request: &Request<'_>, new: &Value) -> Option<(GroupResource, String, &'static str)> {
    let name = text(&new["spec"], "serviceAccountName");
    let wanted = request.is("", "pods") && request.operation == Operation::Create && matches!(name, "" | "default");
    // A namespace that takes no Pods gets no account either.
    let refused = namespace_lifecycle::check(request, new).is_err();
    if !wanted || refused || pod::is_mirror(new) || find(request.lookup, request.namespace, "default").is_some() {
        return None;
    }
    Some((ACCOUNTS, request.namespace.to_owned(), "default"))
}

fn find(lookup: &dyn Lookup, namespace: &str, name: &str) -> Option<Arc<ServiceAccount>> {
    lookup.get(ACCOUNTS, namespace, name)?.typed().ok()
}

fn account(request: &Request<'_>, pod: &Value) -> Result<Arc<ServiceAccount>, Refusal> {
    let (namespace, name) = (request.namespace, text(&pod["spec"], "serviceAccountName"));
    if name.is_empty() {
        let why = format!("no service account specified for pod {namespace}/{}", text(&pod["metadata"], "name"));
        return Err(request.forbidden(pod, &why));
    }
    find(request.lookup, namespace, name).ok_or_else(|| {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
        request.forbidden(pod, &why)
    })
}

pub(super) fn mutate(request: &Request<'_>, pod: &mut Value) -> Result<(), Refusal> {
    if !request.is("", "pods") || request.operation != Operation::Create {
        return Ok(());
    }
    // A kubelet compares a mirror Pod with its manifest: nothing may be added.
    if pod::is_mirror(pod) {
        return check_mirror(request, pod);
    }
    if text(&pod["spec"], "serviceAccountName").is_empty() {
        pod["spec"]["serviceAccountName"] = "default".into();
        pod["spec"]["serviceAccount"] = "default".into();
    }
    let account = account(request, pod)?;
    let automount = pod["spec"]["automountServiceAccountToken"].as_bool();
    if automount.or(account.automount_service_account_token).unwrap_or(true) {
        mount_token(&mut pod["spec"], request.random);
    }
    let given = items(&pod["spec"], "imagePullSecrets").next().is_some();
    let own = account.image_pull_secrets.as_deref().unwrap_or_default();
    if !given && !own.is_empty() {
        pod["spec"]["imagePullSecrets"] = own.iter().map(|secret| json!({"name": secret.name})).collect();
    }
    Ok(())
}

/// Mounts the token where no container mounts something else there. A volume whose name says that it is the token's
/// (of a Pod copied from another) serves again.
fn mount_token(spec: &mut Value, random: u64) {
    let existing = items(spec, "volumes").map(|volume| text(volume, "name")).find(|n| n.starts_with(TOKEN_VOLUME));
    let has_volume = existing.is_some();
    let name = existing.map_or_else(|| format!("{TOKEN_VOLUME}{}", name_suffix(random)), str::to_owned);
    let mut needed = false;
    for list in CONTAINER_LISTS {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if items(container, "volumeMounts").any(|mount| text(mount, "mountPath") == TOKEN_PATH) {
                continue;
            }
            let mount = json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH});
            push(container, "volumeMounts", mount);
            needed = true;
        }
    }
    if needed && !has_volume {
        let sources = json!([
            {"serviceAccountToken": {"expirationSeconds": TOKEN_LIFETIME_S, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
            ]}},
        ]);
        push(spec, "volumes", json!({"name": name, "projected": {"sources": sources, "defaultMode": 0o644}}));
    }
}

pub(super) fn validate(request: &Request<'_>, pod: &Value) -> Result<(), Refusal> {
    if !request.group.is_empty() || request.resource != "pods" {
        return Ok(());
    }
    match (request.operation, request.subresource) {
        (Operation::Create, "") if pod::is_mirror(pod) => check_mirror(request, pod),
        (Operation::Create, "") => {
            let account = account(request, pod)?;
            if !enforces_secrets(&account) {
                return Ok(());
            }
            check_secrets(&account, pod).map_err(|why| request.forbidden(pod, &why))
        }
        (Operation::Update, "ephemeralcontainers") => {
            let account = account(request, pod)?;
            if !enforces_secrets(&account) {
                return Ok(());
            }
            let containers = items(&pod["spec"], "ephemeralContainers").map(|c| ("ephemeral container", c));
            check_environment(&account, containers).map_err(|why| request.forbidden(pod, &why))
        }
        _ => Ok(()),
    }
}

fn check_mirror(request: &Request<'_>, pod: &Value) -> Result<(), Refusal> {
    let spec = &pod["spec"];
    let refuse = |what: &str| Err(request.forbidden(pod, &format!("a mirror pod may not {what}")));
    if !text(spec, "serviceAccountName").is_empty() {
        return refuse("reference service accounts");
    }
    if super::node_restriction::refers_to_secrets(spec) {
        return refuse("reference secrets");
    }
    let projected = items(spec, "volumes").flat_map(|volume| items(&volume["projected"], "sources"));
    if projected.into_iter().any(|source| source.get("serviceAccountToken").is_some()) {
        return refuse("use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// The old annotation that lets an account's Pods use only the Secrets it names.
fn enforces_secrets(account: &ServiceAccount) -> bool {
    const ANNOTATION: &str = "kubernetes.io/enforce-mountable-secrets";
    let value = account.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION));
    value.is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

fn check_secrets(account: &ServiceAccount, pod: &Value) -> Result<(), String> {
    let spec = &pod["spec"];
    let owner = account.metadata.name.as_deref().unwrap_or_default();
    for volume in items(spec, "volumes").filter(|volume| volume["secret"].is_object()) {
        let secret = text(&volume["secret"], "secretName");
        if !names(account, secret) {
            return Err(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {owner} does not reference that secret"
            ));
        }
    }
    let containers = items(spec, "initContainers").map(|c| ("init container", c));
    check_environment(account, containers.chain(items(spec, "containers").map(|c| ("container", c))))?;
    let pulls = account.image_pull_secrets.as_deref().unwrap_or_default();
    for (at, secret) in items(spec, "imagePullSecrets").enumerate() {
        let secret = text(secret, "name");
        if !pulls.iter().any(|own| own.name == secret) {
            return Err(format!(
                "imagePullSecrets[{at}].name=\"{secret}\" is not allowed because service account {owner} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

fn names(account: &ServiceAccount, secret: &str) -> bool {
    account.secrets.iter().flatten().any(|own| own.name.as_deref() == Some(secret))
}

fn check_environment<'a>(
    account: &ServiceAccount,
    containers: impl Iterator<Item = (&'static str, &'a Value)>,
) -> Result<(), String> {
    let owner = account.metadata.name.as_deref().unwrap_or_default();
    for (kind, container) in containers {
        let name = text(container, "name");
        let variables = items(container, "env").filter_map(|variable| {
            let secret = variable["valueFrom"].get("secretKeyRef")?;
            Some((format!("envVar {}", text(variable, "name")), text(secret, "name")))
        });
        let sources = items(container, "envFrom")
            .filter_map(|source| Some(("envFrom".to_owned(), text(source.get("secretRef")?, "name"))));
        for (what, secret) in variables.chain(sources) {
            if !names(account, secret) {
                return Err(format!(
                    "{kind} {name} with {what} referencing secret.secretName=\"{secret}\" is not allowed because service account {owner} does not reference that secret"
                ));
            }
        }
    }
    Ok(())
}
