//! Updates and applies on a small table; what upstream's own tests of `structured-merge-diff` and golden group `apply` show.

use super::*;
use crate::table::{Field, ListKind, Patch, Presence, Shape, Table, Type, TypeId};
use expect_test::{Expect, expect};
use serde_json::{Value, json};

const fn field(name: &'static str, shape: Shape, list: ListKind) -> Field {
    let (presence, patch) = (Presence::OmitEmpty, Patch::NONE);
    Field { name, go: "", shape, presence, default: None, list, patch, number: 0, within: &[] }
}

const fn plain(name: &'static str, shape: Shape) -> Field {
    field(name, shape, ListKind::Plain)
}

static TABLE: Table = Table {
    types: &[
        Type {
            name: "small/v1.Thing",
            atomic: false,
            fields: &[
                plain("kind", Shape::String),
                plain("apiVersion", Shape::String),
                plain("metadata", Shape::Struct(TypeId(1))),
                plain("spec", Shape::Struct(TypeId(2))),
                plain("status", Shape::Map(&Shape::String)),
            ],
        },
        Type {
            name: "meta/v1.ObjectMeta",
            atomic: false,
            fields: &[
                plain("name", Shape::String),
                plain("uid", Shape::String),
                plain("annotations", Shape::Map(&Shape::String)),
                field("finalizers", Shape::List(&Shape::String), ListKind::Set),
                plain("managedFields", Shape::Any),
            ],
        },
        Type {
            name: "small/v1.ThingSpec",
            atomic: false,
            fields: &[
                plain("replicas", Shape::Int32),
                plain("data", Shape::Map(&Shape::String)),
                field("ports", Shape::List(&Shape::Struct(TypeId(3))), ListKind::Map(&["port", "protocol"])),
                field("tolerations", Shape::List(&Shape::String), ListKind::Atomic),
            ],
        },
        Type {
            name: "small/v1.Port",
            atomic: false,
            fields: &[
                plain("port", Shape::Int32),
                Field { default: Some("\"TCP\""), ..plain("protocol", Shape::String) },
                plain("name", Shape::String),
            ],
        },
    ],
};

/// A thing of a spec, with an uid as what is stored has it.
fn thing(spec: Value) -> Value {
    json!({"kind": "Thing", "apiVersion": "v1", "metadata": {"name": "x", "uid": "u"}, "spec": spec})
}

fn configuration(spec: Value) -> Value {
    json!({"kind": "Thing", "apiVersion": "v1", "metadata": {"name": "x"}, "spec": spec})
}

