//! Tables of manifests and what becomes of them.

#![allow(clippy::unwrap_used)]
use super::*;

const FILE: Origin<'_> = Origin::File { path: "/manifests/web.yaml", node: "node1" };
const URL: Origin<'_> = Origin::Url { url: "http://127.0.0.1/pods", node: "node1" };

fn read(text: &str, origin: Origin<'_>) -> Result<Manifest, Wrong> {
    decode(text.as_bytes(), origin, "2026-01-02T03:04:05.678Z".parse().unwrap())
}

fn one(text: &str, origin: Origin<'_>) -> Pod {
    let mut manifest = read(text, origin).unwrap();
    assert_eq!(manifest.pods.len(), 1);
    manifest.pods.remove(0)
}

/// A Pod's manifest with `spec` beside its container.
fn with(spec: &str) -> String {
    format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {{\"name\": \"web\"}}, \
         \"spec\": {{\"containers\": [{{\"name\": \"c\", \"image\": \"nginx\"}}]{spec}}}}}"
    )
}

const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: c, image: nginx}
";

#[test]
fn a_file_gives_a_pod_of_this_node() {
    let pod = one(WEB, FILE);
    let meta = &pod.metadata;
    assert_eq!((meta.name.as_deref(), meta.namespace.as_deref()), (Some("web-node1"), Some("default")));
    let uid = meta.uid.clone().unwrap();
    assert_eq!(uid.len(), 32);
    let annotations = meta.annotations.clone().unwrap();
    assert_eq!(annotations[HASH], uid);
    assert_eq!((annotations[SOURCE].as_str(), annotations[SEEN].as_str()), ("file", "2026-01-02T03:04:05.678000000Z"));
    let spec = json!(pod.spec);
    assert_eq!(spec["nodeName"], "node1");
    assert_eq!(spec["tolerations"], json!([{"operator": "Exists", "effect": "NoExecute"}]));
    assert_eq!(
        (&spec["restartPolicy"], &spec["containers"][0]["imagePullPolicy"]),
        (&json!("Always"), &json!("Always"))
    );
    assert_eq!(json!(pod.status)["qosClass"], "BestEffort");
    assert!(is_static(&pod) && !is_mirror(&pod) && is_critical(&pod));
}

