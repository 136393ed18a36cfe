//! Compares what the world saw with a recording, by the rules of the recordings' README.

use crate::world::{NODE_IP, POD_IP, World};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

fn text(s: &str) -> String {
    s.replace(POD_IP, "<ip:p>").replace(NODE_IP, "<nodeIP>")
}

fn one_state(state: &Value) -> Value {
    let Some((kind, v)) = state.as_object().and_then(|state| state.iter().find(|(_, v)| !v.is_null())) else {
        return Value::Null;
    };
    let mut out = kind.clone();
    if let Some(reason) = v["reason"].as_str() {
        out += &format!(" {reason}");
    }
    if kind == "terminated" {
        out += &format!(" exit {}", v["exitCode"]);
        if v["startedAt"].is_null() {
            out += " (never started)";
        }
    }
    if let Some(message) = v["message"].as_str() {
        out += &format!(": {}", text(message));
    }
    json!(out)
}

fn container(status: &Value) -> Value {
    let mut out = json!({"state": one_state(&status["state"]), "ready": status["ready"], "started": status["started"],
        "restarts": status["restartCount"]});
    let last = one_state(&status["lastState"]);
    if !last.is_null() {
        out["last"] = last;
    }
    out
}

/// A Pod as recordings show it, without the printed cells.
pub(crate) fn state(pod: &Value) -> Value {
    let (meta, status) = (&pod["metadata"], &pod["status"]);
    let mut out = Map::new();
    if !meta["deletionTimestamp"].is_null() {
        out.insert("deleting".into(), meta["deletionGracePeriodSeconds"].clone());
    }
    if !meta["finalizers"].is_null() {
        out.insert("finalizers".into(), meta["finalizers"].clone());
    }
    out.insert("phase".into(), status["phase"].clone());
    for key in ["reason", "message", "qosClass"] {
        if let Some(value) = status[key].as_str() {
            out.insert(key.into(), json!(text(value)));
        }
    }
    let observed = status["observedGeneration"].as_i64().unwrap_or(0);
    out.insert("gen".into(), json!(format!("{observed}/{}", meta["generation"])));
    let conditions = status["conditions"].as_array().into_iter().flatten().map(|condition| {
        let mut said = condition["status"].as_str().unwrap_or_default().to_owned();
        if let Some(reason) = condition["reason"].as_str() {
            said += &format!(" {reason}");
        }
        if let Some(message) = condition["message"].as_str() {
            said += &format!(": {}", text(message));
        }
        (condition["type"].as_str().unwrap_or_default().to_owned(), json!(said))
    });
    out.insert("conditions".into(), Value::Object(conditions.collect()));
    for (short, key) in [
        ("init", "initContainerStatuses"),
        ("containers", "containerStatuses"),
        ("ephemeral", "ephemeralContainerStatuses"),
    ] {
        if let Some(list) = status[key].as_array().filter(|list| !list.is_empty()) {
            let map =
                list.iter().map(|status| (status["name"].as_str().unwrap_or_default().to_owned(), container(status)));
            out.insert(short.into(), Value::Object(map.collect()));
        }
    }
    Value::Object(out)
}

fn without_cells(state: &Value) -> Value {
    let mut state = state.clone();
    if let Some(map) = state.as_object_mut() {
        map.remove("cells");
        map.remove("resources");
        for part in ["init", "containers", "ephemeral"] {
            for container in
                map.get_mut(part).and_then(Value::as_object_mut).into_iter().flat_map(|map| map.values_mut())
            {
                let container = container.as_object_mut().unwrap();
                container.remove("resources");
                container.remove("allocated");
            }
        }
    }
    state
}

fn atoms(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key != "cells" && key != "gen" {
                    atoms(value, &format!("{path}.{key}"), out);
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| atoms(value, &format!("{path}[]"), out)),
        Value::Number(_) => {}
        value => drop(out.insert(format!("{path} {value}"))),
    }
}

/// The leaves where two values differ.
pub(crate) fn difference(want: &Value, got: &Value, path: &str, out: &mut Vec<String>) {
    if *want == json!("<any>") {
        return;
    }
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let (w, g) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                difference(w, g, &format!("{path}.{key}"), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (w, g)) in a.iter().zip(b).enumerate() {
                difference(w, g, &format!("{path}[{i}]"), out);
            }
        }
        _ if want == got => {}
        _ => out.push(format!("{path}: want {want}, got {got}")),
    }
}

