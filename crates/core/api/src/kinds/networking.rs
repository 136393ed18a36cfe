//! `networking.k8s.io`.

pub mod ingress_class;
pub mod network_policy;
