//! The programs of upstream, built from the Go module in `conformance/`, and busybox.

use crate::{process, setup};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where each program is.
pub(super) struct Programs {
    pub(super) directory: PathBuf,
    pub(super) ginkgo: PathBuf,
    pub(super) e2e: PathBuf,
}

impl Programs {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Name, package.
const PROGRAMS: [(&str, &str); 6] = [
    ("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"),
    ("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
    ("nonewprivs", "k8s.io/kubernetes/test/images/nonewprivs"),
    ("sample-apiserver", "k8s.io/sample-apiserver"),
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("pause", "./pause"),
];
const E2E: (&str, &str) = ("e2e.test", "k8s.io/kubernetes/test/e2e");
/// The suite that has the release of upstream's image.
const BUSYBOX_SOURCE: &str =
    "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main\n";
const KUBERNETES: &str = "k8s.io/kubernetes";

/// Builds what is not there yet or is of another release.
pub(super) fn programs(directory: &Path) -> Result<Programs> {
    let version = release()?;
    let directory = directory.join(&version);
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let linker = linker_flags(&version);
    for (name, package) in PROGRAMS {
        build(&directory, name, &["build"], package, &linker)?;
    }
    busybox(&directory)?;
    build(&directory, E2E.0, &["test", "-c"], E2E.1, &linker)?;
    Ok(Programs { ginkgo: directory.join("ginkgo"), e2e: directory.join(E2E.0), directory })
}

/// The module of Kubernetes that go.mod names: its directory in Go's cache.
pub(super) fn kubernetes() -> Result<PathBuf> {
    let directory = capture(&mut go(&["list", "-m", "-f", "{{.Dir}}", KUBERNETES])).context("Go")?;
    Ok(directory.trim().into())
}

/// Such as `v1.37.1`.
fn release() -> Result<String> {
    if go(&["version"]).output().is_err() {
        bail!(
            "upstream's tests are built with Go, and there is no `go` on PATH: install Go 1.26 or newer (https://go.dev/dl/). \
             Nothing else here needs it."
        );
    }
    Ok(capture(&mut go(&["list", "-m", "-f", "{{.Version}}", KUBERNETES]))?.trim().to_owned())
}

/// What the programs say of themselves: a plain `go build` knows no release.
fn linker_flags(version: &str) -> String {
    let minor = version.trim_start_matches('v').split('.').nth(1).unwrap_or_default();
    let mut flags = "-s -w".to_owned();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [
            ("gitVersion", version),
            ("gitMajor", "1"),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
            ("gitCommit", "0000000000000000000000000000000000000000"),
            ("buildDate", "2026-01-01T00:00:00Z"),
        ] {
            flags += &format!(" -X {package}.{name}={value}");
        }
    }
    flags
}

fn build(directory: &Path, name: &str, verb: &[&str], package: &str, linker: &str) -> Result<()> {
    let path = directory.join(name);
    if path.exists() {
        return Ok(());
    }
    println!("building {package}");
    let made = directory.join(format!("{name}.new"));
    let mut command = go(verb);
    command.args(["-trimpath", "-buildvcs=false", "-ldflags", linker, "-o"]).arg(&made).arg(package);
    process::check(&mut command)?;
    Ok(std::fs::rename(made, path)?)
}

/// busybox as upstream's image has it: of its own defaults, and static. Debian's is configured so that its shell drops variables
/// whose names are no identifiers, which tests look for.
fn busybox(directory: &Path) -> Result<()> {
    let path = directory.join("busybox");
    if path.exists() {
        return Ok(());
    }
    println!("building busybox");
    let tools = [("gcc", "gcc"), ("make", "make"), ("bzip2", "bzip2"), ("dpkg-source", "dpkg-dev")];
    let tools = tools.map(|(program, package)| (format!("/usr/bin/{program}"), package));
    setup::packages(&tools.each_ref().map(|(program, package)| (program.as_str(), *package)))?;
    let source = directory.join("busybox-source");
    std::fs::create_dir_all(source.join("lists/partial"))?;
    let list = source.join("sources.list");
    std::fs::write(&list, BUSYBOX_SOURCE)?;
    let set = |name: &str, value: &Path| format!("{name}={}", value.display());
    let settings = [
        set("Dir::Etc::sourcelist", &list),
        set("Dir::Etc::sourceparts", Path::new("/nonexistent")),
        set("Dir::State::lists", &source.join("lists")),
        "Debug::NoLocking=1".to_owned(),
    ];
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.arg("-qq").args(settings.iter().flat_map(|setting| ["-o", setting])).args(words);
        process::check(command.current_dir(&source))
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", "busybox"])?;
    let shell = |script: &str| process::check(Command::new("sh").args(["-ec", script]).current_dir(&source));
    shell("mkdir tree; tar xjf busybox_*.orig.tar.bz2 -C tree --strip-components=1")?;
    // Its traffic control does not build with the kernel's headers of today.
    shell(
        "cd tree; make -s defconfig >/dev/null; \
         sed -i -e 's/^# CONFIG_STATIC is not set/CONFIG_STATIC=y/' -e 's/^CONFIG_TC=y/# CONFIG_TC is not set/' .config; \
         yes '' | make -s oldconfig >/dev/null; make -s busybox >../log 2>&1",
    )?;
    std::fs::rename(source.join("tree/busybox"), path)?;
    Ok(std::fs::remove_dir_all(source)?)
}

fn go(arguments: &[&str]) -> Command {
    let mut command = Command::new("go");
    command.args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../conformance"));
    // What is built depends on the module alone.
    command.env("GOWORK", "off").env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=readonly").env("CGO_ENABLED", "0");
    command
}

fn capture(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
