//! Why a process could not be launched: the stage it came to and the error's number, worded as runc words them.

use crate::plan::{ContainerPlan, ProcessPlan};
use crate::sys::Errno;

macro_rules! stages {
    ($($(#[$meta:meta])* $name:ident,)*) => {
        /// How far a child came.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Stage { $($(#[$meta])* $name,)* }
        impl Stage {
            const ALL: &[Stage] = &[$(Stage::$name,)*];
        }
    };
}

stages! {
    /// Not a failure: waiting before the program.
    Created,
    Channel,
    Clone,
    Died,
    Cgroup,
    Join,
    Unshare,
    Stdio,
    Session,
    Root,
    RootPropagation,
    MountSource,
    MountTarget,
    Mount,
    MountAttach,
    /// Something that is no procfs, on one.
    MountOverProc,
    MountInProc,
    Device,
    DevLink,
    Terminal,
    Hostname,
    Pivot,
    RootReadonly,
    MaskedPath,
    ReadonlyPath,
    WorkingDirectoryMake,
    WorkingDirectory,
    /// The working directory turned out to lie outside of the container.
    WorkingDirectoryOutside,
    Rlimit,
    Groups,
    Group,
    User,
    Capabilities,
    NoNewPrivileges,
    Seccomp,
    /// None of the candidates is there.
    LookPath,
    /// The command with a slash cannot be looked at.
    Stat,
    /// The command is there and may not be executed.
    Access,
    IsDirectory,
    /// Going over into the Pod's user namespace.
    UserNamespace,
    /// A source whose file system cannot show it under other identities.
    MountMap,
    AppArmor,
}

/// A failure as the child tells it: 12 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) stage: Stage,
    pub(super) errno: i32,
    pub(super) index: u32,
}

/// Makes a failure of a system call's error.
pub(super) fn at(stage: Stage, index: usize) -> impl Fn(Errno) -> Failed + Copy {
    move |e| Failed { stage, errno: e.0, index: index as u32 }
}

impl Failed {
    pub(super) fn encode(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&(self.stage as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.errno.to_le_bytes());
        bytes[8..].copy_from_slice(&self.index.to_le_bytes());
        bytes
    }

    /// `None`: no failure but the word that it waits.
    pub(super) fn decode(bytes: &[u8; 12]) -> Option<Failed> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let stage = Stage::ALL.get(word(0) as usize).copied().unwrap_or(Stage::Died);
        (stage != Stage::Created).then_some(Failed { stage, errno: word(4) as i32, index: word(8) })
    }
}

/// A failed launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchError {
    pub stage: Stage,
    pub errno: Errno,
    pub text: String,
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for LaunchError {}

impl LaunchError {
    pub(super) fn of(failed: &Failed, process: &ProcessPlan, container: Option<&ContainerPlan>) -> LaunchError {
        let errno = Errno(failed.errno);
        LaunchError { stage: failed.stage, errno, text: text(failed, errno, process, container) }
    }
}

