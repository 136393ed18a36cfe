//! Manifests and indexes of the OCI and docker formats, and the choice of a platform.

use crate::digest::Digest;
use serde::Deserialize;
use std::collections::BTreeMap;

pub(crate) const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, */*";

/// A manifest or index larger than this is refused (the distribution spec's own bound).
pub(crate) const MAX_MANIFEST_BYTES: u64 = 4 << 20;
pub(crate) const MAX_CONFIG_BYTES: u64 = 8 << 20;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    /// Where a layer may be fetched instead (docker's foreign layers).
    #[serde(default)]
    pub(crate) urls: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) variant: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What a blob of a manifest media type turned out to be.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("malformed manifest: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("unsupported manifest: {0}")]
    Unsupported(String),
    #[error("no match for platform in manifest: not found")]
    NoPlatform,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

/// Reads a manifest or an index by its content: a document that is both is refused (OCI distribution advisory
/// CVE-2021-41190: the media type decides what it means, and may lie).
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, ManifestError> {
    let probe: Probe = serde_json::from_slice(bytes)?;
    if probe.schema_version == 1 {
        return Err(ManifestError::Unsupported("docker schema 1; push the image again with a current tool".to_owned()));
    }
    match (probe.config, probe.layers, probe.manifests) {
        (Some(config), layers, None) => {
            let layers = layers.unwrap_or_default();
            for descriptor in std::iter::once(&config).chain(&layers) {
                check_media_type(&descriptor.media_type)?;
            }
            Ok(Document::Manifest(Manifest { config, layers }))
        }
        (None, None, Some(manifests)) => Ok(Document::Index(manifests)),
        (_, _, Some(_)) => Err(ManifestError::Unsupported("it is both an index and a manifest".to_owned())),
        (None, _, None) => Err(ManifestError::Unsupported("neither config nor manifests in it".to_owned())),
    }
}

/// Artifacts (charts, wasm modules, signatures) are not images.
fn check_media_type(media_type: &str) -> Result<(), ManifestError> {
    let known = ["", "application/octet-stream"].contains(&media_type)
        || media_type.starts_with("application/vnd.oci.image.")
        || media_type.starts_with("application/vnd.docker.");
    if known && !media_type.contains("+encrypted") {
        return Ok(());
    }
    Err(ManifestError::Unsupported(format!("media type {media_type}")))
}

/// The architecture in OCI's words.
pub(crate) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The descriptor for this machine: linux, the architecture, among several the one without or with the base variant.
pub(crate) fn choose(manifests: &[Descriptor]) -> Result<&Descriptor, ManifestError> {
    let rank = |descriptor: &Descriptor| match &descriptor.platform {
        // An index of one unnamed platform is what some builders write.
        None => Some(2),
        Some(p) if p.os == "linux" && p.architecture == host_architecture() => {
            match p.variant.as_deref().unwrap_or_default() {
                "" | "v1" | "v8" => Some(0),
                _ => None,
            }
        }
        Some(p) if p.os.is_empty() && p.architecture.is_empty() => Some(2),
        Some(_) => None,
    };
    manifests
        .iter()
        .filter(|descriptor| !is_attestation(descriptor))
        .filter_map(|descriptor| rank(descriptor).map(|rank| (rank, descriptor)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, descriptor)| descriptor)
        .ok_or(ManifestError::NoPlatform)
}

fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.annotations.as_ref().is_some_and(|a| a.contains_key("vnd.docker.reference.type"))
}
