//! An image's config: what a container made from it starts with.

use crate::digest::Digest;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The part of an image's config that a runtime needs (OCI image-spec, config.md).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub architecture: String,
    pub os: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`, in the image's order.
    pub env: Vec<(String, String)>,
    /// `user[:group]`, names or numbers; empty: root.
    pub user: String,
    /// Empty: `/`.
    pub working_dir: String,
    /// `SIGQUIT` or a number; empty: SIGTERM.
    pub stop_signal: String,
    /// Paths the image declares as volumes.
    pub volumes: Vec<String>,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct RawConfig {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Option<RawInner>,
    rootfs: RawRootfs,
}

#[derive(Debug, Deserialize)]
struct RawRootfs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

// Docker writes `null` where a list is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawInner {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    labels: Option<BTreeMap<String, String>>,
}

/// Reads a config blob: the config and the diff ids of its layers, the lowest first.
pub(crate) fn parse(bytes: &[u8]) -> Result<(ImageConfig, Vec<Digest>), serde_json::Error> {
    let raw: RawConfig = serde_json::from_slice(bytes)?;
    let inner = raw.config.unwrap_or_default();
    let env = inner.env.unwrap_or_default().into_iter().map(|pair| match pair.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (pair, String::new()),
    });
    let config = ImageConfig {
        architecture: raw.architecture,
        os: raw.os,
        entrypoint: inner.entrypoint.unwrap_or_default(),
        cmd: inner.cmd.unwrap_or_default(),
        env: env.collect(),
        user: inner.user.unwrap_or_default(),
        working_dir: inner.working_dir.unwrap_or_default(),
        stop_signal: inner.stop_signal.unwrap_or_default(),
        volumes: inner.volumes.unwrap_or_default().into_keys().collect(),
        exposed_ports: inner.exposed_ports.unwrap_or_default().into_keys().collect(),
        labels: inner.labels.unwrap_or_default(),
    };
    Ok((config, raw.rootfs.diff_ids.unwrap_or_default()))
}