fn as_writer<T>(manager: &str, now: &str, act: impl FnOnce(&Writer<'_>) -> T) -> T {
    act(&Writer {
        table: &TABLE,
        of: TypeId(0),
        api_version: "v1",
        subresource: "",
        manager,
        now,
        filter: Some(Filter::Without(&[&["f:status"]])),
        in_version: &|object, version| {
            let mut object = object.clone();
            for always in ["metadata", "spec"] {
                if object[always].is_null() {
                    object[always] = json!({});
                }
            }
            (version == "v1").then_some(Version { of: TypeId(0), object })
        },
    })
}

/// The object after an apply, or why it was refused.
fn applied(manager: &str, now: &str, live: &Value, spec: Value, force: bool) -> Result<Value, ApplyError> {
    as_writer(manager, now, |writer| apply(writer, live, &configuration(spec), force)).map(|applied| applied.object)
}

fn updated(manager: &str, now: &str, live: &Value, spec: Value) -> Value {
    let mut new = thing(spec);
    new["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
    as_writer(manager, now, |writer| update(writer, live, &mut new));
    new
}

/// The spec, and a line for each entry.
fn shown(object: &Value) -> String {
    let mut text = format!("{}\n", object["spec"]);
    for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let word = |name: &str| entry[name].as_str().unwrap_or("-").to_owned();
        text += &format!("{} {} {} {}\n", word("manager"), word("operation"), word("time"), entry["fieldsV1"]);
    }
    text
}

fn check(result: Result<Value, ApplyError>, expected: Expect) {
    expected.assert_eq(&result.map_or_else(|error| format!("{error}\n"), |object| shown(&object)));
}

/// What `alpha` applied first.
fn alphas() -> Value {
    let spec = json!({"replicas": 1, "data": {"a": "1", "b": "2"}, "ports": [{"port": 80, "name": "http"}]});
    applied("alpha", "t1", &thing(json!({})), spec, false).unwrap_or_default()
}

#[test]
fn who_applies_owns_and_drops_what_is_left_out() {
    check(
        Ok(alphas()),
        expect![[r#"
            {"data":{"a":"1","b":"2"},"ports":[{"name":"http","port":80}],"replicas":1}
            alpha Apply t1 {"f:spec":{"f:data":{"f:a":{},"f:b":{}},"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{}}},"f:replicas":{}}}
        "#]],
    );
    check(
        applied("alpha", "t2", &alphas(), json!({"replicas": 1, "data": {"b": "3"}}), false),
        expect![[r#"
            {"data":{"b":"3"},"replicas":1}
            alpha Apply t2 {"f:spec":{"f:data":{"f:b":{}},"f:replicas":{}}}
        "#]],
    );
    // What another owns as well stays.
    let both = applied("beta", "t2", &alphas(), json!({"data": {"a": "1"}}), false).unwrap_or_default();
    check(
        applied("alpha", "t3", &both, json!({"replicas": 1}), false),
        expect![[r#"
            {"data":{"a":"1"},"replicas":1}
            beta Apply - {"f:spec":{"f:data":{"f:a":{}}}}
            alpha Apply t3 {"f:spec":{"f:replicas":{}}}
        "#]],
    );
}

#[test]
fn conflicts_name_the_owner_and_force_takes() {
    let others = json!({"replicas": 2, "data": {"a": "5"}});
    check(
        applied("beta", "t2", &alphas(), others.clone(), false),
        expect![[r#"
            Apply failed with 2 conflicts: conflicts with "alpha":
            - .spec.replicas
            - .spec.data.a
        "#]],
    );
    check(
        applied("beta", "t2", &alphas(), others, true),
        expect![[r#"
            {"data":{"a":"5","b":"2"},"ports":[{"name":"http","port":80}],"replicas":2}
            alpha Apply t1 {"f:spec":{"f:data":{"f:b":{}},"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{}}}}}
            beta Apply t2 {"f:spec":{"f:data":{"f:a":{}},"f:replicas":{}}}
        "#]],
    );
    let by_update = updated("kubectl", "t2", &alphas(), json!({"replicas": 4}));
    check(
        applied("alpha", "t3", &by_update, json!({"replicas": 1}), false),
        expect![[r#"
            Apply failed with 1 conflict: conflict with "kubectl" using v1: .spec.replicas
        "#]],
    );
}

#[test]
fn what_does_not_fit_its_type_is_told() {
    for (spec, why) in [
        (json!({"bogus": 1}), ".spec.bogus: field not declared in schema"),
        (json!({"replicas": "x"}), ".spec.replicas: expected numeric (int or float), got string"),
        (json!({"data": ["a"]}), ".spec.data: expected map, got &{[a]}"),
        (json!({"data": {"a": 1}}), ".spec.data.a: expected string, got &value.valueUnstructured{Value:1}"),
        (
            json!({"ports": [{"port": 1}, {"port": 1}]}),
            ".spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]",
        ),
        (json!({"ports": [null]}), ".spec.ports: element 0: associative list with keys may not have a null element"),
    ] {
        assert_eq!(applied("a", "t", &thing(json!({})), spec, false), Err(ApplyError::Untyped(why.to_owned())));
    }
}

#[test]
fn an_update_takes_what_it_changes_and_leaves_the_rest() {
    let live = alphas();
    let spec = json!({"replicas": 3, "data": {"a": "1", "b": "2"}, "ports": [{"port": 81, "protocol": "TCP"}]});
    check(
        Ok(updated("upd", "t2", &live, spec.clone())),
        expect![[r#"
            {"data":{"a":"1","b":"2"},"ports":[{"port":81,"protocol":"TCP"}],"replicas":3}
            alpha Apply t1 {"f:spec":{"f:data":{"f:a":{},"f:b":{}}}}
            upd Update t2 {"f:spec":{"f:ports":{"k:{\"port\":81,\"protocol\":\"TCP\"}":{".":{},"f:port":{},"f:protocol":{}}},"f:replicas":{}}}
        "#]],
    );
    // Nothing changed: entries and times are as they were.
    let once = updated("upd", "t2", &live, spec.clone());
    assert_eq!(updated("upd", "t3", &once, spec), once);
}

#[test]
fn what_the_kind_resets_is_nobodys() {
    let (mut live, mut new) = (thing(json!({})), thing(json!({"replicas": 1})));
    live["metadata"]["uid"] = "".into();
    new["status"] = json!({"a": "b"});
    as_writer("m", "t", |writer| update(writer, &live, &mut new));
    assert_eq!(new["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn entries_are_reset_kept_or_refused() {
    let live = alphas();
    let entries = |sent: Value| {
        let mut new = thing(json!({"replicas": 1}));
        new["metadata"]["managedFields"] = sent;
        as_writer("m", "t", |writer| update(writer, &live, &mut new));
        new["metadata"].get("managedFields").map_or(0, |entries| entries.as_array().map_or(0, Vec::len))
    };
    // Who tracks nothing any more does not begin again by an update.
    assert_eq!(entries(json!([{}])), 0);
    assert_eq!(entries(json!([])), 0);
    // Malformed ones are as none: those of the live object stay.
    assert_eq!(entries(json!([{"operation": "Steal"}])), 1);
    assert_eq!(entries(json!(null)), 1);
}

#[test]
fn the_oldest_of_too_many_updates_are_merged() {
    let mut object = thing(json!({}));
    object["metadata"]["uid"] = "".into();
    for number in 0..12 {
        let mut new = object.clone();
        new["spec"]["data"][format!("k{number:02}")] = "v".into();
        as_writer(&format!("m{number:02}"), &format!("t{number:02}"), |writer| update(writer, &object, &mut new));
        object = new;
        object["metadata"]["uid"] = "u".into();
    }
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = entries.iter().filter_map(|entry| entry["manager"].as_str()).collect();
    assert_eq!(names, ["ancient-changes", "m03", "m04", "m05", "m06", "m07", "m08", "m09", "m10", "m11"]);
    assert_eq!(entries[0]["fieldsV1"]["f:spec"]["f:data"].as_object().map_or(0, serde_json::Map::len), 4);
}

#[test]
fn lists_keep_the_applied_order_and_the_others_places() {
    let live = thing(json!({"ports": [
        {"port": 1, "protocol": "TCP"}, {"port": 2, "protocol": "TCP"}, {"port": 3, "protocol": "TCP"},
    ]}));
    let merged = applied("a", "t", &live, json!({"ports": [{"port": 3}, {"port": 9}, {"port": 1}]}), true);
    let ports = merged.unwrap_or_default()["spec"]["ports"].as_array().cloned().unwrap_or_default();
    assert_eq!(ports.iter().filter_map(|port| port["port"].as_i64()).collect::<Vec<_>>(), [2, 3, 9, 1]);
}

#[test]
fn kubectl_takes_over_what_it_applied_itself() {
    let last = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": {"replicas": 1}});
    let mut live = thing(json!({"replicas": 1, "data": {"a": "1"}}));
    live["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
    let mut new = live.clone();
    live = thing(json!({}));
    live["metadata"]["uid"] = "".into();
    as_writer("kubectl-client-side-apply", "t1", |writer| update(writer, &live, &mut new));
    let taken = applied("kubectl", "t2", &new, json!({"replicas": 2}), false).unwrap_or_default();
    assert_eq!(taken["spec"]["replicas"], 2);
    let record = taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str();
    assert!(record.is_some_and(|record| record.contains("\"replicas\":2") && record.ends_with('\n')));
    check(
        applied("kubectl", "t2", &new, json!({"data": {"a": "2"}}), false),
        expect![[r#"
            Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using v1: .spec.data.a
        "#]],
    );
}

#[test]
fn a_scale_holds_the_replicas_of_its_workload() {
    let live = alphas();
    let scale = to_scale(&live, "v1");
    assert_eq!(scale[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(scale[0]["apiVersion"], "autoscaling/v1");
    let taken = json!({"metadata": {"managedFields": [{
        "manager": "hpa", "operation": "Update", "apiVersion": "autoscaling/v1", "subresource": "scale",
        "time": "t9", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}},
    }]}});
    let mut after = live.clone();
    after["metadata"]["managedFields"] = to_parent(&live, &taken, "v1");
    check(
        Ok(after),
        expect![[r#"
            {"data":{"a":"1","b":"2"},"ports":[{"name":"http","port":80}],"replicas":1}
            alpha Apply t1 {"f:spec":{"f:data":{"f:a":{},"f:b":{}},"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{}}}}}
            hpa Update - {"f:spec":{"f:replicas":{}}}
        "#]],
    );
}
