//! One object as the cache holds it: its bytes, and what selectors look at, parsed once.

use api::object::Object;
use api::rules::Rules;
use schema::selector::{FieldSelector, LabelSelector};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One revision of one object.
pub(crate) struct Entry {
    pub key: Arc<str>,
    pub object: Arc<Object>,
    pub labels: BTreeMap<String, String>,
    /// Selectable fields beyond name and namespace.
    pub fields: Vec<(&'static str, String)>,
}

/// One change of one object, as watchers are told it.
pub(crate) struct Change {
    pub revision: u64,
    /// The object as it is now; of a deletion its last state under the deletion's revision.
    pub entry: Arc<Entry>,
    pub previous: Option<Arc<Entry>>,
    pub deleted: bool,
}

/// What a list or a watch wants to see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selection {
    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        self.labels.matches(&entry.labels)
            && self.fields.terms.iter().all(|(field, value, equal)| (entry.field(field) == value) == *equal)
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.terms.is_empty()
    }
}

#[derive(Deserialize)]
struct Labelled {
    #[serde(default)]
    metadata: Labels,
}

#[derive(Deserialize, Default)]
struct Labels {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Entry {
    /// `has_fields`: whether the kind has selectable fields at all; without them only the metadata is parsed.
    pub(crate) fn new(key: Arc<str>, object: Object, rules: &Rules, has_fields: bool) -> Self {
        let (bytes, _) = object.parts();
        let (labels, fields) = if has_fields {
            let tree: Value = serde_json::from_slice(bytes).unwrap_or_default();
            let labels = tree.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
            let labels = labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
            (labels, (rules.selectable)(&tree))
        } else {
            let labels = serde_json::from_slice::<Labelled>(bytes).map(|l| l.metadata.labels).unwrap_or_default();
            (labels, Vec::new())
        };
        Self { key, object: Arc::new(object), labels, fields }
    }

    /// The same state under another revision: how a deletion shows it.
    pub(crate) fn at(&self, revision: u64) -> Self {
        let (bytes, gap) = self.object.parts();
        let (namespace, name) = (self.object.namespace.clone(), self.object.name.clone());
        let object = match gap {
            Some(gap) => Object::stored(namespace, name, revision, bytes.clone(), gap),
            None => Object::new(namespace, name, revision, bytes.clone()),
        };
        Self {
            key: self.key.clone(),
            object: Arc::new(object),
            labels: self.labels.clone(),
            fields: self.fields.clone(),
        }
    }

    fn field(&self, field: &str) -> &str {
        match field {
            "metadata.name" => &self.object.name,
            "metadata.namespace" => &self.object.namespace,
            other => self.fields.iter().find(|(f, _)| *f == other).map_or("", |(_, v)| v.as_str()),
        }
    }
}
