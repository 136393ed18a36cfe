//! `exec`, `attach`, `portforward` and the node proxy: requests that go through to a kubelet.

use super::{kubelet, tunnel};
use crate::admission::{self, Operation};
use crate::call::{Answer, Call};
use crate::errors::{self, Result};
use crate::refusal::Refusal;
use crate::{respond, server};
use serde_json::Value;
use std::fmt::Write;

pub(super) async fn stream(call: &Call<'_>) -> Result<Answer> {
    let pod = pod(call).await?;
    let name = call.info.name.as_str();
    let kind = call.subresource.map(|s| s.name).unwrap_or_default();
    let request = server::admission_request(call, Operation::Connect, name, &call.info.namespace, None, false);
    call.warn_all(admission::mutate(&request, &mut Value::Null)?);
    call.warn_all(admission::validate(&request, &Value::Null)?);
    let container =
        if kind == "portforward" { String::new() } else { container(&pod, name, call.query.get("container"))? };
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(Refusal::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let endpoint = kubelet::Endpoint::of_node(call, node)?;
    let target = target(call, kind, &container);
    let upgrade = call.headers.contains_key(http::header::UPGRADE);
    if !upgrade {
        return Err(Refusal::bad_request("Upgrade request required"));
    }
    let answer = endpoint.send(call, &target, upgrade).await?;
    Ok(Answer::Response(tunnel::answer(call, answer)?))
}

/// The kubelet's path for a stream (upstream `pkg/kubelet/server`).
fn target(call: &Call<'_>, kind: &str, container: &str) -> String {
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let query = call.query;
    let mut pairs: Vec<(&str, String)> = Vec::new();
    let path = if kind == "portforward" {
        for ports in query.all("ports") {
            pairs.push(("port", ports.to_owned()));
        }
        format!("/portForward/{namespace}/{name}")
    } else {
        for (given, kubelets) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
            if query.flag(given) {
                pairs.push((kubelets, "1".to_owned()));
            }
        }
        pairs.extend(query.all("command").map(|word| ("command", word.to_owned())));
        format!("/{kind}/{namespace}/{name}/{container}")
    };
    let mut target = path;
    for (index, (key, value)) in pairs.iter().enumerate() {
        let _ = write!(target, "{}{key}={}", if index == 0 { '?' } else { '&' }, escape(value));
    }
    target
}

/// Query escaping.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

pub(super) async fn pod(call: &Call<'_>) -> Result<Value> {
    let name = call.info.name.as_str();
    let entry = call.server.current(call, name).await?.ok_or_else(|| call.not_found(name))?;
    respond::tree_of(&entry.object)
}

/// The container asked for; a Pod of one has a choice of none.
pub(super) fn container(pod: &Value, pod_name: &str, wanted: &str) -> Result<String> {
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    if wanted.is_empty() {
        return match main.as_slice() {
            [one] => Ok((*one).to_owned()),
            [] => Err(Refusal::bad_request(format!("a container name must be specified for pod {pod_name}"))),
            many => {
                let mut why = format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                    many.join(" ")
                );
                if !init.is_empty() {
                    let _ = write!(why, " or one of the init containers: [{}]", init.join(" "));
                }
                Err(Refusal::bad_request(why))
            }
        };
    }
    let known = main.contains(&wanted) || init.contains(&wanted) || names("ephemeralContainers").contains(&wanted);
    if known {
        Ok(wanted.to_owned())
    } else {
        Err(Refusal::bad_request(format!("container {wanted} is not valid for pod {pod_name}")))
    }
}

/// `pods/NAME/proxy/PATH`: refused, after upstream's own check.
pub(super) async fn pod_proxy(call: &Call<'_>) -> Result<Answer> {
    if pod(call).await?["status"]["podIP"].as_str().unwrap_or_default().is_empty() {
        return Err(Refusal::bad_request("address not allowed"));
    }
    Err(errors::not_supported("proxying to Pods"))
}

/// `nodes/NAME/proxy/PATH`: the kubelet's own API.
pub(super) async fn node_proxy(call: &Call<'_>) -> Result<Answer> {
    // `NAME:PORT` and `https:NAME:PORT` name the node in the middle.
    let node = call.info.name.trim_start_matches("https:").split(':').next().unwrap_or_default();
    call.server.caches.fresh().await?;
    let endpoint = kubelet::Endpoint::of_node(call, node)?;
    let mut target = format!("/{}", call.info.rest);
    if let Some(query) = call.raw_query.as_deref() {
        target.push('?');
        target.push_str(query);
    }
    let upgrade = call.headers.contains_key(http::header::UPGRADE);
    let answer = endpoint.send(call, &target, upgrade).await?;
    Ok(Answer::Response(tunnel::answer(call, answer)?))
}
