//! Files that only their owner reads, replaced as a whole.

use super::PkiError;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

pub(super) fn make_dir(dir: &Path) -> Result<(), PkiError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))
}

/// The file's text, `None` when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(problem) if problem.kind() == ErrorKind::NotFound => Ok(None),
        Err(problem) => Err(failed("read", path)(problem)),
    }
}

/// Writes with mode 0600; after a crash either the old file or the whole new one is there.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    let beside = path.with_extension("new");
    let fill = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    fill().map_err(failed("write", path))
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> PkiError + use<'a> {
    move |source| PkiError::File { action, path: path.to_owned(), source }
}
