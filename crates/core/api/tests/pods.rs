//! Recorded answers of upstream to requests about Pods, replayed without HTTP: decode, default, prepare, validate.
//!
//! `MINKE_GOLDEN` names the directory that holds the recordings (`api/*.jsonl`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use api::kinds::core::pod::{self, RULES};
use api::meta;
use schema::decode::{Format, apply_defaults, read, typed};
use schema::field::ErrorList;
use schema::patch;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const TOKEN_VOLUME: &str = "kube-api-access-rand5";
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn cases(group: &str) -> Vec<Value> {
    let dir = std::env::var_os("MINKE_GOLDEN").expect("MINKE_GOLDEN: run by `cargo xtask test`");
    let path = std::path::Path::new(&dir).join(format!("api/{group}.jsonl"));
    let text = std::fs::read_to_string(path).expect("recordings");
    // What is chance in the recordings has a fixed value here.
    let text = text.replace("<rand5>", "rand5").replace("{ns}", "ns");
    text.lines().map(|line| serde_json::from_str(line).expect("a case")).collect()
}

fn decode(body: &Value) -> Result<Value, String> {
    let of = api::table::type_of("", "v1", "Pod").expect("Pod");
    let table = api::table::table();
    let parsed = read(body.to_string().as_bytes(), Format::Json).map_err(|e| e.to_string())?;
    let mut value = typed(table, of, &parsed).map_err(|e| e.to_string())?.value;
    apply_defaults(table, of, &mut value);
    (RULES.default)(&mut value);
    Ok(value)
}

