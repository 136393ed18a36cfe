//! From a request body to an object of the expected kind, in normal form, with static and kind defaults.

use crate::call::Call;
use crate::errors::{self, Result};
use crate::negotiate::Encoding;
use crate::query::FieldValidation;
use crate::refusal::Refusal;
use schema::decode::{self, DecodeError, Decoded, Format};
use schema::protobuf;
use schema::table::TypeId;
use schema::tree::Tree;
use serde_json::Value;
use std::fmt::Write;

/// The kind that a body must hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub of: TypeId,
}

impl Expected<'_> {
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `core.ConfigMap`: the Go name of the internal type.
    fn internal_name(&self) -> String {
        let package = if self.group.is_empty() { "core" } else { self.group.split('.').next().unwrap_or_default() };
        format!("{package}.{}", self.kind)
    }
}

/// Decodes the call's body; unknown and duplicate fields become errors or warnings as `validation` says.
pub(crate) fn body(call: &Call<'_>, expected: Expected<'_>, validation: FieldValidation) -> Result<Value> {
    let encoding = encoding_of(call.header("content-type"))?;
    if call.body.len() > crate::http::BODY_LIMIT_BYTES {
        return Err(errors::too_large());
    }
    bytes(call, call.body, encoding, expected, validation)
}

/// The encoding that a `Content-Type` names; nothing is JSON.
pub(crate) fn encoding_of(content_type: &str) -> Result<Encoding> {
    if content_type.is_empty() {
        return Ok(Encoding::Json);
    }
    let mut pieces = content_type.split(';');
    let media_type = pieces.next().unwrap_or_default().trim().to_ascii_lowercase();
    Encoding::of_content_type(&media_type).ok_or_else(errors::unknown_body_format)
}

fn bytes(
    call: &Call<'_>,
    body: &[u8],
    encoding: Encoding,
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<Value> {
    let unrecognized = |why: &str| {
        let kind = expected.kind;
        Refusal::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({})",
            summary(body)
        ))
    };
    let format = match encoding {
        Encoding::Json => Format::Json,
        Encoding::Yaml => Format::Yaml,
        Encoding::Protobuf => return tree(call, from_protobuf(body, expected, &unrecognized)?, expected, validation),
    };
    let (parsed, api_version, kind) = decode::read_object(body, format).map_err(|e| unrecognized(&e.0))?;
    let header = serde_json::json!({"apiVersion": api_version, "kind": kind});
    let read = |of| decode::typed(api::table::table(), of, &parsed);
    let mut value = checked(call, &header, &read, expected, validation)?;
    let entries = parsed.root.get("metadata").and_then(|metadata| metadata.get("managedFields"));
    if entries == Some(&Tree::List(Vec::new())) {
        api::meta::set(&mut value, "managedFields", serde_json::json!([{}]));
    }
    Ok(value)
}

/// Checks type and version of a parsed tree, brings it to normal form and defaults it.
pub(crate) fn tree(
    call: &Call<'_>,
    decoded: Decoded,
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<Value> {
    let header = serde_json::json!({"apiVersion": decoded.value["apiVersion"], "kind": decoded.value["kind"]});
    let read = |of| {
        let Decoded { value, strict } = &decoded;
        decode::normalize(api::table::table(), of, Decoded { value: value.clone(), strict: strict.clone() })
    };
    checked(call, &header, &read, expected, validation)
}

/// `header` has `apiVersion` and `kind`; `read` brings the body to the normal form of that type.
fn checked(
    call: &Call<'_>,
    header: &Value,
    read: &dyn Fn(TypeId) -> std::result::Result<Decoded, DecodeError>,
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<Value> {
    let (of, kind, api_version) = check_type(header, expected)?;
    let version = api_version.rsplit('/').next().unwrap_or_default().to_owned();
    let refuse = |why: String| {
        Refusal::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {}: {why}", expected.kind))
    };
    let mut decoded = read(of).map_err(|e| refuse(e.0))?;
    match validation {
        FieldValidation::Strict if !decoded.strict.is_empty() => {
            return Err(refuse(format!("strict decoding error: {}", decoded.strict.join(", "))));
        }
        FieldValidation::Warn => call.warn_all(std::mem::take(&mut decoded.strict)),
        _ => {}
    }
    let mut value = decoded.value;
    value["kind"] = kind.into();
    value["apiVersion"] = api_version.into();
    default(&mut value, of, expected);
    Ok(value)
}

/// An empty list of managed fields takes them all away; so that it outlives the normal form, which drops what is empty, it is
/// written as upstream's other form of that wish: one empty entry.
pub(crate) fn keep_reset(value: &mut Value) {
    if let Some(entries) = value.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut)
        && entries.is_empty()
    {
        entries.push(serde_json::json!({}));
    }
}

/// Static defaults of the table, then those of the kind.
pub(crate) fn default(value: &mut Value, of: TypeId, expected: Expected<'_>) {
    decode::apply_defaults(api::table::table(), of, value);
    (api::kinds::rules(expected.group, expected.kind).default)(value);
}

/// The body's type, or upstream's words for what it is instead. Absent names are the expected ones.
fn check_type(value: &Value, expected: Expected<'_>) -> Result<(TypeId, String, String)> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let wanted = expected.api_version();
    let kind = if text("kind").is_empty() { expected.kind } else { text("kind") };
    let api_version = if text("apiVersion").is_empty() { &wanted } else { text("apiVersion") };
    if kind == expected.kind && api_version == wanted {
        return Ok((expected.of, kind.to_owned(), api_version.to_owned()));
    }
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let cannot = |why: String| {
        Refusal::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {}: {why}", expected.kind))
    };
    if api_version != wanted && is_once_known(group, version, kind) {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({wanted})"
        )));
    }
    if api::table::type_of(group, version, kind).is_none() {
        return Err(cannot(format!(
            "no kind \"{kind}\" is registered for version \"{api_version}\" in scheme \"pkg/runtime/scheme.go:111\""
        )));
    }
    if kind == expected.kind {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({wanted})"
        )));
    }
    Err(cannot(format!("converting ({version}.{kind}) to ({}): unknown conversion", expected.internal_name())))
}

