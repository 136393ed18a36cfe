//! hostPath: a path of the node, of the type that the manifest expects (upstream `pkg/volume/hostpath`).

use k8s_openapi::api::core::v1::HostPathVolumeSource;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Makes what is to be made, and compares.
pub(super) fn check(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let (wanted, words) = match kind {
        "" => return Ok(()),
        "DirectoryOrCreate" if !path.exists() => return make_directory(path),
        "FileOrCreate" if !path.exists() => return make_file(path),
        "DirectoryOrCreate" | "Directory" => ("Directory", "directory"),
        "FileOrCreate" | "File" => ("File", "file"),
        "Socket" => ("Socket", "socket file"),
        "CharDevice" => ("CharDevice", "character device"),
        "BlockDevice" => ("BlockDevice", "block device"),
        other => return Err(format!("{other} is an invalid volume type")),
    };
    match type_of(path) {
        Ok(found) if found == wanted => Ok(()),
        Ok(found) => Err(format!("hostPath type check failed: {} is not a {words}, it's a {found}", source.path)),
        Err(error) => Err(format!(
            "hostPath type check failed, {} is not a {words}, unable to determine its type: {error}",
            source.path
        )),
    }
}

/// Links are followed.
fn type_of(path: &Path) -> Result<&'static str, String> {
    let kind = match path.metadata() {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(format!("path \"{}\" does not exist", path.display()));
        }
        Err(error) => return Err(format!("stat {}: {}", path.display(), words(&error))),
    };
    Ok(match () {
        () if kind.is_dir() => "Directory",
        () if kind.is_file() => "File",
        () if kind.is_socket() => "Socket",
        () if kind.is_block_device() => "BlockDevice",
        () if kind.is_char_device() => "CharDevice",
        () => return Err("only recognise file, directory, socket, block device and character device".to_owned()),
    })
}

fn make_directory(path: &Path) -> Result<(), String> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(|error| format!("mkdir {}: {}", path.display(), words(&error)))
}

/// Its directory must be there.
fn make_file(path: &Path) -> Result<(), String> {
    let made = std::fs::File::options().write(true).create(true).truncate(false).mode(0o644).open(path);
    made.map(drop).map_err(|error| format!("open {}: {}", path.display(), words(&error)))
}

/// As Go words it: `no such file or directory`.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
