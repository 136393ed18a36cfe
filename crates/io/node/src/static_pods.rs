//! Where static Pods come from: `DIR/manifests`, watched, and a URL, asked by a period. Both give the whole set that is wanted
//! whenever it is another one; what is wrong with a manifest harms no other and is told by [`Shared::manifests`].

mod directory;
mod url;

use crate::{NodeError, Shared};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Namespace and name.
pub(crate) type FullName = (String, String);

pub(crate) fn full_name(pod: &Pod) -> FullName {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

/// What is wrong with manifests now: the file or URL, and why.
#[derive(Default)]
pub(crate) struct Problems(Mutex<BTreeMap<String, String>>);

impl Problems {
    /// `None`: nothing any more. Says whether that is new.
    fn set(&self, place: &str, problem: Option<String>) -> bool {
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(place.to_owned(), problem.clone()).as_ref() != Some(&problem),
            None => problems.remove(place).is_some(),
        }
    }

    pub(crate) fn list(&self) -> Vec<String> {
        let problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        problems.iter().map(|(place, problem)| format!("{place}: {problem}")).collect()
    }
}

/// All Pods that a source wants.
type Wanted = Vec<Arc<Pod>>;

/// Gives every set of static Pods that is wanted, by name, for ever; the first at once. Where both sources name the same Pod
/// the file counts.
pub(crate) async fn run(
    shared: Arc<Shared>,
    sender: mpsc::UnboundedSender<BTreeMap<FullName, Arc<Pod>>>,
) -> Result<(), NodeError> {
    let (files, mut from_files) = mpsc::unbounded_channel();
    let (urls, mut from_urls) = mpsc::unbounded_channel();
    let directory = directory::run(&shared, files);
    let asked = url::run(&shared, urls);
    let merge = async {
        // What is known at once is told at once: what else the runtime has may be an orphan.
        let (Some(mut of_files), Some(mut of_urls)) = (from_files.recv().await, from_urls.recv().await) else { return };
        loop {
            let all = of_urls.iter().chain(&of_files);
            if sender.send(all.map(|pod| (full_name(pod), pod.clone())).collect()).is_err() {
                return;
            }
            tokio::select! {
                Some(new) = from_files.recv() => of_files = new,
                Some(new) = from_urls.recv() => of_urls = new,
                else => return,
            }
        }
    };
    tokio::join!(directory, asked, merge);
    Ok(())
}
