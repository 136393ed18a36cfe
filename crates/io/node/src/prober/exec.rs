//! Runs a command in a container and keeps the beginning of what it said.

use runtime::types::{ExecConfig, Reader, Runtime, RuntimeError, Session};
use tokio::io::AsyncReadExt;

/// So much is kept of each stream (upstream `probe/exec`).
pub(crate) const KEPT_BYTES: usize = 10 * 1024;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Output {
    /// What it wrote to stdout, then what it wrote to stderr.
    pub(crate) fn combined(&self) -> String {
        let mut bytes = [self.stdout.as_slice(), &self.stderr].concat();
        bytes.truncate(KEPT_BYTES);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Dropping the future kills the command.
pub(crate) async fn run(runtime: &dyn Runtime, id: &str, command: &[String]) -> Result<Output, RuntimeError> {
    let config = ExecConfig { command: command.to_vec(), stdin: false, stdout: true, stderr: true, tty: false };
    let Session { stdout, stderr, exit, .. } = runtime.exec(id, config).await?;
    let (stdout, stderr, exit) = tokio::join!(read(stdout), read(stderr), exit);
    let code = exit.map_err(|_| RuntimeError::Failed("the command's end was not told of".to_owned()))??;
    Ok(Output { code, stdout, stderr })
}

/// Reads to the end, so that the command never waits for a reader.
async fn read(stream: Option<Reader>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return kept };
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        let room = KEPT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..length.min(room)]);
    }
    kept
}
