//! A ServiceAccount `default` in every namespace (upstream `pkg/controller/serviceaccount/serviceaccounts_controller.go`).

use super::{NAMESPACES, active_namespace, its_namespace, itself};
use api::controller::{Config, Controller, Key, Plan, ResourceName, View};
use api::write::{Target, Verb, Write};
use jiff::Timestamp;
use serde_json::json;

const SERVICE_ACCOUNTS: ResourceName = ResourceName { group: "", version: "v1", plural: "serviceaccounts" };

pub(super) fn controller() -> Controller {
    Controller {
        name: "service-account-controller",
        watches: &[(NAMESPACES, itself), (SERVICE_ACCOUNTS, its_namespace)],
        plan,
    }
}

fn plan(_: &Config, view: &dyn View, key: &Key, _: Timestamp) -> Plan {
    let namespace = &key.name;
    if active_namespace(view, namespace).is_none() || view.get(SERVICE_ACCOUNTS, namespace, "default").is_some() {
        return Plan::default();
    }
    let body =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}});
    let target = Target { version: "v1", plural: "serviceaccounts", namespace: namespace.clone(), ..Target::default() };
    Plan { writes: vec![Write { verb: Verb::Create, target, body: body.to_string().into() }], ..Plan::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, plan_text};
    use expect_test::expect;

    #[test]
    fn only_an_active_namespace_without_it_gets_one() {
        let world = World::new()
            .with(NAMESPACES, r#"{"metadata":{"name":"a"}}"#)
            .with(NAMESPACES, r#"{"metadata":{"name":"b"}}"#)
            .with(NAMESPACES, r#"{"metadata":{"name":"c","deletionTimestamp":"2026-01-01T00:00:00Z"}}"#)
            .with(SERVICE_ACCOUNTS, r#"{"metadata":{"name":"default","namespace":"b"}}"#);
        let all = ["a", "b", "c", "gone"].map(|name| plan_text(&controller(), &world, "", name)).join("");
        expect![[r#"
            Create v1 serviceaccounts a/ {"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default","namespace":"a"}}
        "#]]
        .assert_eq(&all);
    }
}
