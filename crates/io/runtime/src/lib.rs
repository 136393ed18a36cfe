//! Pods' sandboxes and containers, made of shims, images and cgroups. Knows no Kubernetes API: its words are CRI's.

pub mod cri;
pub mod embedded;
pub mod exec;
pub mod stats;
pub mod streaming;
pub mod types;
