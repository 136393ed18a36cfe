//! Every controller, as `--controllers` names them. One file each.

pub mod namespace;
pub mod node_lifecycle;
pub mod root_ca;
pub mod service_account;

use api::controller::{Controller, Key, ResourceName, View};
use api::object::Object;
use k8s_openapi::api::core::v1::Namespace;
use std::sync::{Arc, LazyLock};

pub(crate) const NAMESPACES: ResourceName = ResourceName { group: "", version: "v1", plural: "namespaces" };

static ALL: LazyLock<Vec<Controller>> = LazyLock::new(|| {
    vec![
        namespace::controller(),
        node_lifecycle::controller(),
        root_ca::controller(),
        crate::scheduler::controller::controller(),
        service_account::controller(),
    ]
});

/// In the order of their names.
pub fn all() -> &'static [Controller] {
    &ALL
}

/// The object itself is the key.
pub(crate) fn itself(_: &dyn View, object: &Object) -> Vec<Key> {
    vec![Key { namespace: object.namespace.clone(), name: object.name.clone() }]
}

/// The key is the object's namespace.
pub(crate) fn its_namespace(_: &dyn View, object: &Object) -> Vec<Key> {
    vec![Key { namespace: String::new(), name: object.namespace.clone() }]
}

/// A namespace that is there and not going away.
pub(crate) fn active_namespace(view: &dyn View, name: &str) -> Option<Arc<Namespace>> {
    let namespace = view.get(NAMESPACES, "", name)?.typed::<Namespace>().ok()?;
    namespace.metadata.deletion_timestamp.is_none().then_some(namespace)
}
