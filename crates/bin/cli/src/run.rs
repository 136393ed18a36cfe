//! `minke run`: manifests in a throw-away cluster. The binary boots and removes the cluster around [`follow`].

use crate::manifests;
use anyhow::{Context, Result};
use client::informer::{Cache, Change, Informer};
use client::remote::Remote;
use client::transport::{ListQuery, Transport};
use client::typed::target;
use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// One colour per container, in turn.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// Applies `objects`, shows what their Pods do, and returns the exit code: the first that is not 0 in the order of the
/// manifests, once every Pod that can end has ended. With only Pods that run for ever, it does not return.
pub async fn follow(kubeconfig: &Path, objects: Vec<Value>) -> Result<u8> {
    let remote = Arc::new(Remote::from_kubeconfig(kubeconfig).await?);
    let mut wanted = Vec::new();
    for object in &objects {
        let created = remote.write(manifests::create(object)?).await.with_context(|| describe(object))?;
        if object["kind"] == "Pod" {
            wanted.push((created.namespace.clone(), created.name.clone()));
        }
    }
    let query = ListQuery { target: target::<Pod>("", ""), ..ListQuery::default() };
    let (informer, pods, changes) = Informer::<Pod>::new(remote.clone(), query);
    let mut printer = Printer::new(remote);
    tokio::select! {
        () = informer.run() => anyhow::bail!("the watch of Pods ended"),
        code = until_ended(&wanted, &pods, changes, &mut printer) => {
            printer.finish().await;
            Ok(code)
        }
    }
}

fn describe(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("cannot create {}/{}", text(&object["kind"]).to_lowercase(), text(&object["metadata"]["name"]))
}

async fn until_ended(
    wanted: &[(String, String)],
    pods: &Cache<Pod>,
    mut changes: mpsc::UnboundedReceiver<Change<Pod>>,
    printer: &mut Printer,
) -> u8 {
    while let Some(change) = changes.recv().await {
        if let Change::Set { new, .. } = &change {
            printer.pod(new);
        }
        let of = |(namespace, name): &(String, String)| pods.get(namespace, name);
        let found: Option<Vec<Arc<Pod>>> = wanted.iter().map(of).collect();
        let Some(found) = found else { continue };
        let finite: Vec<&Arc<Pod>> = found.iter().filter(|pod| can_end(pod)).collect();
        if !finite.is_empty() && finite.iter().all(|pod| has_ended(pod)) {
            return finite.iter().map(|pod| exit_code(pod)).find(|code| *code != 0).unwrap_or(0);
        }
    }
    1
}

fn can_end(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.restart_policy.as_deref() != Some("Always"))
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Of the containers in the order of the manifest, init containers first; 1 where the Pod failed without any.
fn exit_code(pod: &Pod) -> u8 {
    let failed = phase(pod) == "Failed";
    let terminated = |status: &ContainerStatus| {
        status.state.as_ref().and_then(|state| state.terminated.as_ref()).map(|t| t.exit_code)
    };
    let status = pod.status.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let init: Vec<_> = status.init_container_statuses.unwrap_or_default();
    let main: Vec<_> = status.container_statuses.unwrap_or_default();
    let by_name = |list: &[ContainerStatus], name: &str| list.iter().find(|s| s.name == name).and_then(terminated);
    let sidecars: BTreeSet<_> = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"))
        .map(|c| &c.name)
        .collect();
    let first =
        spec.init_containers.iter().flatten().filter(|c| !sidecars.contains(&c.name)).map(|c| by_name(&init, &c.name));
    let codes = first.chain(spec.containers.iter().map(|c| by_name(&main, &c.name)));
    let code = codes.flatten().find(|code| *code != 0).unwrap_or_else(|| i32::from(failed));
    u8::try_from(code).unwrap_or(1)
}

/// Shows states on standard error and logs on standard output.
struct Printer {
    remote: Arc<Remote>,
    /// Last shown state of each container.
    shown: BTreeMap<(String, String), String>,
    /// Attempts whose log is being shown.
    streams: BTreeSet<(String, String, i32)>,
    colours: BTreeMap<(String, String), u8>,
    logs: JoinSet<()>,
}

impl Printer {
    fn new(remote: Arc<Remote>) -> Self {
        let (shown, streams, colours) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { remote, shown, streams, colours, logs: JoinSet::new() }
    }

    fn pod(&mut self, pod: &Pod) {
        let status = pod.status.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let lists = [status.init_container_statuses, status.container_statuses];
        for status in lists.into_iter().flatten().flatten() {
            let text = state(&status);
            let key = (name.clone(), status.name.clone());
            if self.shown.get(&key) != Some(&text) {
                eprintln!("{name}/{}: {text}", status.name);
                self.shown.insert(key, text);
            }
            let begun =
                status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some());
            if begun && self.streams.insert((name.clone(), status.name.clone(), status.restart_count)) {
                self.stream(pod, &status.name);
            }
        }
    }

    fn stream(&mut self, pod: &Pod, container: &str) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/log?container={container}&follow=true");
        let next = COLOURS[self.colours.len() % COLOURS.len()];
        let colour = *self.colours.entry((name.clone(), container.to_owned())).or_insert(next);
        let plain = !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some();
        let label = format!("{name}/{container}");
        let label = if plain { label } else { format!("\x1b[{colour}m{label}\x1b[0m") };
        let remote = self.remote.clone();
        self.logs.spawn(async move {
            match remote.stream(&path).await {
                Ok(body) => {
                    let mut lines = std::pin::pin!(futures::io::BufReader::new(body).lines());
                    while let Some(Ok(line)) = lines.next().await {
                        writeln!(std::io::stdout(), "{label} {line}").ok();
                    }
                }
                Err(error) => eprintln!("{label}: no log: {error}"),
            }
        });
    }

    /// Everything the containers wrote is shown before the end.
    async fn finish(&mut self) {
        while self.logs.join_next().await.is_some() {}
    }
}

fn state(status: &ContainerStatus) -> String {
    match status.state.clone() {
        Some(ContainerState { terminated: Some(end), .. }) => {
            let reason = end.reason.unwrap_or_else(|| "Terminated".to_owned());
            format!("{reason}, exit code {}", end.exit_code)
        }
        Some(ContainerState { running: Some(_), .. }) if status.restart_count > 0 => {
            format!("Running, restarted {} times", status.restart_count)
        }
        Some(ContainerState { running: Some(_), .. }) => "Running".to_owned(),
        Some(ContainerState { waiting: Some(waiting), .. }) => {
            let message = waiting.message.map(|message| format!(": {message}")).unwrap_or_default();
            format!("{}{message}", waiting.reason.unwrap_or_else(|| "Waiting".to_owned()))
        }
        _ => "Waiting".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn code(phase: &str, codes: &[(&str, i32)]) -> u8 {
        let status = |(name, code): &(&str, i32)| {
            json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code}}})
        };
        let containers: Vec<_> = ["b", "a"].iter().map(|name| json!({"name": name})).collect();
        let statuses: Vec<_> = codes.iter().map(status).collect();
        let pod =
            json!({"spec": {"containers": containers}, "status": {"phase": phase, "containerStatuses": statuses}});
        exit_code(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn the_first_failure_in_the_manifest_is_the_exit_code() {
        assert_eq!(code("Succeeded", &[("a", 0), ("b", 0)]), 0);
        assert_eq!(code("Failed", &[("a", 3), ("b", 7)]), 7);
        assert_eq!(code("Failed", &[("a", 3), ("b", 0)]), 3);
        assert_eq!(code("Failed", &[]), 1);
    }
}
