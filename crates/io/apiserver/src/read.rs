//! `get` and `list`.

use crate::cache::{Cache, Entry, Selection};
use crate::call::{Answer, Call, List};
use crate::errors::{self, Result};
use crate::paging::{self, Continue};
use crate::query::ListOptions;
use crate::refusal::Refusal;
use crate::select;
use crate::server::ApiServer;
use std::sync::Arc;
use store::kv::{Range, StoreError};

/// Keys read from the store at once when a list at an old revision is filtered.
const SCAN_PAGE: usize = 1000;

impl ApiServer {
    /// One object as it is now.
    pub(crate) async fn current(&self, call: &Call<'_>, name: &str) -> Result<Option<Arc<Entry>>> {
        let cache = self.caches.of(call.resource).ok_or_else(errors::no_such_resource)?;
        self.caches.fresh().await?;
        Ok(cache.get(&call.key(name)))
    }
}

pub(crate) async fn get(call: &Call<'_>) -> Result<Answer> {
    let server = call.server;
    let cache = server.caches.of(call.resource).ok_or_else(errors::no_such_resource)?;
    match revision(call.query.get("resourceVersion")).map_err(errors::plain)? {
        // Any state will do.
        Some(0) => {}
        Some(wanted) => not_older_than(call, wanted).await?,
        None => {
            server.caches.fresh().await?;
        }
    }
    let name = &call.info.name;
    let entry = cache.get(&call.key(name)).ok_or_else(|| call.not_found(name))?;
    Ok(Answer::Object { code: 200, object: entry.object.clone() })
}

pub(crate) async fn list(call: &Call<'_>) -> Result<Answer> {
    let cache = call.server.caches.of(call.resource).ok_or_else(errors::no_such_resource)?.clone();
    let options = ListOptions::parse(call.query, false)?;
    let selection = select::selection(call, &cache, &options)?;
    Ok(Answer::List(select_list(call, &cache, &options, &selection).await?))
}

/// The objects of a list.
pub(crate) async fn select_list(
    call: &Call<'_>,
    cache: &Cache,
    options: &ListOptions,
    selection: &Selection,
) -> Result<List> {
    let prefix = call.key("");
    if !options.continue_token.is_empty() {
        if !options.resource_version.is_empty() && options.resource_version != "0" {
            return Err(Refusal::bad_request("specifying resource version is not allowed when using continue"));
        }
        let from = paging::decode(&options.continue_token, &call.resource.key("", ""))?;
        if !from.start.starts_with(&prefix) {
            return Err(Refusal::bad_request(
                "invalid continue token: continue key is not valid: it belongs to another list",
            ));
        }
        return at_revision(call, cache, &prefix, from, options.limit, selection).await;
    }
    let wanted = revision(&options.resource_version)
        .map_err(|why| Refusal::bad_request(format!("invalid resource version: {why}")))?;
    let exact = options.resource_version_match == "Exact"
        // Upstream reads a page at a given revision exactly there, unless told otherwise.
        || (options.limit > 0 && options.resource_version_match.is_empty() && wanted.is_some_and(|w| w > 0));
    match wanted {
        Some(wanted) if exact && wanted > 0 => {
            not_older_than(call, wanted).await?;
            let from = Continue { revision: wanted, start: prefix.clone() };
            return at_revision(call, cache, &prefix, from, options.limit, selection).await;
        }
        Some(0) => {}
        Some(wanted) => not_older_than(call, wanted).await?,
        None => {
            call.server.caches.fresh().await?;
        }
    }
    Ok(from_memory(call, cache, &prefix, options.limit, selection))
}

