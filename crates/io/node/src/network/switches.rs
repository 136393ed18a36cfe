//! The kernel's switches that routing needs. All instances of a network namespace share them: how they were is written
//! down by the first and set back by the last.

use super::NetworkError;
use rustix::fs::FlockOperation;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// Whoever holds it makes and removes instance links.
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

/// Waits for the others. Blocks.
pub(super) fn lock() -> Result<Lock, NetworkError> {
    let error = |what, path: &PathBuf, source| NetworkError::Io { what, path: path.clone(), source };
    let own = PathBuf::from("/proc/thread-self/ns/net");
    let netns = std::fs::metadata(&own).map_err(|e| error("look at", &own, e))?.ino();
    let path = PathBuf::from(format!("/run/minke-sysctl-{netns}.json"));
    loop {
        let open = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(|e| error("open", &path, e))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|e| error("lock", &path, e.into()))?;
        // The last one may have removed it meanwhile.
        let same = std::fs::metadata(&path).is_ok_and(|now| file.metadata().is_ok_and(|held| held.ino() == now.ino()));
        if same {
            return Ok(Lock { file, path });
        }
    }
}

impl Lock {
    fn read(&self) -> Result<BTreeMap<String, String>, NetworkError> {
        let mut text = String::new();
        let read = (&self.file).rewind().and_then(|()| (&self.file).read_to_string(&mut text));
        read.map_err(|source| NetworkError::Io { what: "read", path: self.path.clone(), source })?;
        if text.is_empty() {
            return Ok(BTreeMap::new());
        }
        serde_json::from_str(&text).map_err(|source| NetworkError::Damaged { path: self.path.clone(), source })
    }

    fn write(&self, map: &BTreeMap<String, String>) -> Result<(), NetworkError> {
        let error = |source| NetworkError::Io { what: "write", path: self.path.clone(), source };
        let bytes = serde_json::to_vec(map).map_err(|e| error(e.into()))?;
        let mut file = &self.file;
        file.rewind()
            .and_then(|()| file.write_all(&bytes))
            .and_then(|()| file.set_len(bytes.len() as u64))
            .map_err(error)
    }
}

/// Lets the kernel route.
pub(super) fn set(lock: &Lock, ipv6: bool) -> Result<(), NetworkError> {
    let wanted = netlink::sysctl::forwarding(ipv6);
    let mut old = lock.read()?;
    for (key, value) in netlink::sysctl::differing(&wanted) {
        // What the first instance found counts.
        old.entry(key).or_insert(value);
    }
    lock.write(&old)?;
    for (key, value) in &wanted {
        if netlink::sysctl::get(key).as_ref() != Some(value) {
            netlink::sysctl::set(key, value)?;
        }
    }
    Ok(())
}

/// Sets everything back as it was.
pub(super) fn restore(lock: Lock) -> Result<(), NetworkError> {
    let old = lock.read()?;
    // Forwarding first: it resets what interfaces do with router advertisements.
    let (forwarding, others): (Vec<_>, Vec<_>) =
        old.iter().partition(|(key, _)| key.ends_with("forward") || key.ends_with("forwarding"));
    for (key, value) in forwarding.into_iter().chain(others) {
        // An interface that is gone has no switch.
        if netlink::sysctl::get(key).is_some() {
            netlink::sysctl::set(key, value)?;
        }
    }
    std::fs::remove_file(&lock.path).map_err(|source| NetworkError::Io {
        what: "remove",
        path: lock.path.clone(),
        source,
    })
}
