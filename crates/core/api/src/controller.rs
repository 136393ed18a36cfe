//! The contract between a controller's `plan` (crate `control`) and whoever runs it (crate `client`, `dev/sim`).

use crate::object::Object;
use crate::write::Write;
use jiff::Timestamp;
use std::sync::Arc;

/// A resource as controllers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
}

/// What a controller works on: an object's namespace (empty for cluster scope) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

/// The observed world, as the caches have it.
pub trait View {
    fn get(&self, resource: ResourceName, namespace: &str, name: &str) -> Option<Arc<Object>>;
    /// All objects of a namespace (of the cluster, when empty), in the order of their keys.
    fn list(&self, resource: ResourceName, namespace: &str) -> Vec<Arc<Object>>;
}

/// What should be done now, and when to look again if nothing changes.
#[derive(Debug, Default, Clone)]
pub struct Plan {
    /// Carried out in this order; the first that fails ends the plan, and the key is planned again with back-off.
    pub writes: Vec<Write>,
    pub again_at: Option<Timestamp>,
    /// What the view is to hold once the writes are done, until the watch brings the truth: a Pod bound just now counts
    /// for the next one's plan.
    pub assume: Vec<(ResourceName, Arc<Object>)>,
}

/// Turns a changed object into the keys it concerns.
pub type Concerns = fn(&dyn View, &Object) -> Vec<Key>;

/// One level-triggered controller: same observations, same plan.
pub struct Controller {
    /// Upstream's ServiceAccount of it in `kube-system`, in whose name it writes: `namespace-controller`.
    pub name: &'static str,
    pub watches: &'static [(ResourceName, Concerns)],
    pub plan: fn(&Config, &dyn View, &Key, Timestamp) -> Plan,
}

/// What controllers know besides the objects.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// PEM of the cluster's CA, for `kube-root-ca.crt`.
    pub root_ca: String,
}