#[test]
fn the_uid_tells_contents_and_places_apart() {
    let uid = |text: &str, origin| one(text, origin).metadata.uid.unwrap();
    let first = uid(WEB, FILE);
    assert_eq!(first, uid(WEB, FILE));
    assert_ne!(first, uid(&WEB.replace("nginx", "httpd"), FILE));
    assert_ne!(first, uid(WEB, Origin::File { path: "/manifests/other.yaml", node: "node1" }));
    assert_ne!(first, uid(WEB, URL));
    let own = WEB.replace("name: web,", "name: web, uid: mine,");
    assert_eq!(uid(&own, FILE), "mine");
    // The reference values of FNV-1a.
    assert_eq!(fnv128a(&[b""]), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
    assert_eq!(fnv128a(&[b"a"]), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
}

#[test]
fn a_url_gives_one_pod_or_a_list() {
    let pod = one(WEB, URL);
    assert_eq!(pod.metadata.annotations.clone().unwrap()[SOURCE], "http");
    assert_eq!(json!(pod.spec)["tolerations"], Value::Null);
    let item = |name: &str| json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let list = json!({"apiVersion": "v1", "kind": "PodList", "items": [item("a"), item("b")]}).to_string();
    let names: Vec<_> = read(&list, URL).unwrap().pods.into_iter().filter_map(|pod| pod.metadata.name).collect();
    assert_eq!(names, ["a-node1", "b-node1"]);
    assert!(read(&list, FILE).unwrap_err().0.contains("it is a PodList of \"v1\""));
}

#[test]
fn what_is_refused() {
    for (text, why) in [
        (
            "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"spec\": {\"containers\": []}}",
            "invalid pod: name is needed for the pod",
        ),
        (
            &with(", \"restartPolicy\": \"Sometimes\""),
            "invalid pod: spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (&with(", \"serviceAccountName\": \"robot\""), "static pods may not reference serviceaccounts"),
        (&with(", \"imagePullSecrets\": [{\"name\": \"s\"}]"), "static pods may not reference secrets"),
        (
            &with(", \"volumes\": [{\"name\": \"v\", \"secret\": {\"secretName\": \"s\"}}]"),
            "static pods may not reference secrets",
        ),
        (
            &with(", \"volumes\": [{\"name\": \"v\", \"configMap\": {\"name\": \"s\"}}]"),
            "static pods may not reference configmaps",
        ),
        (
            &with(
                ", \"initContainers\": [{\"name\": \"i\", \"image\": \"x\", \"envFrom\": [{\"configMapRef\": {\"name\": \"m\"}}]}]",
            ),
            "static pods may not reference configmaps",
        ),
        (
            &with(", \"resourceClaims\": [{\"name\": \"r\", \"resourceClaimName\": \"x\"}]"),
            "static pods may not reference resourceclaims",
        ),
        (
            &with(", \"volumes\": [{\"name\": \"v\", \"persistentVolumeClaim\": {\"claimName\": \"s\"}}]"),
            "static pods may not reference persistentvolumeclaims",
        ),
        (
            &with(", \"volumes\": [{\"name\": \"v\", \"csi\": {\"driver\": \"d\"}}]"),
            "static pods may not reference csidrivers (via CSI volumes)",
        ),
        (
            &with(
                ", \"volumes\": [{\"name\": \"v\", \"projected\": {\"sources\": [{\"serviceAccountToken\": {\"path\": \"t\"}}]}}]",
            ),
            "invalid pod: spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
        ),
    ] {
        assert_eq!(read(text, FILE).unwrap_err().0, why, "{text}");
    }
    let unparsed = read("a: [", FILE).unwrap_err().0;
    assert!(unparsed.starts_with("/manifests/web.yaml: couldn't parse as pod("), "{unparsed}");
    assert!(read("", FILE).is_err() && read("hello", FILE).is_err() && read("{}", FILE).is_err());
}

#[test]
fn what_is_allowed() {
    for volume in [
        "\"emptyDir\": {}",
        "\"hostPath\": {\"path\": \"/x\"}",
        "\"downwardAPI\": {}",
        "\"projected\": {\"sources\": [{\"downwardAPI\": {}}]}",
    ] {
        one(&with(&format!(", \"volumes\": [{{\"name\": \"v\", {volume}}}]")), FILE);
    }
}

#[test]
fn what_is_warned_of() {
    let warnings = |text: &str| read(text, FILE).unwrap().warnings;
    assert_eq!(warnings(&WEB.replace("spec:", "spec:\n  hostNetwrok: true")), ["unknown field \"spec.hostNetwrok\""]);
    assert!(warnings(&with(", \"priorityClassName\": \"high\""))[0].contains("nil priority"));
    assert!(warnings(&with(", \"priorityClassName\": \"system-node-critical\", \"priority\": 2000001000")).is_empty());
}

#[test]
fn a_mirror_shows_its_pod() {
    let pod = one(WEB, FILE);
    let value = mirror(&pod, "node1", "node-uid");
    assert_eq!(
        (&value["kind"], &value["status"], &value["metadata"]["uid"]),
        (&json!("Pod"), &Value::Null, &Value::Null)
    );
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "node1", "uid": "node-uid", "controller": true}]);
    assert_eq!(value["metadata"]["ownerReferences"], owner);
    let mirror: Pod = serde_json::from_value(value).unwrap();
    assert!(is_mirror(&mirror) && !is_static(&mirror) && is_mirror_of(&mirror, &pod));
    assert!(!is_mirror_of(&mirror, &one(&WEB.replace("nginx", "httpd"), FILE)));
}

#[test]
fn without_its_manifest_it_ends_like_a_deleted_one() {
    let pod = ending(&one(WEB, FILE), "2026-01-02T03:04:05Z".parse().unwrap());
    assert_eq!(pod.metadata.deletion_grace_period_seconds, Some(30));
    assert_eq!(pod.metadata.deletion_timestamp.unwrap().0.to_string(), "2026-01-02T03:04:35Z");
}