/// Versions that upstream's scheme still registers although it serves them no more.
fn is_once_known(group: &str, version: &str, kind: &str) -> bool {
    match (group, version) {
        ("extensions", "v1beta1") => {
            matches!(kind, "Deployment" | "DaemonSet" | "ReplicaSet" | "Ingress" | "NetworkPolicy")
        }
        ("apps", "v1beta1") => matches!(kind, "Deployment" | "StatefulSet" | "ControllerRevision"),
        ("apps", "v1beta2") => {
            matches!(kind, "Deployment" | "DaemonSet" | "ReplicaSet" | "StatefulSet" | "ControllerRevision")
        }
        ("batch", "v1beta1") => kind == "CronJob",
        ("policy", "v1beta1") => matches!(kind, "PodDisruptionBudget" | "Eviction"),
        ("autoscaling", "v2beta1" | "v2beta2") => kind == "HorizontalPodAutoscaler",
        ("networking.k8s.io", "v1beta1") => matches!(kind, "Ingress" | "IngressClass" | "IPAddress" | "ServiceCIDR"),
        ("events.k8s.io", "v1beta1") => kind == "Event",
        ("discovery.k8s.io", "v1beta1") => kind == "EndpointSlice",
        ("coordination.k8s.io", "v1beta1") => kind == "Lease",
        ("node.k8s.io", "v1beta1" | "v1alpha1") => kind == "RuntimeClass",
        ("scheduling.k8s.io", "v1beta1" | "v1alpha1") => kind == "PriorityClass",
        ("rbac.authorization.k8s.io", "v1beta1" | "v1alpha1") => {
            matches!(kind, "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding")
        }
        _ => false,
    }
}

fn from_protobuf(body: &[u8], expected: Expected<'_>, unrecognized: &dyn Fn(&str) -> Refusal) -> Result<Decoded> {
    let envelope = protobuf::open(body).map_err(|e| unrecognized(&e.0))?;
    let header = serde_json::json!({"apiVersion": envelope.api_version, "kind": envelope.kind});
    let (of, kind, api_version) = check_type(&header, expected)?;
    let mut value = protobuf::decode(api::table::table(), of, envelope.raw).map_err(|e| {
        let version = api_version.rsplit('/').next().unwrap_or_default();
        Refusal::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {}: {e}", expected.kind))
    })?;
    value["kind"] = kind.into();
    value["apiVersion"] = api_version.into();
    Ok(Decoded { value, strict: Vec::new() })
}

/// The head of a body as errors show it: text where it looks like JSON, else hexadecimal.
fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    if body.is_empty() {
        return "<empty>".to_owned();
    }
    let head = &body[..body.len().min(SHOWN)];
    let more = if body.len() > SHOWN { " ..." } else { "" };
    if body[0] == b'{' {
        return format!("{}{more}", String::from_utf8_lossy(head));
    }
    let mut hex = head.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    hex.push_str(more);
    hex
}
