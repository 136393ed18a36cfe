//! Tests on another kernel than this machine's: Debian's own, under qemu, with cgroup v2 alone. The guest's files are this
//! machine's (over 9p, below an overlay), so that whatever tests need is there; nothing is installed twice.
//!
//! Software emulation works everywhere; KVM is used where a probe boot proves that it does.

mod cpio;
mod kernel;

use crate::{process, setup};
use anyhow::{Context, Result, bail, ensure};
use kernel::Kernel;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const INIT: &str = include_str!("vm/init.sh");
const GUEST: &str = include_str!("vm/guest.sh");
/// What the guest says in the end, followed by its exit code.
const VERDICT: &str = "minke-vm: exit ";
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// How the guest's first process, and with it the place of our cgroups, is arranged.
const PLACEMENTS: [&str; 3] = ["plain", "container", "systemd"];

/// Packages whose tests run in the guest, and those of their test programs that need nothing of the outside.
const PACKAGES: [&str; 4] = ["shim", "runtime", "images", "minke"];

/// A test program and the directory `cargo test` runs it in.
struct Program {
    package: String,
    name: String,
    path: PathBuf,
    directory: PathBuf,
}

/// `only`: names of placements and of packages, and one word that tests' names hold; empty: everything.
pub(crate) fn run(only: &[String]) -> Result<()> {
    let tools = setup::run()?;
    setup::packages(&[("/usr/bin/qemu-system-x86_64", "qemu-system-x86"), ("/lib/systemd/systemd", "systemd")])?;
    let directory = setup::target_directory()?.join("tools/vm");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let kernel = kernel::get(&directory)?;
    let initramfs = directory.join("initramfs");
    std::fs::write(&initramfs, kernel.initramfs(INIT)?)?;
    let machine = Machine { directory, kernel, initramfs };
    let accelerator = if machine.probe() { "kvm" } else { "tcg,thread=multi" };
    println!("accelerator: {accelerator}");
    let wanted =
        |name: &str, all: &[&str]| only.iter().all(|o| !all.contains(&o.as_str())) || only.iter().any(|o| o == name);
    let packages: Vec<&str> = PACKAGES.into_iter().filter(|package| wanted(package, &PACKAGES)).collect();
    let programs = programs(&packages)?;
    let filter = only.iter().find(|o| !PLACEMENTS.contains(&o.as_str()) && !PACKAGES.contains(&o.as_str()));
    let mut failed = Vec::new();
    for placement in PLACEMENTS.into_iter().filter(|p| wanted(p, &PLACEMENTS)) {
        let mut script = format!(
            "export MINKE_TEST_KUBECTL={} MINKE_TEST_IMAGES={} MINKE_GOLDEN={}\n",
            tools.kubectl.display(),
            tools.images.display(),
            tools.golden.display()
        );
        for program in &programs {
            if let Some(arguments) = arguments(placement, program, filter) {
                writeln!(script, "run {} {} {arguments}", program.directory.display(), program.path.display())?;
            }
        }
        println!("== {placement}");
        let began = Instant::now();
        let code = machine.boot(accelerator, placement, &script, TIMEOUT, true)?;
        println!("== {placement}: exit code {code}, {:.0} s", began.elapsed().as_secs_f64());
        if code != 0 {
            failed.push(placement);
        }
    }
    ensure!(failed.is_empty(), "tests failed in the virtual machine: {}", failed.join(", "));
    Ok(())
}

/// What is run of a program: everything where the kernel is the point, the Pods' part elsewhere. `None`: nothing.
fn arguments(placement: &str, program: &Program, filter: Option<&String>) -> Option<String> {
    let whole = placement == "plain" && program.package != "minke";
    let part = match (program.package.as_str(), program.name.as_str()) {
        _ if whole => "",
        ("runtime", "embedded") => "",
        ("minke", "e2e") if placement == "plain" => "pods:: cgroups::",
        ("minke", "e2e") => "cgroups::",
        _ => return None,
    };
    Some(filter.map_or(part, |filter| filter).to_owned())
}

