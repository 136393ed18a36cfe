//! A world for tables of tests: objects by resource, and a plan as text.

use api::controller::{Config, Controller, Key, ResourceName, View};
use api::object::Object;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

#[derive(Clone, Default)]
pub(crate) struct World {
    objects: BTreeMap<ResourceName, BTreeMap<(String, String), Arc<Object>>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with(mut self, resource: ResourceName, json: &str) -> Self {
        let value: Value = serde_json::from_str(json).unwrap_or_default();
        let part = |name: &str| value["metadata"][name].as_str().unwrap_or_default().to_owned();
        let key = (part("namespace"), part("name"));
        let object = Object::new(key.0.clone(), key.1.clone(), 1, json.to_owned().into());
        self.objects.entry(resource).or_default().insert(key, Arc::new(object));
        self
    }
}

impl View for World {
    fn get(&self, resource: ResourceName, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.objects.get(&resource)?.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    fn list(&self, resource: ResourceName, namespace: &str) -> Vec<Arc<Object>> {
        let objects = self.objects.get(&resource).into_iter().flatten();
        objects.filter(|((of, _), _)| namespace.is_empty() || of == namespace).map(|(_, o)| o.clone()).collect()
    }
}

/// One line per write.
pub(crate) fn plan_text(controller: &Controller, world: &World, namespace: &str, name: &str) -> String {
    let key = Key { namespace: namespace.to_owned(), name: name.to_owned() };
    let config = Config { root_ca: "PEM".to_owned() };
    let now = Timestamp::from_second(1_800_000_000).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut text = String::new();
    for write in (controller.plan)(&config, world, &key, now).writes {
        let target = &write.target;
        let group = if target.group.is_empty() { String::new() } else { format!("{}/", target.group) };
        let subresource =
            if target.subresource.is_empty() { String::new() } else { format!("/{}", target.subresource) };
        let path =
            format!("{group}{} {} {}/{}{subresource}", target.version, target.plural, target.namespace, target.name);
        writeln!(text, "{:?} {path} {}", write.verb, String::from_utf8_lossy(&write.body)).ok();
    }
    text
}
