//! What a developer and CI call: `cargo xtask setup | test | demo | bench | tidy | audit | vm`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod audit;
mod bench;
mod conformance;
mod demo;
mod images;
mod process;
mod setup;
mod test;
mod tidy;
mod vm;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup   install what tests and demo need: Debian packages, kubectl, images made of Debian packages
  demo    build minke, run a Pod of a writer and an nginx, fetch its page, leave nothing behind
  bench   minke's figures beside their floors and peers; takes words of rows' names, --json FILE, --peer NAME=KUBECONFIG
  test    setup, then formatting, lints, tidy and all tests
  tidy    the house's own rules: who may depend on whom, headers, what stays out of the pure crates
  audit   licences and known faults of the dependencies, long simulations, and the tests in the virtual machine
  conformance  upstream's end-to-end tests against minke; needs Go; --help tells the options
  vm      tests on Debian's kernel under qemu, with cgroup v2: plain, inside a container, under systemd
          (arguments: one of these, a package, part of a test's name)";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("setup") => setup::run().map(drop),
        Some("demo") => demo::run(),
        Some("bench") => bench::run(arguments),
        Some("test") => test::run(),
        Some("tidy") => tidy::run(),
        Some("conformance") => conformance::run(arguments),
        Some("audit") => audit::run(),
        Some("vm") => vm::run(&arguments.collect::<Vec<_>>()),
        Some("--help" | "-h" | "help") => {
            println!("{USAGE}");
            Ok(())
        }
        Some(other) => bail!("no command {other:?}\n{USAGE}"),
        None => bail!("{USAGE}"),
    }
}
