//! Everything that must hold before a change lands.

use crate::{process, setup, tidy};
use anyhow::Result;
use std::process::Command;
use std::time::Instant;

pub(crate) fn run() -> Result<()> {
    let tools = setup::run()?;
    let began = Instant::now();
    step("formatting", || process::run("cargo", ["fmt", "--all", "--check"]))?;
    step("lints", || {
        process::run("cargo", ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
    })?;
    step("tidy", tidy::run)?;
    step("tests", || {
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--workspace", "--no-fail-fast"]);
        cargo.env("MINKE_TEST_KUBECTL", &tools.kubectl).env("MINKE_TEST_IMAGES", &tools.images);
        cargo.env("MINKE_TEST_KUBECTL_1_28", &tools.kubectl_1_28);
        cargo.env("MINKE_TEST_KUBECTL_1_32", &tools.kubectl_1_32);
        cargo.env("MINKE_GOLDEN", &tools.golden);
        process::check(&mut cargo)
    })?;
    println!("all checks passed in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    println!("== {name}");
    work()?;
    println!("== {name}: ok, {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
