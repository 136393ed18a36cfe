//! `minke run`: manifests in a throw-away cluster. The binary boots and removes the cluster around [`follow`].

use crate::arguments::Until;
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
use std::ffi::OsString;
use std::io::{IsTerminal, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// One colour per container, in turn.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// Applies `objects`, shows what their Pods do until they are as `until` says, then runs `command` (if any), and returns
/// the exit code: the command's, or else the first of the Pods' that is not 0, in the order of the manifests.
pub async fn follow(kubeconfig: &Path, objects: Vec<Value>, until: &Until, command: &[OsString]) -> Result<u8> {
    let remote = Arc::new(Remote::from_kubeconfig(kubeconfig).await?);
    let mut wanted = Vec::new();
    for object in &objects {
        let created = remote.write(manifests::create(object)?).await.with_context(|| describe(object))?;
        if object["kind"] == "Pod" {
            wanted.push((created.namespace.clone(), created.name.clone()));
        }
    }
    // Workloads make Pods of their own, and go on.
    let lasting = objects.iter().any(|object| matches!(object["apiVersion"].as_str(), Some("apps/v1" | "batch/v1")));
    let query = ListQuery { target: target::<Pod>("", ""), ..ListQuery::default() };
    let (informer, pods, changes) = Informer::<Pod>::new(remote.clone(), query);
    let mut printer = Printer::new(remote);
    let work = async {
        let mut changes = changes;
        let code = until_reached(&wanted, lasting, until, &pods, &mut changes, &mut printer).await;
        if command.is_empty() || code != 0 {
            if *until == Until::Done {
                printer.finish().await;
            }
            return Ok(code);
        }
        tokio::select! {
            code = carry_out(command, kubeconfig) => code,
            () = show(&mut changes, &mut printer) => Ok(1),
        }
    };
    tokio::select! {
        () = informer.run() => anyhow::bail!("the watch of Pods ended"),
        code = work => code,
    }
}

/// The command's exit code; as shells have it, 128 and the signal's number for one that was killed.
async fn carry_out(command: &[OsString], kubeconfig: &Path) -> Result<u8> {
    let Some((program, arguments)) = command.split_first() else { return Ok(0) };
    let mut child = tokio::process::Command::new(program);
    let status = child.args(arguments).env("KUBECONFIG", kubeconfig).kill_on_drop(true).status().await;
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(1))
}

/// Goes on showing what happens.
async fn show(changes: &mut mpsc::UnboundedReceiver<Change<Pod>>, printer: &mut Printer) {
    while let Some(change) = changes.recv().await {
        if let Change::Set { new, .. } = &change {
            printer.pod(new);
        }
    }
}

fn describe(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("cannot create {}/{}", text(&object["kind"]).to_lowercase(), text(&object["metadata"]["name"]))
}

async fn until_reached(
    wanted: &[(String, String)],
    lasting: bool,
    until: &Until,
    pods: &Cache<Pod>,
    changes: &mut mpsc::UnboundedReceiver<Change<Pod>>,
    printer: &mut Printer,
) -> u8 {
    let mut gone = BTreeSet::new();
    while let Some(change) = changes.recv().await {
        match &change {
            Change::Set { new, .. } => printer.pod(new),
            Change::Gone(old) => drop(gone.insert(old.metadata.uid.clone())),
            Change::Synced => {}
        }
        let of = |(namespace, name): &(String, String)| pods.get(namespace, name);
        let found: Option<Vec<Arc<Pod>>> = wanted.iter().map(of).collect();
        let missing = found.is_none() && !gone.is_empty();
        if missing {
            eprintln!("a Pod of the manifests was deleted");
            return 1;
        }
        let Some(found) = found else { continue };
        if let Some(code) = outcome(&found, lasting, until) {
            return code;
        }
    }
    1
}

