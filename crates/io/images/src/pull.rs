//! Pulling: name to manifest to layers, each verified, each once however many ask for it.

mod blobs;
mod layers;
mod resolve;

use crate::digest::Digest;
use crate::registry::RequestError;
use crate::store::{Image, Images};
use crate::{Auth, Reference};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How far a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// `sha256:…` of the blob.
    pub layer: String,
    pub received_bytes: u64,
    /// 0: not known.
    pub total_bytes: u64,
    /// It is unpacked and in its place, or was there already.
    pub done: bool,
}

/// Why an image was not pulled; `Display` is what the user reads, in containerd's words and with the registry's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    #[error("couldn't parse image name {name:?}: {reason}")]
    InvalidName { name: String, reason: crate::InvalidReference },
    #[error("failed to pull and unpack image \"{image}\": {reason}")]
    Failed { image: String, kind: PullFailure, reason: String },
}

/// What went wrong, for those who act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullFailure {
    /// The registry has no such image.
    NotFound,
    /// It wants other credentials.
    Denied,
    /// It could not be reached at all.
    Unreachable,
    /// What came is not what was asked for, or is no image for this machine.
    Invalid,
    /// The registry's or the local disk's trouble.
    Other,
}

impl PullError {
    /// Whether no server could be reached at all (an image imported by hand may stand in).
    pub fn is_unreachable(&self) -> bool {
        matches!(self, PullError::Failed { kind: PullFailure::Unreachable, .. })
    }
}

/// Before the image's name is put in front.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: PullFailure,
    pub(crate) reason: String,
}

impl Failure {
    fn new(kind: PullFailure, reason: impl ToString) -> Failure {
        Failure { kind, reason: reason.to_string() }
    }

    fn other(reason: impl ToString) -> Failure {
        Failure::new(PullFailure::Other, reason)
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Failure {
        let kind = match &error {
            RequestError::Unreachable(_) => PullFailure::Unreachable,
            RequestError::Denied(_) => PullFailure::Denied,
            RequestError::NotFound(_) => PullFailure::NotFound,
            RequestError::Other(_) => PullFailure::Other,
        };
        Failure::new(kind, error)
    }
}

type Outcome = Result<Image, PullError>;
type Job = BoxFuture<'static, Outcome>;
type Key = (String, Vec<Auth>);
type Running = (WeakShared<Job>, Arc<Listeners>);

/// The pulls under way.
#[derive(Default)]
pub(crate) struct Pulls {
    jobs: Mutex<HashMap<Key, Running>>,
    /// One at a time unpacks a layer; by chain id.
    layers: Mutex<BTreeMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

type Listener = Box<dyn Fn(&Progress) + Send + Sync>;

/// Everybody who wants to hear of a pull's progress.
#[derive(Default)]
pub(crate) struct Listeners(Mutex<Vec<Listener>>);

impl Listeners {
    pub(crate) fn tell(&self, progress: &Progress) {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().for_each(|listener| listener(progress));
    }
}

impl Pulls {
    fn layer(&self, chain: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = layers.get(chain).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        layers.insert(*chain, Arc::downgrade(&lock));
        lock
    }
}

impl Images {
    /// Pulls `name` with each of `auths` in turn, then anonymously; `progress` hears of each layer. Those who ask for
    /// the same at the same time share one pull. Dropping the future of the last who waits ends it and leaves nothing.
    pub async fn pull(
        &self,
        name: &str,
        auths: &[Auth],
        progress: impl Fn(&Progress) + Send + Sync + 'static,
    ) -> Result<Image, PullError> {
        let parsed = Reference::parse(name);
        let reference = parsed.map_err(|reason| PullError::InvalidName { name: name.to_owned(), reason })?;
        self.job((reference.canonical(), auths.to_vec()), reference, Box::new(progress)).await
    }

    fn job(&self, key: Key, reference: Reference, listener: Listener) -> Shared<Job> {
        let mut jobs = self.inner.pulls.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|_, (job, _)| job.upgrade().is_some_and(|job| job.peek().is_none()));
        if let Some((job, listeners)) = jobs.get(&key)
            && let Some(job) = job.upgrade()
        {
            listeners.0.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
            return job;
        }
        let listeners = Arc::new(Listeners(Mutex::new(vec![listener])));
        let (images, auths, heard) = (self.clone(), key.1.clone(), listeners.clone());
        let job: Job = Box::pin(async move {
            let result = images.pull_alone(&reference, &auths, &heard).await;
            let image = reference.canonical();
            result.map_err(|Failure { kind, reason }| PullError::Failed { image, kind, reason })
        });
        let job = job.shared();
        if let Some(weak) = job.downgrade() {
            jobs.insert(key, (weak, listeners));
        }
        job
    }
}
