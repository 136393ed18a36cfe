//! `minke completion SHELL`: what a shell needs to complete commands and flags.

use crate::arguments::Arguments;
use clap::CommandFactory;
use clap_complete::Shell;

/// Prints it.
pub fn run(shell: Shell) {
    clap_complete::generate(shell, &mut Arguments::command(), "minke", &mut std::io::stdout());
}
