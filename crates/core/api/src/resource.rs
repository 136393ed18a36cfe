//! What the API calls its resources: discovery's facts, generated for built-in kinds.

use schema::table::TypeId;

/// One served resource of one group and version.
#[derive(Debug)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub namespaced: bool,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    /// In discovery's order.
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// Path below `/registry/` in the store, upstream's: `pods`, `minions`, `services/specs`. Empty for what is not stored.
    pub storage: &'static str,
    /// Discovery's `storageVersionHash`; empty for what is not stored.
    pub storage_version_hash: &'static str,
    /// The kind's type in [`crate::table::table`].
    pub of: TypeId,
    /// Whether this version is the one that is stored.
    pub stored: bool,
}

/// `pods/status`, `pods/eviction`, …
#[derive(Debug)]
pub struct Subresource {
    pub name: &'static str,
    /// The kind it speaks: `Pod`, `Eviction` with its group and version where they differ from the resource's.
    pub kind: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub verbs: &'static [&'static str],
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, `deployments.apps`: as errors and RBAC name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The key in the store: `/registry/pods/NS/NAME`; with an empty name the prefix of the namespace (or of all).
    pub fn key(&self, namespace: &str, name: &str) -> String {
        let mut key = format!("/registry/{}/", self.storage);
        if self.namespaced && !namespace.is_empty() {
            key.push_str(namespace);
            key.push('/');
        }
        key.push_str(name);
        key
    }
}

/// The built-in resource, if it is served.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    crate::table::resources().iter().find(|r| r.plural == plural && r.group == group && r.version == version)
}
