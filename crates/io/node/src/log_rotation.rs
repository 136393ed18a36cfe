//! Containers' logs are rotated when they are too long: looked at by a period, since a watch on every line would cost more
//! than the lines (upstream `containerLogMonitorInterval`). Whoever follows a log goes on with the new file.

use crate::{NodeError, Shared, every};
use flate2::Compression;
use flate2::write::GzEncoder;
use kubelet::garbage::{LogPolicy, rotation};
use runtime::types::{ContainerState, Runtime};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(10);

/// Looks at all logs, for ever.
pub(crate) async fn run(shared: Arc<Shared>) -> Result<(), NodeError> {
    let mut ticks = every(PERIOD);
    loop {
        ticks.tick().await;
        for entry in shared.pods.all() {
            for id in entry.containers.values() {
                look(&*shared.runtime, id, shared.config.logs).await;
            }
        }
    }
}

async fn look(runtime: &dyn Runtime, id: &str, policy: LogPolicy) {
    let Ok(status) = runtime.container_status(id).await else { return };
    if status.state != ContainerState::Running {
        return;
    }
    let path = status.log_path;
    let rotated = match tokio::fs::metadata(&path).await {
        Ok(log) if log.len() < policy.max_bytes => return,
        Ok(_) => rotate(runtime, id, &path, policy).await,
        // A crash came between the two steps of a rotation.
        Err(error) if error.kind() == io::ErrorKind::NotFound => runtime.reopen_log(id).await.map_err(io::Error::other),
        Err(error) => Err(error),
    };
    if let Err(error) = rotated {
        tracing::warn!(path = %path.display(), %error, "log not rotated");
    }
}

/// The older files are cleared away and compressed; the one being written gets a name with the time.
async fn rotate(runtime: &dyn Runtime, id: &str, path: &Path, policy: LogPolicy) -> io::Result<()> {
    let log = path.to_owned();
    let cleared = tokio::task::spawn_blocking(move || clear(&log, policy)).await;
    cleared.map_err(io::Error::other)??;
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%d-%H%M%S").to_string();
    let rotated = with_suffix(path, &format!(".{now}"));
    if rotated.exists() {
        // Twice in a second: the next look will do it.
        return Ok(());
    }
    tokio::fs::rename(path, &rotated).await?;
    if let Err(error) = runtime.reopen_log(id).await {
        // The container goes on writing to the file under its old name.
        tokio::fs::rename(&rotated, path).await?;
        return Err(io::Error::other(error));
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn clear(log: &Path, policy: LogPolicy) -> io::Result<()> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let prefix = format!("{name}.");
    let names = std::fs::read_dir(directory)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let rotated: Vec<_> = names.filter(|name| name.starts_with(&prefix)).collect();
    let rotation = rotation(&rotated, policy);
    for name in rotation.remove {
        std::fs::remove_file(directory.join(name))?;
    }
    for name in rotation.compress {
        compress(&directory.join(name))?;
    }
    Ok(())
}

fn compress(path: &Path) -> io::Result<()> {
    let (unfinished, finished) = (with_suffix(path, ".tmp"), with_suffix(path, ".gz"));
    let mut from = File::open(path)?;
    let permissions = from.metadata()?.permissions();
    let mut to = GzEncoder::new(File::create(&unfinished)?, Compression::default());
    io::copy(&mut from, &mut to)?;
    to.finish()?.set_permissions(permissions)?;
    std::fs::rename(&unfinished, &finished)?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Read;

    #[test]
    fn rotated_files_are_compressed_whole() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let text = "2026-01-01T00:00:00Z stdout F line\n".repeat(1000);
        std::fs::write(at("0.log"), "now").unwrap();
        std::fs::write(at("0.log.20260101-000000"), &text).unwrap();
        std::fs::write(at("1.log.20260101-000000"), "another attempt's").unwrap();
        clear(&at("0.log"), LogPolicy::default()).unwrap();
        let mut unpacked = String::new();
        let file = File::open(at("0.log.20260101-000000.gz")).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, text);
        assert!(!at("0.log.20260101-000000").exists() && at("1.log.20260101-000000").exists());
        clear(&at("0.log"), LogPolicy { max_files: 2, ..LogPolicy::default() }).unwrap();
        assert!(!at("0.log.20260101-000000.gz").exists());
    }
}
