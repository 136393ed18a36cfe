//! One request for a resource on its way through the pipeline, and what comes out of it.

use crate::authentication::User;
use crate::body::Body;
use crate::errors::{self, Result};
use crate::query::Query;
use crate::request::RequestInfo;
use crate::server::ApiServer;
use api::object::Object;
use api::resource::{Resource, Subresource};
use bytes::Bytes;
use http::{HeaderMap, Response};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

/// The request, authorized, with the resource it is about.
pub(crate) struct Call<'a> {
    pub server: &'a ApiServer,
    pub user: &'a User,
    pub info: &'a RequestInfo,
    pub resource: &'static Resource,
    pub subresource: Option<&'static Subresource>,
    pub query: &'a Query,
    pub headers: &'a HeaderMap,
    pub body: &'a Bytes,
    pub now: Timestamp,
    pub method: http::Method,
    /// The query as it came.
    pub raw_query: Option<String>,
    /// The connection's other half, if the request asks for an upgrade; taken once.
    pub on_upgrade: Option<Mutex<hyper::upgrade::OnUpgrade>>,
    warnings: Mutex<Vec<String>>,
}

/// What a handler gives; `respond` writes it in the form the client asked for.
pub(crate) enum Answer {
    /// A stored object.
    Object {
        code: u16,
        object: Arc<Object>,
    },
    /// An object of the request's version that is not stored like this.
    Tree {
        code: u16,
        tree: Value,
    },
    List(List),
    /// Complete, whatever the client accepts.
    Response(Response<Body>),
}

/// A list as it was at a revision.
pub(crate) struct List {
    pub objects: Vec<Arc<Object>>,
    pub revision: u64,
    /// Empty at the end.
    pub continue_token: String,
    pub remaining: Option<usize>,
}

impl<'a> Call<'a> {
    #[allow(clippy::too_many_arguments)] // Everything a request consists of, once.
    pub(crate) fn new(
        server: &'a ApiServer,
        user: &'a User,
        info: &'a RequestInfo,
        resource: &'static Resource,
        subresource: Option<&'static Subresource>,
        query: &'a Query,
        headers: &'a HeaderMap,
        body: &'a Bytes,
    ) -> Self {
        let now = server.world.now();
        Self {
            server,
            user,
            info,
            resource,
            subresource,
            query,
            headers,
            body,
            now,
            method: http::Method::GET,
            raw_query: None,
            on_upgrade: None,
            warnings: Mutex::default(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// A text for a `Warning:` header; the same one is told once.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    pub(crate) fn warn_all(&self, texts: Vec<String>) {
        for text in texts {
            self.warn(text);
        }
    }

    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The resource in the version that is stored.
    pub(crate) fn stored(&self) -> Result<&'static Resource> {
        self.server.caches.of(self.resource).map(|cache| cache.resource).ok_or_else(errors::no_such_resource)
    }

    /// The key of an object of this resource in the request's namespace.
    pub(crate) fn key(&self, name: &str) -> String {
        self.resource.key(&self.namespace(), name)
    }

    /// The namespace of the objects asked for: none for cluster-scoped resources (namespaces among them).
    pub(crate) fn namespace(&self) -> String {
        if self.resource.namespaced { self.info.namespace.clone() } else { String::new() }
    }

    /// The group by which errors name the kind: one type of events serves two groups, and goes by the first.
    pub(crate) fn kind_group(&self) -> &'static str {
        if self.resource.kind == "Event" { "" } else { self.resource.group }
    }

    pub(crate) fn not_found(&self, name: &str) -> crate::refusal::Refusal {
        crate::refusal::Refusal::not_found(self.resource.group, self.resource.plural, name)
    }
}