/// What admission does to each new Pod of the recordings.
fn admit(pod: &mut Value) {
    pod["metadata"]["namespace"] = json!("ns");
    let spec = &mut pod["spec"];
    if spec["serviceAccountName"].as_str().is_none_or(str::is_empty) {
        spec["serviceAccountName"] = json!("default");
        spec["serviceAccount"] = json!("default");
    }
    if spec["automountServiceAccountToken"] != json!(false) {
        let mut mounted = false;
        for list in ["initContainers", "containers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let mounts = container["volumeMounts"].take();
                let mut mounts = mounts.as_array().cloned().unwrap_or_default();
                if !mounts.iter().any(|m| m["mountPath"] == TOKEN_PATH) {
                    mounts.push(json!({"name": TOKEN_VOLUME, "readOnly": true, "mountPath": TOKEN_PATH}));
                    mounted = true;
                }
                container["volumeMounts"] = mounts.into();
            }
        }
        if mounted {
            let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
            volumes.push(json!({"name": TOKEN_VOLUME, "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ]}}));
            spec["volumes"] = volumes.into();
        }
    }
    if spec.get("priority").is_none() {
        spec["priority"] = json!(0);
    }
    if spec.get("preemptionPolicy").is_none() {
        spec["preemptionPolicy"] = json!("PreemptLowerPriority");
    }
    tolerate(spec);
}

fn tolerate(spec: &mut Value) {
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covers = |t: &Value| {
            t["key"].as_str().is_none_or(|k| k == key || k.is_empty())
                && t["effect"].as_str().is_none_or(|e| e == "NoExecute" || e.is_empty())
        };
        if !tolerations.iter().any(covers) {
            tolerations
                .push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
    spec["tolerations"] = tolerations.into();
}

/// The answer's code and body: the object, or causes and message.
type Answer = (i64, Value);

fn answer(pod: Value, errors: &ErrorList) -> Answer {
    if errors.is_empty() {
        return (200, pod);
    }
    let mut seen = BTreeSet::new();
    let distinct: Vec<String> = errors.iter().map(ToString::to_string).filter(|e| seen.insert(e.clone())).collect();
    let joined = if distinct.len() == 1 { distinct[0].clone() } else { format!("[{}]", distinct.join(", ")) };
    let causes: Vec<Value> = errors
        .iter()
        .map(|e| json!({"reason": e.error_type.reason(), "message": e.message, "field": e.path}))
        .collect();
    let name = meta::name(&pod).to_owned();
    (422, json!({"message": format!("Pod \"{name}\" is invalid: {joined}"), "causes": causes}))
}

fn create(body: &Value) -> (Answer, Vec<String>) {
    let mut pod = match decode(body) {
        Ok(pod) => pod,
        Err(text) => {
            let text = format!("Pod in version \"v1\" cannot be handled as a Pod: {text}");
            return ((400, json!({ "message": text })), Vec::new());
        }
    };
    if meta::name(&pod).is_empty() && !meta::generate_name(&pod).is_empty() {
        let name = format!("{}rand5", meta::generate_name(&pod));
        meta::set(&mut pod, "name", name);
    }
    admit(&mut pod);
    meta::set(&mut pod, "generation", 1);
    let mut warnings = (RULES.prepare_warnings)(&pod);
    (RULES.prepare_create)(&mut pod);
    let mut errors = meta::validate_create(&pod, true, RULES.validate_name);
    errors.extend((RULES.validate)(&pod));
    warnings.extend((RULES.warnings)(&pod, None));
    (answer(pod, &errors), warnings)
}

/// A PUT or PATCH that led to `body`.
fn update(body: &Value, old: &Value, subresource: &str) -> Answer {
    let mut pod = match decode(body) {
        Ok(pod) => pod,
        Err(text) => return (400, json!({ "message": text })),
    };
    for field in ["namespace", "generation", "uid", "creationTimestamp"] {
        if let Some(value) = old["metadata"].get(field) {
            meta::set(&mut pod, field, value.clone());
        }
    }
    meta::set(&mut pod, "resourceVersion", "1");
    match subresource {
        "status" => pod::prepare::status_update(&mut pod, old),
        "resize" => pod::prepare::resize_update(&mut pod, old),
        "ephemeralcontainers" => pod::prepare::ephemeral_containers_update(&mut pod, old),
        _ => {
            tolerate(&mut pod["spec"]);
            pod::prepare::update(&mut pod, old);
        }
    }
    if pod["spec"] != old["spec"] {
        let generation = meta::generation(old) + 1;
        meta::set(&mut pod, "generation", generation);
    }
    let mut errors = meta::validate_update(&pod, old);
    errors.extend(match subresource {
        "status" => pod::status::status_update(&pod, old),
        "resize" => pod::subresources::resize_update(&pod, old),
        "ephemeralcontainers" => pod::subresources::ephemeral_containers_update(&pod, old),
        _ => pod::update::update(&pod, old),
    });
    answer(pod, &errors)
}

fn at<'a>(value: &'a mut Value, path: &str) -> (&'a mut Value, String) {
    let mut parts: Vec<&str> = path.split('.').collect();
    let last = parts.pop().unwrap();
    let mut here = value;
    for part in parts {
        here = match part.parse::<usize>() {
            Ok(index) => &mut here[index],
            Err(_) => &mut here[part],
        };
    }
    (here, last.to_owned())
}

fn edited(object: &Value, request: &Value) -> Value {
    let mut body = object.clone();
    for pair in request["set"].as_array().into_iter().flatten() {
        let (slot, name) = at(&mut body, pair[0].as_str().unwrap());
        match name.parse::<usize>() {
            Ok(index) => slot[index] = pair[1].clone(),
            Err(_) => slot[&name] = pair[1].clone(),
        }
    }
    for path in request["unset"].as_array().into_iter().flatten() {
        let (slot, name) = at(&mut body, path.as_str().unwrap());
        match slot {
            Value::Array(items) => {
                items.remove(name.parse().unwrap());
            }
            other => {
                other.as_object_mut().unwrap().remove(&name);
            }
        }
    }
    body
}

/// Runs one request against the Pod there is; `None` where the case is about something else.
fn request(request: &Value, pod: &Value) -> Option<Answer> {
    let path = request["path"].as_str()?.split('?').next()?;
    let parts: Vec<&str> = path.split('/').skip(5).collect();
    match (request["method"].as_str()?, &parts[..]) {
        ("POST", ["pods"]) => Some(create(&request["body"]).0),
        ("PUT", ["pods", _, rest @ ..]) => {
            let subresource = rest.first().copied().unwrap_or_default();
            let body = if request.get("from").is_some() { edited(pod, request) } else { request["body"].clone() };
            Some(update(&body, pod, subresource))
        }
        ("PATCH", ["pods", _, rest @ ..]) => {
            let kind = request["headers"]["Content-Type"].as_str()?;
            let of = api::table::type_of("", "v1", "Pod").expect("Pod");
            let body = if kind.contains("strategic") {
                patch::strategic(api::table::table(), of, pod, &request["body"]).ok()?
            } else {
                patch::merge(pod, &request["body"])
            };
            Some(update(&body, pod, rest.first().copied().unwrap_or_default()))
        }
        _ => None,
    }
}

/// The parts that do not depend on when and where.
fn compared(pod: &Value) -> Value {
    let mut out = json!({"spec": pod["spec"], "status": pod["status"]});
    for field in ["labels", "annotations", "finalizers", "generation"] {
        out["metadata"][field] = pod["metadata"][field].clone();
    }
    out
}

fn differences(path: &str, got: &Value, wanted: &Value, out: &mut Vec<String>) {
    match (got, wanted) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let null = Value::Null;
                let (x, y) = (a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null));
                differences(&format!("{path}.{key}"), x, y, out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{i}]"), x, y, out);
            }
        }
        _ if wanted == "<time>" => {}
        _ if got != wanted => out.push(format!("{path}: got {got}, wanted {wanted}")),
        _ => {}
    }
}

fn check(case: &Value, (code, body): &Answer) -> Vec<String> {
    let wanted = &case["expect"];
    let mut out = Vec::new();
    let wanted_code = wanted["status"].as_i64().unwrap();
    if (wanted_code == 201 || wanted_code == 200) != (*code == 200) || (wanted_code >= 300 && wanted_code != *code) {
        return vec![format!("got {code} {}, wanted {wanted_code} {}", body["message"], wanted["body"]["message"])];
    }
    if *code == 200 {
        let mut wanted = compared(&wanted["body"]);
        // Recorded only where the case asks for it.
        if wanted["status"].is_null() {
            wanted["status"] = body["status"].clone();
        }
        differences("", &compared(body), &wanted, &mut out);
    } else {
        differences(".message", &body["message"], &wanted["body"]["message"], &mut out);
        if *code == 422 {
            differences(".causes", &body["causes"], &wanted["body"]["details"]["causes"], &mut out);
        }
    }
    out
}

