//! minke's figures beside their floors and peers: builds what is measured and what measures, and runs it.

use crate::{process, setup};
use anyhow::Result;
use std::process::Command;

pub(crate) fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let tools = setup::run()?;
    setup::packages(&[("/usr/bin/crun", "crun"), ("/usr/bin/podman", "podman"), ("/usr/bin/catatonit", "catatonit")])?;
    println!("building minke and the bench (release)");
    process::run("cargo", ["build", "--quiet", "--release", "--package", "minke", "--package", "bench"])?;
    let built = setup::target_directory()?.join("release");
    let mut bench = Command::new(built.join("bench"));
    bench.args(arguments).env("MINKE_BENCH_PROGRAM", built.join("minke"));
    bench.env("MINKE_TEST_KUBECTL", &tools.kubectl).env("MINKE_TEST_IMAGES", &tools.images);
    process::check(&mut bench)
}
