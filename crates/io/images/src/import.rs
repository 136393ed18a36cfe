//! Images from archives: `docker save`, OCI layouts, one or several images in one.

use crate::archive::{Archive, ArchiveError};
use crate::digest::Digest;
use crate::layer::{self, Expected, LayerError};
use crate::manifest::{self, Descriptor, Document, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, ManifestError};
use crate::store::{Image, Images, Inner, Record, StoreError};
use crate::{Reference, config, copy_up};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncRead;

/// Why an archive was not imported. Nothing of it is kept then.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("cannot open {path}: {source}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("cannot read the archive: {0}")]
    Stream(std::io::Error),
    /// No archive, or something is missing in it.
    #[error("{0}")]
    Archive(String),
    #[error("not an image archive: neither index.json nor manifest.json in it")]
    NoImages,
    #[error("{name} of the archive is malformed: {source}")]
    Malformed { name: String, source: serde_json::Error },
    #[error("{name} of the archive: {reason}")]
    Manifest { name: String, reason: String },
    #[error("{name} of the archive has digest {actual}, expected {expected}")]
    Digest { name: String, expected: String, actual: String },
    #[error("{0}")]
    Layer(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ArchiveError> for ImportError {
    fn from(error: ArchiveError) -> ImportError {
        ImportError::Archive(error.to_string())
    }
}

/// An image found in an archive.
struct Found {
    tags: BTreeSet<String>,
    digests: BTreeSet<String>,
    documents: Vec<(Digest, Vec<u8>)>,
    config: Vec<u8>,
    /// Names in the archive, and the blob's digest where the archive tells.
    layers: Vec<(String, Option<Digest>)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct OciIndex {
    manifests: Vec<Descriptor>,
}

impl Images {
    /// Imports every image of an archive (tar, tar.gz, tar.zst; OCI layout or `docker save`) that a stream brings.
    pub async fn import(&self, mut stream: impl AsyncRead + Send + Unpin) -> Result<Vec<Image>, ImportError> {
        let temp = self.inner.temp();
        let spooled = |source| StoreError::new("write", temp.path(), source);
        let file = tokio::fs::File::options().read(true).write(true).create_new(true).open(temp.path()).await;
        let mut file = file.map_err(spooled)?;
        tokio::io::copy(&mut stream, &mut file).await.map_err(ImportError::Stream)?;
        tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(spooled)?;
        let file = file.into_std().await;
        self.import_open(file).await
    }

    /// Imports every image of an archive file.
    pub async fn import_file(&self, path: &Path) -> Result<Vec<Image>, ImportError> {
        let file =
            tokio::fs::File::open(path).await.map_err(|source| ImportError::Open { path: path.to_owned(), source })?;
        let plain = file.metadata().await.is_ok_and(|metadata| metadata.is_file());
        if plain { self.import_open(file.into_std().await).await } else { self.import(file).await }
    }

    async fn import_open(&self, file: std::fs::File) -> Result<Vec<Image>, ImportError> {
        let inner = self.inner.clone();
        let import = move || {
            let spool = inner.temp();
            let archive = Archive::open(file, spool.path())?;
            let found = find(&archive)?;
            // All or nothing: the images get their names when every layer is in its place.
            let mut ready = Vec::new();
            for found in found {
                ready.push(unpack(&inner, &archive, found)?);
            }
            let commit = |Ready { record, config, .. }: &Ready| inner.commit(record.clone(), config);
            Ok(ready.iter().map(commit).collect::<Result<Vec<_>, _>>()?)
        };
        tokio::task::spawn_blocking(import).await.map_err(|e| ImportError::Archive(e.to_string()))?
    }
}

/// What an archive holds. Where it is both, the OCI layout counts and docker's names are added.
fn find(archive: &Archive) -> Result<Vec<Found>, ImportError> {
    let docker: Option<Vec<DockerEntry>> = read_json(archive, "manifest.json")?;
    if archive.section("oci-layout").is_some()
        && let Some(index) = read_json::<OciIndex>(archive, "index.json")?
    {
        return find_oci(archive, &index.manifests, &docker.unwrap_or_default());
    }
    docker.ok_or(ImportError::NoImages)?.into_iter().map(|entry| find_docker(archive, entry)).collect()
}

fn read_json<T: serde::de::DeserializeOwned>(archive: &Archive, name: &str) -> Result<Option<T>, ImportError> {
    let bytes = match archive.read(name, MAX_MANIFEST_BYTES) {
        Ok(bytes) => bytes,
        Err(ArchiveError::Missing(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|source| ImportError::Malformed { name: name.to_owned(), source })
}

fn find_docker(archive: &Archive, entry: DockerEntry) -> Result<Found, ImportError> {
    let config = archive.read(&entry.config, MAX_CONFIG_BYTES)?;
    // `HEX.json` or `blobs/sha256/HEX`: the name tells the digest.
    let hex =
        Path::new(&entry.config).file_name().and_then(|n| n.to_str()).unwrap_or_default().trim_end_matches(".json");
    if let Ok(expected) = format!("sha256:{hex}").parse::<Digest>() {
        verify(&entry.config, &config, &expected)?;
    }
    let tags = entry.repo_tags.unwrap_or_default();
    let tags =
        tags.iter().map(|tag| reference(tag, "manifest.json").map(|r| r.canonical())).collect::<Result<_, _>>()?;
    let layers = entry.layers.unwrap_or_default().into_iter().map(|name| {
        let blob = name.strip_prefix("blobs/sha256/").and_then(|hex| format!("sha256:{hex}").parse().ok());
        (name, blob)
    });
    Ok(Found { tags, digests: BTreeSet::new(), documents: Vec::new(), config, layers: layers.collect() })
}

fn find_oci(archive: &Archive, index: &[Descriptor], docker: &[DockerEntry]) -> Result<Vec<Found>, ImportError> {
    let mut found: BTreeMap<Digest, Found> = BTreeMap::new();
    for descriptor in index {
        let mut one = match find_manifest(archive, descriptor) {
            Ok(Some(found)) => found,
            // Of a name's platforms the archive holds others only: it says so if nothing else is in it.
            Ok(None) => continue,
            Err(error) => return Err(error),
        };
        if let Some(name) = descriptor.annotations.as_ref().and_then(image_name) {
            let name = reference(&name, "index.json")?;
            one.digests.insert(format!("{}@{}", name.repository(), descriptor.digest));
            if name.digest().is_none() {
                one.tags.insert(name.canonical());
            }
        }
        let id = Digest::of(&one.config);
        for entry in docker.iter().filter(|entry| entry.config.contains(&id.hex())) {
            for tag in entry.repo_tags.iter().flatten() {
                one.tags.insert(reference(tag, "manifest.json")?.canonical());
            }
        }
        match found.get_mut(&id) {
            None => drop(found.insert(id, one)),
            Some(old) => {
                old.tags.extend(one.tags);
                old.digests.extend(one.digests);
                old.documents.extend(one.documents);
            }
        }
    }
    if found.is_empty() {
        let reason = ManifestError::NoPlatform.to_string();
        return Err(ImportError::Manifest { name: "index.json".to_owned(), reason });
    }
    Ok(found.into_values().collect())
}

/// containerd's annotation holds a whole name; the specification's may be a mere tag, which names no image.
fn image_name(annotations: &BTreeMap<String, String>) -> Option<String> {
    let containerd = annotations.get("io.containerd.image.name").cloned();
    containerd
        .or_else(|| annotations.get("org.opencontainers.image.ref.name").filter(|n| n.contains([':', '/'])).cloned())
}

/// `None`: not for this machine's platform.
fn find_manifest(archive: &Archive, top: &Descriptor) -> Result<Option<Found>, ImportError> {
    let mut descriptor = top.clone();
    let mut documents = Vec::new();
    for _ in 0..3 {
        let name = blob_name(&descriptor.digest);
        let bytes = archive.read(&name, MAX_MANIFEST_BYTES)?;
        verify(&name, &bytes, &descriptor.digest)?;
        let bad = |error: ManifestError| ImportError::Manifest { name: name.clone(), reason: error.to_string() };
        let document = manifest::parse(&bytes).map_err(bad)?;
        documents.push((descriptor.digest, bytes));
        match document {
            Document::Manifest(manifest) => {
                let name = blob_name(&manifest.config.digest);
                let config = archive.read(&name, MAX_CONFIG_BYTES)?;
                verify(&name, &config, &manifest.config.digest)?;
                let layers = manifest.layers.iter().map(|l| (blob_name(&l.digest), Some(l.digest))).collect();
                return Ok(Some(Found { tags: BTreeSet::new(), digests: BTreeSet::new(), documents, config, layers }));
            }
            Document::Index(descriptors) => match manifest::choose(&descriptors) {
                Ok(chosen) if archive.section(&blob_name(&chosen.digest)).is_some() => descriptor = chosen.clone(),
                Ok(_) | Err(ManifestError::NoPlatform) => return Ok(None),
                Err(error) => return Err(bad(error)),
            },
        }
    }
    Err(ImportError::Manifest { name: "index.json".to_owned(), reason: "indexes are nested too deep".to_owned() })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn verify(name: &str, bytes: &[u8], expected: &Digest) -> Result<(), ImportError> {
    let actual = Digest::of(bytes);
    if actual == *expected {
        return Ok(());
    }
    Err(ImportError::Digest { name: name.to_owned(), expected: expected.to_string(), actual: actual.to_string() })
}

fn reference(name: &str, file: &str) -> Result<Reference, ImportError> {
    let bad =
        |e| ImportError::Manifest { name: file.to_owned(), reason: format!("couldn't parse image name {name:?}: {e}") };
    Reference::parse(name).map_err(bad)
}

struct Ready {
    record: Record,
    config: Vec<u8>,
    /// Held until the record is in the index.
    _pins: crate::store::Pins,
}

fn unpack(inner: &Arc<Inner>, archive: &Archive, found: Found) -> Result<Ready, ImportError> {
    let Found { tags, digests, documents, config, layers } = found;
    let id = Digest::of(&config);
    let malformed = |source| ImportError::Malformed { name: format!("config {id}"), source };
    let (_, diff_ids) = config::parse(&config).map_err(malformed)?;
    if diff_ids.len() != layers.len() {
        let reason = format!("its config tells {} layers, its manifest {}", diff_ids.len(), layers.len());
        return Err(ImportError::Manifest { name: format!("image {id}"), reason });
    }
    let mut chains: Vec<Digest> = Vec::new();
    for diff_id in &diff_ids {
        chains.push(Digest::chain(chains.last(), diff_id));
    }
    let kept = documents.iter().map(|(digest, _)| *digest).chain([id]);
    let pins = inner.pin(chains.iter().copied().chain(kept).collect());
    let mut size_bytes = config.len() as u64;
    for (index, ((name, blob), diff_id)) in layers.into_iter().zip(diff_ids).enumerate() {
        let section = archive.section(&name).ok_or_else(|| ArchiveError::Missing(name.clone()))?;
        size_bytes += section.length_bytes();
        if inner.layer_path(&chains[index]).is_dir() {
            continue;
        }
        let temp = inner.temp();
        let unpacked = layer::unpack(section, Expected { blob, diff_id }, temp.path(), &inner.options);
        let unpacked = unpacked.map_err(|e| ImportError::Layer(format!("{name} of the archive: {e}")))?;
        let lowers: Vec<PathBuf> = chains[..index].iter().rev().map(|chain| inner.layer_path(chain)).collect();
        copy_up::complete(temp.path(), &unpacked, &lowers)
            .map_err(|source| ImportError::Layer(LayerError::Unpack { diff_id, source }.to_string()))?;
        inner.put_layer(&temp, &chains[index])?;
    }
    for (digest, bytes) in &documents {
        inner.put_blob(digest, bytes)?;
        size_bytes += bytes.len() as u64;
    }
    let manifests = documents.iter().map(|(digest, _)| *digest).collect();
    let record = Record { id, tags, digests, manifests, layers: chains, size_bytes, removed: false };
    Ok(Ready { record, config, _pins: pins })
}
