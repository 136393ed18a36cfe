//! Runs a command in a container and keeps the beginning of what it said.

use crate::types::{ExecConfig, Reader, Runtime, RuntimeError, Session};
use tokio::io::AsyncReadExt;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// `kept_bytes` of each stream are kept at most. Dropping the future kills the command.
pub async fn run(
    runtime: &dyn Runtime,
    id: &str,
    command: &[String],
    kept_bytes: usize,
) -> Result<Output, RuntimeError> {
    let config = ExecConfig { command: command.to_vec(), stdin: false, stdout: true, stderr: true, tty: false };
    let Session { stdout, stderr, exit, .. } = runtime.exec(id, config).await?;
    let (stdout, stderr, exit) = tokio::join!(read(stdout, kept_bytes), read(stderr, kept_bytes), exit);
    let code = exit.map_err(|_| RuntimeError::Failed("the command's end was not told of".to_owned()))??;
    Ok(Output { code, stdout, stderr })
}

/// Reads to the end, so that the command never waits for a reader.
async fn read(stream: Option<Reader>, kept_bytes: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return kept };
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        let room = kept_bytes.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..length.min(room)]);
    }
    kept
}
