//! The door between components and the API server of the same process.

use api::object::Object;
use api::write::{Target, Write};
use apiserver::authentication::User;
use apiserver::doors;
use apiserver::refusal::Refusal;
use apiserver::server::ApiServer;
use async_trait::async_trait;
use client::transport::{CallError, ListQuery, ObjectEvent, ObjectList, ObjectStream, Transport};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use std::sync::Arc;

/// Calls one API server as one user.
pub(crate) struct InProcess {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) user: User,
}

#[async_trait]
impl Transport for InProcess {
    async fn get(&self, target: &Target) -> Result<Arc<Object>, CallError> {
        self.server.get_object(&self.user, target).await.map_err(refused)
    }

    async fn list(&self, query: &ListQuery) -> Result<ObjectList, CallError> {
        let ListQuery { target, label_selector, field_selector } = query;
        let listed = self.server.list_objects(&self.user, target, label_selector, field_selector).await;
        listed.map(|(items, revision)| ObjectList { items, revision }).map_err(refused)
    }

    async fn watch(&self, query: &ListQuery, revision: u64) -> Result<ObjectStream, CallError> {
        let ListQuery { target, label_selector, field_selector } = query;
        let events = self.server.watch_objects(&self.user, target, label_selector, field_selector, revision).await;
        let same = |event| match event {
            doors::ObjectEvent::Added(object) => ObjectEvent::Added(object),
            doors::ObjectEvent::Modified(object) => ObjectEvent::Modified(object),
            doors::ObjectEvent::Deleted(object) => ObjectEvent::Deleted(object),
            doors::ObjectEvent::Bookmark(revision) => ObjectEvent::Bookmark(revision),
        };
        Ok(events.map_err(refused)?.map(move |event| event.map(same).map_err(refused)).boxed())
    }

    async fn write(&self, write: Write) -> Result<Arc<Object>, CallError> {
        self.server.write_object(&self.user, &write).await.map_err(refused)
    }
}

fn refused(refusal: Refusal) -> CallError {
    CallError::Status(Box::new(Status {
        code: Some(i32::from(refusal.code)),
        reason: Some(refusal.reason.to_owned()),
        message: Some(refusal.message),
        status: Some("Failure".to_owned()),
        details: serde_json::from_value(refusal.details).ok(),
        ..Status::default()
    }))
}
