//! Container images: imported from archives, pulled from registries, verified, unpacked into layers that overlayfs
//! takes as they are, and collected when nobody needs them any more. Knows neither containers nor Kubernetes.
//!
//! ```text
//! let images = Images::open(dir, Options::default())?;     // one process per directory; collects what a crash left
//! let image = images.pull("busybox:1.37", &auths, |progress| …).await?;   // or import_file(path), import(stream)
//! let image = images.resolve("busybox:1.37")?;             // any name, digest or id; None: not here
//! let lease = images.lease(&image.id)?;                    // the layers stay for as long as a lease is held
//! image.layers                                             // directories, the lowest first
//! ```
//!
//! After a restart the owner of running containers takes its leases again by image id, then calls [`Images::collect`]:
//! an image that was removed while it was in use lives until then.
//!
//! ```text
//! DIR/lock                    held (flock) while a process has the store open
//! DIR/index.json              names, digests, layers of every image: the truth; replaced atomically
//! DIR/blobs/sha256/HEX        manifests and configs
//! DIR/layers/HEX/             an unpacked layer under its chain id: whiteouts are overlayfs' own
//! DIR/tmp/                    whatever is being written; emptied at open
//! ```

mod archive;
mod challenge;
mod config;
mod copy_up;
mod digest;
mod hosts;
mod import;
mod layer;
mod manifest;
mod pull;
mod reference;
mod registry;
mod root;
mod store;
mod unpack;
mod usage;

pub use config::ImageConfig;
pub use import::ImportError;
pub use pull::{Progress, PullError, PullFailure};
pub use reference::{InvalidReference, Reference};
pub use store::{Image, Images, Lease, OpenError, RemoveError, StoreError};
pub use usage::DiskUsage;

use std::path::PathBuf;

/// How a store behaves. `Default` suits production.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory with `HOST/hosts.toml` files in containerd's form (`HOST:PORT` and `_default` too); read at each pull.
    pub registries_dir: Option<PathBuf>,
    /// The most bytes one layer may unpack to.
    pub max_layer_bytes: u64,
    /// The most entries one layer may hold.
    pub max_layer_entries: u64,
    /// How many layers of an image are fetched at once.
    pub parallel_layers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { registries_dir: None, max_layer_bytes: 256 << 30, max_layer_entries: 8_000_000, parallel_layers: 3 }
    }
}

/// Credentials for a registry: user and password, or an identity token (an OAuth2 refresh token).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Auth {
    pub username: String,
    pub password: String,
    pub identity_token: String,
}
