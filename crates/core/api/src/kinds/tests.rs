//! Objects of the simple kinds through defaulting and validation, in upstream's words (golden groups create, invalid).
#![allow(clippy::unwrap_used)]

use super::rules;
use crate::table::{table, type_of};
use schema::decode::{Decoded, apply_defaults, normalize};
use serde_json::{Value, json};

/// The object as a create makes it, before validation.
fn made(group: &str, kind: &str, object: Value) -> Value {
    let version = "v1";
    let of = type_of(group, version, kind).unwrap();
    let decoded = Decoded { value: object, strict: Vec::new() };
    let mut object = normalize(table(), of, decoded).unwrap().value;
    object["apiVersion"] = if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
    object["kind"] = kind.into();
    apply_defaults(table(), of, &mut object);
    let rules = rules(group, kind);
    (rules.default)(&mut object);
    (rules.prepare_create)(&mut object);
    object
}

fn errors(group: &str, kind: &str, object: Value) -> String {
    let found = (rules(group, kind).validate)(&made(group, kind, object));
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn update_errors(group: &str, kind: &str, old: Value, change: impl FnOnce(&mut Value)) -> String {
    let old = made(group, kind, old);
    let mut new = old.clone();
    change(&mut new);
    let rules = rules(group, kind);
    (rules.prepare_update)(&mut new, &old);
    let found = (rules.validate_update)(&new, &old);
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_service_is_defaulted() {
    let service = made("", "Service", json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}));
    expect_test::expect![[r#"{"allocateLoadBalancerNodePorts":true,"externalTrafficPolicy":"Cluster","internalTrafficPolicy":"Cluster","ports":[{"port":80,"protocol":"TCP","targetPort":80}],"sessionAffinity":"None","type":"LoadBalancer"}"#]]
    .assert_eq(&service["spec"].to_string());
}

#[test]
fn services_are_validated() {
    let lines = [
        errors("", "Service", json!({"spec": {}})),
        errors("", "Service", json!({"spec": {"ports": [{"port": 80}, {"port": 80}]}})),
        errors("", "Service", json!({"spec": {"type": "Some", "ports": [{"port": 0, "targetPort": "Bad_Name"}]}})),
        errors("", "Service", json!({"spec": {"type": "ExternalName", "externalName": "1..2"}})),
    ];
    expect_test::expect![[r#"
        spec.ports: Required value
        spec.ports[0].name: Required value
        spec.ports[1].name: Required value
        spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}
        spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
        spec.ports[0].targetPort: Invalid value: "Bad_Name": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
        spec.type: Unsupported value: "Some": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"
        spec.externalName: Invalid value: "1..2": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn a_service_keeps_what_was_allocated() {
    let old =
        json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080}]}});
    let old = made("", "Service", old);
    let mut new = made("", "Service", json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}}));
    (rules("", "Service").prepare_update)(&mut new, &old);
    assert_eq!(new["spec"], old["spec"]);
    let mut plain = old.clone();
    plain["spec"]["type"] = "ClusterIP".into();
    (rules("", "Service").prepare_update)(&mut plain, &old);
    assert!(plain["spec"]["ports"][0]["nodePort"].is_null() && plain["spec"]["externalTrafficPolicy"].is_null());
}

