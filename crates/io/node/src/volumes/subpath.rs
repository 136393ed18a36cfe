//! `subPath`: a part of a volume, found by the kernel beneath the volume's root and bound under a name of the node's own:
//! whatever containers do to the volume afterwards, the bind is what was found (CVE-2017-1002101, CVE-2021-25741).

use super::mounted;
use k8s_openapi::api::core::v1::VolumeMount;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// More of a file is not read.
const ENV_FILE_BYTES: u64 = 1 << 20;

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// The mount's `subPath`, or its `subPathExpr` expanded; empty: the whole volume.
pub(super) fn of(mount: &VolumeMount, environment: &[(String, String)]) -> Result<String, String> {
    let mut sub_path = mount.sub_path.clone().unwrap_or_default();
    if let Some(expression) = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) {
        sub_path = expand(expression, environment)?;
    }
    if sub_path.starts_with('/') {
        return Err(format!("error SubPath `{sub_path}` must not be an absolute path"));
    }
    if sub_path.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath `{sub_path}`: must not contain '..'"));
    }
    Ok(sub_path)
}

fn expand(expression: &str, environment: &[(String, String)]) -> Result<String, String> {
    let missing = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let expanded = kubelet::env::expand(expression, |name| {
        // The last of several of one name counts.
        let value = environment.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        if value.as_ref().is_none_or(String::is_empty) {
            missing.borrow_mut().insert(name.to_owned());
        }
        value
    });
    let missing: Vec<String> = missing.into_inner().into_iter().collect();
    if missing.is_empty() { Ok(expanded) } else { Err(format!("missing value for {}", missing.join(", "))) }
}

/// Binds `sub_path` of `volume` to `target`; directories that are missing are made with the volume's own mode.
pub(super) fn prepare(volume: &Path, sub_path: &str, target: &Path) -> Result<(), String> {
    let failed = |what: &str, error: Errno| format!("{what} of {} in {}: {error}", sub_path, volume.display());
    let root = rustix::fs::openat(CWD, volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed("open", e))?;
    let found = match open_beneath(&root, Path::new(sub_path)) {
        Err(Errno::NOENT) => make(&root, sub_path).map_err(|e| failed("make", e))?,
        result => result.map_err(|e| failed("open", e))?,
    };
    let stat = rustix::fs::fstat(&found).map_err(|e| failed("stat", e))?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    make_target(target, is_directory)?;
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    rustix::mount::mount_bind_recursive(source, target).map_err(|e| failed("bind", e))
}

/// Reads a file of a volume, with the volume as the root of everything that its symbolic links name.
pub(super) fn read(volume: &Path, path: &str) -> Result<String, String> {
    let failed = |error: Errno| format!("cannot read {path} in {}: {error}", volume.display());
    let root = rustix::fs::openat(CWD, volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let resolve = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve).map_err(failed)?;
    let mut text = String::new();
    let mut file = std::fs::File::from(file).take(ENV_FILE_BYTES);
    file.read_to_string(&mut text).map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok(text)
}

fn open_beneath(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    loop {
        match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), RESOLVE) {
            // Somebody renamed something on the way.
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
}

fn make(root: &OwnedFd, sub_path: &str) -> rustix::io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(rustix::fs::fstat(root)?.st_mode & 0o7777);
    let mut at = PathBuf::from(".");
    let mut directory = open_beneath(root, &at)?;
    for part in Path::new(sub_path).components().filter(|part| matches!(part, Component::Normal(_))) {
        at.push(part);
        directory = match open_beneath(root, &at) {
            Err(Errno::NOENT) => {
                let name = part.as_os_str();
                rustix::fs::mkdirat(&directory, name, mode)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
                // Whatever the umask says; a set group comes from the directory above by itself.
                rustix::fs::fchmod(&made, mode)?;
                open_beneath(root, &at)?
            }
            result => result?,
        };
    }
    Ok(directory)
}

/// An empty file or directory to bind to; what an earlier attempt of the container bound there goes.
fn make_target(target: &Path, is_directory: bool) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot make {}: {error}", target.display());
    mounted::unmount_below(target)?;
    match target.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() == is_directory => return Ok(()),
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir(target).map_err(failed)?,
        Ok(_) => std::fs::remove_file(target).map_err(failed)?,
        Err(_) => {}
    }
    std::fs::create_dir_all(target.parent().unwrap_or(target)).map_err(failed)?;
    let made = if is_directory { std::fs::create_dir(target) } else { std::fs::File::create_new(target).map(drop) };
    made.map_err(failed)
}
