//! From a name to the manifest of this machine's platform.

use super::{Failure, PullFailure};
use crate::digest::Digest;
use crate::manifest::{self, Descriptor, Document, MAX_MANIFEST_BYTES, Manifest};
use crate::registry::{Registry, RequestError, read_bounded, unexpected};
use crate::store::Inner;
use crate::{Auth, Reference, hosts};
use reqwest::{Method, Response, StatusCode};
use std::sync::Arc;

/// What a name means today.
pub(super) struct Resolved {
    /// Of the manifest or index that the name points at.
    pub(super) digest: Digest,
    pub(super) manifest: Manifest,
    /// Every document on the way, to be kept.
    pub(super) documents: Vec<(Digest, Vec<u8>)>,
    /// The servers to ask for blobs, in order.
    pub(super) registries: Vec<Arc<Registry>>,
}

/// Asks for `reference` with each of `auths`, then anonymously; of several failures the first one is returned.
pub(super) async fn resolve(inner: &Arc<Inner>, reference: &Reference, auths: &[Auth]) -> Result<Resolved, Failure> {
    let (dir, domain) = (inner.options.registries_dir.clone(), reference.domain().to_owned());
    let hosts = tokio::task::spawn_blocking(move || hosts::hosts(dir.as_deref(), &domain));
    let hosts = hosts.await.map_err(Failure::other)?.map_err(Failure::other)?;
    let mut first: Option<Failure> = None;
    for auth in auths.iter().cloned().map(Some).chain([None]) {
        let mut registries = Vec::new();
        for host in &hosts {
            registries.push(Arc::new(Registry::new(host.clone(), reference, auth.clone()).map_err(Failure::other)?));
        }
        match resolve_with(inner, reference, registries).await {
            Ok(resolved) => return Ok(resolved),
            // Other credentials change nothing about a server that is not there, or a manifest that is none.
            Err(failure) if matches!(failure.kind, PullFailure::Unreachable | PullFailure::Invalid) => {
                return Err(failure);
            }
            // Not found, too: some registries hide so what they refuse.
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    Err(first.unwrap_or_else(|| Failure::other("no server to ask")))
}

async fn resolve_with(
    inner: &Arc<Inner>,
    reference: &Reference,
    registries: Vec<Arc<Registry>>,
) -> Result<Resolved, Failure> {
    let failed = |error: RequestError| {
        let Failure { kind, reason } = Failure::from(error);
        Failure { kind, reason: format!("failed to resolve reference \"{}\": {reason}", reference.canonical()) }
    };
    let digest = match reference.digest() {
        Some(digest) => digest.parse().map_err(|e| Failure::new(PullFailure::Invalid, e))?,
        None => head(reference, &registries).await.map_err(failed)?,
    };
    let mut documents = Vec::new();
    let bytes = document(inner, reference, &registries, &digest).await.map_err(failed)?;
    let invalid = |e: manifest::ManifestError| match e {
        manifest::ManifestError::NoPlatform => Failure::new(PullFailure::NotFound, e),
        e => Failure::new(PullFailure::Invalid, e),
    };
    let mut document_ = manifest::parse(&bytes).map_err(invalid)?;
    documents.push((digest, bytes));
    // An index may name an index; nobody nests deeper than that.
    for _ in 0..2 {
        let Document::Index(descriptors) = &document_ else { break };
        let Descriptor { digest, .. } = manifest::choose(descriptors).map_err(invalid)?;
        let bytes = document(inner, reference, &registries, digest).await.map_err(Failure::from)?;
        let next = manifest::parse(&bytes).map_err(invalid)?;
        documents.push((*digest, bytes));
        document_ = next;
    }
    let Document::Manifest(manifest) = document_ else {
        return Err(Failure::new(PullFailure::Invalid, "unsupported manifest: indexes are nested too deep"));
    };
    Ok(Resolved { digest, manifest, documents, registries })
}

/// The digest a tag points at. The first server that knows decides; of several failures the most telling wins.
async fn head(reference: &Reference, registries: &[Arc<Registry>]) -> Result<Digest, RequestError> {
    let tag = reference.tag().unwrap_or("latest");
    let mut failure = None;
    for registry in registries.iter().filter(|registry| registry.host.resolve) {
        match head_of(reference, registry, tag).await {
            Ok(digest) => return Ok(digest),
            Err(error) => failure = Some(telling(failure, error)),
        }
    }
    Err(failure.unwrap_or_else(|| RequestError::Other("no server is configured to resolve it".to_owned())))
}

async fn head_of(reference: &Reference, registry: &Registry, tag: &str) -> Result<Digest, RequestError> {
    let url = registry.url("manifests", tag);
    let response = registry.send(Method::HEAD, &url, manifest::ACCEPT, 0).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(RequestError::NotFound(reference.canonical()));
    }
    let header = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
    if let Some(digest) = header.and_then(|digest| digest.parse().ok())
        && response.status().is_success()
    {
        return Ok(digest);
    }
    // A refusal without words, because a HEAD has none, or a server that does not tell digests: the document is asked for.
    let response = registry.send(Method::GET, &url, manifest::ACCEPT, 0).await?;
    let response = accept(reference, &Method::GET, response).await?;
    let bytes = read_bounded(response, MAX_MANIFEST_BYTES as usize).await.map_err(RequestError::Other)?;
    Ok(Digest::of(&bytes))
}

/// A manifest or index by its digest, from here or from a server.
async fn document(
    inner: &Arc<Inner>,
    reference: &Reference,
    registries: &[Arc<Registry>],
    digest: &Digest,
) -> Result<Vec<u8>, RequestError> {
    if let Ok(bytes) = tokio::fs::read(inner.blob_path(digest)).await
        && Digest::of(&bytes) == *digest
    {
        return Ok(bytes);
    }
    let mut failure = None;
    for registry in registries.iter().filter(|registry| registry.host.pull) {
        match fetch(reference, registry, "manifests", digest, MAX_MANIFEST_BYTES).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => failure = Some(telling(failure, error)),
        }
    }
    Err(failure.unwrap_or_else(|| RequestError::Other("no server is configured to pull from".to_owned())))
}

