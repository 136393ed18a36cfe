//! `DeleteOptions`: from the body or, without one, from the query.

use crate::call::Call;
use crate::decode_body;
use crate::delete::invalid_options;
use crate::errors::{self, Result};
use crate::negotiate::Encoding;
use crate::query;
use crate::refusal::Refusal;
use schema::decode::{self, Format};
use schema::field::{self, ErrorList, Path};
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub grace_period_s: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub propagation: Option<Propagation>,
    pub dry_run: bool,
}

impl DeleteOptions {
    pub(crate) fn parse(call: &Call<'_>) -> Result<Self> {
        let tree = if call.body.is_empty() { from_query(call)? } else { from_body(call)? };
        Self::of(&tree)
    }

    /// The options of a tree in normal form, checked.
    pub(crate) fn of(tree: &Value) -> Result<Self> {
        let mut found = ErrorList::new();
        let policy = tree["propagationPolicy"].as_str();
        let orphan = tree["orphanDependents"].as_bool();
        if policy.is_some() && orphan.is_some() {
            let path = Path::new("propagationPolicy");
            found.push(field::invalid(
                &path,
                policy.unwrap_or_default(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        let propagation = match policy {
            None => orphan.map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background }),
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let path = Path::new("propagationPolicy");
                found.push(field::not_supported(&path, other, &["Foreground", "Background", "Orphan", "nil"]));
                None
            }
        };
        let dry_run: Vec<&str> = tree["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        query::validate_dry_run(dry_run.iter().copied(), &mut found);
        if !found.is_empty() {
            return Err(invalid_options(&found));
        }
        let text = |path: &str| tree.pointer(path).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            grace_period_s: tree["gracePeriodSeconds"].as_i64(),
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            propagation,
            dry_run: !dry_run.is_empty(),
        })
    }
}

/// A body of any group is taken, as upstream does.
fn from_body(call: &Call<'_>) -> Result<Value> {
    let encoding = decode_body::encoding_of(call.header("content-type"))?;
    if call.body.len() > crate::http::BODY_LIMIT_BYTES {
        return Err(errors::too_large());
    }
    let of = api::table::type_of("meta.k8s.io", "v1", "DeleteOptions").ok_or_else(errors::no_such_resource)?;
    let table = api::table::table();
    let refuse = |e: decode::DecodeError| Refusal::bad_request(e.0);
    let decoded = match encoding {
        Encoding::Json => decode::parse(call.body, Format::Json)
            .map_err(|e| Refusal::bad_request(format!("couldn't get version/kind; json parse error: {e}")))?,
        Encoding::Yaml => decode::parse(call.body, Format::Yaml).map_err(refuse)?,
        Encoding::Protobuf => {
            let envelope = schema::protobuf::open(call.body).map_err(refuse)?;
            let value = schema::protobuf::decode(table, of, envelope.raw).map_err(refuse)?;
            decode::Decoded { value, strict: Vec::new() }
        }
    };
    if decoded.value.is_null() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    decode::normalize(table, of, decoded).map(|decoded| decoded.value).map_err(|e| {
        Refusal::bad_request(format!("DeleteOptions in version \"v1\" cannot be handled as a DeleteOptions: {}", e.0))
    })
}

fn from_query(call: &Call<'_>) -> Result<Value> {
    let mut tree = serde_json::json!({});
    if let Some(seconds) = call.query.int("gracePeriodSeconds")? {
        tree["gracePeriodSeconds"] = seconds.into();
    }
    if call.query.find("orphanDependents").is_some() {
        tree["orphanDependents"] = call.query.flag("orphanDependents").into();
    }
    if let Some(policy) = call.query.find("propagationPolicy") {
        tree["propagationPolicy"] = policy.into();
    }
    let dry_run: Vec<Value> = call.query.all("dryRun").map(Value::from).collect();
    if !dry_run.is_empty() {
        tree["dryRun"] = dry_run.into();
    }
    Ok(tree)
}
