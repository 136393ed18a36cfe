//! `v1` Secret.

use super::config_map::{MAX_DATA_BYTES, decoded_bytes, kept};
use crate::human;
use crate::kinds::columns;
use crate::names::{IMMUTABLE, config_map_key};
use crate::rules::Rules;
use crate::tree::{Tree, default_to, keep, remove};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use schema::field::{ErrorList, Path, invalid, required, too_long};
use serde_json::{Value, json};

const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

pub static RULES: Rules = Rules {
    default,
    prepare_create: fold_string_data,
    prepare_update: |new, old| {
        fold_string_data(new);
        if new.text("type").is_empty() {
            keep(new, old, "type");
        }
    },
    validate,
    validate_update: update,
    warnings: |new, _| warnings(new),
    selectable: |secret| vec![("type", secret.text("type").to_owned())],
    columns: columns::SECRET,
    row,
    ..Rules::PLAIN
};

fn default(secret: &mut Value) {
    fold_string_data(secret);
    default_to(secret, "type", "Opaque");
}

/// `stringData` is only a way of writing: it ends in `data` (upstream's conversion).
fn fold_string_data(secret: &mut Value) {
    let Some(strings) = secret.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
    if let Value::Object(strings) = strings {
        for (key, value) in strings {
            let bytes = STANDARD.encode(value.as_str().unwrap_or_default());
            if !secret["data"].is_object() {
                secret["data"] = json!({});
            }
            secret["data"][key] = bytes.into();
        }
    }
    if secret["data"].is_null() {
        remove(secret, "data");
    }
}

fn row(secret: &Value, now: Timestamp) -> Vec<Value> {
    let metadata = &secret["metadata"];
    vec![
        json!(metadata.text("name")),
        json!(secret.text("type")),
        json!(secret.entries("data").count()),
        json!(human::age(&metadata["creationTimestamp"], now)),
    ]
}

fn bytes(secret: &Value, key: &str) -> Option<Vec<u8>> {
    STANDARD.decode(secret["data"].text_opt(key)?).ok()
}

fn validate(secret: &Value) -> ErrorList {
    let data = Path::new("data");
    let mut found = ErrorList::new();
    let mut total = 0;
    for (key, value) in secret.pairs("data") {
        found.extend(config_map_key(key).iter().map(|message| invalid(&data.key(key), key, message)));
        total += decoded_bytes(value);
    }
    if total > MAX_DATA_BYTES {
        found.push(too_long(&data, MAX_DATA_BYTES));
    }
    let has = |key: &str| secret["data"].get(key).is_some();
    let missing = |key: &str| required(&data.key(key), "");
    match secret.text("type") {
        "kubernetes.io/service-account-token" if secret["metadata"]["annotations"].text(ACCOUNT_NAME).is_empty() => {
            found.push(required(&Path::new("metadata").child("annotations").key(ACCOUNT_NAME), ""));
        }
        "kubernetes.io/dockercfg" => found.extend(json_object(secret, ".dockercfg", &data)),
        "kubernetes.io/dockerconfigjson" => found.extend(json_object(secret, ".dockerconfigjson", &data)),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            found.extend([missing("username"), missing("password")]);
        }
        "kubernetes.io/ssh-auth" if secret["data"].text("ssh-privatekey").is_empty() => {
            found.push(missing("ssh-privatekey"));
        }
        "kubernetes.io/tls" => found.extend(["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)).map(missing)),
        _ => {}
    }
    found
}

fn json_object(secret: &Value, key: &str, data: &Path) -> Option<schema::field::FieldError> {
    let path = data.key(key);
    let Some(bytes) = bytes(secret, key) else {
        return Some(required(&path, ""));
    };
    let problem = go_json_problem(&bytes)?;
    Some(invalid(&path, "<secret contents redacted>", &problem))
}

/// Why Go's `json.Unmarshal` takes the bytes for no object; `None` when it does.
fn go_json_problem(bytes: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(_) | Value::Null) => None,
        Ok(other) => {
            let kind = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Number(_) => "number",
                _ => "bool",
            };
            Some(format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"))
        }
        Err(problem) if problem.is_eof() => Some("unexpected end of JSON input".to_owned()),
        Err(problem) => {
            let before: usize = bytes
                .split(|byte| *byte == b'\n')
                .take(problem.line().saturating_sub(1))
                .map(|line| line.len() + 1)
                .sum();
            let at = (before + problem.column()).saturating_sub(1);
            let shown = bytes.get(at).map_or(' ', |byte| char::from(*byte));
            let first = bytes.iter().position(|byte| !byte.is_ascii_whitespace()) == Some(at);
            let place =
                if first { "looking for beginning of value" } else { "looking for beginning of object key string" };
            Some(format!("invalid character '{shown}' {place}"))
        }
    }
}

fn update(new: &Value, old: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    if new.text("type") != old.text("type") {
        found.push(invalid(&Path::new("type"), new.text("type"), IMMUTABLE));
    }
    found.extend(kept(new, old, &["data"]));
    found.extend(validate(new));
    found
}

/// What Go's `tls.X509KeyPair` says about a pair that is no PEM; pairs that do not fit each other are not told.
fn warnings(secret: &Value) -> Vec<String> {
    if secret.text("type") != "kubernetes.io/tls" {
        return Vec::new();
    }
    for (key, what) in [("tls.crt", "certificate"), ("tls.key", "key")] {
        let text = bytes(secret, key).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        if !(text.contains("-----BEGIN ") && text.contains("-----END ")) {
            return vec![format!("tls: failed to find any PEM data in {what} input")];
        }
    }
    Vec::new()
}
