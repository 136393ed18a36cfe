//! Nobody grants through RBAC what they do not hold (upstream `pkg/registry/rbac/escalation_check.go`,
//! `component-helpers/auth/rbac/validation`).

pub(crate) use super::rbac::GROUP;
use super::rbac::{aggregate, path_matches, role_rules, strings};
use super::{Attributes, Authorizer, go_quoted};
use crate::authentication::{MASTERS, User};
use crate::lookup::Lookup;
use crate::refusal::Refusal;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use serde_json::Value;
use std::collections::BTreeSet;

/// A create or update of a Role, ClusterRole, RoleBinding or ClusterRoleBinding, as it will be stored.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    pub user: &'a User,
    /// Plural in the group `rbac.authorization.k8s.io`.
    pub resource: &'a str,
    pub namespace: &'a str,
    /// The name in the request's path: empty on create.
    pub path_name: &'a str,
    pub new: &'a Value,
    /// The stored object on update.
    pub old: Option<&'a Value>,
}

/// Refuses rights that the writer has not. Other resources than the four pass.
///
/// # Errors
/// 403 with the missing rules, 404 when a binding names no role.
pub fn check(write: &Write<'_>, authorizer: &Authorizer, lookup: &dyn Lookup) -> Result<(), Refusal> {
    let is_role = matches!(write.resource, "roles" | "clusterroles");
    if !is_role && !matches!(write.resource, "rolebindings" | "clusterrolebindings") {
        return Ok(());
    }
    if write.user.is_in(MASTERS) || write.old.is_some_and(|old| only_collection_fields_differ(old, write.new)) {
        return Ok(());
    }
    if is_role { check_role(write, authorizer, lookup) } else { check_binding(write, authorizer, lookup) }
}

fn check_role(write: &Write<'_>, authorizer: &Authorizer, lookup: &dyn Lookup) -> Result<(), Refusal> {
    let question = Attributes {
        group: GROUP,
        version: "*",
        resource: write.resource,
        namespace: write.namespace,
        name: write.path_name,
        ..Attributes::new(write.user, "escalate")
    };
    if authorizer.authorize(&question, lookup).is_allowed() {
        return Ok(());
    }
    let name = write.new["metadata"]["name"].as_str().unwrap_or_default();
    let refuse = |why: &str| Refusal::forbidden(GROUP, write.resource, name, why);
    confirm(write, &rules_of(write.new), authorizer, lookup).map_err(|why| refuse(&why))?;
    let aggregates =
        |role: &Value| role["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|all| !all.is_empty());
    // Aggregation can gather anything, so it needs everything.
    if aggregates(write.new) || write.old.is_some_and(aggregates) {
        confirm(write, &full_authority(), authorizer, lookup)
            .map_err(|_| refuse("must have cluster-admin privileges to use the aggregationRule"))?;
    }
    Ok(())
}

fn check_binding(write: &Write<'_>, authorizer: &Authorizer, lookup: &dyn Lookup) -> Result<(), Refusal> {
    let Ok(role) = serde_json::from_value::<RoleRef>(write.new["roleRef"].clone()) else {
        return Ok(());
    };
    let plural = match role.kind.as_str() {
        "ClusterRole" => "clusterroles",
        "Role" => "roles",
        _ => "",
    };
    let question = Attributes {
        group: role.api_group.as_deref().unwrap_or_default(),
        version: "*",
        resource: plural,
        namespace: write.namespace,
        name: &role.name,
        ..Attributes::new(write.user, "bind")
    };
    if !plural.is_empty() && authorizer.authorize(&question, lookup).is_allowed() {
        return Ok(());
    }
    // Upstream's words: the binding's resource is told as missing, under the role's name.
    let rules = role_rules(&role, write.namespace, lookup)
        .map_err(|_| Refusal::not_found(GROUP, write.resource, &role.name))?;
    let name = write.new["metadata"]["name"].as_str().unwrap_or_default();
    confirm(write, &rules, authorizer, lookup).map_err(|why| Refusal::forbidden(GROUP, write.resource, name, &why))
}

fn rules_of(role: &Value) -> Vec<PolicyRule> {
    serde_json::from_value(role["rules"].clone()).unwrap_or_default()
}

fn full_authority() -> Vec<PolicyRule> {
    let all = || Some(vec!["*".to_owned()]);
    let verbs = || vec!["*".to_owned()];
    vec![
        PolicyRule { api_groups: all(), resources: all(), verbs: verbs(), ..PolicyRule::default() },
        PolicyRule { non_resource_urls: all(), verbs: verbs(), ..PolicyRule::default() },
    ]
}

/// What the garbage collector needs: owner references and finalizers may be changed by anyone who may update.
fn only_collection_fields_differ(old: &Value, new: &Value) -> bool {
    let stripped = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["ownerReferences", "finalizers", "managedFields"] {
                metadata.remove(field);
            }
        }
        object
    };
    stripped(old) == stripped(new)
}

