//! `/etc/crictl.yaml`: where crictl finds the default instance. Written where nobody has one; ours is taken away by `down`.

use crate::instance;
use anyhow::{Context, Result};
use std::io::{ErrorKind, Write};
use std::path::Path;

const FILE: &str = "/etc/crictl.yaml";

/// The socket as CRI's clients name it.
pub(crate) fn endpoint(directory: &Path) -> String {
    format!("unix://{}", directory.join("run/cri.sock").display())
}

fn text(directory: &Path) -> String {
    let endpoint = endpoint(directory);
    format!("# minke's; `minke down --purge` removes it\nruntime-endpoint: {endpoint}\nimage-endpoint: {endpoint}\n")
}

/// Leaves somebody else's alone.
pub(crate) fn put(directory: &Path) -> Result<()> {
    if !instance::is_default(directory) {
        return Ok(());
    }
    match std::fs::File::create_new(FILE) {
        Ok(mut file) => file.write_all(text(directory).as_bytes()).with_context(|| format!("cannot write {FILE}")),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot make {FILE}")),
    }
}

/// Takes ours away, unless it was changed.
pub(crate) fn take(directory: &Path) -> Result<()> {
    let ours = instance::is_default(directory) && std::fs::read(FILE).is_ok_and(|it| it == text(directory).as_bytes());
    if ours { std::fs::remove_file(FILE).with_context(|| format!("cannot remove {FILE}")) } else { Ok(()) }
}
