//! `admissionregistration.k8s.io`: webhook configurations, admission policies and their bindings.

pub mod policy;
pub mod webhooks;
