//! What of a resource a request asks for: selectors, checked against what the kind can be selected by.

use crate::cache::{Cache, Selection};
use crate::call::Call;
use crate::errors::{self, Result};
use crate::query::ListOptions;
use crate::refusal::Refusal;
use api::resource::Resource;
use schema::selector::{FieldSelector, LabelSelector};

/// Parses and checks the selectors of a list, a watch or a delete of a collection.
pub(crate) fn selection(call: &Call<'_>, cache: &Cache, options: &ListOptions) -> Result<Selection> {
    let mut selection = parse(call.resource, cache, &options.label_selector, &options.field_selector)?;
    if !call.info.name.is_empty() {
        // A watch of one object by its own path.
        selection.fields.terms.push(("metadata.name".to_owned(), call.info.name.clone(), true));
    }
    Ok(selection)
}

/// Parses and checks two selectors.
pub(crate) fn parse(resource: &Resource, cache: &Cache, labels: &str, fields: &str) -> Result<Selection> {
    let labels = LabelSelector::parse(labels).map_err(|e| Refusal::bad_request(e.0))?;
    let mut fields = FieldSelector::parse(fields).map_err(|e| Refusal::bad_request(e.0))?;
    let selectable = cache.selectable();
    for (field, _, _) in &mut fields.terms {
        if field == "spec.host" && resource.kind == "Pod" {
            // A name of very old clients (upstream core/v1 conversion).
            "spec.nodeName".clone_into(field);
        }
        let known = field == "metadata.name"
            || (field == "metadata.namespace" && (resource.namespaced || !NAMELESS.contains(&resource.kind)))
            || selectable.contains(&field.as_str());
        if !known {
            return Err(Refusal::bad_request(unknown_field(resource, &selectable, field)));
        }
    }
    Ok(Selection { labels, fields })
}

/// Cluster-scoped kinds with conversions of their own that do not know `metadata.namespace`.
const NAMELESS: &[&str] = &["Node", "Namespace"];

/// Upstream words this in three ways, by how the kind's conversion is registered.
fn unknown_field(resource: &Resource, selectable: &[&str], field: &str) -> String {
    let converts = resource.group == "certificates.k8s.io" || resource.kind == "ResourceSlice";
    if selectable.is_empty() && !converts {
        return format!(
            "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            errors::quoted(field)
        );
    }
    match (resource.group, resource.kind) {
        ("resource.k8s.io", kind) => {
            format!("field label not supported for {}, Kind={kind}: {field}", resource.api_version())
        }
        ("apps" | "batch", _) => format!("field label {} not supported for {}", errors::quoted(field), resource.kind),
        _ => format!("field label not supported: {field}"),
    }
}
