//! How long a sandbox and its containers take to start, and what a shim weighs, without an API server or a network. For
//! `cargo xtask bench`: prints one JSON object. Needs root.
//!
//! `cargo run -p runtime --example figures -- ARCHIVE IMAGE [COUNT]`: a docker or OCI archive, an image in it that has
//! `sleep`, how many Pods one after another (50).
#![allow(clippy::print_stdout)]

use async_trait::async_trait;
use runtime::embedded::{Embedded, Options, purge};
use runtime::types::{ContainerConfig, NamespaceMode, PodNetwork, Resources, Runtime, SandboxConfig, SecurityContext};
use std::collections::BTreeMap;
use std::error::Error;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Nothing but the Pod's own loopback.
struct NoNetwork;

#[async_trait]
impl PodNetwork for NoNetwork {
    async fn attach(&self, _: &SandboxConfig, _: &str, _: OwnedFd) -> Result<Vec<IpAddr>, String> {
        Ok(Vec::new())
    }
    async fn detach(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The shims are this program, too.
    if shim::is_shim() {
        std::process::exit(shim::main());
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [archive, image, rest @ ..] = arguments.as_slice() else {
        return Err("usage: figures ARCHIVE IMAGE [COUNT]".into());
    };
    let count: usize = rest.first().map_or(Ok(50), |count| count.parse())?;
    let instance = format!("figures-{}", std::process::id());
    let dir = std::env::temp_dir().join(format!("minke-{instance}"));
    let result = measure(&instance, &dir, Path::new(archive), image, count.max(1)).await;
    purge(&instance, &dir.join("runtime"))?;
    std::fs::remove_dir_all(&dir)?;
    println!("{}", result?);
    Ok(())
}

async fn measure(
    instance: &str,
    dir: &Path,
    archive: &Path,
    image: &str,
    count: usize,
) -> Result<serde_json::Value, Box<dyn Error>> {
    let images = images::Images::open(&dir.join("images"), images::Options::default())?;
    images.import_file(archive).await?;
    let image_id = images.resolve(image).ok_or_else(|| format!("{} holds no {image}", archive.display()))?.id;
    let options = Options {
        instance: instance.to_owned(),
        dir: dir.join("runtime"),
        shim_program: std::env::current_exe()?,
        images,
        network: Arc::new(NoNetwork),
    };
    let runtime = Embedded::open(options).await?;
    let (mut sandboxes, mut containers, mut removals, mut pss_kib) = (vec![], vec![], vec![], vec![]);
    for number in 0..count {
        let began = Instant::now();
        let pod = runtime.run_sandbox(sandbox(number, dir)).await?;
        sandboxes.push(began.elapsed().as_secs_f64() * 1e3);
        let began = Instant::now();
        for name in ["first", "second"] {
            let id = runtime.create_container(&pod.id, container(name, &image_id)).await?;
            runtime.start_container(&id).await?;
        }
        containers.push(began.elapsed().as_secs_f64() * 1e3);
        pss_kib.push(shim_pss_kib(&pod.id)?);
        let began = Instant::now();
        runtime.stop_sandbox(&pod.id).await?;
        runtime.remove_sandbox(&pod.id).await?;
        removals.push(began.elapsed().as_secs_f64() * 1e3);
    }
    runtime.close().await;
    Ok(serde_json::json!({
        "pods": count,
        "run_sandbox_ms": spread(sandboxes),
        "two_containers_ms": spread(containers),
        "remove_ms": spread(removals),
        "shim_pss_kib": spread(pss_kib),
    }))
}

fn spread(mut values: Vec<f64>) -> serde_json::Value {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| (values[((values.len() - 1) as f64 * share).round() as usize] * 100.0).round() / 100.0;
    serde_json::json!({"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0)})
}

/// Of the process whose arguments name the sandbox.
fn shim_pss_kib(sandbox_id: &str) -> Result<f64, Box<dyn Error>> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).contains(sandbox_id) {
            let text = std::fs::read_to_string(entry.path().join("smaps_rollup"))?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no PSS")?;
            return Ok(line.trim().trim_end_matches(" kB").parse()?);
        }
    }
    Err(format!("no process names the sandbox {sandbox_id}").into())
}

fn sandbox(number: usize, dir: &Path) -> SandboxConfig {
    SandboxConfig {
        name: format!("pod-{number}"),
        namespace: "default".into(),
        uid: format!("uid-{number}"),
        attempt: 0,
        hostname: format!("pod-{number}"),
        log_directory: dir.join("logs"),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        network: NamespaceMode::Pod,
        ipc: NamespaceMode::Pod,
        pid: NamespaceMode::Container,
        sysctls: BTreeMap::new(),
        cgroup_parent: format!("burstable/poduid-{number}"),
        resources: Resources::default(),
        port_mappings: Vec::new(),
    }
}

fn container(name: &str, image_id: &str) -> ContainerConfig {
    ContainerConfig {
        name: name.into(),
        attempt: 0,
        image_id: image_id.into(),
        user_image: String::new(),
        command: ["sleep", "1000"].map(Into::into).to_vec(),
        args: Vec::new(),
        working_dir: String::new(),
        envs: Vec::new(),
        mounts: Vec::new(),
        devices: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        log_path: PathBuf::from(format!("{name}/0.log")),
        stdin: false,
        stdin_once: false,
        tty: false,
        resources: Resources::default(),
        security: SecurityContext::default(),
        stop_signal: String::new(),
    }
}
