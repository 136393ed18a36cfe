//! What is too slow or too much of the outside for every change: licences, known faults and sources of the
//! dependencies, long simulations, and the tests on another kernel.

use crate::{process, setup, vm};
use anyhow::Result;
use std::process::Command;

/// Of the simulation, where the tests run five hundred.
const SEEDS: &str = "5000";

pub(crate) fn run() -> Result<()> {
    deny()?;
    println!("simulating {SEEDS} seeds");
    process::check(Command::new("cargo").args(["test", "-p", "sim", "--test", "seeds"]).env("SIM_SEEDS", SEEDS))?;
    vm::run(&[])
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