fn text(failed: &Failed, errno: Errno, process: &ProcessPlan, container: Option<&ContainerPlan>) -> String {
    let command = process.argv.first().map(|c| c.to_string_lossy()).unwrap_or_default();
    let cwd = process.cwd.to_string_lossy();
    let index = failed.index as usize;
    let mount = |why: &str| match container.and_then(|c| c.mounts.get(index)) {
        Some(mount) => {
            let source = if mount.source.is_empty() { &mount.fs } else { &mount.source };
            format!("error mounting {:?} to rootfs at {:?}: {why}", lossy(source), lossy(&mount.target))
        }
        None => format!("error mounting: {why}"),
    };
    let path =
        |paths: Option<&Vec<std::ffi::CString>>| paths.and_then(|p| p.get(index)).map(|p| lossy(p)).unwrap_or_default();
    match failed.stage {
        Stage::LookPath => format!("exec: {command:?}: executable file not found in $PATH"),
        Stage::Stat => format!("exec: {command:?}: stat {command}: {errno}"),
        Stage::Access => format!("exec: {command:?}: {errno}"),
        Stage::IsDirectory => format!("exec: {command:?}: is a directory"),
        Stage::WorkingDirectoryMake => format!("mkdir {}: {errno}", cwd_prefix(&cwd, index)),
        Stage::WorkingDirectory => format!("chdir to cwd ({cwd:?}) set in config.json failed: {errno}"),
        Stage::WorkingDirectoryOutside => {
            "current working directory is outside of container mount namespace root -- possible container breakout detected"
                .into()
        }
        Stage::MountSource if errno.0 == libc::ENOENT => {
            let source = container.and_then(|c| c.mounts.get(index)).map(|m| lossy(&m.source)).unwrap_or_default();
            mount(&format!("stat {source}: {errno}"))
        }
        Stage::MountMap => {
            let source = container.and_then(|c| c.mounts.get(index)).map(|m| lossy(&m.source)).unwrap_or_default();
            mount(&format!(
                "failed to set MOUNT_ATTR_IDMAP on {source}: {errno} (maybe the filesystem used doesn't support idmap mounts on this kernel?)"
            ))
        }
        Stage::AppArmor => format!("unable to apply apparmor profile {:?}: {errno}", lossy(&process.apparmor)),
        Stage::UserNamespace => format!("joining the Pod's user namespace: {errno}"),
        Stage::MountSource | Stage::Mount | Stage::MountTarget | Stage::MountAttach => mount(&errno.to_string()),
        Stage::MountOverProc | Stage::MountInProc => {
            let target = container.and_then(|c| c.mounts.get(index)).map(|m| lossy(&m.target)).unwrap_or_default();
            let why = if failed.stage == Stage::MountInProc { "it is inside /proc" } else { "it is not of type proc" };
            mount(&format!("{target:?} cannot be mounted because {why}"))
        }
        Stage::MaskedPath => format!("can't mask path {:?}: {errno}", path(container.map(|c| &c.masked_paths))),
        Stage::ReadonlyPath => {
            format!("can't make {:?} read-only: {errno}", path(container.map(|c| &c.readonly_paths)))
        }
        Stage::Device => {
            let device = container.and_then(|c| c.devices.get(index)).map(|d| lossy(&d.path)).unwrap_or_default();
            format!("error creating device nodes: mknod {device:?}: {errno}")
        }
        Stage::Rlimit => format!("error setting rlimit type {index}: {errno}"),
        Stage::Groups => format!("setgroups: {errno}"),
        Stage::Group => format!("setgid: {errno}"),
        Stage::User => format!("setuid: {errno}"),
        Stage::Capabilities => format!("unable to apply caps: {errno}"),
        Stage::Seccomp => format!("unable to init seccomp: {errno}"),
        Stage::Root => format!("error preparing rootfs: {errno}"),
        Stage::Pivot => format!("error jailing process inside rootfs: pivot_root .: {errno}"),
        Stage::Cgroup => format!("unable to apply cgroup configuration: {errno}"),
        Stage::Died => "the container's process ended while it was set up".into(),
        stage => format!("unable to start container process: {stage:?}: {errno}"),
    }
}

fn lossy(text: &std::ffi::CStr) -> String {
    text.to_string_lossy().into_owned()
}

/// The part of the path that could not be made: its first `end` bytes.
fn cwd_prefix(cwd: &str, end: usize) -> &str {
    cwd.get(..end).unwrap_or(cwd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(stage: Stage, errno: i32) -> String {
        let process = ProcessPlan { argv: vec![c"nope".into()], cwd: c"/etc/passwd".into(), ..ProcessPlan::default() };
        LaunchError::of(&Failed { stage, errno, index: 11 }, &process, None).text
    }

    #[test]
    fn errors_are_worded_as_runc_words_them() {
        let cases = [
            (Stage::LookPath, libc::ENOENT, r#"exec: "nope": executable file not found in $PATH"#),
            (Stage::Stat, libc::ENOENT, r#"exec: "nope": stat nope: no such file or directory"#),
            (Stage::Access, libc::EACCES, r#"exec: "nope": permission denied"#),
            (Stage::IsDirectory, libc::EISDIR, r#"exec: "nope": is a directory"#),
            (Stage::WorkingDirectoryMake, libc::ENOTDIR, "mkdir /etc/passwd: not a directory"),
            (
                Stage::WorkingDirectory,
                libc::EACCES,
                r#"chdir to cwd ("/etc/passwd") set in config.json failed: permission denied"#,
            ),
        ];
        for (stage, errno, text) in cases {
            assert_eq!(said(stage, errno), text);
        }
    }

    #[test]
    fn failures_travel() {
        for stage in Stage::ALL {
            let failed = Failed { stage: *stage, errno: 2, index: 7 };
            let expected = (*stage != Stage::Created).then_some(failed);
            assert_eq!(Failed::decode(&failed.encode()), expected);
        }
    }
}