/// A small blob or a manifest from one server, verified.
pub(super) async fn fetch(
    reference: &Reference,
    registry: &Registry,
    kind: &str,
    digest: &Digest,
    limit: u64,
) -> Result<Vec<u8>, RequestError> {
    let url = registry.url(kind, &digest.to_string());
    let accepted = if kind == "manifests" { manifest::ACCEPT } else { "*/*" };
    let response = registry.send(Method::GET, &url, accepted, 0).await?;
    let response = accept(reference, &Method::GET, response).await?;
    let bytes = read_bounded(response, limit as usize).await.map_err(RequestError::Other)?;
    let actual = Digest::of(&bytes);
    if actual != *digest {
        return Err(RequestError::Other(format!(
            "unexpected commit digest {actual}, expected {digest}: failed precondition"
        )));
    }
    Ok(bytes)
}

/// Lets success pass.
pub(super) async fn accept(
    reference: &Reference,
    method: &Method,
    response: Response,
) -> Result<Response, RequestError> {
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::NOT_FOUND => Err(RequestError::NotFound(reference.canonical())),
        StatusCode::FORBIDDEN => Err(RequestError::Denied(unexpected(method, response).await)),
        _ => Err(RequestError::Other(unexpected(method, response).await)),
    }
}

/// An answer tells more than silence, "not found" more than a refusal (containerd's order).
fn telling(old: Option<RequestError>, new: RequestError) -> RequestError {
    let rank = |error: &RequestError| match error {
        RequestError::Unreachable(_) => 0,
        RequestError::Denied(_) => 1,
        RequestError::NotFound(_) => 2,
        RequestError::Other(_) => 3,
    };
    match old {
        Some(old) if rank(&old) >= rank(&new) => old,
        _ => new,
    }
}
