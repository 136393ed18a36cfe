//! Protobuf judged by upstream's own fixtures (`k8s.io/api/testdata`): the same objects as JSON and as protobuf.

use crate::table::{table, type_of};
use schema::decode::{Format, read_object, typed};
use schema::protobuf;

#[test]
fn protobuf_is_upstreams() {
    let dir = std::env::var("MINKE_GOLDEN").expect("MINKE_GOLDEN: run by `cargo xtask test`") + "/fixtures";
    let (mut failed, mut judged) = (0, 0);
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "pb")) {
        let bytes = std::fs::read(path).unwrap();
        let json = std::fs::read(path.with_extension("json")).unwrap();
        let (parsed, version, kind) = read_object(&json, Format::Json).unwrap();
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let Some(of) = type_of(group, version, &kind) else { continue };
        judged += 1;
        let wanted = typed(table(), of, &parsed).unwrap().value;
        let envelope = protobuf::open(&bytes).unwrap();
        let result = protobuf::decode(table(), of, envelope.raw).map(|mut value| {
            value["kind"] = envelope.kind.as_str().into();
            value["apiVersion"] = envelope.api_version.as_str().into();
            value
        });
        let mut found = Vec::new();
        match &result {
            Ok(value) => super::differences("", value, &wanted, &mut found),
            Err(error) => found.push(error.to_string()),
        }
        if protobuf::encode(table(), of, &wanted) != bytes {
            found.push("encoded otherwise".to_owned());
        }
        if result.as_ref() != Ok(&wanted) || !found.is_empty() {
            failed += 1;
            println!("{path:?}: {}", found.join("; ").chars().take(400).collect::<String>());
        }
    }
    println!("{judged} fixtures");
    assert_eq!(failed, 0);
}