/// `Err` tells the rules that the user lacks in the namespace of the write.
fn confirm(
    write: &Write<'_>,
    wanted: &[PolicyRule],
    authorizer: &Authorizer,
    lookup: &dyn Lookup,
) -> Result<(), String> {
    let (held, errors) = authorizer.rbac.rules_for(write.user, write.namespace, lookup);
    let missing: Vec<Single<'_>> =
        wanted.iter().flat_map(singles).filter(|one| !held.iter().any(|rule| covers(rule, one))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = write.user.groups.iter().map(|group| go_quoted(group)).collect();
    let mut why = format!(
        "user {} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        go_quoted(&write.user.name),
        groups.join(" "),
        compact(&missing).into_iter().collect::<Vec<_>>().join("\n"),
    );
    if !errors.is_empty() {
        why.push_str(&format!("; resolution errors: [{}]", aggregate(&errors)));
    }
    Err(why)
}

/// A rule with one verb and one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Single<'a> {
    Resource { group: &'a str, resource: &'a str, name: Option<&'a str>, verb: &'a str },
    Path { path: &'a str, verb: &'a str },
}

fn singles(rule: &PolicyRule) -> Vec<Single<'_>> {
    let names: Vec<Option<&str>> = match strings(rule.resource_names.as_ref()) {
        [] => vec![None],
        names => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    let mut all = Vec::new();
    for group in strings(rule.api_groups.as_ref()) {
        for resource in strings(rule.resources.as_ref()) {
            for verb in &rule.verbs {
                all.extend(names.iter().map(|name| Single::Resource { group, resource, name: *name, verb }));
            }
        }
    }
    for path in strings(rule.non_resource_urls.as_ref()) {
        all.extend(rule.verbs.iter().map(|verb| Single::Path { path, verb }));
    }
    all
}

fn covers(held: &PolicyRule, wanted: &Single<'_>) -> bool {
    let has = |list: Option<&Vec<String>>, wanted: &str| strings(list).iter().any(|one| one == "*" || one == wanted);
    let has_verb = |wanted: &str| held.verbs.iter().any(|verb| verb == "*" || verb == wanted);
    match *wanted {
        Single::Path { path, verb } => {
            let urls = strings(held.non_resource_urls.as_ref());
            has_verb(verb)
                && strings(held.resource_names.as_ref()).is_empty()
                && urls.iter().any(|url| path_matches(url, path))
        }
        Single::Resource { group, resource, name, verb } => {
            let names = strings(held.resource_names.as_ref());
            let any = resource.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
            has_verb(verb)
                && has(held.api_groups.as_ref(), group)
                && (has(held.resources.as_ref(), resource) || any.is_some_and(|any| has(held.resources.as_ref(), &any)))
                && (names.is_empty() || name.is_some_and(|name| names.iter().any(|one| one == name)))
        }
    }
}

/// Rules that differ only in the verb stand together, in upstream's notation, sorted.
fn compact(missing: &[Single<'_>]) -> BTreeSet<String> {
    let mut told: Vec<(Single<'_>, Vec<String>)> = Vec::new();
    let mut lines = BTreeSet::new();
    for one in missing {
        match *one {
            Single::Path { path, verb } => {
                lines.insert(format!("{{NonResourceURLs:[{}], Verbs:[{}]}}", go_quoted(path), go_quoted(verb)));
            }
            Single::Resource { group, resource, name, verb } => {
                let key = Single::Resource { group, resource, name, verb: "" };
                match told.iter_mut().find(|(other, _)| *other == key) {
                    Some((_, verbs)) => verbs.push(go_quoted(verb)),
                    None => told.push((key, vec![go_quoted(verb)])),
                }
            }
        }
    }
    for (key, verbs) in told {
        if let Single::Resource { group, resource, name, .. } = key {
            let name = name.map_or_else(String::new, |name| format!(", ResourceNames:[{}]", go_quoted(name)));
            let (group, resource, verbs) = (go_quoted(group), go_quoted(resource), verbs.join(" "));
            lines.insert(format!("{{APIGroups:[{group}], Resources:[{resource}]{name}, Verbs:[{verbs}]}}"));
        }
    }
    lines
}
