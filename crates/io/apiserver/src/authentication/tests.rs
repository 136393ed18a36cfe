//! Certificates, tokens, impersonation.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::authorization::{Attributes, Authorizer};
use crate::lookup::fake::Cluster;
use crate::pki::{Pki, ServerNames};
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn later(seconds: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() + seconds).unwrap()
}

struct Setup {
    _dir: tempfile::TempDir,
    pki: Pki,
    authenticator: Authenticator,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(&dir.path().join("pki"), now()).unwrap();
    let authenticator = Authenticator { certificates: pki.client_authority().unwrap(), tokens: pki.tokens().unwrap() };
    Setup { _dir: dir, pki, authenticator }
}

fn cluster() -> Cluster {
    let meta = |name: &str, uid: &str| json!({"name": name, "namespace": "ns", "uid": uid});
    Cluster::default()
        .with("", "serviceaccounts", &json!({"metadata": meta("default", "sa-1")}))
        .with("", "nodes", &json!({"metadata": {"name": "node", "uid": "node-1"}}))
        .with(
            "",
            "pods",
            &json!({
                "metadata": meta("pod", "pod-1"),
                "spec": {"nodeName": "node", "serviceAccountName": "default", "containers": []},
            }),
        )
}

fn issue(setup: &Setup, cluster: &Cluster, spec: &Value) -> Result<Value, crate::refusal::Refusal> {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": spec});
    token_request::create("ns", "default", &body, &setup.authenticator.tokens, cluster, now(), "id-1".to_owned())
}

fn token(setup: &Setup, spec: &Value) -> String {
    issue(setup, &cluster(), spec).unwrap()["status"]["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_client_certificate_names_user_and_groups() {
    let Setup { pki, authenticator, .. } = &setup();
    let leaf = pki.client("system:node:n", &["system:nodes"], now()).unwrap();
    let user = authenticator.authenticate(&[leaf.certificate], None, &cluster(), now()).unwrap();
    assert_eq!(user.name, "system:node:n");
    assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
}

#[test]
fn foreign_expired_and_server_certificates_are_refused() {
    let (ours, other) = (setup(), setup());
    let refused = |leaf: crate::pki::Leaf, at| {
        ours.authenticator.authenticate(&[leaf.certificate], None, &cluster(), at).is_err()
    };
    assert!(refused(other.pki.client("admin", &[MASTERS], now()).unwrap(), now()));
    assert!(refused(ours.pki.client("admin", &[MASTERS], now()).unwrap(), later(400 * 24 * 3600)));
    assert!(refused(ours.pki.server("admin", &ServerNames::default(), now()).unwrap(), now()));
}

#[test]
fn the_authority_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::open(dir.path(), now()).unwrap();
    let leaf = first.client("admin", &[MASTERS], now()).unwrap();
    let second = Pki::open(dir.path(), later(60)).unwrap();
    assert_eq!(first.authority_pem(), second.authority_pem());
    let user = second.client_authority().unwrap().user(&[leaf.certificate], now()).unwrap().unwrap();
    assert!(user.is_in(MASTERS));
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!([mode("ca.key"), mode("ca.crt"), mode("sa.key")], [0o600; 3]);
    std::fs::remove_file(dir.path().join("ca.key")).unwrap();
    assert!(matches!(Pki::open(dir.path(), now()), Err(crate::pki::PkiError::HalfThere { .. })));
}

#[test]
fn nobody_is_anonymous() {
    let setup = setup();
    for header in [None, Some("Bearer "), Some("Basic YTpi"), Some("")] {
        let user = setup.authenticator.authenticate(&[], header, &cluster(), now()).unwrap();
        assert_eq!(user, User::anonymous(), "{header:?}");
    }
    assert!(setup.authenticator.authenticate(&[], Some("Bearer x"), &cluster(), now()).is_err());
}

