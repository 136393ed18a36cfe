//! `resource.k8s.io`.

pub mod claim;
pub mod taint;