#[test]
fn what_is_immutable_stays() {
    let map = json!({"immutable": true, "data": {"a": "1"}});
    let binding = json!({"roleRef": {"kind": "Role", "name": "r"}});
    let lines = [
        update_errors("", "ConfigMap", map, |map| map["data"]["a"] = "2".into()),
        update_errors("", "Secret", json!({}), |secret| secret["type"] = "other".into()),
        update_errors("scheduling.k8s.io", "PriorityClass", json!({"value": 1}), |class| class["value"] = 2.into()),
        update_errors("rbac.authorization.k8s.io", "RoleBinding", binding, |binding| {
            binding["roleRef"]["name"] = "s".into();
        }),
        update_errors("", "Node", json!({"spec": {"podCIDR": "10.0.0.0/24"}}), |node| {
            node["spec"]["podCIDRs"][0] = "10.0.1.0/24".into();
        }),
    ];
    expect_test::expect![[r#"
        data: Forbidden: field is immutable when `immutable` is set
        type: Invalid value: "other": field is immutable
        value: Forbidden: may not be changed in an update.
        roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"s"}: field is immutable
        spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn declarative_rules_come_last() {
    let group = "rbac.authorization.k8s.io";
    let lines = [
        errors(group, "ClusterRole", json!({"rules": [{}]})),
        errors(group, "RoleBinding", json!({"roleRef": {"kind": "Thing"}, "subjects": [{}]})),
    ];
    expect_test::expect![[r#"
        rules[0].apiGroups: Required value: resource rules must supply at least one api group
        rules[0].resources: Required value: resource rules must supply at least one resource
        rules[0].verbs: Required value
        roleRef.kind: Unsupported value: "Thing": supported values: "Role", "ClusterRole"
        subjects[0].kind: Unsupported value: "": supported values: "ServiceAccount", "User", "Group"
        subjects[0].name: Required value
        roleRef.name: Required value"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn secrets_know_their_types() {
    let of = |kind: &str, data: Value| {
        errors("", "Secret", json!({"type": format!("kubernetes.io/{kind}"), "stringData": data}))
    };
    let lines = [
        of("tls", json!({"tls.crt": "x"})),
        of("basic-auth", json!({})),
        of("dockerconfigjson", json!({".dockerconfigjson": "{"})),
        of("dockerconfigjson", json!({".dockerconfigjson": "x"})),
        of("service-account-token", json!({})),
    ];
    expect_test::expect![[r#"
        data[tls.key]: Required value
        data[username]: Required value
        data[password]: Required value
        data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": unexpected end of JSON input
        data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": invalid character 'x' looking for beginning of value
        metadata.annotations[kubernetes.io/service-account.name]: Required value"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn every_row_has_its_columns() {
    for resource in crate::table::resources() {
        let rules = rules(resource.group, resource.kind);
        let object = made_or_empty(resource.group, resource.version, resource.kind);
        let cells = (rules.row)(&object, "2026-01-01T00:00:00Z".parse().unwrap());
        // Upstream's IPAddress rows have a cell more than columns.
        let extra = usize::from(resource.kind == "IPAddress");
        assert_eq!(cells.len(), rules.columns.len() + extra, "{}", resource.qualified());
    }
}

fn made_or_empty(group: &str, version: &str, kind: &str) -> Value {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}});
    (rules(group, kind).default)(&mut object);
    object
}

/// Kinds with `/status` take it there and nowhere else.
#[test]
fn the_main_door_sets_no_status() {
    let mut open = Vec::new();
    for resource in crate::table::resources() {
        // A kubelet registers its Node with the status; a Service's update looks at more than this object has.
        let apart = resource.group.is_empty() && matches!(resource.kind, "Node" | "Service");
        if apart || !resource.stored || !resource.subresources.iter().any(|one| one.name == "status") {
            continue;
        }
        let rules = rules(resource.group, resource.kind);
        let object = |mark: &str| {
            json!({
                "apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {"name": "x"}, "spec": {},
                "status": {"mark": mark},
            })
        };
        let mut created = object("new");
        (rules.prepare_create)(&mut created);
        let mut updated = object("new");
        (rules.prepare_update)(&mut updated, &object("old"));
        if created["status"]["mark"] == "new" || updated["status"]["mark"] != "old" {
            open.push(resource.qualified());
        }
        let mut status = object("new");
        status["spec"] = json!({"mark": true});
        (rules.prepare_status_update)(&mut status, &object("old"));
        if status["spec"] != json!({}) || status["status"]["mark"] != "new" {
            open.push(format!("{}/status", resource.qualified()));
        }
    }
    assert_eq!(open, Vec::<String>::new());
}