#[test]
fn a_token_names_its_account_and_what_it_is_bound_to() {
    let setup = setup();
    let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": "pod", "uid": "pod-1"});
    let token = token(&setup, &json!({"boundObjectRef": reference}));
    let header = format!("bearer {token}");
    let user = setup.authenticator.authenticate(&[], Some(&header), &cluster(), now()).unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:ns:default", "sa-1"));
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
    let extra: Vec<_> = user.extra.iter().map(|(key, value)| format!("{key}={}", value.join(","))).collect();
    expect_test::expect![[r#"
        authentication.kubernetes.io/credential-id=JTI=id-1
        authentication.kubernetes.io/node-name=node
        authentication.kubernetes.io/node-uid=node-1
        authentication.kubernetes.io/pod-name=pod
        authentication.kubernetes.io/pod-uid=pod-1"#]]
    .assert_eq(&extra.join("\n"));
    let dead = [
        cluster().without("", "pods", "ns", "pod"),
        cluster().without("", "serviceaccounts", "ns", "default"),
        cluster().with("", "serviceaccounts", &json!({"metadata": {"name": "default", "namespace": "ns", "uid": "2"}})),
    ];
    for cluster in dead {
        assert!(setup.authenticator.authenticate(&[], Some(&header), &cluster, now()).is_err());
    }
    assert!(setup.authenticator.authenticate(&[], Some(&header), &cluster(), later(3600 + 61)).is_err());
    assert!(self::setup().authenticator.authenticate(&[], Some(&header), &cluster(), now()).is_err());
}

/// Upstream's words (golden group authn).
#[test]
fn a_review_tells_why() {
    let setup = setup();
    let vault = token(&setup, &json!({"audiences": ["vault"]}));
    let review = |token: &str, audiences: &[&str]| {
        let body = json!({"spec": {"token": token, "audiences": audiences}});
        reviews::token_review(&body, &setup.authenticator.tokens, &cluster(), now())
            .map(|answer| answer["status"].clone())
    };
    assert_eq!(review("nonsense", &[]).unwrap(), json!({"user": {}, "error": "invalid bearer token"}));
    let wrong = r#"[invalid bearer token, token audiences ["vault"] is invalid for the target audiences ["other"]]"#;
    assert_eq!(review(&vault, &["other"]).unwrap(), json!({"user": {}, "error": wrong}));
    assert_eq!(review(&vault, &["other", "vault"]).unwrap()["audiences"], json!(["vault"]));
    assert_eq!(review("", &[]).unwrap_err().message, "token is required for TokenReview in authentication");
}

#[test]
fn token_requests_are_checked() {
    let setup = setup();
    let message = |spec: Value| issue(&setup, &cluster(), &spec).unwrap_err().message;
    let texts = [
        message(json!({"expirationSeconds": 60})),
        message(json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "nope"}})),
        message(json!({"boundObjectRef": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}})),
        message(json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "pod", "uid": "other"}})),
    ];
    expect_test::expect![[r#"
        TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes
        pods "nope" not found
        cannot bind token to object of type /v1, Kind=ConfigMap
        Operation cannot be fulfilled on Pod "pod": the UID in the bound object reference (other) does not match the UID in record. The object might have been deleted and then recreated"#]]
    .assert_eq(&texts.join("\n"));
}

#[test]
fn bootstrap_tokens_come_from_secrets() {
    let setup = setup();
    let data = |key: &str, value: &str| {
        (key.to_owned(), Value::from(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, value)))
    };
    let secret = |usage: &str| {
        let data: serde_json::Map<String, Value> = [
            data("token-id", "abcdef"),
            data("token-secret", "0123456789abcdef"),
            data("usage-bootstrap-authentication", usage),
            data("auth-extra-groups", "system:bootstrappers:x"),
        ]
        .into_iter()
        .collect();
        let metadata = json!({"name": "bootstrap-token-abcdef", "namespace": "kube-system"});
        cluster().with(
            "",
            "secrets",
            &json!({"metadata": metadata, "type": "bootstrap.kubernetes.io/token", "data": data}),
        )
    };
    let ask = |token: &str, cluster: &Cluster| {
        setup
            .authenticator
            .authenticate(&[], Some(&format!("Bearer {token}")), cluster, now())
            .map(|user| (user.name, user.groups))
    };
    let (name, groups) = ask("abcdef.0123456789abcdef", &secret("true")).unwrap();
    assert_eq!(name, "system:bootstrap:abcdef");
    assert_eq!(groups, ["system:bootstrappers", "system:bootstrappers:x", "system:authenticated"]);
    assert!(ask("abcdef.0123456789abcdee", &secret("true")).is_err());
    assert!(ask("abcdef.0123456789abcdef", &secret("false")).is_err());
}

#[test]
fn impersonation_is_asked_for_by_mode() {
    let master = User { groups: vec![MASTERS.to_owned()], ..User::default() };
    let plain = User { name: "eve".to_owned(), ..User::default() };
    let (authorizer, cluster) = (Authorizer::default(), cluster());
    let ask = |by: &User, headers: &[(&str, &str)]| {
        let wanted = impersonation::wanted(headers.iter().copied())?.unwrap();
        let question = Attributes { resource: "pods", ..Attributes::new(by, "list") };
        impersonation::impersonate(&wanted, &question, &authorizer, &cluster)
    };
    let user = ask(&master, &[("impersonate-user", "system:serviceaccount:kube-system:default")]).unwrap();
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]);
    let headers = [("impersonate-user", "bob"), ("impersonate-group", "g"), ("impersonate-extra-dotted%2fkey", "v")];
    let user = ask(&master, &headers).unwrap();
    assert_eq!(
        (user.groups, user.extra),
        (vec!["g".to_owned(), AUTHENTICATED.to_owned()], [("dotted/key".to_owned(), vec!["v".to_owned()])].into())
    );
    let texts = [
        ask(&plain, &[("impersonate-user", "alice")]).unwrap_err().message,
        ask(&master, &[("impersonate-group", "g")]).unwrap_err().message,
    ];
    expect_test::expect![[r#"
        pods is forbidden: User "eve" cannot impersonate-on:user-info:list resource "pods" in API group "" at the cluster scope
        requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}, Extra:map[string][]string(nil)} without impersonating a user name"#]]
    .assert_eq(&texts.join("\n"));
}
