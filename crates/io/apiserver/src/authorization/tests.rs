//! RBAC, escalation and the Node authorizer, in upstream's words (golden groups authz, escalation, sar).
#![allow(clippy::unwrap_used)]

use super::*;
use crate::bootstrap::{self, Endpoint};
use crate::lookup::fake::Cluster;
use serde_json::{Value, json};
use std::net::IpAddr;

const GROUP: &str = "rbac.authorization.k8s.io";

fn cluster() -> Cluster {
    let endpoint =
        Endpoint { service_ip: IpAddr::from([10, 96, 0, 1]), address: IpAddr::from([10, 0, 0, 1]), port: 6443 };
    let objects = bootstrap::objects(&endpoint);
    objects.iter().fold(Cluster::default(), |cluster, one| cluster.with(one.group, one.plural, &one.object))
}

fn user(name: &str, groups: &[&str]) -> User {
    User { name: name.to_owned(), groups: groups.iter().map(|group| (*group).to_owned()).collect(), ..User::default() }
}

fn with_role(cluster: Cluster, rules: Value) -> Cluster {
    let meta = |name: &str| json!({"name": name, "namespace": "ns"});
    let binding = json!({
        "metadata": meta("b"),
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "alice"}, {"kind": "ServiceAccount", "name": "default"}],
    });
    cluster.with(GROUP, "roles", &json!({"metadata": meta("r"), "rules": rules})).with(GROUP, "rolebindings", &binding)
}