/// Builds the tests; cargo tells where they are.
fn programs(packages: &[&str]) -> Result<Vec<Program>> {
    let packages = packages.iter().flat_map(|package| ["-p", package]);
    let arguments = ["test", "--no-run", "--message-format=json-render-diagnostics"].into_iter().chain(packages);
    let mut programs = Vec::new();
    println!("building the tests");
    for line in process::output("cargo", arguments)?.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let (Some(path), true) = (text(&message["executable"]), message["profile"]["test"] == true) else { continue };
        let manifest = PathBuf::from(text(&message["manifest_path"]).context("cargo tells no manifest")?);
        let directory = manifest.parent().context("a manifest lies in a directory")?.to_owned();
        let package = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = text(&message["target"]["name"]).context("cargo tells no target")?;
        programs.push(Program { package, name, path: path.into(), directory });
    }
    Ok(programs)
}

struct Machine {
    directory: PathBuf,
    kernel: Kernel,
    initramfs: PathBuf,
}

impl Machine {
    /// Whether KVM boots.
    fn probe(&self) -> bool {
        Path::new("/dev/kvm").exists()
            && self.boot("kvm", "probe", "", PROBE_TIMEOUT, false).is_ok_and(|code| code == 0)
    }

    /// Boots, runs the script, returns the code it ends with. `show`: what the guest says is shown as it comes.
    fn boot(&self, accelerator: &str, placement: &str, script: &str, timeout: Duration, show: bool) -> Result<i32> {
        let disk = self.disk(placement, script)?;
        let mut child = self.command(accelerator, &disk).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("qemu has no output")?;
        let child = Guard(child);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if show {
                    println!("{line}");
                }
                if let Some(code) = line.strip_prefix(VERDICT) {
                    let _ = sender.send(code.parse::<i32>());
                }
            }
        });
        // The sender goes with the guest's last word.
        let code = receiver.recv_timeout(timeout);
        drop(child);
        std::fs::remove_file(&disk)?;
        match code {
            Ok(code) => Ok(code?),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                bail!("the virtual machine ended without a verdict")
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                bail!("the virtual machine gave no verdict in {} s", timeout.as_secs())
            }
        }
    }

    /// The guest's only writable disk, with what it is to do.
    fn disk(&self, placement: &str, script: &str) -> Result<PathBuf> {
        let content = self.directory.join("content");
        let _ = std::fs::remove_dir_all(&content);
        for name in ["tmp", "upper", "work"] {
            std::fs::create_dir_all(content.join(name))?;
        }
        std::fs::write(content.join("placement"), placement)?;
        std::fs::write(content.join("guest.sh"), GUEST)?;
        std::fs::write(content.join("script.sh"), script)?;
        let disk = self.directory.join("disk");
        let _ = std::fs::remove_file(&disk);
        let arguments = ["-q", "-t", "ext4", "-E", "root_owner=0:0", "-d"].map(Into::into);
        let mut arguments: Vec<std::ffi::OsString> = arguments.into();
        arguments.extend([content.into_os_string(), disk.clone().into_os_string(), "6G".into()]);
        process::run("/sbin/mke2fs", arguments)?;
        Ok(disk)
    }

    fn command(&self, accelerator: &str, disk: &Path) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        let share = |tag: &str, path: &Path| {
            let path = path.display();
            format!("local,id={tag},path={path},security_model=none,readonly=on,multidevs=remap")
        };
        command.args(["-accel", accelerator, "-cpu", if accelerator == "kvm" { "host" } else { "max" }]);
        command.args(["-machine", "q35", "-m", "3G", "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot"]);
        command.args(["-serial", "stdio", "-device", "virtio-rng-pci"]);
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(&self.initramfs);
        command.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off systemd.show_status=0"]);
        for (tag, path) in [("host", Path::new("/")), ("extra", &self.kernel.extra)] {
            command.arg("-fsdev").arg(share(tag, path));
            command.arg("-device").arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
        }
        command.arg("-drive").arg(format!("file={},format=raw,if=virtio,cache=unsafe", disk.display()));
        command
    }
}

/// Ends with the value.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
