//! Typed calls on a [`Transport`].

use crate::transport::{CallError, ListQuery, Transport};
use api::object::Object;
use api::write::{Target, Verb, Write};
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// A kind that `k8s-openapi` has a Rust type for.
pub trait Kind:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + DeserializeOwned
    + Serialize
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + DeserializeOwned
        + Serialize
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The path of an object of kind `K`; an empty name is the collection.
pub fn target<K: Kind>(namespace: &str, name: &str) -> Target {
    Target {
        group: K::GROUP,
        version: K::VERSION,
        plural: K::URL_PATH_SEGMENT,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: "",
    }
}

/// Decodes an object that the server sent; one that does not fit its own type counts as no answer.
pub fn decode<K: Kind>(object: &Object) -> Result<Arc<K>, CallError> {
    object.typed::<K>().map_err(|error| CallError::Unreachable(format!("undecodable {object:?}: {error}")))
}

/// A cheap handle to one API server, as one user.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
}

impl Client {
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    pub async fn get<K: Kind>(&self, namespace: &str, name: &str) -> Result<Arc<K>, CallError> {
        decode(&*self.transport.get(&target::<K>(namespace, name)).await?)
    }

    pub async fn list<K: Kind>(&self, namespace: &str) -> Result<Vec<Arc<K>>, CallError> {
        let query = ListQuery { target: target::<K>(namespace, ""), ..ListQuery::default() };
        self.transport.list(&query).await?.items.iter().map(|object| decode(object)).collect()
    }

    pub async fn create<K: Kind>(&self, object: &K) -> Result<Arc<K>, CallError> {
        let namespace = object.metadata().namespace.clone().unwrap_or_default();
        let write = Write { verb: Verb::Create, target: target::<K>(&namespace, ""), body: encode(object) };
        decode(&*self.transport.write(write).await?)
    }

    /// Sends `patch` as a strategic merge patch to `subresource` (empty: the object itself).
    pub async fn patch<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &'static str,
        patch: &Value,
    ) -> Result<Arc<K>, CallError> {
        let target = Target { subresource, ..target::<K>(namespace, name) };
        let write = Write { verb: Verb::StrategicPatch, target, body: encode(patch) };
        decode(&*self.transport.write(write).await?)
    }

    /// Posts `body` to a subresource that answers with something else than `K` (binding, token, eviction).
    pub async fn post<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &'static str,
        body: &impl Serialize,
    ) -> Result<Arc<Object>, CallError> {
        let target = Target { subresource, ..target::<K>(namespace, name) };
        self.transport.write(Write { verb: Verb::Create, target, body: encode(body) }).await
    }

    /// `options` are `DeleteOptions`.
    pub async fn delete<K: Kind>(&self, namespace: &str, name: &str, options: &Value) -> Result<(), CallError> {
        let write = Write { verb: Verb::Delete, target: target::<K>(namespace, name), body: encode(options) };
        self.transport.write(write).await.map(drop)
    }
}

/// API types always encode: their maps have string keys.
fn encode(object: &impl Serialize) -> Bytes {
    serde_json::to_vec(object).unwrap_or_default().into()
}
