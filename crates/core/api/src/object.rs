//! One revision of one stored object: the bytes as encoded once, and the typed form as shared by its readers.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError, Weak};

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
    typed: Mutex<Typed>,
}

type Decoded = dyn Any + Send + Sync;

/// The typed form, which is several times as large as the bytes.
enum Typed {
    /// Of the present revision: for everybody, as long as the object lives.
    Kept(Option<Arc<Decoded>>),
    /// Of a past one: for those who look at it at the same time.
    Shared(Option<Weak<Decoded>>),
}

impl Typed {
    fn get(&self) -> Option<Arc<Decoded>> {
        match self {
            Typed::Kept(kept) => kept.clone(),
            Typed::Shared(shared) => shared.as_ref()?.upgrade(),
        }
    }

    fn set(&mut self, decoded: Arc<Decoded>) {
        match self {
            Typed::Kept(kept) => *kept = Some(decoded),
            Typed::Shared(shared) => *shared = Some(Arc::downgrade(&decoded)),
        }
    }
}

impl Object {
    /// `json` is the whole object, `metadata.resourceVersion` included.
    pub fn new(namespace: String, name: String, revision: u64, json: Bytes) -> Self {
        Self { namespace, name, revision, bytes: json, gap: None, typed: Mutex::new(Typed::Kept(None)) }
    }

    /// `stored` lacks the `resourceVersion`, which belongs at byte `gap`: just behind `"metadata":{`, before at least
    /// one other field.
    pub fn stored(namespace: String, name: String, revision: u64, stored: Bytes, gap: usize) -> Self {
        let gap = Some(gap);
        Self { namespace, name, revision, bytes: stored, gap, typed: Mutex::new(Typed::Kept(None)) }
    }

    /// This revision is past: the typed form lives only as long as somebody holds it. Watch windows keep many past
    /// revisions.
    pub fn supersede(&self) {
        let mut typed = self.lock();
        if let Typed::Kept(kept) = &*typed {
            // A weak reference keeps the space: only for a form that somebody else holds.
            let held = kept.as_ref().filter(|kept| Arc::strong_count(kept) > 1);
            *typed = Typed::Shared(held.map(Arc::downgrade));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Typed> {
        self.typed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole object as one piece.
    pub fn json(&self) -> Bytes {
        if self.gap.is_none() {
            return self.bytes.clone();
        }
        let mut json = Vec::with_capacity(self.len_bytes());
        self.write_json(&mut json);
        json.into()
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
        let known = self.lock().get();
        if let Some(typed) = known {
            return match typed.downcast::<K>() {
                Ok(typed) => Ok(typed),
                Err(_) => self.decode().map(Arc::new),
            };
        }
        let decoded = Arc::new(self.decode::<K>()?);
        self.lock().set(decoded.clone());
        Ok(decoded)
    }

    /// The object as any type, decoded now and not kept.
    ///
    /// # Errors
    /// When the bytes are no `K`.
    pub fn decode<K: DeserializeOwned>(&self) -> Result<K, serde_json::Error> {
        serde_json::from_slice(&self.json())
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object({}/{}@{})", self.namespace, self.name, self.revision)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_past_revision_keeps_no_typed_form_and_still_gives_one() {
        let object = Object::new(String::new(), "x".into(), 1, Bytes::from_static(b"{\"a\":1}"));
        let first = Arc::downgrade(&object.typed::<Value>().unwrap());
        assert!(first.upgrade().is_some(), "the present revision keeps it");
        let held = object.typed::<Value>().unwrap();
        object.supersede();
        assert!(Arc::ptr_eq(&held, &object.typed::<Value>().unwrap()), "those who look at the same time share it");
        drop(held);
        assert!(first.upgrade().is_none());
        assert_eq!(object.typed::<Value>().unwrap()["a"], 1);
    }
}
