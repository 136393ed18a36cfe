//! The records on disk.

use crate::types::{ContainerConfig, Resources, SandboxConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{Error, ErrorKind, Result};
use std::net::IpAddr;
use std::path::Path;

pub(super) const SANDBOX: &str = "sandbox.json";
pub(super) const READY: &str = "ready.json";
pub(super) const STOPPED: &str = "stopped";
pub(super) const SOCKET: &str = "shim.sock";
pub(super) const CONTAINERS: &str = "containers";
pub(super) const CONTAINER: &str = "container.json";
pub(super) const PROCESS: &str = "process";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) config: SandboxConfig,
    pub(super) created_at_ns: i64,
    /// Of the Pod, below every hierarchy.
    pub(super) cgroup: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ReadyRecord {
    pub(super) ips: Vec<IpAddr>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub(super) config: ContainerConfig,
    pub(super) created_at_ns: i64,
    pub(super) stop_signal: i32,
    /// As updated last; `None`: as the config says.
    #[serde(default)]
    pub(super) resources: Option<Resources>,
}

/// Writes a record so that it is there whole or not at all.
pub(super) fn write<T: Serialize>(dir: &Path, name: &str, record: &T) -> Result<()> {
    write_bytes(dir, name, &serde_json::to_vec(record)?)
}

pub(super) fn write_bytes(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let new = dir.join(format!("{name}.new"));
    std::fs::write(&new, bytes)?;
    std::fs::rename(new, dir.join(name))
}

/// `None`: it is not there.
pub(super) fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Option<T>> {
    match std::fs::read(dir.join(name)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::new(ErrorKind::InvalidData, e)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
