//! The objects that a cluster begins with, written straight into the store before anything is served.

use crate::bootstrap::{self, Endpoint};
use crate::server::Config;
use crate::{stored, world};
use api::meta;
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use store::kv::{Op, Range, StoreError, Txn};

/// Creates what is missing, in one transaction. What is there stays as its owner made it.
pub(crate) async fn create_missing(config: &Config) -> Result<(), StoreError> {
    let Some(endpoint) = endpoint(config) else {
        return Ok(());
    };
    let mut ops = Vec::new();
    let mut present: BTreeMap<Arc<str>, Bytes> = BTreeMap::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for one in bootstrap::objects(&endpoint) {
        let found = api::table::resources().iter().find(|r| r.group == one.group && r.plural == one.plural && r.stored);
        let Some(resource) = found else {
            continue;
        };
        if known.insert(resource.storage) {
            let prefix = format!("/registry/{}/", resource.storage);
            let end = format!("/registry/{}0", resource.storage);
            let range = Range { start: prefix.into(), end: end.into(), revision: 0, limit: 0 };
            present.extend(config.kv.range(range).await?.entries.into_iter().map(|entry| (entry.key, entry.value)));
        }
        let mut object = one.object;
        let key: Arc<str> = resource.key(meta::namespace(&object), meta::name(&object)).into();
        if let Some(stored) = present.get(&key) {
            // Where the server is reached may have changed since; everything else is its owner's.
            if matches!(one.plural, "endpoints" | "endpointslices")
                && let Some(value) = moved(stored, &object)
            {
                ops.push(Op::Put { key, value, ttl_s: None });
            }
            continue;
        }
        meta::set(&mut object, "uid", world::uid(&*config.world));
        meta::set(&mut object, "creationTimestamp", world::rfc3339(config.world.now()));
        let rules = api::kinds::rules(resource.group, resource.kind);
        schema::decode::apply_defaults(api::table::table(), resource.of, &mut object);
        (rules.default)(&mut object);
        if rules.generation {
            meta::set(&mut object, "generation", 1);
        }
        ops.push(Op::Put { key, value: stored::encode(&object), ttl_s: None });
    }
    if !ops.is_empty() {
        config.kv.txn(Txn { compares: Vec::new(), ops }).await?;
    }
    Ok(())
}

/// The stored object with the wanted content, if that differs.
fn moved(stored: &[u8], wanted: &Value) -> Option<Bytes> {
    let mut tree: Value = serde_json::from_slice(stored).ok()?;
    let mut differs = false;
    for (field, value) in wanted.as_object()?.iter().filter(|(field, _)| *field != "metadata") {
        if tree.get(field) != Some(value) {
            tree[field.as_str()] = value.clone();
            differs = true;
        }
    }
    differs.then(|| stored::encode(&tree))
}

/// Where the Service `kubernetes` leads, by the configuration.
fn endpoint(config: &Config) -> Option<Endpoint> {
    let (address, port) = config.advertised_address.rsplit_once(':')?;
    let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
    let service_ip = crate::service_addresses::first_address(config.service_cidrs.first()?)?;
    Some(Endpoint { service_ip, address, port: port.parse().ok()? })
}
