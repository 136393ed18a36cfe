//! The directories where others expect a kubelet's work: its root and its logs. The default instance takes the usual ones
//! of the machine, which it marks as its own; the others keep to their data directory.

use crate::instance::Record;
use anyhow::{Context, Result, bail};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub(crate) const KUBELET_ROOT: &str = "/var/lib/kubelet";
pub(crate) const LOGS: &str = "/var/log";
/// Stands in a directory of the machine that an instance took: its id, and whether it made the directory.
const MARK: &str = ".minke";

/// Where a node keeps what concerns its Pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// Holds `pods/UID`.
    pub(crate) kubelet_root: PathBuf,
    /// Holds `NS_NAME_UID/CONTAINER/N.log`.
    pub(crate) pod_logs: PathBuf,
    /// Holds links to the logs, `POD_NS_CONTAINER-ID.log`.
    pub(crate) container_logs: Option<PathBuf>,
}

impl Places {
    pub(crate) fn of(directory: &Path, record: &Record) -> Self {
        let logs = record.log_dir.as_deref();
        Self {
            kubelet_root: record.kubelet_root.clone().unwrap_or_else(|| directory.to_owned()),
            pod_logs: logs.map_or_else(|| directory.join("logs/pods"), |logs| logs.join("pods")),
            container_logs: logs.map(|logs| logs.join("containers")),
        }
    }
}

/// Each directory outside the data directory, with the flag that chooses it.
fn outside(kubelet_root: Option<&Path>, log_dir: Option<&Path>) -> Vec<(PathBuf, &'static str)> {
    let root = kubelet_root.map(|root| (root.to_owned(), "--kubelet-root"));
    let logs = ["pods", "containers"].map(|name| log_dir.map(|logs| (logs.join(name), "--log-dir")));
    root.into_iter().chain(logs.into_iter().flatten()).collect()
}

/// Whether nobody else is there. Makes nothing.
///
/// # Errors
/// Somebody else's content, and the flag that avoids it.
pub(crate) fn check(kubelet_root: Option<&Path>, log_dir: Option<&Path>, id: Option<&str>) -> Result<()> {
    for (place, flag) in outside(kubelet_root, log_dir) {
        if let Some((owner, _)) = mark(&place)? {
            if Some(owner.as_str()) != id {
                bail!(
                    "{} belongs to another instance of minke ({owner}); purge that, or choose {flag}",
                    place.display()
                );
            }
            continue;
        }
        let first = std::fs::read_dir(&place).into_iter().flatten().flatten().next();
        if let Some(first) = first {
            let name = first.file_name();
            bail!("{} holds something that is not minke's ({}); choose {flag}", place.display(), name.display());
        }
    }
    Ok(())
}

/// Takes what [`check`] found free.
pub(crate) fn claim(record: &Record) -> Result<()> {
    let (root, logs) = (record.kubelet_root.as_deref(), record.log_dir.as_deref());
    check(root, logs, Some(&record.id))?;
    for (place, _) in outside(root, logs) {
        if mark(&place)?.is_some() {
            continue;
        }
        let made = !place.exists();
        let fill = || {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&place)?;
            std::fs::write(place.join(MARK), format!("{} {}\n", record.id, if made { "made" } else { "there" }))
        };
        fill().with_context(|| format!("cannot take {}", place.display()))?;
    }
    Ok(())
}

/// Gives back what [`claim`] took, emptied; what is another's stays. Nothing may be mounted there any more.
pub(crate) fn release(record: &Record) -> Result<()> {
    for (place, _) in outside(record.kubelet_root.as_deref(), record.log_dir.as_deref()) {
        let Some((owner, made)) = mark(&place)? else { continue };
        if owner != record.id {
            continue;
        }
        let empty = || {
            if made {
                return std::fs::remove_dir_all(&place);
            }
            for entry in std::fs::read_dir(&place)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    std::fs::remove_dir_all(entry.path())?;
                } else {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        empty().with_context(|| format!("cannot remove {}", place.display()))?;
    }
    Ok(())
}

/// Whose a place is, and whether it was made for that.
fn mark(place: &Path) -> Result<Option<(String, bool)>> {
    let path = place.join(MARK);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let mut words = text.split_whitespace().map(str::to_owned);
            let owner = words.next().unwrap_or_default();
            Ok(Some((owner, words.next().as_deref() == Some("made"))))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
