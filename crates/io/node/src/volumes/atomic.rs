//! Writes a volume's files so that a reader sees either all old or all new ones: they stand in a directory of their own,
//! a link `..data` points at it, and one rename changes the link (upstream `AtomicWriter`).

use super::payload::{File, Payload};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

pub(super) const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";
const MAX_PATH_BYTES: usize = 4096;
const MAX_NAME_BYTES: usize = 255;

/// Makes `volume` hold exactly `payload`. `own` is told the volume before readers see what is new.
pub(super) fn write(
    volume: &Path,
    payload: &Payload,
    now: SystemTime,
    own: impl Fn(&Path) -> Result<(), String>,
) -> Result<(), String> {
    payload.keys().try_for_each(|path| check(path))?;
    let failed = |what: &str, path: &Path, error: io::Error| format!("{what} {}: {error}", path.display());
    let data = volume.join(DATA);
    let old = match fs::read_link(&data) {
        Ok(name) => Some(volume.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("error reading link for data directory", &data, error)),
    };
    let changed = old.as_ref().is_none_or(|old| differs(old, payload));
    if changed {
        let new = fresh_directory(volume, now)?;
        let made = fill(&new, payload).map_err(|e| failed("error writing payload to ts data directory", &new, e));
        let made = made.and_then(|()| own(volume)).and_then(|()| {
            let link = volume.join(NEW_DATA);
            let _ = fs::remove_file(&link);
            let name = new.file_name().unwrap_or_default();
            let switched = std::os::unix::fs::symlink(name, &link).and_then(|()| fs::rename(&link, &data));
            switched.map_err(|e| failed("error renaming symbolic link for data directory", &link, e))
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&new);
        }
        made?;
    }
    show(volume, payload).map_err(|e| failed("error creating visible symlinks in", volume, e))?;
    if let Some(old) = old.filter(|_| changed) {
        fs::remove_dir_all(&old).map_err(|e| failed("error removing old data directory", &old, e))?;
    }
    Ok(())
}

/// Relative, without `..`, not beginning with it, and not too long: validation has seen to most.
fn check(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("invalid path: must not be empty: \"\"".to_owned());
    }
    if path.starts_with('/') {
        return Err(format!("invalid path: must be relative path: {path}"));
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(format!("invalid path: must be less than or equal to {MAX_PATH_BYTES} characters"));
    }
    for part in path.split('/') {
        if part == ".." {
            return Err(format!("invalid path: must not contain '..': {path}"));
        }
        if part.len() > MAX_NAME_BYTES {
            return Err(format!("invalid path: filenames must be less than or equal to {MAX_NAME_BYTES} characters"));
        }
    }
    if path.starts_with("..") {
        return Err(format!("invalid path: must not start with '..': {path}"));
    }
    Ok(())
}

/// `..2006_01_02_15_04_05.NANOS`
fn fresh_directory(volume: &Path, now: SystemTime) -> Result<PathBuf, String> {
    let now = Timestamp::try_from(now).unwrap_or_default();
    let stamp = now.strftime("..%Y_%m_%d_%H_%M_%S");
    for attempt in 0..100 {
        let path = volume.join(format!("{stamp}.{}", i64::from(now.subsec_nanosecond()) + attempt));
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("unable to create new temp directory {}: {error}", path.display())),
            Ok(()) => {
                let mode = fs::set_permissions(&path, fs::Permissions::from_mode(0o755));
                return mode.map(|()| path).map_err(|e| format!("unable to set mode on new temp directory: {e}"));
            }
        }
    }
    Err(format!("unable to create new temp directory in {}", volume.display()))
}

fn fill(directory: &Path, payload: &Payload) -> io::Result<()> {
    for (name, File { data, mode, owner }) in payload {
        let path = directory.join(name);
        if let Some(parent) = path.parent() {
            make_directories(directory, parent)?;
        }
        fs::write(&path, data)?;
        if let Some(owner) = owner {
            std::os::unix::fs::lchown(&path, Some(*owner), None)?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
    }
    Ok(())
}

/// Whatever the umask says, everybody may enter.
fn make_directories(base: &Path, path: &Path) -> io::Result<()> {
    let mut at = base.to_owned();
    for part in path.strip_prefix(base).into_iter().flatten() {
        at.push(part);
        match fs::create_dir(&at) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.and_then(|()| fs::set_permissions(&at, fs::Permissions::from_mode(0o755)))?,
        }
    }
    Ok(())
}

/// Whether `old` holds anything else. A file's mode counts only as far as `fsGroup` does not add to it.
fn differs(old: &Path, payload: &Payload) -> bool {
    let same = |(name, file): (&String, &File)| {
        let path = old.join(name);
        let data = fs::read(&path).is_ok_and(|data| data == file.data);
        data && fs::metadata(&path).is_ok_and(|meta| {
            meta.mode() & 0o7777 & file.mode == file.mode && file.owner.is_none_or(|owner| owner == meta.uid())
        })
    };
    let wanted: BTreeSet<PathBuf> = payload.keys().map(|name| plain(name)).collect();
    !payload.iter().all(same) || files(old).is_ok_and(|found| found != wanted)
}

/// `a//./b` as `a/b`.
fn plain(name: &str) -> PathBuf {
    Path::new(name).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

fn files(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    fn walk(base: &Path, at: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(at)? {
            let path = entry?.path();
            if path.symlink_metadata()?.is_dir() {
                walk(base, &path, found)?;
            } else {
                found.extend(path.strip_prefix(base).map(Path::to_owned));
            }
        }
        Ok(())
    }
    let mut found = BTreeSet::new();
    walk(directory, directory, &mut found)?;
    Ok(found)
}

/// Links `NAME -> ..data/NAME` for every first part of a path; those of what is gone go.
fn show(volume: &Path, payload: &Payload) -> io::Result<()> {
    let first = |name: &String| plain(name).iter().next().map(PathBuf::from);
    let wanted: BTreeSet<PathBuf> = payload.keys().filter_map(first).collect();
    for name in &wanted {
        let link = volume.join(name);
        match std::os::unix::fs::symlink(Path::new(DATA).join(name), &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        let ours = fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(DATA).join(&name));
        if ours && !wanted.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
