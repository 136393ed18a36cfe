//! The cluster's CA as ConfigMap `kube-root-ca.crt` in every namespace (upstream
//! `pkg/controller/certificates/rootcacertpublisher/publisher.go`).

use super::{NAMESPACES, active_namespace, its_namespace, itself};
use api::controller::{Config, Controller, Key, Plan, ResourceName, View};
use api::write::{Target, Verb, Write};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

const CONFIG_MAPS: ResourceName = ResourceName { group: "", version: "v1", plural: "configmaps" };
const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub(super) fn controller() -> Controller {
    Controller { name: "root-ca-cert-publisher", watches: &[(NAMESPACES, itself), (CONFIG_MAPS, its_namespace)], plan }
}

fn plan(config: &Config, view: &dyn View, key: &Key, _: Timestamp) -> Plan {
    let namespace = &key.name;
    if active_namespace(view, namespace).is_none() {
        return Plan::default();
    }
    let metadata =
        json!({"name": NAME, "namespace": namespace, "annotations": {"kubernetes.io/description": DESCRIPTION}});
    let data = json!({"ca.crt": config.root_ca});
    let target = Target { version: "v1", plural: "configmaps", namespace: namespace.clone(), ..Target::default() };
    let write = match view.get(CONFIG_MAPS, namespace, NAME).and_then(|object| object.typed::<ConfigMap>().ok()) {
        None => {
            let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
            Write { verb: Verb::Create, target, body: body.to_string().into() }
        }
        Some(map)
            if map.data.as_ref().is_some_and(|data| data.len() == 1 && data.get("ca.crt") == Some(&config.root_ca)) =>
        {
            return Plan::default();
        }
        Some(_) => {
            let patch = json!([{"op": "add", "path": "/data", "value": data}]);
            let target = Target { name: NAME.to_owned(), ..target };
            Write { verb: Verb::JsonPatch, target, body: patch.to_string().into() }
        }
    };
    Plan { writes: vec![write], ..Plan::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, plan_text};
    use expect_test::expect;

    #[test]
    fn created_repaired_and_left_alone() {
        let mut world = World::new().with(NAMESPACES, r#"{"metadata":{"name":"a"}}"#);
        for name in ["right", "wrong"] {
            world = world.with(NAMESPACES, &format!(r#"{{"metadata":{{"name":"{name}"}}}}"#));
            let ca = if name == "right" { "PEM" } else { "other" };
            let map = format!(r#"{{"metadata":{{"name":"{NAME}","namespace":"{name}"}},"data":{{"ca.crt":"{ca}"}}}}"#);
            world = world.with(CONFIG_MAPS, &map);
        }
        let all = ["right", "wrong"].map(|name| plan_text(&controller(), &world, "", name)).join("");
        expect![[r#"
            JsonPatch v1 configmaps wrong/kube-root-ca.crt [{"op":"add","path":"/data","value":{"ca.crt":"PEM"}}]
        "#]]
        .assert_eq(&all);
        assert!(plan_text(&controller(), &world, "", "a").starts_with("Create v1 configmaps a/ "));
    }
}
