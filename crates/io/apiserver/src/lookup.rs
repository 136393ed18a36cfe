//! What identity, authorization and admission may see of the cluster: the watch cache, read synchronously.

use api::object::Object;
use std::sync::Arc;

/// A resource whatever its version: group (empty for the core group) and plural.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    pub group: &'static str,
    pub plural: &'static str,
}

impl GroupResource {
    pub const fn new(group: &'static str, plural: &'static str) -> Self {
        Self { group, plural }
    }
}

/// Present objects of built-in resources in their stored version. Answers come from memory and never wait.
pub trait Lookup: Send + Sync {
    /// `namespace` is empty for cluster-scoped resources.
    fn get(&self, resource: GroupResource, namespace: &str, name: &str) -> Option<Arc<Object>>;
    /// All objects, of one namespace or (empty) of all, by key.
    fn list(&self, resource: GroupResource, namespace: &str) -> Vec<Arc<Object>>;
    /// The revision of the last change to any object of the resource; an index built at it stays true while it stands.
    fn last_change(&self, resource: GroupResource) -> u64;
}

#[cfg(test)]
pub(crate) mod fake {
    //! A cluster of a few objects for tests.

    use super::{GroupResource, Lookup, Object};
    use serde_json::Value;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    #[derive(Default)]
    pub(crate) struct Cluster {
        objects: BTreeMap<(GroupResource, String, String), Arc<Object>>,
        revision: u64,
    }

    impl Cluster {
        pub(crate) fn with(mut self, group: &'static str, plural: &'static str, object: &Value) -> Self {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let (namespace, name) = (text("namespace"), text("name"));
            self.revision += 1;
            let stored = Object::new(namespace.clone(), name.clone(), self.revision, object.to_string().into());
            self.objects.insert((GroupResource::new(group, plural), namespace, name), Arc::new(stored));
            self
        }

        pub(crate) fn without(
            mut self,
            group: &'static str,
            plural: &'static str,
            namespace: &str,
            name: &str,
        ) -> Self {
            self.objects.remove(&(GroupResource::new(group, plural), namespace.to_owned(), name.to_owned()));
            self.revision += 1;
            self
        }
    }

    impl Lookup for Cluster {
        fn get(&self, resource: GroupResource, namespace: &str, name: &str) -> Option<Arc<Object>> {
            self.objects.get(&(resource, namespace.to_owned(), name.to_owned())).cloned()
        }

        fn list(&self, resource: GroupResource, namespace: &str) -> Vec<Arc<Object>> {
            let inside = |of: &str| namespace.is_empty() || of == namespace;
            let all = self.objects.iter().filter(|((of, at, _), _)| *of == resource && inside(at));
            all.map(|(_, object)| object.clone()).collect()
        }

        fn last_change(&self, _resource: GroupResource) -> u64 {
            self.revision
        }
    }
}
