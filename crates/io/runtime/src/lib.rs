//! Pods' sandboxes and containers, made of shims, images and cgroups. Knows no Kubernetes API: its words are CRI's.

pub mod embedded;
pub mod stats;
pub mod streaming;
pub mod types;
