//! The door to the API server. In process it hands out shared objects; over TLS it decodes once.

use api::object::Object;
use api::write::{Target, Write};
use async_trait::async_trait;
use futures::stream::BoxStream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use std::sync::Arc;

/// A refused or failed call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API server's answer.
    #[error("{}", .0.message.as_deref().unwrap_or("the server said no"))]
    Status(Box<Status>),
    /// No answer.
    #[error("cannot reach the API server: {0}")]
    Unreachable(String),
}

impl CallError {
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Status(status) => status.code,
            Self::Unreachable(_) => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// A conflict or an object that exists: both 409, told apart by `reason`.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// The revision to watch from is gone; list again.
    pub fn is_expired(&self) -> bool {
        self.code() == Some(410)
    }
}

/// A list of one resource, as selectors see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// `name` and `subresource` empty.
    pub target: Target,
    pub label_selector: String,
    pub field_selector: String,
}

/// Objects and the revision at which they were so.
#[derive(Debug, Clone)]
pub struct ObjectList {
    pub items: Vec<Arc<Object>>,
    pub revision: u64,
}

/// One step of a watch.
#[derive(Debug, Clone)]
pub enum ObjectEvent {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    /// The last state.
    Deleted(Arc<Object>),
    /// Nothing else happened up to this revision.
    Bookmark(u64),
}

pub type ObjectStream = BoxStream<'static, Result<ObjectEvent, CallError>>;

/// Authenticated access to one API server.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    async fn get(&self, target: &Target) -> Result<Arc<Object>, CallError>;
    async fn list(&self, query: &ListQuery) -> Result<ObjectList, CallError>;
    /// Events after `revision`. The stream ends when the server says so; the caller resumes at the last revision.
    async fn watch(&self, query: &ListQuery, revision: u64) -> Result<ObjectStream, CallError>;
    /// The object as it is after the write; for a finished delete its last state.
    async fn write(&self, write: Write) -> Result<Arc<Object>, CallError>;
}
