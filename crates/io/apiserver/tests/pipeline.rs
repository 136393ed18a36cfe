//! The pipeline below HTTP: one server over an in-memory disk, asked as clients ask it.
#![allow(clippy::unwrap_used)]

use api::write::{Target, Verb, Write};
use apiserver::authentication::{Authenticator, MASTERS, User};
use apiserver::authorization::Authorizer;
use apiserver::body::Body;
use apiserver::doors::ObjectEvent;
use apiserver::missing_controllers;
use apiserver::pki::Pki;
use apiserver::server::{ApiServer, Config};
use apiserver::world::System;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use store::clock::SystemClock;
use store::disk::faulty::SimDisk;
use store::embedded::Embedded;
use store::kv::StoreError;
use tokio::task::JoinSet;

struct Cluster {
    server: Arc<ApiServer>,
    admin: User,
    /// Ends with the cluster.
    _tasks: JoinSet<Result<(), StoreError>>,
}

/// Must be called within a tokio runtime; the feed and the writer end with it.
async fn cluster(controllers: Vec<&'static str>) -> Cluster {
    let clock = SystemClock::new();
    let (kv, writer) = Embedded::open(SimDisk::new(), clock.now()).unwrap();
    std::thread::spawn(move || writer.run(move || clock.now()));
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), jiff::Timestamp::now()).unwrap();
    let server = ApiServer::start(Config {
        kv: Arc::new(kv),
        authenticator: Authenticator { certificates: pki.client_authority().unwrap(), tokens: pki.tokens().unwrap() },
        authorizer: Authorizer::default(),
        world: Arc::new(System),
        kubelet_client: None,
        advertised_address: "10.0.0.1:6443".to_owned(),
        service_cidrs: vec!["10.96.0.0/28".to_owned()],
        controllers,
    })
    .await
    .unwrap();
    let feed = server.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { feed.run(std::future::pending()).await });
    Cluster { server, admin: User::component("admin", &[MASTERS]), _tasks: tasks }
}

impl Cluster {
    async fn raw(&self, user: &User, method: &str, uri: &str, body: &Value) -> Response<Body> {
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", content_type)
            .header("user-agent", "test/1");
        self.server.handle(user, request.body(bytes).unwrap()).await
    }

