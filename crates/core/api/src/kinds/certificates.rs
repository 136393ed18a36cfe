//! `certificates.k8s.io`.

pub mod cluster_trust_bundle;
