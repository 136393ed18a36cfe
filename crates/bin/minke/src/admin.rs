//! `DIR/run/admin.sock`: status, stop and images of a running instance, for root on this machine.

use crate::instance;
use crate::node::Running;
use anyhow::{Context, Result};
use bytes::Bytes;
use client::typed::Client;
use futures::TryStreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::io::StreamReader;

/// What the socket can reach.
pub(crate) struct Admin {
    /// Without a node there are no images.
    pub(crate) node: Option<Running>,
    /// Asks the API: as an administrator, of an agent as its node.
    pub(crate) client: Client,
    /// What `minke status` tells in any case.
    pub(crate) facts: Value,
    /// For tokens that nodes join with; an agent has none.
    pub(crate) authority_hash: Option<String>,
    /// Notified to stop everything, Pods too. Who asked waits for the instance's lock, which the process's end frees.
    pub(crate) stop: Arc<Notify>,
}

impl Admin {
    /// Opens the socket and answers on it.
    pub(crate) fn start(self, directory: &Path, parts: &mut JoinSet<Result<()>>) -> Result<()> {
        let listener = listen(directory, "admin.sock")?;
        parts.spawn(serve_all(Arc::new(self), listener));
        Ok(())
    }

    async fn token(&self, seconds: &str) -> Result<String> {
        let hash = self.authority_hash.as_ref();
        let hash = hash.context("an agent makes no tokens; ask on the server")?;
        let lifetime = Duration::from_secs(seconds.parse().context("no number of seconds")?);
        crate::token::make(&self.client, hash, lifetime).await
    }
}

/// Makes `DIR/run/NAME`; nobody but root (or the server's own user) may use it.
pub(crate) fn listen(directory: &Path, name: &str) -> Result<UnixListener> {
    let run = directory.join("run");
    instance::make_private(&run)?;
    let path = &run.join(name);
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("cannot replace {}", path.display()));
    }
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves for ever.
async fn serve_all(admin: Arc<Admin>, listener: UnixListener) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("the admin socket failed")?;
                connections.spawn(serve(admin.clone(), stream));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve(admin: Arc<Admin>, stream: UnixStream) {
    let stopping = Arc::new(AtomicBool::new(false));
    let (of_connection, asked) = (admin.clone(), stopping.clone());
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let admin = of_connection.clone();
        if request.method() == Method::POST && request.uri().path() == "/stop" {
            asked.store(true, Ordering::Relaxed);
        }
        async move {
            let answer = answer(&admin, request).await;
            let (status, body) = match answer {
                Ok(body) => (StatusCode::OK, body),
                Err(error) => (StatusCode::BAD_REQUEST, Bytes::from(format!("{error:#}\n"))),
            };
            let mut response = Response::new(Full::new(body));
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    if let Err(error) = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
    {
        tracing::debug!(%error, "admin connection ended");
    }
    // Only now: the answer must leave before the process ends.
    if stopping.load(Ordering::Relaxed) {
        admin.stop.notify_one();
    }
}

async fn answer(admin: &Admin, request: Request<Incoming>) -> Result<Bytes> {
    let query = request.uri().query().unwrap_or_default();
    let parameter = |wanted: &str| {
        let found = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let image = parameter("image");
    let node = || admin.node.as_ref().context("this instance has no node, and so no images");
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match (&method, path.as_str()) {
        (&Method::GET, "/status") => {
            let node = admin.node.as_ref().map(|running| &*running.node);
            Ok(crate::status::observe(&admin.client, node, &admin.facts).await.to_string().into())
        }
        (&Method::POST, "/token") => Ok(admin.token(&parameter("seconds")).await?.into()),
        (&Method::POST, "/stop") => Ok(Bytes::new()),
        (&Method::GET, "/images") => {
            let images = node()?.runtime.list_images().await?;
            let listed = images.iter().map(|image| {
                json!({"id": image.id, "repoTags": image.repo_tags, "repoDigests": image.repo_digests, "sizeBytes": image.size_bytes})
            });
            Ok(Value::from(listed.collect::<Vec<_>>()).to_string().into())
        }
        (&Method::POST, "/images/import") => {
            let body = request.into_body().into_data_stream().map_err(io::Error::other);
            let imported = node()?.images.import(StreamReader::new(body)).await?;
            let names: Vec<String> = imported.iter().flat_map(names).collect();
            Ok(Value::from(names).to_string().into())
        }
        (&Method::POST, "/images/pull") => Ok(node()?.runtime.pull_image(&image, &[]).await?.id.into()),
        (&Method::DELETE, "/images") => {
            node()?.runtime.remove_image(&image).await?;
            Ok(Bytes::new())
        }
        _ => anyhow::bail!("no such request: {method} {path}"),
    }
}

fn names(image: &images::Image) -> Vec<String> {
    if image.repo_tags.is_empty() { vec![image.id.clone()] } else { image.repo_tags.clone() }
}
