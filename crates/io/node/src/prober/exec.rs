//! Runs a command in a container as probes and hooks do.

use runtime::exec::Output;
use runtime::types::{Runtime, RuntimeError};

/// So much is kept of each stream (upstream `probe/exec`).
pub(crate) const KEPT_BYTES: usize = 10 * 1024;

/// What it wrote to stdout, then what it wrote to stderr.
pub(crate) fn combined(output: &Output) -> String {
    let mut bytes = [output.stdout.as_slice(), &output.stderr].concat();
    bytes.truncate(KEPT_BYTES);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Dropping the future kills the command.
pub(crate) async fn run(runtime: &dyn Runtime, id: &str, command: &[String]) -> Result<Output, RuntimeError> {
    runtime::exec::run(runtime, id, command, KEPT_BYTES).await
}
