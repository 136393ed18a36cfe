//! Who has which address and claims which host ports, on disk.

use super::NetworkError;
use network::cidr::Cidr;
use network::host_ports::Claim;
use network::pool::Pool;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

const FILE: &str = "network.json";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) pools: Vec<Pool>,
    /// The first that came is the first here.
    #[serde(default)]
    claims: Vec<(String, Claim)>,
}

impl Record {
    /// Reads what there is; pools of other ranges than `ranges` are dropped, unless `ranges` is empty.
    pub(super) fn load(directory: &Path, ranges: &[Cidr]) -> Result<Record, NetworkError> {
        let path = directory.join(FILE);
        let mut record = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| NetworkError::Damaged { path, source })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Record::default(),
            Err(source) => return Err(NetworkError::Io { what: "read", path, source }),
        };
        if ranges.is_empty() {
            return Ok(record);
        }
        let pool = |range: &Cidr| {
            let old = record.pools.iter().find(|pool| pool.range() == *range).cloned();
            old.map_or_else(|| Pool::new(*range), Ok)
        };
        record.pools = ranges.iter().map(pool).collect::<Result<_, _>>()?;
        Ok(record)
    }

    /// Replaces the file. It need not outlive the machine's next crash, which no Pod does either.
    pub(super) fn save(&self, directory: &Path) -> Result<(), NetworkError> {
        let error = |what, path: &Path, source| NetworkError::Io { what, path: path.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(|e| error("make", directory, e))?;
        let (path, temp) = (directory.join(FILE), directory.join(".network.json"));
        let bytes = serde_json::to_vec(self).map_err(|e| error("encode", &path, e.into()))?;
        std::fs::write(&temp, bytes).map_err(|e| error("write", &temp, e))?;
        std::fs::rename(&temp, &path).map_err(|e| error("write", &path, e))
    }

    pub(super) fn remove(directory: &Path) -> Result<(), NetworkError> {
        let gone = |path: PathBuf| match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(NetworkError::Io { what: "remove", path, source })
            }
            _ => Ok(()),
        };
        gone(directory.join(FILE))?;
        gone(directory.join(".network.json"))
    }

    /// An address of each family; those it has, if it has some.
    pub(super) fn allocate(&mut self, owner: &str) -> Result<Vec<IpAddr>, NetworkError> {
        Ok(self.pools.iter_mut().map(|pool| pool.allocate(owner)).collect::<Result<_, _>>()?)
    }

    /// Whether it had any address.
    pub(super) fn release(&mut self, owner: &str) -> bool {
        self.unclaim(owner);
        let released: Vec<_> = self.pools.iter_mut().filter_map(|pool| pool.release(owner)).collect();
        !released.is_empty()
    }

    /// Replaces what it claimed.
    pub(super) fn claim(&mut self, owner: &str, claim: Claim) {
        self.unclaim(owner);
        if !claim.ports.is_empty() {
            self.claims.push((owner.to_owned(), claim));
        }
    }

    /// Whether it had claimed any port.
    pub(super) fn unclaim(&mut self, owner: &str) -> bool {
        let before = self.claims.len();
        self.claims.retain(|(name, _)| name != owner);
        self.claims.len() < before
    }

    pub(super) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter().map(|(_, claim)| claim)
    }

    pub(super) fn addresses(&self, owner: &str) -> Vec<IpAddr> {
        self.pools.iter().filter_map(|pool| pool.address_of(owner)).collect()
    }

    pub(super) fn owners(&self) -> BTreeSet<String> {
        self.pools.iter().flat_map(|pool| pool.owners().map(|(owner, _)| owner.to_owned())).collect()
    }
}
