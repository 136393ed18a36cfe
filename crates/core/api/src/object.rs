//! One revision of one stored object: the bytes as encoded once, and the typed form as decoded at most once.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::sync::{Arc, OnceLock};

/// Shared by every reader; immutable.
pub struct Object {
    pub namespace: String,
    pub name: String,
    pub revision: u64,
    json: Bytes,
    typed: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Object {
    /// `json` is the whole object, `metadata.resourceVersion` included.
    pub fn new(namespace: String, name: String, revision: u64, json: Bytes) -> Self {
        Self { namespace, name, revision, json, typed: OnceLock::new() }
    }

    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The object as its Rust type, decoded on first use and shared from then on.
    ///
    /// # Errors
    /// When the bytes are no `K`, or an earlier caller decoded another type.
    pub fn typed<K: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<K>, serde_json::Error> {
        use serde::de::Error;
        let any = if let Some(any) = self.typed.get() {
            any.clone()
        } else {
            let decoded: Arc<dyn Any + Send + Sync> = Arc::new(serde_json::from_slice::<K>(&self.json)?);
            self.typed.get_or_init(|| decoded).clone()
        };
        any.downcast::<K>().map_err(|_| serde_json::Error::custom("object was decoded as another type"))
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object({}/{}@{})", self.namespace, self.name, self.revision)
    }
}
