//! minke: Kubernetes in one binary.
fn main() {}
