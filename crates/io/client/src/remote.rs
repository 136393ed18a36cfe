//! The transport over TLS, to any API server that a kubeconfig names.

use crate::transport::{CallError, ListQuery, ObjectEvent, ObjectList, ObjectStream, Transport};
use api::object::Object;
use api::write::{Target, Verb, Write};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::path::Path;
use std::sync::Arc;

/// A connection pool to one server, as one user.
pub struct Remote {
    client: kube::Client,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    metadata: Named<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Named<'a> {
    #[serde(borrow)]
    name: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    namespace: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    resource_version: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawList<'a> {
    #[serde(borrow)]
    metadata: Named<'a>,
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type", borrow)]
    of: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl Remote {
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    /// From a kubeconfig file, with its current context.
    ///
    /// # Errors
    /// When it cannot be read or names nothing usable.
    pub async fn from_kubeconfig(path: &Path) -> Result<Self, CallError> {
        Self::of(kube::config::Kubeconfig::read_from(path).map_err(unreachable)?).await
    }

    /// From a kubeconfig's text; relative paths in it are the working directory's.
    ///
    /// # Errors
    /// As [`Self::from_kubeconfig`].
    pub async fn from_text(text: &str) -> Result<Self, CallError> {
        Self::of(kube::config::Kubeconfig::from_yaml(text).map_err(unreachable)?).await
    }

    async fn of(kubeconfig: kube::config::Kubeconfig) -> Result<Self, CallError> {
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(unreachable)?;
        Ok(Self::new(kube::Client::try_from(config).map_err(unreachable)?))
    }

    /// The body of a GET as it comes, e.g. a log that is followed.
    pub async fn stream(&self, path: &str) -> Result<impl futures::AsyncRead + use<>, CallError> {
        let request = http::Request::get(path).body(Vec::new()).map_err(unreachable)?;
        self.client.request_stream(request).await.map_err(from_kube)
    }

    async fn send(&self, method: http::Method, uri: String, content: &str, body: Bytes) -> Result<Vec<u8>, CallError> {
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .header(http::header::CONTENT_TYPE, content)
            .header(http::header::ACCEPT, "application/json")
            .body(body.to_vec())
            .map_err(unreachable)?;
        self.client.request_text(request).await.map(String::into_bytes).map_err(from_kube)
    }
}

#[async_trait]
impl Transport for Remote {
    async fn get(&self, target: &Target) -> Result<Arc<Object>, CallError> {
        object(&self.send(http::Method::GET, path(target), "application/json", Bytes::new()).await?)
    }

    async fn list(&self, query: &ListQuery) -> Result<ObjectList, CallError> {
        let uri = with_query(query, &[]);
        let body = self.send(http::Method::GET, uri, "application/json", Bytes::new()).await?;
        let list: RawList<'_> = serde_json::from_slice(&body).map_err(unreachable)?;
        let items = list.items.iter().map(|raw| object(raw.get().as_bytes())).collect::<Result<_, _>>()?;
        Ok(ObjectList { items, revision: list.metadata.resource_version.parse().unwrap_or_default() })
    }

    async fn watch(&self, query: &ListQuery, revision: u64) -> Result<ObjectStream, CallError> {
        let revision = revision.to_string();
        let parameters = [("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", &revision)];
        let request = http::Request::get(with_query(query, &parameters)).body(Vec::new()).map_err(unreachable)?;
        let reader = self.client.request_stream(request).await.map_err(from_kube)?;
        let lines = reader.lines().map_err(unreachable).and_then(|line| async move { event(line.as_bytes()) });
        Ok(lines.boxed())
    }

    async fn write(&self, write: Write) -> Result<Arc<Object>, CallError> {
        let (method, content) = match write.verb {
            Verb::Create => (http::Method::POST, "application/json"),
            Verb::Update => (http::Method::PUT, "application/json"),
            Verb::JsonPatch => (http::Method::PATCH, "application/json-patch+json"),
            Verb::MergePatch => (http::Method::PATCH, "application/merge-patch+json"),
            Verb::StrategicPatch => (http::Method::PATCH, "application/strategic-merge-patch+json"),
            Verb::Delete => (http::Method::DELETE, "application/json"),
        };
        object(&self.send(method, path(&write.target), content, write.body).await?)
    }
}

/// `/api/v1/namespaces/NS/pods/NAME/status`
pub fn path(target: &Target) -> String {
    let mut path = if target.group.is_empty() {
        format!("/api/{}", target.version)
    } else {
        format!("/apis/{}/{}", target.group, target.version)
    };
    if !target.namespace.is_empty() {
        path += &format!("/namespaces/{}", target.namespace);
    }
    for part in [target.plural, &target.name, target.subresource] {
        if !part.is_empty() {
            path.push('/');
            path.push_str(part);
        }
    }
    path
}

fn with_query(query: &ListQuery, more: &[(&str, &str)]) -> String {
    let selectors = [("labelSelector", &*query.label_selector), ("fieldSelector", &*query.field_selector)];
    let mut uri = path(&query.target);
    let mut separator = '?';
    for (name, value) in selectors.iter().filter(|(_, value)| !value.is_empty()).chain(more) {
        uri.push(separator);
        uri += &format!("{name}={}", percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC));
        separator = '&';
    }
    uri
}

fn object(json: &[u8]) -> Result<Arc<Object>, CallError> {
    let meta: Meta<'_> = serde_json::from_slice(json).map_err(unreachable)?;
    let Named { name, namespace, resource_version } = meta.metadata;
    let revision = resource_version.parse().unwrap_or_default();
    Ok(Arc::new(Object::new(namespace.into_owned(), name.into_owned(), revision, Bytes::copy_from_slice(json))))
}

fn event(line: &[u8]) -> Result<ObjectEvent, CallError> {
    let raw: RawEvent<'_> = serde_json::from_slice(line).map_err(unreachable)?;
    let json = raw.object.get().as_bytes();
    match &*raw.of {
        "ADDED" => object(json).map(ObjectEvent::Added),
        "MODIFIED" => object(json).map(ObjectEvent::Modified),
        "DELETED" => object(json).map(ObjectEvent::Deleted),
        "BOOKMARK" => object(json).map(|object| ObjectEvent::Bookmark(object.revision)),
        _ => Err(CallError::Status(serde_json::from_slice(json).map_err(unreachable)?)),
    }
}

fn unreachable(error: impl std::fmt::Display) -> CallError {
    CallError::Unreachable(error.to_string())
}

fn from_kube(error: kube::Error) -> CallError {
    match error {
        kube::Error::Api(status) => match serde_json::to_value(&*status).and_then(serde_json::from_value) {
            Ok(status) => CallError::Status(status),
            Err(error) => unreachable(error),
        },
        error => unreachable(error),
    }
}
