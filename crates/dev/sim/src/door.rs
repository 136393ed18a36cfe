//! How components and clients reach the API server of the day.

use crate::cluster::Sim;
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

/// A component's door: it lives and dies with the server.
pub(crate) struct Inside {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) user: User,
}

/// A client's door: it outlives servers, and loses its calls with them.
pub(crate) struct Outside {
    pub(crate) sim: Arc<Sim>,
    pub(crate) user: User,
}

#[async_trait]
impl Transport for Inside {
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

impl Outside {
    /// Makes a call; a server that ends in the meantime never answers it.
    async fn call<T>(&self, call: impl AsyncFnOnce(Inside) -> Result<T, CallError>) -> Result<T, CallError> {
        let mut live = self.sim.live.subscribe();
        let Some(process) = live.borrow_and_update().clone() else { return Err(down()) };
        let inside = Inside { server: process.server, user: self.user.clone() };
        tokio::select! {
            biased;
            _ = live.changed() => Err(down()),
            result = call(inside) => result,
        }
    }
}

#[async_trait]
impl Transport for Outside {
    async fn get(&self, target: &Target) -> Result<Arc<Object>, CallError> {
        self.call(async |inside| inside.get(target).await).await
    }

    async fn list(&self, query: &ListQuery) -> Result<ObjectList, CallError> {
        self.call(async |inside| inside.list(query).await).await
    }

    async fn watch(&self, query: &ListQuery, revision: u64) -> Result<ObjectStream, CallError> {
        let live = self.sim.live.subscribe();
        let number = live.borrow().as_ref().map(|process| process.number);
        let events = self.call(async |inside| inside.watch(query, revision).await).await?;
        let ended = async move {
            let mut live = live;
            let _ = live.wait_for(|now| now.as_ref().map(|process| process.number) != number).await;
        };
        Ok(events.take_until(Box::pin(ended)).boxed())
    }

    async fn write(&self, write: Write) -> Result<Arc<Object>, CallError> {
        self.call(async |inside| inside.write(write).await).await
    }
}

fn down() -> CallError {
    CallError::Unreachable("the server is down".to_owned())
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
