//! postStart and preStop (upstream `pkg/kubelet/lifecycle/handlers.go`).

use crate::prober::{exec, http};
use crate::{Shared, container};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};
use kubelet::pod::{HookKind, PodEvent};
use schema::field::go_quote;
use std::sync::Arc;
use std::time::Duration;

/// Runs a container's hook to its end. The error is what the container's status shows.
pub(crate) async fn run(
    shared: &Shared,
    pod: &Arc<Pod>,
    container: &Container,
    id: &str,
    hook: HookKind,
) -> Result<(), String> {
    let lifecycle = container.lifecycle.as_ref();
    let handler = lifecycle.and_then(|lifecycle| match hook {
        HookKind::PostStart => lifecycle.post_start.as_ref(),
        HookKind::PreStop => lifecycle.pre_stop.as_ref(),
    });
    let Some(handler) = handler else { return Ok(()) };
    handle(shared, pod, container, id, handler).await
}

async fn handle(
    shared: &Shared,
    pod: &Arc<Pod>,
    container: &Container,
    id: &str,
    handler: &LifecycleHandler,
) -> Result<(), String> {
    let failed = |kind: &str, what: &str, error: &str| {
        let (name, pod) = (go_quote(&container.name), go_quote(&title(pod)));
        format!("{kind} lifecycle hook ({what}) for Container {name} in Pod {pod} failed - error: {error}")
    };
    if let Some(action) = &handler.exec {
        let command = action.command.as_deref().unwrap_or_default();
        let (error, output) = match exec::run(&*shared.runtime, id, command).await {
            Ok(output) if output.code == 0 => return Ok(()),
            Ok(output) => (exited(command, &output), exec::combined(&output)),
            Err(error) => (error.to_string(), String::new()),
        };
        let shown = format!("[{}]", command.join(" "));
        return Err(format!("{}, message: {}", failed("Exec", &shown, &error), go_quote(&output)));
    }
    if let Some(action) = &handler.http_get {
        let sent = http(shared, pod, container, action).await;
        return sent.map_err(|error| failed("HTTP", action.path.as_deref().unwrap_or_default(), &error));
    }
    if let Some(action) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(action.seconds.try_into().unwrap_or_default())).await;
        return Ok(());
    }
    Err("Cannot run handler: invalid handler".to_owned())
}

fn exited(command: &[String], output: &runtime::exec::Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    format!("command '{}' exited with {}: {stderr}", command.join(" "), output.code)
}

/// Any answer is a success. A server that does not speak TLS is asked again without.
async fn http(shared: &Shared, pod: &Arc<Pod>, container: &Container, action: &HTTPGetAction) -> Result<(), String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let ips = shared.pods.get(uid).map(|entry| entry.ips).unwrap_or_default();
    let pod_ip = ips.first().map(ToString::to_string);
    if action.host.as_deref().unwrap_or_default().is_empty() && pod_ip.is_none() {
        return Err("failed to find networking container: the Pod has no address".to_owned());
    }
    let agent = agent("lifecycle", &shared.config.version);
    let mut get = http::Get::new(action, container, &pod_ip.unwrap_or_default(), &agent)?;
    let words = match http::get(get.clone()).await {
        Ok(_) | Err(http::Failure::Body(_)) => return Ok(()),
        Err(http::Failure::NoAnswer(words)) => words,
    };
    if !words.ends_with(http::NOT_TLS) {
        return Err(words);
    }
    "http".clone_into(&mut get.scheme);
    get.headers.remove(::http::header::AUTHORIZATION);
    let authority = get.authority();
    if let Err(http::Failure::NoAnswer(_)) = http::get(get).await {
        return Err(words);
    }
    let message = format!("request to HTTPS lifecycle hook {authority} got HTTP response, retry with HTTP succeeded");
    let event = PodEvent { warning: true, reason: "LifecycleHTTPFallback".into(), message, field_path: String::new() };
    shared.events.pod(pod, &event);
    Ok(())
}

/// `kube-probe/1.37`: `version` is the node's, `v1.37.1+…`.
pub(crate) fn agent(purpose: &str, version: &str) -> String {
    let parts: Vec<_> = version.trim_start_matches('v').split('.').take(2).collect();
    format!("kube-{purpose}/{}", parts.join("."))
}

/// `NAME_NAMESPACE(UID)`
fn title(pod: &Pod) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let meta = &pod.metadata;
    format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
}

/// Finds the container and runs its hook.
pub(crate) async fn run_by_name(
    shared: &Shared,
    pod: &Arc<Pod>,
    name: &str,
    id: &str,
    hook: HookKind,
) -> Result<(), String> {
    match container::find(pod, name) {
        Some(container) => run(shared, pod, &container, id, hook).await,
        None => Err(format!("container {name} is not in the Pod")),
    }
}
