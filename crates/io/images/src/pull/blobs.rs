//! A blob as a stream that a blocking reader consumes; a connection that breaks is taken up where it broke.

use super::resolve::accept;
use crate::Reference;
use crate::digest::Digest;
use crate::layer::TransportError;
use crate::registry::{Registry, RequestError, root_cause};
use bytes::Bytes;
use reqwest::{Method, StatusCode};
use std::io::Read;
use std::sync::Arc;
use tokio::sync::mpsc;

/// So many times a blob is taken up again without a byte having come in between.
const TRIES_WITHOUT_PROGRESS: u32 = 3;

pub(super) type Chunk = Result<Bytes, String>;

/// Fetches `digest` from the first of `registries` that has it into `chunks`; an error goes there, too. `received` hears
/// how many bytes there are.
pub(super) async fn stream(
    reference: &Reference,
    registries: &[Arc<Registry>],
    digest: &Digest,
    size: u64,
    chunks: mpsc::Sender<Chunk>,
    received: impl Fn(u64),
) {
    let mut at = 0;
    let mut failure = None;
    for registry in registries.iter().filter(|registry| registry.host.pull) {
        match stream_from(reference, registry, digest, size, &mut at, &chunks, &received).await {
            Ok(()) => return,
            // The reader gave up: its own error is the one to tell.
            Err(Broken::Reader) => return,
            Err(Broken::Request(error)) => failure = failure.or(Some(error)),
        }
    }
    let words = failure.map_or("no server is configured to pull from".to_owned(), |error| error.to_string());
    // A reader that is gone needs no words.
    let _ = chunks.send(Err(format!("failed to copy: httpReadSeeker: failed open: {words}"))).await;
}

enum Broken {
    Reader,
    Request(RequestError),
}

async fn stream_from(
    reference: &Reference,
    registry: &Registry,
    digest: &Digest,
    size: u64,
    at: &mut u64,
    chunks: &mpsc::Sender<Chunk>,
    received: &impl Fn(u64),
) -> Result<(), Broken> {
    let url = registry.url("blobs", &digest.to_string());
    let mut tries = 0;
    loop {
        let response = registry.send(Method::GET, &url, "*/*", *at).await.map_err(Broken::Request)?;
        if *at > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE && *at >= size {
            return Ok(());
        }
        let mut response = accept(reference, &Method::GET, response).await.map_err(Broken::Request)?;
        // A server that does not know ranges begins anew: what is there already is skipped.
        let mut skip = if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { *at };
        loop {
            match response.chunk().await {
                Ok(Some(mut chunk)) => {
                    let skipped = skip.min(chunk.len() as u64);
                    skip -= skipped;
                    let chunk = chunk.split_off(skipped as usize);
                    if chunk.is_empty() {
                        continue;
                    }
                    *at += chunk.len() as u64;
                    tries = 0;
                    if size > 0 && *at > size {
                        let words = format!("blob {digest} is larger than the {size} bytes its manifest tells");
                        return Err(Broken::Request(RequestError::Other(words)));
                    }
                    chunks.send(Ok(chunk)).await.map_err(|_| Broken::Reader)?;
                    received(*at);
                }
                Ok(None) => return Ok(()),
                Err(error) if tries >= TRIES_WITHOUT_PROGRESS => {
                    let words = format!("{}: {}", url, root_cause(&error));
                    return Err(Broken::Request(RequestError::Other(words)));
                }
                Err(error) => {
                    tracing::debug!(%url, at, error = root_cause(&error), "a blob's connection broke; taken up again");
                    tries += 1;
                    break;
                }
            }
        }
    }
}

/// The blocking end.
pub(super) struct ChunkReader {
    chunks: mpsc::Receiver<Chunk>,
    current: Bytes,
}

impl ChunkReader {
    pub(super) fn new(chunks: mpsc::Receiver<Chunk>) -> ChunkReader {
        ChunkReader { chunks, current: Bytes::new() }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(words)) => return Err(std::io::Error::other(TransportError(words))),
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}
