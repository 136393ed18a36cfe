//! Plays recorded scenarios of upstream's node on the machine: a fake runtime takes exit codes and durations from the
//! scenario's commands, on a virtual clock.
#![allow(clippy::unwrap_used)]

#[path = "behaviour/judge.rs"]
mod judge;
#[path = "behaviour/shell.rs"]
mod shell;
#[path = "behaviour/world.rs"]
mod world;

use serde_json::{Value, json};
use std::path::PathBuf;
use world::World;

/// Where the recordings are.
fn recordings() -> PathBuf {
    let root = std::env::var_os("MINKE_GOLDEN").expect("MINKE_GOLDEN: run by `cargo xtask test`");
    PathBuf::from(root).join("behaviour/pods")
}

/// Scenarios that are not about the machine.
const ELSEWHERE: &[(&str, &str)] = &[
    ("unsched-", "the scheduler's"),
    ("scheduler-unknown", "the scheduler's"),
    ("nodename-unknown", "nobody's"),
    ("delete-pending", "the API server's"),
    ("preemption-", "the scheduler's"),
    ("pvc-missing", "the scheduler's"),
    ("volume-mistakes", "the API server's"),
    ("crule-without-policy", "the API server's"),
    ("kubectl-", "several Pods, or the command line's"),
    ("hostpath-", "the node's words"),
    ("nodename-selector-mismatch", "the node's admission"),
    ("tmsg-", "the node reads termination messages"),
    ("readiness-grpc", "needs a gRPC server"),
    ("readiness-timeout", "the prober's words"),
];

