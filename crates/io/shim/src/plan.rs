//! What a container or a Pod's sandbox is to be, decided by the daemon; the shim only executes it.

use crate::wire::{Bytes, record};
use std::ffi::CString;

record! {
    /// The five capability sets, as bit masks.
    pub struct Capabilities {
        1 => effective: u64,
        2 => permitted: u64,
        3 => inheritable: u64,
        4 => bounding: u64,
        5 => ambient: u64,
    }
}

record! {
    pub struct Rlimit {
        /// `RLIMIT_*` of this architecture.
        1 => resource: u32,
        2 => soft: u64,
        3 => hard: u64,
    }
}

record! {
    /// One process: a container's first, or one executed in it.
    pub struct ProcessPlan {
        1 => argv: Vec<CString>,
        2 => env: Vec<CString>,
        3 => cwd: CString,
        4 => uid: u32,
        5 => gid: u32,
        6 => groups: Vec<u32>,
        7 => umask: Option<u32>,
        8 => capabilities: Capabilities,
        9 => no_new_privs: bool,
        /// One classic BPF program, 8 bytes an instruction in host order; empty: unconfined.
        10 => seccomp: Bytes,
        11 => rlimits: Vec<Rlimit>,
        12 => oom_score_adj: Option<i32>,
        13 => tty: bool,
        /// Columns and rows of the terminal at the start; 0: unset.
        14 => columns: u32,
        15 => rows: u32,
        later {
            /// A loaded AppArmor profile; empty: the shim's own, which is none.
            16 => apparmor: CString,
        }
    }
}

/// `MountPlan::kind`: a new instance of a file system.
pub const MOUNT_FS: u32 = 0;
/// A part of the host's tree.
pub const MOUNT_BIND: u32 = 1;
/// A directory of cgroup v1 hierarchies, of the controllers named as options.
pub const MOUNT_CGROUP_V1: u32 = 2;
/// A detached overlay used as a volume (image volumes): options as for overlay.
pub const MOUNT_OVERLAY: u32 = 3;

/// The Pod's shared memory, which the shim holds.
pub const MOUNT_SHM: u32 = 4;

record! {
    pub struct MountPlan {
        /// Where, inside the container.
        1 => target: CString,
        2 => kind: u32,
        /// The file system's type.
        3 => fs: CString,
        /// The path on the host (binds), or the source's name.
        4 => source: CString,
        /// Options of the file system; one without a value is a flag.
        5 => options: Vec<(CString, Option<CString>)>,
        /// `MOUNT_ATTR_*`.
        6 => attributes: u64,
        /// Binds: with everything mounted below.
        7 => recursive: bool,
        /// The attributes hold for everything mounted below, too.
        8 => recursive_attributes: bool,
        /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`; 0: private.
        9 => propagation: u64,
        /// Below the mounted tree: mount only this part of it (image volumes with a sub path).
        10 => sub_path: CString,
        /// An entry of the image hidden by a missing source is no error.
        11 => optional: bool,
    }
}

record! {
    /// A device node made in the container's `/dev`.
    pub struct DevicePlan {
        1 => path: CString,
        /// Type and permission bits.
        2 => mode: u32,
        3 => major: u32,
        4 => minor: u32,
        5 => uid: u32,
        6 => gid: u32,
    }
}

record! {
    /// The root file system: layers under a writable directory, or a plain directory.
    pub struct RootPlan {
        /// Topmost first. Empty: `directory` is used.
        1 => lower: Vec<CString>,
        2 => upper: CString,
        3 => work: CString,
        4 => directory: CString,
        5 => readonly: bool,
        /// `MS_PRIVATE` and the like for the whole tree; 0: slave, as runc's default.
        6 => propagation: u64,
    }
}

record! {
    /// Where the processes belong. All paths are absolute on the host.
    pub struct CgroupPlan {
        /// Directory in the v2 (or hybrid `unified`) hierarchy; empty: there is none.
        1 => unified: CString,
        /// Directories in v1 hierarchies.
        2 => v1: Vec<CString>,
        /// File whose `oom_kill N` line counts the kills; empty: not counted.
        3 => oom_file: CString,
    }
}

record! {
    pub struct ContainerPlan {
        1 => id: String,
        2 => process: ProcessPlan,
        /// `CLONE_NEW*` namespaces of its own; all others are the sandbox's.
        3 => namespaces: u64,
        4 => root: RootPlan,
        5 => mounts: Vec<MountPlan>,
        6 => devices: Vec<DevicePlan>,
        7 => masked_paths: Vec<CString>,
        8 => readonly_paths: Vec<CString>,
        9 => cgroup: CgroupPlan,
        /// The container's state directory: `exit` is written there.
        10 => directory: CString,
        /// CRI log file; empty: nothing is logged.
        11 => log: CString,
        12 => stdin: bool,
        13 => stdin_once: bool,
        /// Kills what is left in the cgroup when the first process ends (no process namespace of its own).
        14 => kill_leftover: bool,
        /// Set in a UTS namespace of its own only.
        15 => hostname: CString,
    }
}

record! {
    /// Users and groups 0 to `length` of a Pod, and where they lie on the host.
    #[derive(Copy)]
    pub struct UserRange {
        1 => host_uid: u32,
        2 => host_gid: u32,
        3 => length: u32,
    }
}

record! {
    pub struct SandboxPlan {
        1 => id: String,
        /// `CLONE_NEWNET`, `CLONE_NEWIPC`, `CLONE_NEWUTS`, and `CLONE_NEWPID` for one process namespace for all.
        2 => namespaces: u64,
        3 => hostname: CString,
        /// Names with dots, and values.
        4 => sysctls: Vec<(String, String)>,
        /// Of the pause process, where there is one.
        5 => cgroup: CgroupPlan,
        /// Size of the containers' common `/dev/shm`; 0: none.
        6 => shm_bytes: u64,
        later {
            /// In a user namespace of the Pod's own.
            7 => users: Option<UserRange>,
        }
    }
}
