//! Which users of the host a Pod's user namespace gets: upstream's rules (`pkg/kubelet/userns`, `getKubeletMappings`).

use super::{failed, lock};
use crate::types::{NamespaceMode, RuntimeError, SandboxConfig, UserNamespace, UserRange};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Mutex;

/// Upstream's `idsPerPod`: as many as programs expect there to be.
const LENGTH: u32 = 65_536;
/// overlayfs takes layers seen through other identities.
pub(crate) const KERNEL: (u32, u32) = (5, 19);

/// The ranges that sandboxes have, by number; each is recorded in its sandbox's config.
#[derive(Default)]
pub(super) struct UserRanges {
    taken: Mutex<BTreeSet<u32>>,
}

impl UserRanges {
    /// Settles what the Pod's users are on the host.
    pub(super) fn choose(&self, config: &mut SandboxConfig) -> Result<(), RuntimeError> {
        if config.users == UserNamespace::Node {
            return Ok(());
        }
        check(config, shim::sys::kernel_version())?;
        if config.users == UserNamespace::Pod(None) {
            let read = |path: &str| match std::fs::read_to_string(path) {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(String::new()),
                text => text.map_err(failed(Path::new(path).display())),
            };
            let numbers = numbers(&read("/etc/subuid")?, &read("/etc/subgid")?)?;
            let mut taken = lock(&self.taken);
            let free = numbers.into_iter().find(|number| !taken.contains(number));
            let number = free.ok_or_else(|| RuntimeError::Failed("no range of users is free for the Pod".into()))?;
            taken.insert(number);
            let first = number * LENGTH;
            config.users = UserNamespace::Pod(Some(UserRange { host_uid: first, host_gid: first, length: LENGTH }));
        }
        Ok(())
    }

    /// Of a sandbox that was there before.
    pub(super) fn hold(&self, config: &SandboxConfig) {
        if let UserNamespace::Pod(Some(range)) = config.users {
            lock(&self.taken).insert(range.host_uid / LENGTH);
        }
    }

    /// The sandbox is gone.
    pub(super) fn give_back(&self, config: &SandboxConfig) {
        if let UserNamespace::Pod(Some(range)) = config.users {
            lock(&self.taken).remove(&(range.host_uid / LENGTH));
        }
    }
}

fn check(config: &SandboxConfig, kernel: (u32, u32)) -> Result<(), RuntimeError> {
    let node = |mode| mode == NamespaceMode::Node;
    if node(config.network) || node(config.ipc) || node(config.pid) {
        let text = "a user namespace of the Pod's own cannot go with the node's network, IPC or process namespace";
        return Err(RuntimeError::Unsupported(text.into()));
    }
    if kernel < KERNEL {
        let text = format!(
            "user namespaces need Linux {}.{} (overlayfs on idmapped mounts), this is {}.{}",
            KERNEL.0, KERNEL.1, kernel.0, kernel.1
        );
        return Err(RuntimeError::Unsupported(text));
    }
    Ok(())
}

/// The ranges there may be: those of the user `kubelet`, the same of users and groups and whole; without it all but the
/// first.
fn numbers(subuid: &str, subgid: &str) -> Result<std::ops::Range<u32>, RuntimeError> {
    let error = |text: &str| Err(RuntimeError::Failed(format!("/etc/subuid and /etc/subgid, user kubelet: {text}")));
    let ranges = |text: &str| -> Vec<Vec<String>> {
        let lines = text.lines().map(|line| line.trim().split(':').map(str::to_owned).collect());
        lines.filter(|fields: &Vec<String>| fields.first().is_some_and(|user| user == "kubelet")).collect()
    };
    let (users, groups) = (ranges(subuid), ranges(subgid));
    if users != groups {
        return error("users and groups differ");
    }
    let [fields] = users.as_slice() else {
        return if users.is_empty() { Ok(1..u32::MAX / LENGTH + 1) } else { error("more than one range") };
    };
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let (Some(first), Some(length)) = (number(1), number(2)) else { return error("no numbers") };
    let end = first.saturating_add(length);
    if first == 0 || first % u64::from(LENGTH) != 0 || length % u64::from(LENGTH) != 0 || end > 1 << 32 {
        return error("the range is not made of whole parts of 65536 above the first");
    }
    Ok((first / u64::from(LENGTH)) as u32..(end / u64::from(LENGTH)) as u32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_follow_upstreams_rules() {
        let both = |text: &str| numbers(text, text).map_err(|e| e.to_string());
        assert_eq!(both(""), Ok(1..65_536));
        assert_eq!(both("someone:100000:65536\n"), Ok(1..65_536));
        assert_eq!(both("kubelet:131072:7208960\n"), Ok(2..112));
        for wrong in ["kubelet:0:65536", "kubelet:65537:65536", "kubelet:65536:65537", "kubelet:x:1", "kubelet"] {
            assert!(both(wrong).is_err(), "{wrong}");
        }
        assert!(both("kubelet:65536:65536\nkubelet:262144:65536\n").is_err());
        assert!(numbers("kubelet:65536:65536", "").is_err());
    }
}
