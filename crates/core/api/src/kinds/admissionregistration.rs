//! `admissionregistration.k8s.io`: webhook configurations, admission policies and their bindings.

pub mod policy;
mod validate;
pub mod webhooks;
