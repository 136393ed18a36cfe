//! The way in for components of the same process: typed, shared objects, no HTTP and no encoding. Authorization applies.

use crate::authentication::User;
use crate::authorization::Attributes;
use crate::body::Body;
use crate::cache::Cache;
use crate::errors::{self, Result};
use crate::query::ListOptions;
use crate::refusal::Refusal;
use crate::select;
use crate::server::ApiServer;
use crate::watch::{self, Step};
use api::object::Object;
use api::resource::Resource;
use api::write::{Target, Verb, Write};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{Method, Request};
use std::sync::Arc;

/// One step of a watch; the client crate's `ObjectEvent` says the same.
#[derive(Debug, Clone)]
pub enum ObjectEvent {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    /// The last state.
    Deleted(Arc<Object>),
    Bookmark(u64),
}

pub type ObjectStream = BoxStream<'static, std::result::Result<ObjectEvent, Refusal>>;

impl ApiServer {
    /// One object in its stored version, as it is now.
    ///
    /// # Errors
    /// The answer that a client over HTTP would get.
    pub async fn get_object(&self, user: &User, target: &Target) -> Result<Arc<Object>> {
        let (resource, cache) = self.open(user, target, "get", "")?;
        self.caches.fresh().await?;
        let entry = cache.get(&resource.key(&target.namespace, &target.name));
        entry
            .map(|entry| entry.object.clone())
            .ok_or_else(|| Refusal::not_found(resource.group, resource.plural, &target.name))
    }

    /// The objects of a list and the revision at which they were so.
    ///
    /// # Errors
    /// As [`Self::get_object`].
    pub async fn list_objects(
        &self,
        user: &User,
        target: &Target,
        labels: &str,
        fields: &str,
    ) -> Result<(Vec<Arc<Object>>, u64)> {
        let (resource, cache) = self.open(user, target, "list", fields)?;
        let selection = select::parse(resource, cache, labels, fields)?;
        self.caches.fresh().await?;
        let applied = self.caches.applied();
        let (entries, last_change) = cache.list(&resource.key(&target.namespace, ""));
        let objects =
            entries.iter().filter(|entry| selection.matches(entry)).map(|entry| entry.object.clone()).collect();
        Ok((objects, applied.max(last_change)))
    }

    /// What happens after `revision`. A watcher that is too slow, or a revision that is gone, gives 410.
    ///
    /// # Errors
    /// As [`Self::get_object`].
    pub async fn watch_objects(
        &self,
        user: &User,
        target: &Target,
        labels: &str,
        fields: &str,
        revision: u64,
    ) -> Result<ObjectStream> {
        let (resource, cache) = self.open(user, target, "watch", fields)?;
        let selection = select::parse(resource, cache, labels, fields)?;
        // In the process nobody loses a connection: the watch has no end but the server's.
        let options = ListOptions {
            watch: true,
            bookmarks: true,
            timeout_s: Some(u64::from(u32::MAX)),
            ..ListOptions::default()
        };
        let prefix = resource.key(&target.namespace, "");
        self.caches.wait_for(revision).await;
        let watcher = watch::open(self.shared(), cache.clone(), prefix, selection, Some(revision), &options).await?;
        let events = watcher.stream().map(|step| match step {
            Step::Added(object) => Ok(ObjectEvent::Added(object)),
            Step::Modified(object) => Ok(ObjectEvent::Modified(object)),
            Step::Deleted(object) => Ok(ObjectEvent::Deleted(object)),
            Step::Bookmark { revision, .. } => Ok(ObjectEvent::Bookmark(revision)),
            Step::Failed(refusal) => Err(refusal),
        });
        Ok(events.boxed())
    }

    /// Carries out a write through the pipeline; gives the object as it is then (of a finished delete its last state).
    ///
    /// # Errors
    /// As [`Self::get_object`].
    pub async fn write_object(&self, user: &User, write: &Write) -> Result<Arc<Object>> {
        let (method, content_type) = match write.verb {
            Verb::Create => (Method::POST, "application/json"),
            Verb::Update => (Method::PUT, "application/json"),
            Verb::JsonPatch => (Method::PATCH, "application/json-patch+json"),
            Verb::MergePatch => (Method::PATCH, "application/merge-patch+json"),
            Verb::StrategicPatch => (Method::PATCH, "application/strategic-merge-patch+json"),
            Verb::Delete => (Method::DELETE, "application/json"),
        };
        let request = Request::builder()
            .method(method)
            .uri(path(write))
            .header("content-type", content_type)
            .header("user-agent", user.name.rsplit(':').next().unwrap_or_default())
            .body(write.body.clone())
            .map_err(|e| Refusal::bad_request(e.to_string()))?;
        let response = self.handle(user, request).await;
        let code = response.status().as_u16();
        let bytes = match response.into_body() {
            Body::Full(bytes) => bytes,
            stream @ Body::Stream(_) => stream.collect().await.map_err(|e| Refusal::internal(e.to_string()))?,
        };
        if code >= 400 {
            return Err(refusal_of(code, &bytes));
        }
        Ok(Arc::new(object_of(&write.target, bytes)))
    }

    fn open(&self, user: &User, target: &Target, verb: &str, fields: &str) -> Result<(&'static Resource, &Arc<Cache>)> {
        let resource =
            api::resource::find(target.group, target.version, target.plural).ok_or_else(errors::no_such_resource)?;
        let selector = schema::selector::FieldSelector::parse(fields).ok();
        let mut attributes = Attributes::new(user, verb);
        attributes.group = target.group;
        attributes.version = target.version;
        attributes.resource = target.plural;
        attributes.subresource = target.subresource;
        attributes.namespace = &target.namespace;
        attributes.name = crate::server::name_asked(&target.name, selector.as_ref());
        attributes.field_selector = selector.as_ref();
        self.authorizer.check(&attributes, &self.caches)?;
        let cache = self.caches.of(resource).ok_or_else(errors::no_such_resource)?;
        if !resource.stored {
            return Err(errors::not_supported(&format!(
                "{} as shared objects: ask for the stored version",
                resource.qualified()
            )));
        }
        Ok((resource, cache))
    }
}

fn path(write: &Write) -> String {
    let target = &write.target;
    let mut path = if target.group.is_empty() {
        format!("/api/{}", target.version)
    } else {
        format!("/apis/{}/{}", target.group, target.version)
    };
    if !target.namespace.is_empty() {
        path.push_str("/namespaces/");
        path.push_str(&target.namespace);
    }
    for part in [target.plural, target.name.as_str(), target.subresource] {
        if !part.is_empty() {
            path.push('/');
            path.push_str(part);
        }
    }
    path
}

fn object_of(target: &Target, bytes: Bytes) -> Object {
    #[derive(serde::Deserialize, Default)]
    #[serde(default, rename_all = "camelCase")]
    struct Meta {
        name: String,
        namespace: String,
        resource_version: String,
    }
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Head {
        metadata: Meta,
    }
    let meta = serde_json::from_slice::<Head>(&bytes).unwrap_or_default().metadata;
    let name = if meta.name.is_empty() { target.name.clone() } else { meta.name };
    let namespace = if meta.namespace.is_empty() { target.namespace.clone() } else { meta.namespace };
    Object::new(namespace, name, meta.resource_version.parse().unwrap_or(0), bytes)
}

fn refusal_of(code: u16, bytes: &[u8]) -> Refusal {
    let status: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    Refusal {
        code,
        reason: errors::known_reason(status["reason"].as_str().unwrap_or_default()),
        message: status["message"].as_str().unwrap_or_default().to_owned(),
        details: status["details"].clone(),
    }
}