fn from_memory(call: &Call<'_>, cache: &Cache, prefix: &str, limit: usize, selection: &Selection) -> List {
    let applied = call.server.caches.applied();
    let page = cache.page(prefix, selection, limit);
    let revision = applied.max(page.last_change);
    let mut list = List { objects: page.objects, revision, continue_token: String::new(), remaining: None };
    if let Some(last) = list.objects.last()
        && page.left > 0
    {
        // There are more keys; whether they match is the next page's business, as upstream has it.
        let last = call.resource.key(&last.namespace, &last.name);
        list.continue_token = paging::encode(&call.resource.key("", ""), &last, revision);
        // Upstream counts only where every key counts.
        list.remaining = selection.is_everything().then_some(page.left);
    }
    list
}

/// A list from the store's history.
async fn at_revision(
    call: &Call<'_>,
    cache: &Cache,
    prefix: &str,
    from: Continue,
    limit: usize,
    selection: &Selection,
) -> Result<List> {
    let mut list =
        List { objects: Vec::new(), revision: from.revision, continue_token: String::new(), remaining: None };
    let end: Arc<str> = after_prefix(prefix).into();
    let mut start: Arc<str> = from.start.into();
    let key_prefix = call.resource.key("", "");
    loop {
        let page = if limit > 0 && selection.is_everything() { limit } else { SCAN_PAGE };
        let range = Range { start: start.clone(), end: end.clone(), revision: list.revision, limit: page };
        let found = call.server.kv.range(range).await.map_err(|e| page_error(&e, &key_prefix, &start))?;
        if list.revision == 0 {
            list.revision = found.revision;
        }
        let count = found.entries.len();
        for (index, stored) in found.entries.into_iter().enumerate() {
            start = format!("{}\0", stored.key).into();
            let (namespace, name) = split_key(&key_prefix, &stored.key, call.resource.namespaced);
            let object = crate::stored::object(namespace, name, stored.mod_revision, stored.value);
            let entry = cache.entry(stored.key, object);
            if selection.matches(&entry) {
                let key = entry.key.clone();
                list.objects.push(entry.object);
                let left = count - index - 1 + found.remaining;
                if limit > 0 && list.objects.len() == limit && left > 0 {
                    list.continue_token = paging::encode(&key_prefix, &key, list.revision);
                    list.remaining = selection.is_everything().then_some(left);
                    return Ok(list);
                }
            }
        }
        if found.remaining == 0 {
            return Ok(list);
        }
    }
}

/// An expired token comes back as one that goes on at the present.
fn page_error(error: &StoreError, prefix: &str, start: &str) -> Refusal {
    let StoreError::Compacted { .. } = error else {
        return errors::store(error);
    };
    let mut refusal = errors::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    refusal.details = serde_json::json!({"continue": paging::encode(prefix, start.trim_end_matches('\0'), 0)});
    refusal
}

/// The first key behind all that begin with `prefix`.
fn after_prefix(prefix: &str) -> String {
    // Prefixes end with a slash; the next character is `0`.
    format!("{}0", prefix.trim_end_matches('/'))
}

fn split_key(prefix: &str, key: &str, namespaced: bool) -> (String, String) {
    let rest = key.strip_prefix(prefix).unwrap_or(key);
    match rest.split_once('/') {
        Some((namespace, name)) if namespaced => (namespace.to_owned(), name.to_owned()),
        _ => (String::new(), rest.to_owned()),
    }
}

/// A `resourceVersion` parameter; empty is `None`.
pub(crate) fn revision(text: &str) -> std::result::Result<Option<u64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let quoted = errors::quoted(text);
        format!("resourceVersion: Invalid value: {quoted}: strconv.ParseUint: parsing {quoted}: invalid syntax")
    })
}

/// Waits until the cache is at `wanted`; a revision beyond the store's is refused.
pub(crate) async fn not_older_than(call: &Call<'_>, wanted: u64) -> Result<()> {
    let caches = &call.server.caches;
    if caches.applied() >= wanted {
        return Ok(());
    }
    let current = caches.fresh().await?;
    if current < wanted {
        return Err(errors::too_large_resource_version(wanted, current));
    }
    Ok(())
}