    async fn ask(&self, method: &str, uri: &str, body: Value) -> (u16, Value) {
        let response = self.raw(&self.admin, method, uri, &body).await;
        let code = response.status().as_u16();
        (code, serde_json::from_slice(&response.into_body().collect().await.unwrap()).unwrap_or_default())
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"l": "1"}}, "data": {"k": "1"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_live_and_die() {
    let c = cluster(missing_controllers::all()).await;
    let (code, made) = c.ask("POST", MAPS, map("a")).await;
    assert_eq!((code, &made["kind"], &made["metadata"]["namespace"]), (201, &json!("ConfigMap"), &json!("default")));
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "test");
    let (code, again) = c.ask("POST", MAPS, map("a")).await;
    assert_eq!((code, again["message"].as_str().unwrap()), (409, "configmaps \"a\" already exists"));

    let (_, read) = c.ask("GET", &format!("{MAPS}/a"), Value::Null).await;
    assert_eq!(read, made);
    // Nothing changed: no new revision.
    let (_, same) = c.ask("PUT", &format!("{MAPS}/a"), made.clone()).await;
    assert_eq!(same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let (code, patched) = c.ask("PATCH", &format!("{MAPS}/a"), json!({"data": {"k": "2"}})).await;
    assert_eq!((code, &patched["data"]["k"]), (200, &json!("2")));
    // The first revision is no longer the present one.
    let (code, refused) = c.ask("PUT", &format!("{MAPS}/a"), made.clone()).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")));

    let (_, dry) = c.ask("POST", &format!("{MAPS}?dryRun=All"), map("dry")).await;
    assert!(dry["metadata"].get("resourceVersion").is_none());
    assert_eq!(c.ask("GET", &format!("{MAPS}/dry"), Value::Null).await.0, 404);

    let (_, held) = c.ask("PATCH", &format!("{MAPS}/a"), json!({"metadata": {"finalizers": ["example.com/x"]}})).await;
    assert!(held["metadata"].get("deletionTimestamp").is_none());
    let (code, waiting) = c.ask("DELETE", &format!("{MAPS}/a"), Value::Null).await;
    assert_eq!((code, &waiting["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(0)));
    c.ask("PATCH", &format!("{MAPS}/a"), json!({"metadata": {"finalizers": null}})).await;
    let (code, gone) = c.ask("GET", &format!("{MAPS}/a"), Value::Null).await;
    assert_eq!((code, gone["message"].as_str().unwrap()), (404, "configmaps \"a\" not found"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_go_on_where_they_were() {
    let c = cluster(missing_controllers::all()).await;
    for name in ["a", "b", "c", "d", "e"] {
        c.ask("POST", MAPS, map(name)).await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, first) = c.ask("GET", &format!("{MAPS}?limit=2"), Value::Null).await;
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["a".to_owned(), "b".to_owned()], &json!(3))
    );
    assert!(first["items"][0].get("kind").is_none(), "items of a list carry no kind");
    // What happens meanwhile is not seen by the pages that follow.
    c.ask("DELETE", &format!("{MAPS}/c"), Value::Null).await;
    c.ask("POST", MAPS, map("bb")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = c.ask("GET", &format!("{MAPS}?limit=9&continue={token}"), Value::Null).await;
    assert_eq!(names(&rest), ["c", "d", "e"]);
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let (_, now) = c.ask("GET", &format!("{MAPS}?labelSelector=l=1"), Value::Null).await;
    assert_eq!(names(&now), ["a", "b", "bb", "d", "e"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_see_every_change_once_and_in_order() {
    let c = cluster(missing_controllers::all()).await;
    c.ask("POST", MAPS, map("old")).await;
    let target = Target { version: "v1", plural: "configmaps", namespace: "default".into(), ..Target::default() };
    let (objects, revision) = c.server.list_objects(&c.admin, &target, "l=1", "").await.unwrap();
    assert_eq!(objects.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["old"]);
    let mut watch = c.server.watch_objects(&c.admin, &target, "l=1", "", revision).await.unwrap();
    let named = Target { name: "new".into(), ..target.clone() };
    let write =
        |verb, target: &Target, body: Value| Write { verb, target: target.clone(), body: body.to_string().into() };
    c.server.write_object(&c.admin, &write(Verb::Create, &target, map("new"))).await.unwrap();
    c.server.write_object(&c.admin, &write(Verb::MergePatch, &named, json!({"data": {"k": "2"}}))).await.unwrap();
    // An object that leaves the selection is gone for those who watch it.
    c.server
        .write_object(&c.admin, &write(Verb::MergePatch, &named, json!({"metadata": {"labels": {"l": "2"}}})))
        .await
        .unwrap();
    c.server
        .write_object(&c.admin, &write(Verb::MergePatch, &named, json!({"metadata": {"labels": {"l": "1"}}})))
        .await
        .unwrap();
    c.server.write_object(&c.admin, &write(Verb::Delete, &named, json!({}))).await.unwrap();
    let mut seen = Vec::new();
    let mut last = revision;
    while seen.len() < 5 {
        let (word, object) = match watch.next().await.unwrap().unwrap() {
            ObjectEvent::Added(object) => ("added", object),
            ObjectEvent::Modified(object) => ("modified", object),
            ObjectEvent::Deleted(object) => ("deleted", object),
            ObjectEvent::Bookmark(_) => continue,
        };
        assert!(object.revision > last);
        last = object.revision;
        seen.push(word);
    }
    assert_eq!(seen, ["added", "modified", "deleted", "added", "deleted"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_missing_controllers_named() {
    let c = cluster(vec!["job"]).await;
    let stranger = User::component("eve", &[]);
    let refused = c.raw(&stranger, "GET", MAPS, &Value::Null).await;
    assert_eq!(refused.status().as_u16(), 403);
    let status: Value = serde_json::from_slice(&refused.into_body().collect().await.unwrap()).unwrap();
    let want = "configmaps is forbidden: User \"eve\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\"";
    assert_eq!(status["message"], want);
    let target = Target { version: "v1", plural: "configmaps", namespace: "default".into(), ..Target::default() };
    assert_eq!(c.server.list_objects(&stranger, &target, "", "").await.unwrap_err().code, 403);

    let class =
        json!({"metadata": {"name": "x"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    let response = c.raw(&c.admin, "POST", "/apis/policy/v1/namespaces/default/poddisruptionbudgets", &class).await;
    assert_eq!(response.status().as_u16(), 201);
    let warning = response.headers()["warning"].to_str().unwrap();
    assert!(warning.contains("it has no disruption controller"), "{warning}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_addresses_are_given_once() {
    let c = cluster(missing_controllers::all()).await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    let mut given = std::collections::BTreeSet::new();
    // Fourteen addresses, the first of which is the Service `kubernetes`.
    for number in 0..13 {
        let (code, made) = c.ask("POST", services, service(&format!("s{number}"))).await;
        assert_eq!(code, 201, "{made}");
        assert!(given.insert(made["spec"]["clusterIP"].as_str().unwrap().to_owned()));
    }
    assert_eq!(c.ask("POST", services, service("full")).await.0, 422);
    c.ask("DELETE", &format!("{services}/s3"), Value::Null).await;
    assert_eq!(c.ask("POST", services, service("again")).await.0, 201);
}