/// Cases that others answer: admission, patches, generic request handling.
const NOT_HERE: &[&str] = &[
    "invalid-pod/sa-name",
    "invalid-pod/priority-class-missing",
    "invalid-pod/priority-critical",
    "invalid-pod/runtime-class-missing",
    "invalid-pod/runtime-class-bad",
    "invalid-pod/overhead-set",
    "invalid/pods/meta-namespace-mismatch",
    "pods/ephemeral-missing",
    "pods/resize-on-node-too-much",
    "pods/resize-node-missing",
    "update-pod/namespace",
];

fn run(groups: &[&str]) {
    let (mut right, mut all) = (0, 0);
    let mut wrong = Vec::new();
    for case in groups.iter().flat_map(|g| cases(g)) {
        let id = case["id"].as_str().unwrap();
        let path = case["request"]["path"].as_str().unwrap();
        if !path.contains("/pods") || NOT_HERE.contains(&id) || path.starts_with("/apis") {
            continue;
        }
        let mut pod = Value::Null;
        for setup in case["setup"].as_array().into_iter().flatten() {
            if let Some((200, made)) = request(setup, &pod) {
                pod = made;
            }
        }
        let Some(got) = request(&case["request"], &pod) else { continue };
        all += 1;
        let mut different = check(&case, &got);
        if groups.contains(&"warnings") {
            different.extend(check_warnings(&case));
        }
        if different.is_empty() {
            right += 1;
        } else {
            wrong.push(format!("{id}\n    {}", different.join("\n    ")));
        }
    }
    println!("{groups:?}: {right} of {all}\n{}", wrong.join("\n"));
    assert!(wrong.is_empty(), "{} differ", wrong.len());
}

fn check_warnings(case: &Value) -> Option<String> {
    let ((code, _), got) = create(&case["request"]["body"]);
    let got = if code == 200 { got } else { Vec::new() };
    let headers = &case["expect"]["headers"]["warning"];
    let wanted: Vec<&str> = headers.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let got: Vec<String> =
        got.iter().map(|w| format!("299 - \"{}\"", w.replace('\\', "\\\\").replace('"', "\\\""))).collect();
    (got != wanted).then(|| format!("warnings: got {got:?}, wanted {wanted:?}"))
}

#[test]
fn invalid() {
    run(&["invalid-pod"]);
}

#[test]
fn updates() {
    run(&["update-pod"]);
}

#[test]
fn creation_and_decoding() {
    run(&["create", "decode-pod"]);
}

#[test]
fn metadata() {
    run(&["invalid-metadata"]);
}

#[test]
fn warnings() {
    run(&["warnings"]);
}

/// Rows of the recorded tables; times in them are long past, so ages are whatever `now` makes of them.
#[test]
fn tables() {
    let (mut right, mut all) = (0, 0);
    let mut wrong = Vec::new();
    for case in cases("table-pods") {
        let id = case["id"].as_str().unwrap();
        let body = &case["expect"]["body"];
        let rows = body["rows"].as_array().cloned().unwrap_or_default();
        let mut pod = Value::Null;
        for setup in case["setup"].as_array().into_iter().flatten() {
            if let Some((200, made)) = request(setup, &pod) {
                pod = made;
            } else if setup["method"] == "DELETE" {
                pod["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
            }
        }
        if rows.len() != 1 || pod.is_null() {
            continue;
        }
        all += 1;
        let now = "2024-01-01T00:00:00Z".parse().unwrap();
        let mut got = (RULES.row)(&pod, now);
        let mut wanted = rows[0]["cells"].as_array().unwrap().clone();
        let aged = |cell: &Value| match cell.as_str().and_then(|c| c.split_once(" (")) {
            Some((count, _)) => json!(count),
            None => cell.clone(),
        };
        for cells in [&mut got, &mut wanted] {
            cells[3] = aged(&cells[3]);
            cells[4] = json!("age");
        }
        let mut different = Vec::new();
        differences("cells", &json!(got), &json!(wanted), &mut different);
        let conditions = (RULES.row_conditions)(&pod);
        let wanted = rows[0]["conditions"].as_array().cloned().unwrap_or_default();
        differences("conditions", &json!(conditions), &json!(wanted), &mut different);
        if different.is_empty() {
            right += 1;
        } else {
            wrong.push(format!("{id}\n    {}", different.join("\n    ")));
        }
        for (column, wanted) in RULES.columns.iter().zip(body["columnDefinitions"].as_array().into_iter().flatten()) {
            let got = json!({"name": column.name, "type": column.of, "format": column.format,
                "description": column.description, "priority": column.priority});
            assert_eq!(&got, wanted);
        }
    }
    println!("tables: {right} of {all}\n{}", wrong.join("\n"));
    assert!(wrong.is_empty(), "{} differ", wrong.len());
}

#[test]
fn status_and_subresources() {
    run(&["status", "subresource"]);
}
