//! The cluster that is measured: an instance of minke made for it, or a peer that runs already.

use crate::api::Client;
use crate::processes;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) struct Cluster {
    pub(crate) client: Client,
    image: String,
    /// A namespace of the measurement's own would have to be ready first; this one is.
    pub(crate) namespace: &'static str,
}

/// An instance of ours, gone when dropped.
pub(crate) struct Instance {
    program: PathBuf,
    kubectl: PathBuf,
    pub(crate) directory: PathBuf,
}

impl Instance {
    /// Starts it; the time that took.
    pub(crate) fn up(program: &Path, kubectl: &Path, directory: &Path) -> Result<(Self, Duration)> {
        let instance =
            Self { program: program.to_owned(), kubectl: kubectl.to_owned(), directory: directory.to_owned() };
        let took = instance.start()?;
        Ok((instance, took))
    }

    pub(crate) fn start(&self) -> Result<Duration> {
        let began = Instant::now();
        self.minke(&["up"])?;
        Ok(began.elapsed())
    }

    pub(crate) fn minke(&self, arguments: &[&str]) -> Result<String> {
        output(Command::new(&self.program).args(arguments).env("MINKE_DATA_DIR", &self.directory))
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(Command::new(&self.kubectl).args(arguments).env("KUBECONFIG", self.kubeconfig()))
    }

    fn kubeconfig(&self) -> PathBuf {
        self.directory.join("admin.kubeconfig")
    }

    /// With busybox in it.
    pub(crate) fn cluster(&self, images: &Path) -> Result<Cluster> {
        self.minke(&["image", "import", &images.join("busybox.tar").to_string_lossy()])?;
        Ok(Cluster {
            client: Client::of(&self.kubeconfig(), &self.kubectl)?,
            image: "busybox:1.37".to_owned(),
            namespace: "default",
        })
    }

    /// The server's processes: not the Pods' shims.
    pub(crate) fn servers(&self) -> Result<Vec<i32>> {
        let status: Value = serde_json::from_str(&self.minke(&["status", "-o", "json"])?)?;
        let server = status["pid"].as_i64().context("status names no pid")? as i32;
        let mut all = vec![server];
        // A supervisor is the same program.
        let parent = processes::parent(server)?;
        let program = |pid: i32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        if program(parent).is_some() && program(parent) == program(server) {
            all.push(parent);
        }
        Ok(all)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = self.minke(&["down", "--purge"]) {
            eprintln!("{} was not removed: {error:#}", self.directory.display());
        }
    }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

impl Cluster {
    pub(crate) fn of(kubeconfig: &Path, kubectl: &Path, image: &str) -> Result<Self> {
        Ok(Self { client: Client::of(kubeconfig, kubectl)?, image: image.to_owned(), namespace: "default" })
    }

    pub(crate) fn path(&self, resource: &str) -> String {
        format!("/api/v1/namespaces/{}/{resource}", self.namespace)
    }

    /// A Pod of so many containers that run until they are told to stop, and then stop at once. They say when they can
    /// be told. `mark` is in their processes' arguments.
    pub(crate) fn pod(&self, name: &str, containers: usize, mark: &str) -> Value {
        let script = format!(": {mark}; trap 'exit 0' TERM; echo ready; while :; do sleep 3600 & wait; done");
        let containers = (0..containers).map(|number| {
            json!({
                "name": format!("c{number}"), "image": self.image, "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", script],
            })
        });
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": containers.collect::<Vec<_>>()},
        })
    }

    /// Waits until all containers of a Pod hear signals: the first process of a container has none before it asks.
    pub(crate) async fn hears(&self, name: &str, containers: usize) -> Result<()> {
        let path = self.path("pods");
        let logs = (0..containers).map(|number| {
            let path = format!("{path}/{name}/log?follow=true&container=c{number}");
            async move { self.client.first_of(&path).await }
        });
        futures::future::try_join_all(logs).await.map(drop)
    }

    /// Creates Pods at once and waits until all their containers run; then deletes them and waits until they are gone.
    /// How long both took.
    pub(crate) async fn burst(&self, count: usize, mark: &str) -> Result<(Duration, Duration)> {
        let started = self.start_pods(count, mark).await?;
        for number in 0..count {
            self.hears(&format!("{mark}-{number}"), 1).await?;
        }
        let path = self.path("pods");
        let mut watch = self.client.watch(&path).await?;
        let began = Instant::now();
        let path = &path;
        let deletes = (0..count).map(|n| async move { self.client.delete(&format!("{path}/{mark}-{n}")).await });
        let deletes = futures::future::try_join_all(deletes);
        let gone = async {
            let mut left = count;
            while left > 0 {
                let (kind, pod) = watch.next().await?;
                left -= usize::from(kind == "DELETED" && of_mark(&pod, mark));
            }
            anyhow::Ok(())
        };
        tokio::try_join!(deletes, gone)?;
        let took = began.elapsed();
        ensure!(!processes::any_with(mark)?, "Pods are gone and processes of theirs are not");
        Ok((started, took))
    }

    /// Creates `count` Pods of one container at once; the time until all run.
    pub(crate) async fn start_pods(&self, count: usize, mark: &str) -> Result<Duration> {
        self.start((0..count).map(|number| self.pod(&format!("{mark}-{number}"), 1, mark)).collect()).await
    }

    /// Creates Pods at once; the time until all containers run.
    pub(crate) async fn start(&self, pods: Vec<Value>) -> Result<Duration> {
        let path = self.path("pods");
        let mut watch = self.client.watch(&path).await?;
        let mut waiting: BTreeSet<String> = pods.iter().map(|pod| pod["metadata"]["name"].to_string()).collect();
        let began = Instant::now();
        let creates = futures::future::try_join_all(pods.iter().map(|pod| self.client.post(&path, pod)));
        let running = async {
            while !waiting.is_empty() {
                let (_, pod) = watch.next().await?;
                if runs(&pod) {
                    waiting.remove(&pod["metadata"]["name"].to_string());
                }
            }
            anyhow::Ok(())
        };
        tokio::try_join!(creates, running)?;
        Ok(began.elapsed())
    }
}

fn of_mark(pod: &Value, mark: &str) -> bool {
    pod["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(mark))
}

/// Whether all of its containers run.
pub(crate) fn runs(pod: &Value) -> bool {
    let wanted = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let statuses = pod["status"]["containerStatuses"].as_array();
    statuses.is_some_and(|all| all.len() == wanted && all.iter().all(|one| one["state"]["running"].is_object()))
}
