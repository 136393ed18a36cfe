//! RBAC: bindings name subjects and a role, roles hold rules; rules only ever add (upstream
//! `plugin/pkg/auth/authorizer/rbac`, `pkg/registry/rbac/validation/rule.go`).
//!
//! Bindings are indexed by subject when one of them changed, so that a request looks only at those of its own user
//! and groups. Roles are read from the watch cache, typed once per revision.

use super::{Attributes, Decision};
use crate::authentication::User;
use crate::lookup::{GroupResource, Lookup};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

pub const GROUP: &str = "rbac.authorization.k8s.io";
const ROLES: GroupResource = GroupResource::new(GROUP, "roles");
const CLUSTER_ROLES: GroupResource = GroupResource::new(GROUP, "clusterroles");
const ROLE_BINDINGS: GroupResource = GroupResource::new(GROUP, "rolebindings");
const CLUSTER_ROLE_BINDINGS: GroupResource = GroupResource::new(GROUP, "clusterrolebindings");

/// The RBAC authorizer with its index of bindings.
#[derive(Default)]
pub struct Rbac {
    index: RwLock<Arc<Index>>,
}

/// One binding, of either kind.
#[derive(Debug)]
struct Binding {
    /// Empty for a ClusterRoleBinding.
    namespace: String,
    name: String,
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// Bindings by what must hold of the user for them to apply. Positions keep the order of names.
#[derive(Debug, Default)]
struct Index {
    /// Revisions of the bindings it was built from.
    built_at: Option<(u64, u64)>,
    cluster: Scope,
    namespaces: BTreeMap<String, Scope>,
}

#[derive(Debug, Default)]
struct Scope {
    bindings: Vec<Binding>,
    by_user: BTreeMap<String, Vec<usize>>,
    by_group: BTreeMap<String, Vec<usize>>,
}

impl Scope {
    fn add(&mut self, binding: Binding) {
        let at = self.bindings.len();
        for subject in &binding.subjects {
            if let Some(user) = user_of(subject, &binding.namespace) {
                self.by_user.entry(user).or_default().push(at);
            } else if subject.kind == "Group" {
                self.by_group.entry(subject.name.clone()).or_default().push(at);
            }
        }
        self.bindings.push(binding);
    }

    /// Bindings that apply to the user, by name.
    fn of(&self, user: &User) -> impl Iterator<Item = &Binding> {
        let mut found: BTreeSet<usize> = self.by_user.get(&user.name).into_iter().flatten().copied().collect();
        for group in &user.groups {
            found.extend(self.by_group.get(group).into_iter().flatten().copied());
        }
        found.into_iter().filter_map(|at| self.bindings.get(at))
    }
}

/// The user name that a `User` or `ServiceAccount` subject means.
fn user_of(subject: &Subject, binding_namespace: &str) -> Option<String> {
    match subject.kind.as_str() {
        "User" => Some(subject.name.clone()),
        "ServiceAccount" => {
            let own = subject.namespace.as_deref().unwrap_or_default();
            let namespace = if own.is_empty() { binding_namespace } else { own };
            (!namespace.is_empty()).then(|| crate::authentication::service_account::user_name(namespace, &subject.name))
        }
        _ => None,
    }
}

/// A rule and the binding through which the user has it.
struct Granted<'a> {
    rule: &'a PolicyRule,
    binding: &'a Binding,
}

impl Rbac {
    pub fn authorize(&self, attributes: &Attributes<'_>, lookup: &dyn Lookup) -> Decision {
        let mut allowed = None;
        let mut errors = Vec::new();
        self.visit(attributes.user, attributes.namespace, lookup, &mut |step| match step {
            Ok(granted) if allows(granted.rule, attributes) => {
                allowed = Some(format!("RBAC: allowed by {}", describe(granted.binding, attributes.user)));
                false
            }
            Ok(_) => true,
            Err(problem) => {
                errors.push(problem);
                true
            }
        });
        match allowed {
            Some(reason) => Decision::Allow(reason),
            None if errors.is_empty() => Decision::NoOpinion(String::new()),
            None => Decision::NoOpinion(format!("RBAC: {}", aggregate(&errors))),
        }
    }

    /// Every rule of a user in a namespace (empty: the cluster), and what could not be resolved.
    pub fn rules_for(&self, user: &User, namespace: &str, lookup: &dyn Lookup) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        self.visit(user, namespace, lookup, &mut |step| {
            match step {
                Ok(granted) => rules.push(granted.rule.clone()),
                Err(problem) => errors.push(problem),
            }
            true
        });
        (rules, errors)
    }

    /// Shows every rule of the user, cluster-wide ones first, until `see` says that it is enough.
    fn visit(
        &self,
        user: &User,
        namespace: &str,
        lookup: &dyn Lookup,
        see: &mut dyn FnMut(Result<Granted<'_>, String>) -> bool,
    ) {
        let index = self.index(lookup);
        let local = if namespace.is_empty() { None } else { index.namespaces.get(namespace) };
        for scope in [Some(&index.cluster), local].into_iter().flatten() {
            for binding in scope.of(user) {
                let go_on = with_rules(&binding.role, &binding.namespace, lookup, &mut |rules| match rules {
                    Ok(rules) => rules.iter().all(|rule| see(Ok(Granted { rule, binding }))),
                    Err(problem) => see(Err(problem)),
                });
                if !go_on {
                    return;
                }
            }
        }
    }

    fn index(&self, lookup: &dyn Lookup) -> Arc<Index> {
        let present = (lookup.last_change(CLUSTER_ROLE_BINDINGS), lookup.last_change(ROLE_BINDINGS));
        let held = self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if held.built_at == Some(present) {
            return held;
        }
        let built = Arc::new(Index { built_at: Some(present), ..build(lookup) });
        *self.index.write().unwrap_or_else(std::sync::PoisonError::into_inner) = built.clone();
        built
    }
}

