//! `index.json`: which images there are.

use super::{OpenError, StoreError, TempPath, layer_path, write};
use crate::config::{self, ImageConfig};
use crate::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    #[serde(with = "as_list")]
    pub(crate) images: BTreeMap<Digest, Record>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The config's digest.
    pub(crate) id: Digest,
    pub(crate) tags: BTreeSet<String>,
    pub(crate) digests: BTreeSet<String>,
    /// Manifests and indexes that are kept as blobs.
    pub(crate) manifests: BTreeSet<Digest>,
    /// Chain ids, the lowest first.
    pub(crate) layers: Vec<Digest>,
    pub(crate) size_bytes: u64,
    /// Removed by somebody while it was in use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) removed: bool,
}

impl Record {
    /// Takes its names away.
    pub(crate) fn remove(&mut self) {
        self.tags.clear();
        self.digests.clear();
        self.removed = true;
    }
}

/// An image whose files are not as the index says.
pub(crate) struct Unreadable {
    pub(crate) id: Digest,
    pub(crate) why: String,
}

impl Default for Index {
    fn default() -> Index {
        Index { version: VERSION, images: BTreeMap::new() }
    }
}

impl Index {
    pub(crate) fn load(dir: &Path) -> Result<Index, OpenError> {
        let path = dir.join("index.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Index::default()),
            Err(source) => return Err(OpenError::Io { what: "read", path, source }),
        };
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        match serde_json::from_slice::<Version>(&bytes) {
            Ok(Version { version }) if version > VERSION => return Err(OpenError::Newer { path, version }),
            _ => {}
        }
        serde_json::from_slice(&bytes).map_err(|source| OpenError::Damaged { path, source })
    }

    pub(crate) fn save(&self, dir: &Path, temp: &TempPath) -> Result<(), StoreError> {
        let path = dir.join("index.json");
        let bytes = serde_json::to_vec(self).map_err(|e| StoreError::new("encode", &path, std::io::Error::other(e)))?;
        write::write_file(temp, &path, &bytes)
    }

    /// Reads every config and looks whether every layer is there.
    pub(crate) fn check(&self, dir: &Path, configs: &mut BTreeMap<Digest, Arc<ImageConfig>>) -> Vec<Unreadable> {
        let mut unreadable = Vec::new();
        for (id, record) in &self.images {
            let config = std::fs::read(blob_path(dir, id)).map_err(|e| e.to_string()).and_then(|bytes| {
                if Digest::of(&bytes) != *id {
                    return Err("its config is damaged".to_owned());
                }
                config::parse(&bytes).map_err(|e| e.to_string())
            });
            let missing = record.layers.iter().find(|chain| !layer_path(dir, chain).is_dir());
            match (config, missing) {
                (Ok((config, _)), None) => {
                    configs.insert(*id, Arc::new(config));
                }
                (Err(why), _) => unreadable.push(Unreadable { id: *id, why }),
                (_, Some(chain)) => unreadable.push(Unreadable { id: *id, why: format!("layer {chain} is missing") }),
            }
        }
        unreadable
    }

    /// Adds or completes an image; a tag belongs to one image only.
    pub(crate) fn insert(&mut self, mut record: Record) {
        for other in self.images.values_mut().filter(|other| other.id != record.id) {
            other.tags.retain(|tag| !record.tags.contains(tag));
        }
        if let Some(old) = self.images.remove(&record.id) {
            record.tags.extend(old.tags);
            record.digests.extend(old.digests);
            record.manifests.extend(old.manifests);
        }
        record.removed = false;
        self.images.insert(record.id, record);
    }

    pub(crate) fn layers(&self) -> BTreeSet<Digest> {
        self.images.values().flat_map(|record| record.layers.iter().copied()).collect()
    }

    pub(crate) fn blobs(&self) -> BTreeSet<Digest> {
        let blobs = |record: &Record| record.manifests.iter().copied().chain([record.id]).collect::<Vec<_>>();
        self.images.values().flat_map(blobs).collect()
    }
}

pub(crate) fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs/sha256").join(digest.hex())
}

/// The map's keys stand in its values.
mod as_list {
    use super::{BTreeMap, Digest, Record};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<Digest, Record>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<Digest, Record>, D::Error> {
        Ok(Vec::<Record>::deserialize(d)?.into_iter().map(|record| (record.id, record)).collect())
    }
}