/// Only what waits for the node: nothing of the Pod runs yet.
fn waits_for_node(state: &Value) -> bool {
    let all = || {
        ["init", "containers"].into_iter().flat_map(|part| state[part].as_object().into_iter().flat_map(Map::values))
    };
    let said: Vec<_> = all().map(|container| container["state"].as_str().unwrap_or_default().to_owned()).collect();
    said.is_empty() || said.iter().any(|s| s == "waiting ContainerCreating" || s == "waiting PodInitializing")
}

fn states(must: &[Value], may: &[Value], world: &World, out: &mut Vec<String>) {
    let got: Vec<(u64, Value)> = world.log.iter().map(|(ms, pod)| (*ms, state(pod))).collect();
    let mut i = 0;
    for (n, want) in must.iter().enumerate() {
        if want["gone"] == json!(true) {
            if !world.gone {
                out.push("the Pod is not gone".into());
            }
            continue;
        }
        let want = without_cells(want);
        match got[i..].iter().position(|(_, state)| *state == want) {
            Some(found) => i += found + 1,
            None => {
                let differences = got.iter().map(|(_, state)| {
                    let mut lines = Vec::new();
                    difference(&want, state, "", &mut lines);
                    lines
                });
                let nearest = differences.min_by_key(Vec::len).unwrap_or_default();
                let nearest = if nearest.is_empty() { vec!["out of order".to_owned()] } else { nearest };
                return out.push(format!(
                    "state {} of {} never seen; nearest:\n      {}",
                    n + 1,
                    must.len(),
                    nearest.join("\n      ")
                ));
            }
        }
    }
    let mut known = BTreeSet::new();
    must.iter().chain(may).for_each(|state| atoms(&without_cells(state), "", &mut known));
    for pair in got.windows(2) {
        let held = pair[1].0 - pair[0].0;
        let mut seen = BTreeSet::new();
        atoms(&pair[0].1, "", &mut seen);
        let new: Vec<_> = seen.difference(&known).cloned().collect();
        if held >= 3000 && !new.is_empty() && !waits_for_node(&pair[0].1) {
            out.push(format!("held {held} ms what was never seen upstream: {}", new.join("; ")));
        }
    }
}

fn events(must: &[Value], may: &[Value], world: &World, out: &mut Vec<String>) {
    struct Seen {
        reason: String,
        message: String,
        path: String,
        first: u64,
        count: usize,
    }
    let mut seen: Vec<Seen> = Vec::new();
    for (ms, event) in &world.events {
        let mut message = text(&event.message);
        for words in ["Failed to pull image", "Successfully pulled"] {
            if message.starts_with(words) && words.starts_with('S') {
                let image = message.split('"').nth(1).unwrap_or_default().to_owned();
                message = format!(
                    "Successfully pulled image \"{image}\" in <d> (<d> including waiting). Image size: <n> bytes."
                );
            }
        }
        let same =
            |seen: &&mut Seen| seen.reason == event.reason && seen.message == message && seen.path == event.field_path;
        match seen.iter_mut().find(same) {
            Some(seen) => seen.count += 1,
            None => seen.push(Seen {
                reason: event.reason.to_string(),
                message,
                path: event.field_path.clone(),
                first: *ms,
                count: 1,
            }),
        }
    }
    let ours = |event: &&Value| event["from"] == json!("kubelet");
    let find = |event: &Value| {
        let is = |a: &str, b: &Value| b.as_str().unwrap_or_default() == a;
        seen.iter().find(|s| {
            is(&s.reason, &event["reason"]) && is(&s.message, &event["message"]) && is(&s.path, &event["path"])
        })
    };
    for event in must.iter().filter(ours) {
        let Some(got) = find(event) else {
            out.push(format!("event missing: {} {} {}", event["reason"], event["message"], event["path"]));
            continue;
        };
        let repeated = got.count > 1;
        let wrong = event["repeated"]
            .as_bool()
            .is_some_and(|want| want != repeated && !(repeated && event["type"] == json!("Warning")));
        if wrong {
            out.push(format!(
                "event {} {}: came {} times, repeated should be {}",
                got.reason, got.message, got.count, event["repeated"]
            ));
        }
        for before in
            event["after"].as_array().into_iter().flatten().filter_map(|i| must.get(usize::try_from(i.as_u64()?).ok()?))
        {
            if find(before).is_some_and(|before| before.first > got.first + 50) {
                out.push(format!("event order: {} {} came before {}", got.reason, got.message, before["message"]));
            }
        }
    }
    for got in &seen {
        let is = |event: &&Value| {
            event["reason"] == json!(got.reason)
                && event["message"] == json!(got.message)
                && event["path"].as_str().unwrap_or_default() == got.path
        };
        if !must.iter().chain(may).any(|event| is(&event)) {
            out.push(format!("event never seen upstream: {} {:?} {}", got.reason, got.message, got.path));
        }
    }
}

