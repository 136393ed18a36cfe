//! One revision of one stored object: the bytes as encoded once, and the typed form as decoded at most once.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::sync::{Arc, OnceLock};

/// Shared by every reader; immutable.
///
/// Stored bytes carry no `resourceVersion`, since the revision is known only once they are written; it is spliced in
/// wherever the object is read, so that the store, the watch cache and every reader share one copy.
pub struct Object {
    pub namespace: String,
    pub name: String,
    pub revision: u64,
    bytes: Bytes,
    /// Where `"resourceVersion":"…",` belongs; `None` when `bytes` are whole.
    gap: Option<usize>,
    json: OnceLock<Bytes>,
    typed: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Object {
    /// `json` is the whole object, `metadata.resourceVersion` included.
    pub fn new(namespace: String, name: String, revision: u64, json: Bytes) -> Self {
        Self { namespace, name, revision, bytes: json, gap: None, json: OnceLock::new(), typed: OnceLock::new() }
    }

    /// `stored` lacks the `resourceVersion`, which belongs at byte `gap`: just behind `"metadata":{`, before at least
    /// one other field.
    pub fn stored(namespace: String, name: String, revision: u64, stored: Bytes, gap: usize) -> Self {
        let gap = Some(gap);
        Self { namespace, name, revision, bytes: stored, gap, json: OnceLock::new(), typed: OnceLock::new() }
    }

    /// The whole object as one piece, which is kept from then on; [`Self::write_json`] keeps nothing.
    pub fn json(&self) -> &Bytes {
        match self.gap {
            None => &self.bytes,
            Some(_) => self.json.get_or_init(|| {
                let mut json = Vec::with_capacity(self.len_bytes());
                self.write_json(&mut json);
                json.into()
            }),
        }
    }

    /// The bytes as they stand in the store, and the gap in them.
    pub fn parts(&self) -> (&Bytes, Option<usize>) {
        (&self.bytes, self.gap)
    }

    /// Appends the whole object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.write_json_from(0, out);
    }

    /// Appends the object without its first `skip` bytes, which must lie before the metadata.
    pub fn write_json_from(&self, skip: usize, out: &mut Vec<u8>) {
        match self.gap {
            None => out.extend_from_slice(&self.bytes[skip..]),
            Some(gap) => {
                out.extend_from_slice(&self.bytes[skip..gap]);
                out.extend_from_slice(b"\"resourceVersion\":\"");
                out.extend_from_slice(self.revision.to_string().as_bytes());
                out.extend_from_slice(b"\",");
                out.extend_from_slice(&self.bytes[gap..]);
            }
        }
    }

    /// About how long the whole object is; never too little.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len() + 48
    }

    /// The object as its Rust type, decoded on first use and shared from then on. A type other than the first one asked
    /// for is decoded afresh each time.
    ///
    /// # Errors
    /// When the bytes are no `K`.
    pub fn typed<K: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<K>, serde_json::Error> {
        if let Some(kept) = self.typed.get() {
            return match kept.clone().downcast::<K>() {
                Ok(typed) => Ok(typed),
                Err(_) => self.decode().map(Arc::new),
            };
        }
        let decoded = Arc::new(self.decode::<K>()?);
        let kept = self.typed.get_or_init(|| decoded.clone()).clone();
        Ok(kept.downcast::<K>().unwrap_or(decoded))
    }

    /// The object as any type, decoded now and not kept.
    ///
    /// # Errors
    /// When the bytes are no `K`.
    pub fn decode<K: DeserializeOwned>(&self) -> Result<K, serde_json::Error> {
        if self.gap.is_none() {
            return serde_json::from_slice(&self.bytes);
        }
        if let Some(json) = self.json.get() {
            return serde_json::from_slice(json);
        }
        let mut json = Vec::with_capacity(self.len_bytes());
        self.write_json(&mut json);
        serde_json::from_slice(&json)
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object({}/{}@{})", self.namespace, self.name, self.revision)
    }
}
