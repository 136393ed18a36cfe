//! `rbac.authorization.k8s.io/v1`: roles hold rules, bindings name roles and subjects.

pub mod binding;
pub mod role;