fn build(lookup: &dyn Lookup) -> Index {
    let mut index = Index::default();
    for object in lookup.list(CLUSTER_ROLE_BINDINGS, "") {
        if let Ok(found) = object.typed::<ClusterRoleBinding>() {
            let (role, subjects) = (found.role_ref.clone(), found.subjects.clone().unwrap_or_default());
            index.cluster.add(Binding { namespace: String::new(), name: object.name.clone(), role, subjects });
        }
    }
    for object in lookup.list(ROLE_BINDINGS, "") {
        if let Ok(found) = object.typed::<RoleBinding>() {
            let (role, subjects) = (found.role_ref.clone(), found.subjects.clone().unwrap_or_default());
            let namespace = object.namespace.clone();
            let scope = index.namespaces.entry(namespace.clone()).or_default();
            scope.add(Binding { namespace, name: object.name.clone(), role, subjects });
        }
    }
    index
}

type SeeRules<'a> = dyn FnMut(Result<&[PolicyRule], String>) -> bool + 'a;

/// Shows the rules of a role, or why there are none.
fn with_rules(role: &RoleRef, namespace: &str, lookup: &dyn Lookup, see: &mut SeeRules<'_>) -> bool {
    let broken = |problem: serde_json::Error| problem.to_string();
    match role.kind.as_str() {
        "Role" => match lookup.get(ROLES, namespace, &role.name) {
            None => see(Err(format!("role.{GROUP} {:?} not found", role.name))),
            Some(object) => match object.typed::<Role>().map_err(broken) {
                Ok(found) => see(Ok(found.rules.as_deref().unwrap_or_default())),
                Err(problem) => see(Err(problem)),
            },
        },
        "ClusterRole" => match lookup.get(CLUSTER_ROLES, "", &role.name) {
            None => see(Err(format!("clusterrole.{GROUP} {:?} not found", role.name))),
            Some(object) => match object.typed::<ClusterRole>().map_err(broken) {
                Ok(found) => see(Ok(found.rules.as_deref().unwrap_or_default())),
                Err(problem) => see(Err(problem)),
            },
        },
        other => see(Err(format!("unsupported role reference kind: {other:?}"))),
    }
}

/// The rules of the role that a binding in `namespace` refers to.
///
/// # Errors
/// When there is no such role.
pub fn role_rules(role: &RoleRef, namespace: &str, lookup: &dyn Lookup) -> Result<Vec<PolicyRule>, String> {
    let mut answer = Err(String::new());
    with_rules(role, namespace, lookup, &mut |rules| {
        answer = rules.map(<[PolicyRule]>::to_vec);
        true
    });
    answer
}

/// Several errors as Go's `utilerrors.Aggregate` prints them: once each.
pub fn aggregate(errors: &[String]) -> String {
    let mut told: Vec<&str> = Vec::new();
    for error in errors {
        if !told.contains(&error.as_str()) {
            told.push(error);
        }
    }
    match told.as_slice() {
        [one] => (*one).to_owned(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// `RoleBinding "b/ns" of Role "r" to User "alice"`.
fn describe(binding: &Binding, user: &User) -> String {
    let (kind, name) = if binding.namespace.is_empty() {
        ("ClusterRoleBinding", binding.name.clone())
    } else {
        ("RoleBinding", format!("{}/{}", binding.name, binding.namespace))
    };
    let subject = binding.subjects.iter().find(|subject| applies(subject, &binding.namespace, user));
    let subject = subject.map_or_else(String::new, |subject| {
        if subject.kind == "ServiceAccount" {
            let own = subject.namespace.as_deref().unwrap_or_default();
            let namespace = if own.is_empty() { &binding.namespace } else { own };
            format!("ServiceAccount \"{}/{namespace}\"", subject.name)
        } else {
            format!("{} {:?}", subject.kind, subject.name)
        }
    });
    format!("{kind} {name:?} of {} {:?} to {subject}", binding.role.kind, binding.role.name)
}

fn applies(subject: &Subject, namespace: &str, user: &User) -> bool {
    if subject.kind == "Group" {
        return user.is_in(&subject.name);
    }
    user_of(subject, namespace).is_some_and(|name| name == user.name)
}

/// Whether one rule allows the request.
pub fn allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    let verb = rule.verbs.iter().any(|verb| verb == "*" || verb == attributes.verb);
    if !attributes.path.is_empty() {
        return verb && strings(rule.non_resource_urls.as_ref()).iter().any(|url| path_matches(url, attributes.path));
    }
    let names = strings(rule.resource_names.as_ref());
    verb && strings(rule.api_groups.as_ref()).iter().any(|group| group == "*" || group == attributes.group)
        && strings(rule.resources.as_ref()).iter().any(|resource| resource_matches(resource, attributes))
        && (names.is_empty() || names.iter().any(|name| name == attributes.name))
}

pub(super) fn strings(list: Option<&Vec<String>>) -> &[String] {
    list.map_or(&[], Vec::as_slice)
}

pub(super) fn path_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || (rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*')))
}

fn resource_matches(rule: &str, attributes: &Attributes<'_>) -> bool {
    if rule == "*" {
        return true;
    }
    let (resource, subresource) = rule.split_once('/').unwrap_or((rule, ""));
    if attributes.subresource.is_empty() {
        return rule == attributes.resource;
    }
    subresource == attributes.subresource && (resource == "*" || resource == attributes.resource)
}
