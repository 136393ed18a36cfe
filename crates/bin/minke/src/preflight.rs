//! Whether this machine can carry a node at all, before anything is made on it.

use anyhow::{Result, bail};
use std::path::Path;

/// The oldest kernel whose system calls we use.
const OLDEST_KERNEL: (u32, u32) = (5, 15);
/// Capabilities without which no Pod can be made, by their numbers in `capability.h`.
const CAPABILITIES: [(u32, &str); 6] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (8, "CAP_SETPCAP"),
    (12, "CAP_NET_ADMIN"),
    (21, "CAP_SYS_ADMIN"),
    (18, "CAP_SYS_CHROOT"),
];
const NAMESPACES: [&str; 5] = ["ipc", "mnt", "net", "pid", "uts"];

/// What is looked at.
#[derive(Debug, Clone, Default)]
struct Facts {
    /// `6.1.0-13-amd64`
    release: String,
    /// `CapEff` of `/proc/self/status`
    capabilities: u64,
    /// Those that the kernel lacks.
    missing_namespaces: Vec<&'static str>,
    /// `/proc/self/mountinfo`
    mounts: String,
}

/// # Errors
/// Everything that is missing, each with what to do.
pub(crate) fn check() -> Result<()> {
    let problems = problems(&observe());
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("; "))
}

fn observe() -> Facts {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let missing = |name: &&str| !Path::new("/proc/self/ns").join(name).exists();
    Facts {
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        capabilities: capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default(),
        missing_namespaces: NAMESPACES.into_iter().filter(missing).collect(),
        mounts: std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
    }
}

fn problems(facts: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    let (major, minor) = OLDEST_KERNEL;
    if version(&facts.release).is_some_and(|version| version < OLDEST_KERNEL) {
        found.push(format!("kernel {} is too old: a node needs {major}.{minor} or newer", facts.release));
    }
    let missing = CAPABILITIES.iter().filter(|(number, _)| facts.capabilities & (1 << number) == 0);
    let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
    if !missing.is_empty() {
        let names = missing.join(", ");
        found
            .push(format!("a node needs {names}, which this process does not hold; run a container with --privileged"));
    }
    if !facts.missing_namespaces.is_empty() {
        let names = facts.missing_namespaces.join(", ");
        found.push(format!("the kernel has no namespaces of these kinds: {names}; boot one that does"));
    }
    let is_cgroup = |line: &str| line.contains(" - cgroup2 ") || line.contains(" - cgroup ");
    if !facts.mounts.lines().any(is_cgroup) {
        found.push("no cgroups are mounted; `mount -t cgroup2 cgroup2 /sys/fs/cgroup`".to_owned());
    }
    found
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> Facts {
        Facts {
            release: "6.1.0-13-amd64".to_owned(),
            capabilities: u64::MAX,
            missing_namespaces: Vec::new(),
            mounts: "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw".to_owned(),
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        assert_eq!(problems(&fine()), Vec::<String>::new());
        for (facts, text) in [
            (Facts { release: "5.10.0".to_owned(), ..fine() }, "kernel 5.10.0 is too old"),
            (Facts { capabilities: !(1 << 12), ..fine() }, "needs CAP_NET_ADMIN, which"),
            (Facts { missing_namespaces: vec!["net"], ..fine() }, "no namespaces of these kinds: net"),
            (Facts { mounts: String::new(), ..fine() }, "no cgroups are mounted"),
        ] {
            let found = problems(&facts);
            assert!(found.len() == 1 && found[0].contains(text), "{found:?}");
        }
        assert_eq!(problems(&Facts { release: "5.15.0".to_owned(), ..fine() }), Vec::<String>::new());
    }
}
