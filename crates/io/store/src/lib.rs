//! etcd's model over bytes: one global revision, compare-and-write transactions, ranges at a revision, watches,
//! compaction, leases. Knows nothing of Kubernetes.

pub mod clock;
pub mod disk;
pub mod embedded;
pub mod kv;
