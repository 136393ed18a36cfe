//! minke's main job on a real manifest, from nothing to nothing: the README's first command.

use crate::{process, setup};
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const MANIFEST: &str = include_str!("../demo.yaml");
const WORDS: &str = "written by the writer";

struct Demo {
    minke: PathBuf,
    kubectl: PathBuf,
    directory: PathBuf,
}

pub(crate) fn run() -> Result<()> {
    let tools = setup::run()?;
    println!("building minke (release)");
    let began = Instant::now();
    process::run("cargo", ["build", "--quiet", "--release", "--package", "minke"])?;
    told("built", began);
    let directory = std::env::temp_dir().join(format!("minke-demo-{}", std::process::id()));
    let minke = setup::target_directory()?.join("release/minke");
    let demo = Demo { minke, kubectl: tools.kubectl, directory };
    let result = demo.act(&tools.images);
    let began = Instant::now();
    let ended = demo.minke(&["down", "--purge"]);
    result?;
    ended?;
    ensure!(!demo.directory.exists(), "{} is left", demo.directory.display());
    told("all is gone again", began);
    Ok(())
}

impl Demo {
    fn act(&self, images: &Path) -> Result<()> {
        self.step("minke is up, its node Ready", || self.minke(&["up"]))?;
        for image in ["busybox.tar", "nginx.tar"] {
            let archive = images.join(image);
            self.step(&format!("{image} imported"), || self.minke(&["image", "import", &archive.to_string_lossy()]))?;
        }
        let manifest = self.directory.join("demo.yaml");
        std::fs::write(&manifest, MANIFEST)?;
        self.step("kubectl apply", || self.kubectl(&["apply", "-f", &manifest.to_string_lossy()]))?;
        self.step("the Pod is Ready", || self.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=60s"]))?;
        print!("{}", self.kubectl(&["get", "pods", "-o", "wide"])?);
        let address = self.kubectl(&["get", "pod", "web", "-o", "jsonpath={.status.podIP}"])?;
        let page = self.step("the page, over the Pod's IP", || page(&address))?;
        let line = page.lines().find(|line| line.contains(WORDS)).context("nginx served another page")?;
        println!("    {line}");
        print!("{}", self.kubectl(&["logs", "web", "-c", "nginx", "--tail=1"])?);
        self.step("kubectl delete", || self.kubectl(&["delete", "pod", "web"]))?;
        Ok(())
    }

    fn step<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let result = work().with_context(|| what.to_owned())?;
        told(what, began);
        Ok(result)
    }

    fn minke(&self, arguments: &[&str]) -> Result<String> {
        capture(Command::new(&self.minke).args(arguments).env("MINKE_DATA_DIR", &self.directory))
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.kubectl);
        capture(command.args(arguments).env("KUBECONFIG", self.directory.join("admin.kubeconfig")))
    }
}

fn told(what: &str, began: Instant) {
    println!("{:>8.1} ms  {what}", began.elapsed().as_secs_f64() * 1e3);
}

fn capture(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn page(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect((address, 80))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