#[test]
fn rbac_allows_by_binding_and_says_which() {
    let rules = json!([
        {"apiGroups": [""], "resources": ["configmaps", "*/scale"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"], "verbs": ["*"]},
    ]);
    let (cluster, authorizer) = (with_role(cluster(), rules), Authorizer::default());
    let ask = |name: &str, verb: &str, resource: &str, of: &str, namespace: &str| {
        let user = user(name, &["system:authenticated"]);
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let question = Attributes { resource, subresource, namespace, name: of, ..Attributes::new(&user, verb) };
        match authorizer.authorize(&question, &cluster) {
            Decision::Allow(reason) => format!("yes: {reason}"),
            Decision::NoOpinion(reason) => format!("no: {reason}"),
            Decision::Deny(reason) => format!("never: {reason}"),
        }
    };
    let lines = [
        ask("alice", "get", "configmaps", "", "ns"),
        ask("alice", "get", "configmaps", "", "other"),
        ask("alice", "list", "configmaps", "", "ns"),
        ask("alice", "get", "deployments/scale", "", "ns"),
        ask("alice", "get", "configmaps/status", "", "ns"),
        ask("alice", "delete", "secrets", "one", "ns"),
        ask("alice", "delete", "secrets", "two", "ns"),
        ask("system:serviceaccount:ns:default", "get", "configmaps", "", "ns"),
    ];
    expect_test::expect![[r#"
        yes: RBAC: allowed by RoleBinding "b/ns" of Role "r" to User "alice"
        no: 
        no: 
        yes: RBAC: allowed by RoleBinding "b/ns" of Role "r" to User "alice"
        no: 
        yes: RBAC: allowed by RoleBinding "b/ns" of Role "r" to User "alice"
        no: 
        yes: RBAC: allowed by RoleBinding "b/ns" of Role "r" to ServiceAccount "default/ns""#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn the_index_follows_changes() {
    let authorizer = Authorizer::default();
    let alice = user("alice", &[]);
    let question = Attributes { resource: "pods", namespace: "ns", ..Attributes::new(&alice, "get") };
    let empty = cluster();
    assert!(!authorizer.authorize(&question, &empty).is_allowed());
    let granted = with_role(empty, json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]));
    assert!(authorizer.authorize(&question, &granted).is_allowed());
    let revoked = granted.without(GROUP, "rolebindings", "ns", "b");
    assert!(!authorizer.authorize(&question, &revoked).is_allowed());
}

#[test]
fn paths_and_masters() {
    let (cluster, authorizer) = (cluster(), Authorizer::default());
    let ask = |user: &User, path: &str| {
        authorizer
            .check(&Attributes { path, ..Attributes::new(user, "get") }, &cluster)
            .map_err(|refusal| refusal.message)
    };
    let (anonymous, anyone) = (User::anonymous(), user("alice", &["system:authenticated"]));
    assert_eq!(ask(&anonymous, "/healthz"), Ok(()));
    assert_eq!(ask(&anyone, "/openapi/v3/apis/apps/v1"), Ok(()));
    assert_eq!(ask(&user("root", &[MASTERS]), "/metrics"), Ok(()));
    assert_eq!(ask(&anonymous, "/apis").unwrap_err(), r#"forbidden: User "system:anonymous" cannot get path "/apis""#);
}

#[test]
fn nodes_read_what_their_pods_need() {
    let pod = json!({
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": {
            "nodeName": "n",
            "serviceAccountName": "default",
            "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "env"}}]}],
            "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "map"}}]}}],
        },
    });
    let (cluster, authorizer) = (cluster().with("", "pods", &pod), Authorizer::default());
    let node = user("system:node:n", &["system:nodes"]);
    let ask = |verb: &str, resource: &str, name: &str| {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let question = Attributes { resource, subresource, namespace: "ns", name, ..Attributes::new(&node, verb) };
        authorizer.check(&question, &cluster).map_or_else(|refusal| refusal.message, |()| "yes".to_owned())
    };
    let lines = [
        ask("get", "secrets", "env"),
        ask("get", "configmaps", "map"),
        ask("create", "serviceaccounts/token", "default"),
        ask("get", "secrets", "other"),
        ask("list", "secrets", ""),
        ask("list", "pods", ""),
    ];
    expect_test::expect![[r#"
        yes
        yes
        yes
        secrets "other" is forbidden: User "system:node:n" cannot get resource "secrets" in API group "" in the namespace "ns": node: no relationship found between node 'n' and this object
        secrets is forbidden: User "system:node:n" cannot list resource "secrets" in API group "" in the namespace "ns": node: No Object name found
        pods is forbidden: User "system:node:n" cannot list resource "pods" in API group "" in the namespace "ns": node: can only list/watch pods with spec.nodeName field selector"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn nobody_grants_more_than_they_have() {
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let (cluster, authorizer) = (with_role(cluster(), rules), Authorizer::default());
    let alice = user("alice", &["system:authenticated"]);
    let write = |resource: &str, new: &Value| {
        let write = escalation::Write { user: &alice, resource, namespace: "ns", path_name: "", new, old: None };
        escalation::check(&write, &authorizer, &cluster).map_or_else(|refusal| refusal.message, |()| "yes".to_owned())
    };
    let role = |rules: Value| json!({"metadata": {"name": "n"}, "rules": rules});
    let binding = |kind: &str, name: &str| json!({"metadata": {"name": "n"}, "roleRef": {"apiGroup": GROUP, "kind": kind, "name": name}});
    let lines = [
        write("roles", &role(json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]))),
        write("roles", &role(json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "delete", "list"]}]))),
        write("rolebindings", &binding("ClusterRole", "cluster-admin")),
        write("rolebindings", &binding("Role", "nope")),
        write("rolebindings", &binding("Role", "r")),
    ];
    expect_test::expect![[r#"
        yes
        roles.rbac.authorization.k8s.io "n" is forbidden: user "alice" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:
        {APIGroups:[""], Resources:["pods"], Verbs:["delete" "list"]}
        rolebindings.rbac.authorization.k8s.io "n" is forbidden: user "alice" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:
        {APIGroups:["*"], Resources:["*"], Verbs:["*"]}
        {NonResourceURLs:["*"], Verbs:["*"]}
        rolebindings.rbac.authorization.k8s.io "nope" not found
        yes"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn what_stands_in_a_role_already_is_judged_again() {
    let (rules, all) = (json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]), json!(["*"]));
    let (cluster, authorizer) = (with_role(cluster(), rules), Authorizer::default());
    let wide = json!({
        "metadata": {"name": "n", "labels": {"a": "b"}, "ownerReferences": [{"name": "o"}], "finalizers": ["x/y"]},
        "rules": [{"apiGroups": all, "resources": all, "verbs": all}],
    });
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut new = wide.clone();
        change(&mut new);
        new
    };
    let groups = [&["system:authenticated"][..], &["system:authenticated", "system:masters"][..]];
    let mut told = Vec::new();
    for groups in groups {
        let alice = user("alice", groups);
        let allowed = |resource, new: &Value| {
            let write =
                escalation::Write { user: &alice, resource, namespace: "ns", path_name: "n", new, old: Some(&wide) };
            escalation::check(&write, &authorizer, &cluster).is_ok()
        };
        told.push((
            allowed("roles", &changed(&|new| new["metadata"]["finalizers"] = json!([]))),
            allowed("roles", &changed(&|new| new["metadata"]["labels"] = json!({}))),
            allowed("roles", &changed(&|new| new["rules"] = json!([]))),
            allowed("configmaps", &changed(&|new| new["metadata"]["labels"] = json!({}))),
        ));
    }
    assert_eq!(told, [(true, false, true, true), (true, true, true, true)]);
    // Who aggregates may gather anything.
    let alice = user("alice", &[]);
    let new = json!({"metadata": {"name": "n"}, "aggregationRule": {"clusterRoleSelectors": [{}]}});
    let write = escalation::Write {
        user: &alice,
        resource: "clusterroles",
        namespace: "",
        path_name: "",
        new: &new,
        old: None,
    };
    let refusal = escalation::check(&write, &authorizer, &cluster).unwrap_err();
    assert!(refusal.message.ends_with("must have cluster-admin privileges to use the aggregationRule"), "{refusal:?}");
}

#[test]
fn reviews_are_validated() {
    let (cluster, authorizer) = (cluster(), Authorizer::default());
    let ask = |kind: &str, spec: Value| {
        reviews::access_review(
            kind,
            "",
            &json!({"metadata": {}, "spec": spec}),
            &user("me", &[]),
            &authorizer,
            &cluster,
        )
        .map_or_else(|refusal| refusal.message, |answer| answer["status"].to_string())
    };
    let lines = [
        ask("SelfSubjectAccessReview", json!({})),
        ask(
            "SubjectAccessReview",
            json!({"user": "a", "resourceAttributes": {}, "nonResourceAttributes": {"path": "/"}}),
        ),
        ask("SubjectAccessReview", json!({"resourceAttributes": {"verb": "get"}})),
        ask("SubjectAccessReview", json!({"user": "a", "groups": [MASTERS], "resourceAttributes": {"verb": "*"}})),
    ];
    expect_test::expect![[r#"
        .authorization.k8s.io "" is invalid: spec: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified
        .authorization.k8s.io "" is invalid: spec: Invalid value: {"Path":"/","Verb":""}: exactly one of nonResourceAttributes or resourceAttributes must be specified
        .authorization.k8s.io "" is invalid: spec.user: Invalid value: "": at least one of user or group must be specified
        {"allowed":true}"#]]
    .assert_eq(&lines.join("\n"));
}
