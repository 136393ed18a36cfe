//! Decoding on a small table: each case is what upstream's decoder says.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::small::{TABLE, THING};
use expect_test::{Expect, expect};

fn decoded(text: &str, format: Format) -> Result<Decoded, DecodeError> {
    let (parsed, ..) = read_object(text.as_bytes(), format)?;
    typed(&TABLE, THING, &parsed)
}

fn check(text: &str, format: Format, expected: Expect) {
    let shown = match decoded(text, format) {
        Ok(Decoded { mut value, strict }) => {
            apply_defaults(&TABLE, THING, &mut value);
            format!("{value}{}", strict.iter().map(|s| format!("\n{s}")).collect::<String>())
        }
        Err(error) => error.0,
    };
    expected.assert_eq(&shown);
}

#[test]
fn normal_form() {
    check("{}", Format::Json, expect![[r#"{"seen":null,"spec":{"extra":null,"parts":null}}"#]]);
    check("null", Format::Json, expect![[r#"{"seen":null,"spec":{"extra":null,"parts":null}}"#]]);
    check(
        r#"{"kind":"Thing","created":"2020-01-02T03:04:05+01:00","seen":null,"labels":{},"finalizers":[],
            "spec":{"replicas":0,"paused":false,"parts":[null,{"name":"b","port":80,"empty":{}}],"limits":{"cpu":1.5,"a":"1000"}}}"#,
        Format::Json,
        expect![[
            r#"{"created":"2020-01-02T02:04:05Z","kind":"Thing","seen":null,"spec":{"extra":null,"limits":{"a":"1k","cpu":"1500m"},"parts":[{"name":"","port":0,"protocol":"TCP"},{"empty":{},"name":"b","port":80,"protocol":"TCP"}],"replicas":0}}"#
        ]],
    );
}

#[test]
fn strict_errors() {
    check(
        r#"{"spec":{"parts":[{"name":"a","name":"b","bogus":1}],"replicas":1,"replicas":2},"labels":{"x":"1","x":"2"},"bogus":1,"bogus":2}"#,
        Format::Json,
        expect![[r#"
            {"labels":{"x":"2"},"seen":null,"spec":{"extra":null,"parts":[{"name":"b","port":0,"protocol":"TCP"}],"replicas":2}}
            duplicate field "spec.parts[0].name"
            unknown field "spec.parts[0].bogus"
            duplicate field "spec.replicas"
            duplicate field "labels.x"
            unknown field "bogus""#]],
    );
    check(
        "labels:\n  a: '1'\n  a: '2'\nbogus: 1\n",
        Format::Yaml,
        expect![[r#"
            {"labels":{"a":"2"},"seen":null,"spec":{"extra":null,"parts":null}}
            yaml: unmarshal errors:
              line 3: key "a" already set in map
            unknown field "bogus""#]],
    );
}

#[test]
fn mistyped() {
    let json = |text: &str, expected: Expect| check(text, Format::Json, expected);
    json(
        r#"{"spec":{"replicas":"x"}}"#,
        expect!["json: cannot unmarshal string into Go struct field ThingSpec.spec.replicas of type int32"],
    );
    json(
        r#"{"spec":{"replicas":1.5}}"#,
        expect!["json: cannot unmarshal number 1.5 into Go struct field ThingSpec.spec.replicas of type int32"],
    );
    json(
        r#"{"spec":{"replicas":3000000000}}"#,
        expect!["json: cannot unmarshal number 3000000000 into Go struct field ThingSpec.spec.replicas of type int32"],
    );
    json(
        r#"{"spec":{"parts":{}}}"#,
        expect!["json: cannot unmarshal object into Go struct field ThingSpec.spec.parts of type []v1.Part"],
    );
    json(
        r#"{"spec":{"parts":[{"empty":"x"}]}}"#,
        expect!["json: cannot unmarshal string into Go struct field Part.spec.parts.PartSource.empty of type v1.Empty"],
    );
    json(
        r#"{"spec":{"parts":[{"port":true}]}}"#,
        expect!["json: cannot unmarshal bool into Go struct field Part.spec.parts.port of type int32"],
    );
    json(
        r#"{"labels":{"a":1}}"#,
        expect!["json: cannot unmarshal number into Go struct field Thing.labels of type string"],
    );
    // What reads itself ends the reading, and wins over what was found before.
    json(
        r#"{"labels":1,"spec":{"limits":{"cpu":"x"}}}"#,
        expect!["quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"],
    );
    json(r#"{"spec":{"data":"?"}}"#, expect!["illegal base64 data at input byte 0"]);
}

#[test]
fn malformed() {
    let json = |text: &str, expected: Expect| check(text, Format::Json, expected);
    json("{", expect!["couldn't get version/kind; json parse error: unexpected end of JSON input"]);
    json(
        "{a:1}",
        expect![
            "couldn't get version/kind; json parse error: invalid character 'a' looking for beginning of object key string"
        ],
    );
    json("{} x", expect!["couldn't get version/kind; json parse error: invalid character 'x' after top-level value"]);
    json(
        "trye",
        expect!["couldn't get version/kind; json parse error: invalid character 'y' in literal true (expecting 'u')"],
    );
    json(
        r#"{"kind":1}"#,
        expect![
            "couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string"
        ],
    );
    json(
        &"[".repeat(200),
        expect!["couldn't get version/kind; json parse error: invalid character '[' exceeded max depth"],
    );
    let yaml = |text: &str, expected: Expect| check(text, Format::Yaml, expected);
    yaml("x: y\na: b: c\n", expect!["yaml: line 2: mapping values are not allowed in this context"]);
    yaml("a: b: c\n", expect!["yaml: mapping values are not allowed in this context"]);
    yaml("kind:\n\ta: 1\n", expect!["yaml: line 2: found character that cannot start any token"]);
    yaml("kind: [\n", expect!["yaml: did not find expected ',' or ']'"]);
    yaml(&format!("{}{}", "[".repeat(200), "]".repeat(200)), expect!["yaml: exceeded max depth"]);
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (name, before) in ["b", "c", "d", "e", "f"].iter().zip(["a", "b", "c", "d", "e"]) {
        let list = vec![format!("*{before}"); 9].join(",");
        bomb.push_str(&format!("{name}: &{name} [{list}]\n"));
    }
    yaml(&bomb, expect!["yaml: document contains excessive aliasing"]);
}

#[test]
fn yaml_is_version_1_1() {
    let value = |text: &str| parse(text.as_bytes(), Format::Yaml).unwrap().value.to_string();
    for (text, expected) in [
        ("yes", "true"),
        ("0644", "420"),
        ("0x10", "16"),
        ("1_000", "1000"),
        ("1.50", "1.5"),
        ("1e3", "1000"),
        (".5", "0.5"),
        ("~", "null"),
        ("", "null"),
        ("'yes'", "\"yes\""),
        ("2001-01-01", "\"2001-01-01\""),
        ("1.2.3", "\"1.2.3\""),
        ("!!str 1", "\"1\""),
        ("{1: a, true: b}", r#"{"1":"a","true":"b"}"#),
        ("a: &x {p: 1}\nb: {<<: *x, q: 2}", r#"{"a":{"p":1},"b":{"p":1,"q":2}}"#),
        ("a: 1\n---\nb: 2\n", r#"{"a":1}"#),
        ("a: |\n  x\n  y\n", r#"{"a":"x\ny\n"}"#),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
}