/// Prepares a Pod as the API server, admission and the scheduler do.
fn admitted(manifest: &Value) -> Value {
    let mut pod = manifest.clone();
    pod["metadata"]["namespace"] = json!("<ns>");
    pod["metadata"]["uid"] = json!(world::UID);
    pod["metadata"]["generation"] = json!(1);
    pod["spec"]["restartPolicy"] = pod["spec"].get("restartPolicy").cloned().unwrap_or(json!("Always"));
    let grace = pod["spec"].get("terminationGracePeriodSeconds").cloned().unwrap_or(json!(30));
    pod["spec"]["terminationGracePeriodSeconds"] = grace;
    let token = json!({"name": "kube-api-access-<r>", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
    let mut classes = Vec::new();
    for part in ["initContainers", "containers"] {
        for container in pod["spec"][part].as_array_mut().into_iter().flatten() {
            let mounts = container.as_object_mut().unwrap().entry("volumeMounts").or_insert(json!([]));
            mounts.as_array_mut().unwrap().push(token.clone());
            let image = container["image"].as_str().unwrap().to_owned();
            let latest = image.ends_with(":latest") || !image.contains(':');
            let policy = if latest { "Always" } else { "IfNotPresent" };
            container.as_object_mut().unwrap().entry("imagePullPolicy").or_insert(json!(policy));
            let resources = container.as_object_mut().unwrap().entry("resources").or_insert(json!({}));
            if let Some(limits) = resources.get("limits").cloned() {
                let requests = resources.as_object_mut().unwrap().entry("requests").or_insert(json!({}));
                for (name, amount) in limits.as_object().unwrap() {
                    requests.as_object_mut().unwrap().entry(name).or_insert(amount.clone());
                }
            }
            let has = |kind: &str, name: &str| !resources[kind][name].is_null();
            let any = ["limits", "requests"].iter().any(|kind| has(kind, "cpu") || has(kind, "memory"));
            classes.push(if any { "Burstable" } else { "BestEffort" });
        }
    }
    let qos = if classes.contains(&"Burstable") { "Burstable" } else { "BestEffort" };
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": "2027-01-15T08:00:00Z", "observedGeneration": 1});
    pod["status"] = json!({"phase": "Pending", "qosClass": qos, "conditions": [scheduled]});
    pod
}

fn dig<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.replace(']', "").split(['.', '[']).fold(object, |at, key| match at {
        Value::Array(list) => {
            let named = list.iter().find(|item| item["name"] == json!(key) || item["type"] == json!(key));
            named.unwrap_or(&Value::Null)
        }
        at => &at[key],
    })
}

fn holds(world: &World, condition: &Value) -> bool {
    let list = condition.as_array().unwrap();
    if list[0].is_array() {
        return list.iter().all(|condition| holds(world, condition));
    }
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    if list[0] == json!("event") {
        let is =
            |event: &kubelet::pod::PodEvent| list[1]["reason"].as_str().is_none_or(|reason| reason == event.reason);
        let count = world.events.iter().filter(|(_, event)| is(event)).count();
        return f64::from(u32::try_from(count).unwrap()) >= number(&list[3]);
    }
    if list[1] == json!("gone") {
        return world.gone;
    }
    let value = dig(&world.pod, list[1].as_str().unwrap());
    match list[2].as_str().unwrap() {
        "==" => *value == list[3],
        "!=" => *value != list[3],
        ">=" => number(value) >= number(&list[3]),
        "in" => list[3].as_array().unwrap().contains(value),
        operator => panic!("operator {operator}"),
    }
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(patch)) => {
            for item in patch {
                let key = if item["name"].is_null() { "type" } else { "name" };
                match into.iter_mut().find(|old| old[key] == item[key]) {
                    Some(old) => merge(old, item),
                    None => into.push(item.clone()),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn settle(world: &mut World, ms: u64) {
    let until = world.now_ms + ms;
    while world.advance(until) {}
}

fn play(steps: &[Value]) -> Result<World, String> {
    let mut world: Option<World> = None;
    let mut objects = Vec::new();
    for step in steps {
        for object in step["create"].as_array().into_iter().flatten() {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            match object["kind"].as_str().unwrap() {
                "Pod" => {
                    let mut new = World::new(admitted(object));
                    new.objects.extend(objects.drain(..));
                    new.changed();
                    world = Some(new);
                }
                kind => {
                    let kind = kind.to_lowercase();
                    objects.push(format!("{kind}/{name}"));
                    for data in ["data", "stringData"] {
                        objects.extend(
                            object[data]
                                .as_object()
                                .into_iter()
                                .flatten()
                                .map(|(key, _)| format!("{kind}/{name}/{key}")),
                        );
                    }
                    if let Some(world) = &mut world {
                        world.objects.extend(objects.drain(..));
                    }
                }
            }
        }
        let Some(world) = &mut world else { continue };
        if let Some(seconds) = step["sleep"].as_f64() {
            settle(world, (seconds * 1000.0) as u64);
        } else if let Some(seconds) = step["quiet"].as_f64() {
            let quiet = (seconds * 1000.0) as u64;
            let mut seen = (world.log.len(), world.now_ms);
            let end = world.now_ms + 60_000;
            while world.now_ms < (seen.1 + quiet).min(end) {
                world.advance(seen.1 + quiet);
                if world.log.len() != seen.0 {
                    seen = (world.log.len(), world.now_ms);
                }
            }
        } else if !step["until"].is_null() {
            let end = world.now_ms + step["timeout"].as_u64().unwrap_or(60) * 1000;
            while !holds(world, &step["until"]) {
                if !world.advance(end) {
                    return Err(format!("never: {}", step["until"]));
                }
            }
        } else if !step["patch"].is_null() {
            patch(world, step);
        } else if !step["delete"].is_null() || !step["evict"].is_null() {
            delete(world, step);
        }
    }
    world.ok_or_else(|| "no Pod".to_owned())
}

fn patch(world: &mut World, step: &Value) {
    let body = &step["body"];
    // What may not be changed is refused by the API server.
    let refused = body["spec"]["containers"].as_array().into_iter().flatten().any(|c| !c["command"].is_null())
        || ["restartPolicy", "terminationGracePeriodSeconds"].iter().any(|key| !body["spec"][key].is_null())
        || world.pod["spec"]["activeDeadlineSeconds"].as_i64() < body["spec"]["activeDeadlineSeconds"].as_i64()
            && !world.pod["spec"]["activeDeadlineSeconds"].is_null();
    if refused {
        return;
    }
    merge(&mut world.pod, body);
    if !body["spec"].is_null() {
        let generation = world.pod["metadata"]["generation"].as_i64().unwrap() + 1;
        world.pod["metadata"]["generation"] = json!(generation);
    }
    if step["sub"] == "resize" { world.granted() } else { world.changed() }
}

fn delete(world: &mut World, step: &Value) {
    let spec = world.pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    let grace = step["grace"].as_i64().unwrap_or(spec);
    if !step["evict"].is_null() {
        let target = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": "2027-01-15T08:00:00Z"});
        world.pod["status"]["conditions"].as_array_mut().unwrap().push(target);
    }
    let meta = &mut world.pod["metadata"];
    // A second deletion counts from the first one.
    let grace = if meta["deletionTimestamp"].is_null() { grace } else { 1.max(grace - 3) };
    if meta["deletionTimestamp"].is_null() {
        meta["deletionTimestamp"] = json!("2027-01-15T09:00:00Z");
        meta["generation"] = json!(meta["generation"].as_i64().unwrap() + 1);
    }
    meta["deletionGracePeriodSeconds"] = json!(grace);
    world.changed();
}

#[test]
fn recorded_scenarios() {
    let directory = recordings();
    let files = std::fs::read_dir(&directory).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    let only = std::env::var("ONLY").unwrap_or_default();
    let (mut good, mut all, mut report) = (0, 0, String::new());
    for path in paths {
        let recording: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if ELSEWHERE.iter().any(|(prefix, _)| name.starts_with(prefix)) || !name.contains(&only) {
            continue;
        }
        all += 1;
        let differences = match play(recording["scenario"]["steps"].as_array().unwrap()) {
            Ok(world) => judge::judge(&recording, &world),
            Err(problem) => vec![problem],
        };
        if differences.is_empty() {
            good += 1;
        } else {
            report += &format!("{name}:\n    {}\n", differences.join("\n    "));
        }
    }
    assert!(good == all, "{good} of {all} scenarios as upstream\n{report}");
}
