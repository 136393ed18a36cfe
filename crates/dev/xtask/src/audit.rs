//! What is too slow or too much of the outside for every change: licences, known faults and sources of the
//! dependencies, long simulations, and the tests on another kernel.

use crate::{process, setup, vm};
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

/// Of the simulation, where the tests run five hundred.
const SEEDS: &str = "5000";
/// Its own module, because `go install` asks for more than a module proxy must have.
const CRICTL: &str = "module crictl\n\ngo 1.25.0\n\nrequire sigs.k8s.io/cri-tools v1.36.0\n";

pub(crate) fn run() -> Result<()> {
    deny()?;
    println!("simulating {SEEDS} seeds");
    process::check(Command::new("cargo").args(["test", "-p", "sim", "--test", "seeds"]).env("SIM_SEEDS", SEEDS))?;
    crictl()?;
    vm::run(&[])
}

/// The CRI socket, asked by crictl, which is built where Go is.
fn crictl() -> Result<()> {
    let Some(crictl) = built_crictl()? else {
        println!("no Go here: crictl is not tried");
        return Ok(());
    };
    let tools = setup::run()?;
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "-p", "minke", "--test", "e2e", "crictl_at_the_socket", "--", "--ignored"]);
    cargo.env("MINKE_TEST_KUBECTL", &tools.kubectl).env("MINKE_TEST_IMAGES", &tools.images);
    process::check(cargo.env("MINKE_TEST_CRICTL", crictl))
}

fn built_crictl() -> Result<Option<PathBuf>> {
    let directory = setup::target_directory()?.join("tools/crictl-1.36");
    let program = directory.join("crictl");
    if program.exists() {
        return Ok(Some(program));
    }
    if process::output("go", ["version"]).is_err() {
        return Ok(None);
    }
    println!("building crictl");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("go.mod"), CRICTL)?;
    let mut go = Command::new("go");
    go.args(["build", "-mod=mod", "-o", "crictl", "sigs.k8s.io/cri-tools/cmd/crictl"]);
    process::check(go.current_dir(&directory))?;
    Ok(Some(program))
}

/// `cargo deny check`, installed beside the other tools where it is missing.
fn deny() -> Result<()> {
    let root = setup::target_directory()?.join("tools/cargo-deny");
    let found = Command::new("cargo-deny").arg("--version").output().is_ok_and(|output| output.status.success());
    let program = if found { "cargo-deny".into() } else { root.join("bin/cargo-deny") };
    if !found && !program.exists() {
        println!("installing cargo-deny");
        // It works for seconds: optimising it would take longer than it saves.
        let arguments =
            ["install", "--quiet", "--debug", "--locked", "cargo-deny", "--root"].map(Into::into).into_iter();
        process::run("cargo", arguments.chain([root.into_os_string()]))?;
    }
    process::run(&program.to_string_lossy(), ["check", "--hide-inclusion-graph"])
}