/// The exit code, once the Pods are as wanted or can no longer become so.
fn outcome(pods: &[Arc<Pod>], lasting: bool, until: &Until) -> Option<u8> {
    let first_failure = |pods: &[&Arc<Pod>]| pods.iter().map(|pod| exit_code(pod)).find(|code| *code != 0);
    let all: Vec<&Arc<Pod>> = pods.iter().collect();
    let reached = match until {
        Until::Done => {
            let finite: Vec<&Arc<Pod>> = pods.iter().filter(|pod| can_end(pod)).collect();
            let ended = finite.iter().all(|pod| has_ended(pod)) && (!finite.is_empty() || all.is_empty() && !lasting);
            return ended.then(|| first_failure(&finite).unwrap_or(0));
        }
        Until::Ready => all.iter().all(|pod| has_condition(pod, "Ready", "true") || phase(pod) == "Succeeded"),
        Until::Condition { kind, status } => all.iter().all(|pod| has_condition(pod, kind, status)),
    };
    if reached {
        return Some(0);
    }
    // Who has ended changes no more.
    let failed: Vec<&Arc<Pod>> = all.iter().copied().filter(|pod| phase(pod) == "Failed").collect();
    let stuck = !failed.is_empty() || all.iter().all(|pod| has_ended(pod));
    stuck.then(|| first_failure(&failed).unwrap_or(1))
}

fn has_condition(pod: &Pod, kind: &str, status: &str) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut same = conditions.filter(|condition| condition.type_.eq_ignore_ascii_case(kind));
    same.any(|condition| condition.status.eq_ignore_ascii_case(status))
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

    fn pod(phase: &str, policy: &str, codes: &[(&str, i32)]) -> Arc<Pod> {
        let status = |(name, code): &(&str, i32)| {
            json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code}}})
        };
        let containers: Vec<_> = ["b", "a"].iter().map(|name| json!({"name": name})).collect();
        let statuses: Vec<_> = codes.iter().map(status).collect();
        let ready = if phase == "Running" { "True" } else { "False" };
        let conditions = json!([{"type": "Ready", "status": ready}]);
        let pod = json!({"spec": {"containers": containers, "restartPolicy": policy},
            "status": {"phase": phase, "containerStatuses": statuses, "conditions": conditions}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn the_first_failure_in_the_manifest_is_the_exit_code() {
        let code = |phase, codes| exit_code(&pod(phase, "Never", codes));
        assert_eq!(code("Succeeded", &[("a", 0), ("b", 0)]), 0);
        assert_eq!(code("Failed", &[("a", 3), ("b", 7)]), 7);
        assert_eq!(code("Failed", &[("a", 3), ("b", 0)]), 3);
        assert_eq!(code("Failed", &[]), 1);
    }

    #[test]
    fn what_ends_a_run() {
        let running = || pod("Running", "Always", &[]);
        let pending = || pod("Pending", "Never", &[]);
        let failed = || pod("Failed", "Never", &[("a", 3)]);
        let done = || pod("Succeeded", "Never", &[]);
        let not_ready = Until::Condition { kind: "ready".to_owned(), status: "false".to_owned() };
        for (pods, until, expected) in [
            (vec![running(), done()], Until::Done, Some(0)),
            (vec![running(), pending()], Until::Done, None),
            (vec![running()], Until::Done, None),
            (vec![done(), failed(), running()], Until::Done, Some(3)),
            (vec![], Until::Done, Some(0)),
            (vec![running(), done()], Until::Ready, Some(0)),
            (vec![running(), pending()], Until::Ready, None),
            (vec![running(), failed(), pending()], Until::Ready, Some(3)),
            (vec![pending(), done()], not_ready.clone(), Some(0)),
            (vec![running()], not_ready, None),
        ] {
            assert_eq!(outcome(&pods, false, &until), expected, "{until:?} {pods:?}");
        }
        assert_eq!(outcome(&[], true, &Until::Done), None, "workloads go on");
    }
}
