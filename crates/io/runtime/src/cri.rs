//! The CRI v1 server: another door onto the runtime, for `crictl` and whoever speaks CRI. Served on a Unix socket that only
//! root may open.
//!
//! What a message asks for and the runtime cannot do is refused by name; what upstream's runtimes pass over, because it means
//! nothing on this host, is passed over here too.

mod containers;
mod convert;
mod events;
mod find;
mod grpc;
mod images;
mod methods;
mod sandboxes;
mod stats;
mod streams;
mod tell;
pub mod v1;

use crate::types::Runtime;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio_util::task::TaskTracker;

/// What the server is made of.
pub struct Options {
    pub runtime: Arc<dyn Runtime>,
    /// Files of sandboxes that were made through this door: `DIR/SANDBOX/resolv.conf`, …
    pub directory: PathBuf,
    /// The runtime's version, semantic.
    pub version: &'static str,
}

/// Takes away the files of sandboxes that were removed through another door.
async fn forget(runtime: &dyn Runtime, directory: &Path) {
    let Ok(sandboxes) = runtime.list_sandboxes().await else { return };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let known = sandboxes.iter().any(|sandbox| *sandbox.id == *entry.file_name());
        if !known && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "a sandbox's files were not removed");
        }
    }
}

struct Server {
    runtime: Arc<dyn Runtime>,
    directory: PathBuf,
    version: &'static str,
    streams: streams::Streams,
    /// What has begun is brought to its end, even if who asked has gone.
    tasks: TaskTracker,
}

/// Serves until the socket fails.
///
/// # Errors
/// What the socket says.
pub async fn serve(options: Options, listener: UnixListener) -> std::io::Result<()> {
    let Options { runtime, directory, version } = options;
    forget(&*runtime, &directory).await;
    let tasks = TaskTracker::new();
    let streams = streams::Streams::new(runtime.clone(), tasks.clone());
    grpc::serve(Arc::new(Server { runtime, directory, version, streams, tasks }), listener).await
}
