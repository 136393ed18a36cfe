//! Debian's kernel, unpacked and not installed.

use super::cpio::Archive;
use crate::process;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "linux-image-amd64";
/// What must be there before the guest's real root is.
const EARLY: [&str; 7] = ["virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "crc32c_generic", "ext4", "overlay"];

pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// Laid over the guest's root: the modules, and what loads them.
    pub(super) extra: PathBuf,
    version: String,
}

/// Downloads and unpacks it, unless that was done before.
pub(super) fn get(directory: &Path) -> Result<Kernel> {
    let depends = process::output("apt-cache", ["depends", "--important", PACKAGE])?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let version = package.with_context(|| format!("{PACKAGE} names no kernel"))?.to_owned();
    let (image, extra) = (directory.join(format!("vmlinuz-{version}")), directory.join("extra"));
    let kernel = Kernel { image, extra, version };
    if !kernel.image.exists() {
        kernel.unpack(directory)?;
    }
    Ok(kernel)
}

impl Kernel {
    fn modules(&self) -> PathBuf {
        self.extra.join("usr/lib/modules").join(&self.version)
    }

    fn unpack(&self, directory: &Path) -> Result<()> {
        let package = format!("linux-image-{}", self.version);
        println!("fetching {package}");
        let unpacked = directory.join("unpacked");
        for path in [&unpacked, &self.extra] {
            let _ = std::fs::remove_dir_all(path);
        }
        std::fs::create_dir_all(&unpacked)?;
        process::check(Command::new("apt-get").args(["download", "-qq", &package]).current_dir(&unpacked))?;
        let archives = std::fs::read_dir(&unpacked)?.flatten().map(|entry| entry.path());
        let archive = archives.into_iter().next().context("no package came")?;
        process::run("dpkg", ["-x".as_ref(), archive.as_os_str(), unpacked.as_os_str()])?;
        std::fs::create_dir_all(self.extra.join("usr/lib/modules"))?;
        std::fs::create_dir_all(self.extra.join("usr/sbin"))?;
        std::fs::rename(unpacked.join("lib/modules").join(&self.version), self.modules())?;
        // The kernel itself loads modules through this.
        std::os::unix::fs::symlink("/bin/busybox", self.extra.join("usr/sbin/modprobe"))?;
        // Only the new layout of directories is Debian's; the program knows only the old one.
        let lib = self.extra.join("lib");
        std::os::unix::fs::symlink("usr/lib", &lib)?;
        let extra = self.extra.to_string_lossy();
        process::run("busybox", ["depmod", "-b", &extra, &self.version])?;
        std::fs::remove_file(lib)?;
        std::fs::rename(unpacked.join("boot").join(format!("vmlinuz-{}", self.version)), &self.image)?;
        Ok(std::fs::remove_dir_all(unpacked)?)
    }

    /// The first root: busybox, `init` and the modules the real root needs.
    pub(super) fn initramfs(&self, init: &str) -> Result<Vec<u8>> {
        let dependencies = std::fs::read_to_string(self.modules().join("modules.dep"))?;
        let mut wanted = BTreeSet::new();
        for name in EARLY {
            let line = dependencies.lines().find(|line| {
                line.split_once(':').is_some_and(|(path, _)| path.rsplit('/').next() == Some(&format!("{name}.ko")))
            });
            // One that is part of the kernel itself is in no list.
            wanted.extend(line.into_iter().flat_map(|line| line.split([' ', ':'])).filter(|path| !path.is_empty()));
        }
        ensure!(!wanted.is_empty(), "the kernel has none of the modules {EARLY:?}");
        let mut archive = Archive::default();
        let modules = format!("lib/modules/{}", self.version);
        let directories = ["bin", "dev", "proc", "sys", "lib", "lib/modules", "host", "extra", "disk", "root"];
        for directory in directories.into_iter().chain([modules.as_str()]) {
            archive.directory(directory);
        }
        archive.console();
        archive.file("init", init.as_bytes());
        archive.file("bin/busybox", &std::fs::read("/bin/busybox")?);
        let mut made = BTreeSet::new();
        for path in &wanted {
            for (at, _) in path.match_indices('/') {
                if made.insert(&path[..at]) {
                    archive.directory(&format!("{modules}/{}", &path[..at]));
                }
            }
            archive.file(&format!("{modules}/{path}"), &std::fs::read(self.modules().join(path))?);
        }
        let lines =
            dependencies.lines().filter(|line| line.split(':').next().is_some_and(|path| wanted.contains(path)));
        archive.file(&format!("{modules}/modules.dep"), lines.collect::<Vec<_>>().join("\n").as_bytes());
        Ok(archive.finish())
    }
}
