//! The `Table` form that `kubectl get` prints (apimachinery `meta/v1` Table, upstream `printers`).

use crate::call::Call;
use crate::errors::{self, Result};
use crate::partial;
use crate::query::Query;
use api::resource::Resource;
use api::rules::Column;
use jiff::Timestamp;
use serde_json::{Value, json};

/// A Table under construction.
pub(crate) struct Table {
    version: String,
    columns: Vec<Value>,
    rows: Vec<Value>,
    include: Include,
    /// Upstream's table of a kind without columns has `null` for no rows.
    plain: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

/// Columns of kinds that have none of their own (apiserver `rest.NewDefaultTableConvertor`).
const PLAIN_COLUMNS: [Column; 2] = [
    Column {
        name: "Name",
        of: "string",
        format: "name",
        description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
        priority: 0,
    },
    Column {
        name: "Created At",
        of: "date",
        format: "",
        description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
        priority: 0,
    },
];

impl Table {
    /// `version`: of `meta.k8s.io`.
    pub(crate) fn new(call: &Call<'_>, version: &str) -> Result<Self> {
        match call.query.get("includeObject") {
            "" | "Metadata" | "None" | "Object" => Ok(Self::of(call.resource, call.query, version)),
            other => {
                let quoted = errors::quoted(other);
                let why = format!(
                    "Unable to convert to Table as requested: includeObject: Invalid value: {quoted}: must be 'Metadata', 'Object', 'None', or empty"
                );
                Err(crate::refusal::Refusal::bad_request(why))
            }
        }
    }

    pub(crate) fn of(resource: &Resource, query: &Query, version: &str) -> Self {
        let include = match query.get("includeObject") {
            "None" => Include::None,
            "Object" => Include::Object,
            _ => Include::Metadata,
        };
        let own = api::kinds::rules(resource.group, resource.kind).columns;
        let columns = if own.is_empty() { &PLAIN_COLUMNS[..] } else { own };
        let columns = columns
            .iter()
            .map(|c| json!({"name": c.name, "type": c.of, "format": c.format, "description": c.description, "priority": c.priority}))
            .collect();
        Self { version: version.to_owned(), columns, rows: Vec::new(), include, plain: own.is_empty() }
    }

    pub(crate) fn push(&mut self, call: &Call<'_>, tree: &Value) {
        self.push_at(call.resource, tree, call.now);
    }

    /// `now`: what ages are counted from.
    pub(crate) fn push_at(&mut self, resource: &Resource, tree: &Value, now: Timestamp) {
        let rules = api::kinds::rules(resource.group, resource.kind);
        let cells = if self.plain {
            vec![tree["metadata"]["name"].clone(), tree["metadata"]["creationTimestamp"].clone()]
        } else {
            (rules.row)(tree, now)
        };
        let mut row = json!({"cells": cells});
        let conditions = (rules.row_conditions)(tree);
        if !conditions.is_empty() {
            row["conditions"] = conditions.into();
        }
        row["object"] = match self.include {
            Include::None => Value::Null,
            Include::Metadata => partial::object(tree, &self.version),
            Include::Object => tree.clone(),
        };
        self.rows.push(row);
    }

    pub(crate) fn finish(self, metadata: Value) -> Value {
        let rows = if self.plain && self.rows.is_empty() { Value::Null } else { Value::Array(self.rows) };
        json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{}", self.version),
            "metadata": metadata,
            "columnDefinitions": self.columns,
            "rows": rows,
        })
    }

    /// For a watch: the columns are told once, in the first event.
    pub(crate) fn without_columns(mut self) -> Self {
        self.columns.clear();
        self
    }
}
