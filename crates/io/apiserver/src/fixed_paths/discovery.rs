//! Which resources are served: `/api`, `/apis` and below, plain and aggregated, made from the table of kinds.

use crate::body::Body;
use crate::errors::{self, Result};
use crate::negotiate;
use crate::respond::response;
use crate::server::ApiServer;
use api::resource::Resource;
use http::Response;
use serde_json::{Value, json};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A group with its versions, the preferred one first.
pub(super) struct Group {
    pub name: &'static str,
    pub versions: Vec<&'static str>,
}

/// The groups beside the core group, in the order of their priority, which is the table's.
pub(super) fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for resource in api::table::resources().iter().filter(|r| !r.group.is_empty()) {
        match groups.iter_mut().find(|g| g.name == resource.group) {
            Some(group) if !group.versions.contains(&resource.version) => group.versions.push(resource.version),
            Some(_) => {}
            None => groups.push(Group { name: resource.group, versions: vec![resource.version] }),
        }
    }
    groups
}

pub(super) fn answer(server: &ApiServer, path: &str, is_read: bool, accept: &str) -> Result<Response<Body>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    if path.contains("//") {
        return Err(errors::page_not_found());
    }
    let document = match parts.as_slice() {
        ["api"] => Document::Both(versions(server), || json!([aggregated_group("", &["v1"])])),
        ["apis"] => {
            Document::Both(group_list(), || groups().iter().map(|g| aggregated_group(g.name, &g.versions)).collect())
        }
        ["api", "v1"] => Document::Plain(resource_list("", "v1")),
        ["api", _] => return Err(errors::no_such_resource()),
        ["apis", name] => {
            let known = groups().into_iter().find(|g| g.name == *name).ok_or_else(errors::page_not_found)?;
            let mut group = json!({"kind": "APIGroup", "apiVersion": "v1"});
            merge(&mut group, group_entry(&known));
            Document::Plain(group)
        }
        ["apis", name, version] => {
            let known = groups().into_iter().find(|g| g.name == *name).ok_or_else(errors::page_not_found)?;
            if !known.versions.contains(version) {
                return Err(errors::no_such_resource());
            }
            Document::Plain(resource_list(name, version))
        }
        _ => return Err(errors::page_not_found()),
    };
    if !is_read {
        return Err(errors::method_not_allowed());
    }
    match document {
        Document::Plain(tree) => super::tree(accept, tree),
        Document::Both(tree, aggregated) => negotiated(accept, tree, aggregated),
    }
}

enum Document {
    Plain(Value),
    /// The second form is the items of an `APIGroupDiscoveryList`.
    Both(Value, fn() -> Value),
}

fn negotiated(accept: &str, plain: Value, aggregated: fn() -> Value) -> Result<Response<Body>> {
    for clause in negotiate::clauses(accept) {
        if clause.parameter("as").is_none() {
            let encoding = &clause.media_type;
            if encoding == "*/*"
                || encoding == "application/*"
                || negotiate::Encoding::of_content_type(encoding).is_some()
            {
                return super::tree(encoding, plain);
            }
            continue;
        }
        let wanted = clause.parameter("g") == Some("apidiscovery.k8s.io")
            && clause.parameter("v") == Some("v2")
            && clause.parameter("as") == Some("APIGroupDiscoveryList");
        if wanted && clause.media_type == "application/json" {
            let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": aggregated()});
            return Ok(response(200, AGGREGATED, list.to_string()));
        }
    }
    if accept.trim().is_empty() { super::tree("", plain) } else { Err(errors::only_media_types()) }
}

fn versions(server: &ApiServer) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server.advertised_address}],
    })
}

fn group_list() -> Value {
    let groups: Vec<Value> = groups().iter().map(group_entry).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_entry(group: &Group) -> Value {
    let entry = |version: &&str| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(entry).collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": group.name, "versions": versions, "preferredVersion": preferred})
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

fn of<'a>(group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Resource> + 'a {
    api::table::resources().iter().filter(move |r| r.group == group && r.version == version)
}

fn resource_list(group: &str, version: &str) -> Value {
    let mut resources: Vec<Value> = of(group, version).flat_map(plain_entries).collect();
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    list
}

fn plain_entries(resource: &'static Resource) -> Vec<Value> {
    let mut entry = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !resource.storage_version_hash.is_empty() {
        entry["storageVersionHash"] = resource.storage_version_hash.into();
    }
    let mut entries = vec![entry];
    for sub in resource.subresources {
        let mut entry = json!({
            "name": format!("{}/{}", resource.plural, sub.name),
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": sub.kind,
            "verbs": sub.verbs,
        });
        if speaks_another(resource, sub) {
            if !sub.group.is_empty() {
                entry["group"] = sub.group.into();
            }
            entry["version"] = sub.version.into();
        }
        entries.push(entry);
    }
    entries
}

fn speaks_another(resource: &Resource, sub: &api::resource::Subresource) -> bool {
    sub.group != resource.group || sub.version != resource.version
}

fn aggregated_group(name: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = of(name, version).map(aggregated_entry).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_entry(resource: &'static Resource) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": {"group": "", "version": "", "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|sub| {
            let (group, version) = if speaks_another(resource, sub) { (sub.group, sub.version) } else { ("", "") };
            json!({"subresource": sub.name, "responseKind": {"group": group, "version": version, "kind": sub.kind}, "verbs": sub.verbs})
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}
