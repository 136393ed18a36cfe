//! Other runtimes from Debian's packages, doing as much of a Pod's start as they do.

use crate::report::Figures;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

fn run(command: &mut Command) -> Result<()> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{:?} is missing", command.get_program()))?;
    if !output.status.success() {
        bail!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Two containers made and started by an OCI runtime, one after the other: no network between them, no image.
pub(crate) fn oci(program: &str, directory: &Path, n: usize) -> Result<Figures> {
    let bundle = directory.join(program);
    std::fs::create_dir_all(bundle.join("rootfs/bin"))?;
    std::fs::copy("/bin/busybox", bundle.join("rootfs/bin/busybox"))?;
    run(Command::new(program).arg("spec").current_dir(&bundle))?;
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["process"]["args"] = json!(["/bin/busybox", "sleep", "3600"]);
    config["process"]["terminal"] = json!(false);
    std::fs::write(&path, serde_json::to_vec(&config)?)?;
    let times = (0..n).map(|round| {
        let names = [0, 1].map(|number| format!("minke-bench-{}-{round}-{number}", std::process::id()));
        let began = Instant::now();
        let started = names.iter().try_for_each(|name| {
            // The container keeps the streams: a pipe would never end.
            let said = bundle.join("said");
            let mut command = Command::new(program);
            command.args(["run", "-d", "--bundle"]).arg(&bundle).arg(name);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&said)?);
            match command.status().with_context(|| format!("{program} is missing"))?.success() {
                true => Ok(()),
                false => bail!("{program}: {}", std::fs::read_to_string(&said)?.trim()),
            }
        });
        let took = began.elapsed().as_secs_f64() * 1e3;
        for name in &names {
            // What was not started cannot be removed; the error that counts is the first.
            let _ = run(Command::new(program).args(["delete", "--force", name]));
        }
        started.map(|()| took)
    });
    Ok(Figures::of(times.collect::<Result<_>>()?))
}

/// A podman whose images, state and networks lie in a directory, and whose containers ask for no limits that this
/// machine may refuse. Its runtime is runc: crun refuses hosts with cgroup v1 and v2 side by side.
struct Podman<'a>(&'a Path);

impl Podman<'_> {
    fn run(&self, arguments: &[&str], file: &Path) -> Result<()> {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.0.join("containers.conf"));
        for (flag, name) in [("--root", "root"), ("--runroot", "run"), ("--network-config-dir", "networks")] {
            command.arg(flag).arg(self.0.join(name));
        }
        run(command.args(arguments).arg(file))
    }
}

const PODMAN_CONF: &str =
    "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n[engine]\nruntime = \"runc\"\n";

/// `podman kube play` of a Pod of two containers, and its removal.
pub(crate) fn podman(directory: &Path, images: &Path, n: usize) -> Result<(Figures, Figures)> {
    let directory = directory.join("podman");
    std::fs::create_dir_all(directory.join("networks"))?;
    std::fs::write(directory.join("containers.conf"), PODMAN_CONF)?;
    let podman = Podman(&directory);
    podman.run(&["load", "-q", "-i"], &images.join("busybox.tar"))?;
    let container = |name: &str| {
        json!({
            "name": name, "image": "localhost/busybox:1.37", "imagePullPolicy": "Never",
            "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"],
        })
    };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "minke-bench"},
        "spec": {"containers": [container("a"), container("b")], "terminationGracePeriodSeconds": 1},
    });
    let file = directory.join("pod.json");
    std::fs::write(&file, pod.to_string())?;
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let began = Instant::now();
        let played = podman.run(&["kube", "play", "-q"], &file);
        starts.push(began.elapsed().as_secs_f64() * 1e3);
        let began = Instant::now();
        let removed = podman.run(&["kube", "down"], &file);
        ends.push(began.elapsed().as_secs_f64() * 1e3);
        played?;
        removed?;
    }
    Ok((Figures::of(starts), Figures::of(ends)))
}
