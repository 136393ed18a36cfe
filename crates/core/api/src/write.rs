//! What a controller may ask of the API: the common output of every `plan`, carried out by `client`.

use bytes::Bytes;

/// Names a resource, an object or its subresource, as a request path does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Target {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    /// Empty for cluster-scoped resources, and for all namespaces in a list.
    pub namespace: String,
    /// Empty for a collection.
    pub name: String,
    /// Empty for the object itself.
    pub subresource: &'static str,
}

/// One request that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub verb: Verb,
    pub target: Target,
    /// JSON; for `Delete` the `DeleteOptions` or empty.
    pub body: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Create,
    Update,
    JsonPatch,
    MergePatch,
    StrategicPatch,
    Delete,
}
