//! `v1` ConfigMap.

use crate::human;
use crate::kinds::columns;
use crate::names::config_map_key;
use crate::rules::Rules;
use crate::tree::{Tree, same};
use jiff::Timestamp;
use schema::field::{ErrorList, Path, forbidden, invalid, too_long};
use serde_json::{Value, json};

/// `MaxSecretSize`: all values of a ConfigMap or Secret together.
pub(super) const MAX_DATA_BYTES: usize = 1024 * 1024;
pub(super) const IMMUTABLE_DATA: &str = "field is immutable when `immutable` is set";

pub static RULES: Rules =
    Rules { validate, validate_update: update, columns: columns::CONFIG_MAP, row, ..Rules::PLAIN };

fn row(map: &Value, now: Timestamp) -> Vec<Value> {
    let metadata = &map["metadata"];
    let count = map.entries("data").count() + map.entries("binaryData").count();
    vec![json!(metadata.text("name")), json!(count), json!(human::age(&metadata["creationTimestamp"], now))]
}

/// Bytes that Base64 text stands for.
pub(super) fn decoded_bytes(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn validate(map: &Value) -> ErrorList {
    let mut found = ErrorList::new();
    let mut total = 0;
    for (key, value) in map.pairs("data") {
        let path = Path::new("data").key(key);
        found.extend(config_map_key(key).iter().map(|message| invalid(&path, key, message)));
        if map["binaryData"].get(key).is_some() {
            found.push(invalid(&path, key, "duplicate of key present in binaryData"));
        }
        total += value.len();
    }
    for (key, value) in map.pairs("binaryData") {
        let path = Path::new("binaryData").key(key);
        found.extend(config_map_key(key).iter().map(|message| invalid(&path, key, message)));
        total += decoded_bytes(value);
    }
    if total > MAX_DATA_BYTES {
        found.push(too_long(&Path::new("").key(""), MAX_DATA_BYTES));
    }
    found
}

/// What an `immutable` object of this kind may not change.
pub(super) fn kept(new: &Value, old: &Value, fields: &[&str]) -> ErrorList {
    let mut found = ErrorList::new();
    if !old.flag("immutable") {
        return found;
    }
    if !new.flag("immutable") {
        found.push(forbidden(&Path::new("immutable"), IMMUTABLE_DATA));
    }
    for field in fields {
        if !same(&new[*field], &old[*field]) {
            found.push(forbidden(&Path::new(field), IMMUTABLE_DATA));
        }
    }
    found
}

fn update(new: &Value, old: &Value) -> ErrorList {
    let mut found = kept(new, old, &["data", "binaryData"]);
    found.extend(validate(new));
    found
}
