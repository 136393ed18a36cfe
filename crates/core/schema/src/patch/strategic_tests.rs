//! Strategic merge patches on a small table.

use super::*;
use crate::small::{TABLE, THING};
use expect_test::{Expect, expect};
use serde_json::json;

fn check(patch: Value, expected: Expect) {
    let target = json!({"finalizers": ["a", "b"], "labels": {"x": "1", "y": "2"}, "spec": {"parts": [
        {"name": "a", "args": ["1"], "sources": [{"name": "s", "path": "p"}]},
        {"name": "b", "empty": {}},
        {"name": "c"},
    ]}});
    let shown = match strategic(&TABLE, THING, &target, &patch) {
        Ok(merged) => merged.to_string(),
        Err(error) => format!("{error:?}"),
    };
    expected.assert_eq(&shown);
}

/// Names of the parts after a patch of `spec`.
fn parts(patch: Value, expected: &[&str]) {
    let target = json!({"spec": {"parts": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}});
    let merged = strategic(&TABLE, THING, &target, &json!({"spec": patch.clone()})).map(|merged| {
        let parts = merged["spec"]["parts"].as_array().cloned().unwrap_or_default();
        parts.iter().filter_map(|part| part["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    });
    assert_eq!(merged, Ok(expected.iter().map(|s| (*s).to_owned()).collect()), "{patch}");
}

#[test]
fn order_of_lists() {
    parts(json!({"parts": [{"name": "z"}]}), &["z", "a", "b", "c"]);
    parts(json!({"parts": [{"name": "c"}, {"name": "a"}]}), &["b", "c", "a"]);
    parts(json!({"$setElementOrder/parts": [{"name": "c"}, {"name": "a"}]}), &["b", "c", "a"]);
    parts(
        json!({"parts": [{"name": "z"}], "$setElementOrder/parts": [{"name": "a"}, {"name": "z"}, {"name": "b"}]}),
        &["a", "z", "b", "c"],
    );
    parts(json!({"parts": [{"name": "b", "$patch": "delete"}, {"name": "d"}]}), &["d", "a", "c"]);
    parts(json!({"parts": [{"name": "z"}, {"$patch": "replace"}]}), &["z"]);
    parts(json!({"parts": null}), &[]);
    // Upstream orders by the list it has just overwritten.
    parts(
        json!({"parts": [{"name": "a", "$patch": "delete"}, {"name": "w"}], "$setElementOrder/parts": [{"name": "w"}, {"name": "b"}]}),
        &["c", "w", "b"],
    );
}

#[test]
fn directives() {
    check(
        json!({"labels": {"$patch": "replace", "z": "3"}, "spec": null, "finalizers": null}),
        expect![[r#"{"labels":{"z":"3"}}"#]],
    );
    check(
        json!({"labels": {"x": null, "w": "0"}, "finalizers": ["c", "a"], "spec": {"$patch": "delete"}}),
        expect![[r#"{"finalizers":["c","a","b"],"labels":{"w":"0","y":"2"},"spec":{}}"#]],
    );
    check(
        json!({"labels": null, "spec": null, "$deleteFromPrimitiveList/finalizers": ["a", "zz"]}),
        expect![[r#"{"finalizers":["b"]}"#]],
    );
    check(
        json!({"labels": null, "finalizers": null, "spec": {"parts": [
            {"name": "a", "args": ["2"], "sources": [{"$retainKeys": ["name", "empty"], "name": "s", "empty": {}}]},
            {"name": "b", "$patch": "delete"}, {"name": "c", "$patch": "delete"},
        ]}}),
        expect![[r#"{"spec":{"parts":[{"args":["2"],"name":"a","sources":[{"empty":{},"name":"s"}]}]}}"#]],
    );
}

#[test]
fn refusals() {
    check(
        json!({"spec": {"parts": [{"path": "q"}]}}),
        expect![[r#"Internal("map: map[path:q] does not contain declared merge key: name")"#]],
    );
    check(
        json!({"spec": {"parts": [{"name": "a", "$patch": "explode"}]}}),
        expect![[r#"Internal("unknown patch type: explode in map: map[$patch:explode name:a]")"#]],
    );
    check(
        json!({"spec": {"parts": [{"name": "a", "sources": [{"$retainKeys": ["name"], "name": "s", "path": "p"}]}]}}),
        expect![[r#"Malformed("invalid patch format of retainKeys")"#]],
    );
    check(
        json!({"$setElementOrder/finalizers": ["a"], "finalizers": ["q"]}),
        expect![[r#"Internal("The order in patch list:\n[q]\n doesn't match $setElementOrder list:\n[a]\n")"#]],
    );
    check(
        json!({"finalizers": [[1]]}),
        expect![[r#"Internal("list element types are not identical: [[a b] [[1]]]")"#]],
    );
}

#[test]
fn restoring() {
    let restored = |value: Value| match restore(&TABLE, THING, value) {
        Ok(decoded) => format!("{} {:?}", decoded.value, decoded.strict),
        Err(error) => error.0,
    };
    let table = [
        (json!({"spec": {"replicas": "3"}}), "unrecognized type: int32"),
        (json!({"spec": {"replicas": 1.5}}), "cannot convert float64 to int32"),
        (json!({"spec": {"parts": {"name": "a"}}}), "cannot restore slice from map"),
        (json!({"labels": {"a": 1}}), "cannot convert int64 to string"),
        (json!({"labels": {"a": true}}), "unrecognized type: string"),
        (json!({"spec": []}), "cannot restore struct from: slice"),
        (
            json!({"spec": {"limits": {"a": true}}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            json!({"zz": 1, "spec": {"replicas": 2.0, "b": 1, "parts": [{"name": "a", "q": 1}]}}),
            r#"{"seen":null,"spec":{"extra":null,"parts":[{"name":"a","port":0}],"replicas":2}} ["unknown field \"spec.b\"", "unknown field \"spec.parts[0].q\"", "unknown field \"zz\""]"#,
        ),
    ];
    for (value, expected) in table {
        assert_eq!(restored(value.clone()), expected, "{value}");
    }
}