/// The last status, with what is chance replaced.
fn last_status(world: &World) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(map) => {
                if matches!(map.get("reason").and_then(Value::as_str), Some("ErrImagePull" | "ImagePullBackOff")) {
                    map.insert("reason".into(), json!("<pull back-off>"));
                    map.insert("message".into(), json!("<any>"));
                }
                let has_image = map.contains_key("imageID");
                for (key, value) in map.iter_mut() {
                    match key.as_str() {
                        "containerID" => *value = json!("<containerID>"),
                        "imageID" => *value = json!("<imageID>"),
                        "image" if has_image => *value = json!("<image>"),
                        key if key.ends_with("Time") || key.ends_with("At") => {
                            if !value.is_null() {
                                *value = json!("<t>");
                            }
                        }
                        _ => walk(value),
                    }
                }
            }
            Value::Array(list) => list.iter_mut().for_each(walk),
            Value::String(s) => *s = text(s),
            _ => {}
        }
    }
    let mut status = world.log.last().map(|(_, pod)| pod["status"].clone()).unwrap_or_default();
    walk(&mut status);
    // The server stores these as null.
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition.as_object_mut().unwrap().entry("lastProbeTime").or_insert(Value::Null);
    }
    status
}

/// The differences from a recording.
pub(crate) fn judge(recording: &Value, world: &World) -> Vec<String> {
    let mut out = Vec::new();
    let none = Vec::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (must, may) = (&recording["must"], &recording["may"]);
    let series = list(&must["states"]["Pod/p"]);
    let seen = list(&may["states"]["Pod/p"]);
    if let Some(series) = series.first() {
        states(series.as_array().unwrap_or(&none), &seen, world, &mut out);
    }
    for name in must["backoff"]["Pod/p"].as_array().into_iter().flatten() {
        let shown = world.log.iter().any(|(_, pod)| {
            let state = state(pod);
            ["init", "containers"].iter().any(|part| {
                state[part][name.as_str().unwrap_or_default()]["state"]
                    .as_str()
                    .is_some_and(|s| s.contains("CrashLoopBackOff"))
            })
        });
        if !shown {
            out.push(format!("{name} never shown in CrashLoopBackOff"));
        }
    }
    let of_p = |list: Vec<Value>| list.into_iter().filter(|event| event["on"] == json!("Pod/p")).collect::<Vec<_>>();
    events(&of_p(list(&must["events"])), &of_p(list(&may["events"])), world, &mut out);
    if let Some(last) = must["final"]["Pod/p"].as_array().and_then(|list| list.last()).filter(|last| last.is_object()) {
        let mut lines = Vec::new();
        difference(&last["status"], &last_status(world), "final", &mut lines);
        out.extend(lines);
    }
    for (key, want) in must["timing"].as_object().into_iter().flatten() {
        let Some(name) = key.strip_prefix("back-off pods/p ") else { continue };
        let mut waits = Vec::new();
        let mut ended = None;
        for (ms, container, started) in &world.runs {
            match (container == name, started) {
                (true, true) => waits.extend(ended.take().map(|at: u64| (ms - at) / 1000)),
                (true, false) => ended = Some(*ms),
                _ => {}
            }
        }
        for (i, want) in list(want).iter().enumerate() {
            let least = want[0].as_f64().unwrap_or_default();
            let base = [0, 10, 20, 40, 80, 160, 300]
                .into_iter()
                .rfind(|base| f64::from(*base as u32) <= least + 1.0)
                .unwrap_or(0);
            let good =
                waits.get(i).is_some_and(|got| *got + 1 >= base && *got <= if base == 0 { 9 } else { 2 * base + 5 });
            if !good {
                out.push(format!("back-off {} of {name}: want about {base} s, got {:?} s", i + 1, waits.get(i)));
            }
        }
    }
    out
}
