//! Query parameters and the option objects made of them, refused in upstream's words.

use crate::errors::{self, Result};
use crate::refusal::Refusal;
use crate::request::percent_decode;
use schema::field::{self, ErrorList, Path};
use serde_json::Value;

/// The parameters of a request, decoded, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(crate) fn parse(raw: &str) -> Self {
        let decode = |text: &str| percent_decode(&text.replace('+', " "));
        let pairs = raw
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(key, value)| (decode(key), decode(value)))
            .collect();
        Self { pairs }
    }

    /// The first value, empty if there is none.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.find(key).unwrap_or_default()
    }

    pub(crate) fn find(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// As apimachinery converts a string to a bool: present, and neither `0` nor `false`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.find(key).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false"))
    }

    pub(crate) fn int(&self, key: &str) -> Result<Option<i64>> {
        match self.find(key) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                Refusal::bad_request(format!("strconv.ParseInt: parsing {}: invalid syntax", errors::quoted(text)))
            }),
        }
    }
}

/// `ListOptions` of lists and watches.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub watch: bool,
    pub bookmarks: bool,
    pub resource_version: String,
    pub resource_version_match: String,
    pub timeout_s: Option<u64>,
    pub limit: usize,
    pub continue_token: String,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query, watch: bool) -> Result<Self> {
        let options = Self {
            label_selector: query.get("labelSelector").to_owned(),
            field_selector: query.get("fieldSelector").to_owned(),
            watch,
            bookmarks: query.flag("allowWatchBookmarks"),
            resource_version: query.get("resourceVersion").to_owned(),
            resource_version_match: query.get("resourceVersionMatch").to_owned(),
            timeout_s: query.int("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()),
            limit: query.int("limit")?.and_then(|l| usize::try_from(l).ok()).unwrap_or(0),
            continue_token: query.get("continue").to_owned(),
            send_initial_events: query.find("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
        };
        let found = options.validate();
        if found.is_empty() { Ok(options) } else { Err(errors::invalid("meta.k8s.io", "ListOptions", "", &found)) }
    }

    /// apimachinery `ValidateListOptions`, with WatchList on.
    fn validate(&self) -> ErrorList {
        if self.watch { self.validate_watch() } else { self.validate_list() }
    }

    fn validate_watch(&self) -> ErrorList {
        let path = Path::new("resourceVersionMatch");
        let mut found = ErrorList::new();
        let matched = self.resource_version_match.as_str();
        if self.send_initial_events.is_some() && matched != "NotOlderThan" {
            found.push(field::forbidden(
                &path,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if !matched.is_empty() {
            if self.send_initial_events.is_none() {
                found.push(field::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            } else if matched != "NotOlderThan" {
                found.push(field::not_supported(&path, matched, &["NotOlderThan"]));
            }
        }
        if !self.continue_token.is_empty() {
            found.push(field::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
        found
    }

    fn validate_list(&self) -> ErrorList {
        let path = Path::new("resourceVersionMatch");
        let mut found = ErrorList::new();
        if self.send_initial_events.is_some() {
            found.push(field::forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list"));
        }
        let matched = self.resource_version_match.as_str();
        if matched.is_empty() {
            return found;
        }
        if self.resource_version.is_empty() {
            found.push(field::forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if !self.continue_token.is_empty() {
            found.push(field::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(matched, "Exact" | "NotOlderThan") {
            found.push(field::not_supported(&path, matched, &["Exact", "NotOlderThan"]));
        }
        if matched == "Exact" && self.resource_version == "0" {
            found
                .push(field::forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
        }
        found
    }
}

/// How strictly a body is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// `CreateOptions`, `UpdateOptions` and `PatchOptions` in one.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
}

impl WriteOptions {
    /// `kind`: `CreateOptions`, `UpdateOptions` or `PatchOptions`, as errors name it. `apply`: whether the patch is a
    /// server-side apply, which alone may force.
    pub(crate) fn parse(query: &Query, kind: &str, apply: bool) -> Result<Self> {
        let mut found = ErrorList::new();
        let field_manager = query.get("fieldManager").to_owned();
        if kind == "PatchOptions" {
            if apply && field_manager.is_empty() {
                found.push(field::required(&Path::new("fieldManager"), "is required for apply patch"));
            } else if !apply && query.find("force").is_some() {
                found.push(field::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
            }
        }
        validate_field_manager(&field_manager, &mut found);
        validate_dry_run(query.all("dryRun"), &mut found);
        let field_validation = match query.get("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let path = Path::new("fieldValidation");
                found.push(field::not_supported(&path, other, &["", "Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        if !found.is_empty() {
            return Err(errors::invalid("meta.k8s.io", kind, "", &found));
        }
        let dry_run = query.all("dryRun").any(|v| v == "All");
        Ok(Self { dry_run, field_manager, field_validation })
    }
}

/// apimachinery `ValidateFieldManager`.
fn validate_field_manager(manager: &str, found: &mut ErrorList) {
    let path = Path::new("fieldManager");
    if manager.len() > 128 {
        found.push(field::too_long(&path, 128));
    }
    let unprintable = manager.chars().enumerate().find(|(_, c)| c.is_control());
    if let Some((index, c)) = unprintable {
        let detail = format!("invalid character U+{:04X} (at position {index})", c as u32);
        found.push(field::FieldError {
            error_type: field::ErrorType::Invalid,
            path: "fieldManager".to_owned(),
            message: format!("Invalid value: {}: {detail}", errors::quoted(manager)),
        });
    }
}

/// apimachinery `ValidateDryRun`.
pub(crate) fn validate_dry_run<'a>(values: impl Iterator<Item = &'a str>, found: &mut ErrorList) {
    let values: Vec<Value> = values.map(Value::from).collect();
    if values.iter().any(|v| v != "All") {
        found.push(field::not_supported(&Path::new("dryRun"), Value::Array(values), &["All"]));
    }
}

/// `?timeout=`, a Go duration; upstream refuses what it cannot parse before it looks at anything else.
pub(crate) fn check_timeout(query: &Query) -> Result<()> {
    match query.find("timeout") {
        None | Some("") => Ok(()),
        Some(text) if go_duration_ms(text).is_some() => Ok(()),
        Some(text) => {
            let why = format!(
                "invalid timeout specified in the request URL - time: invalid duration {}",
                errors::quoted(text)
            );
            Err(Refusal::bad_request(why))
        }
    }
}

/// `1h2m3.5s` in milliseconds.
fn go_duration_ms(text: &str) -> Option<f64> {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Some(0.0);
    }
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let factor = match &rest[..unit] {
            "ns" => 1e-6,
            "us" | "µs" | "μs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            _ => return None,
        };
        total += number * factor;
        rest = &rest[unit..];
    }
    Some(total)
}
