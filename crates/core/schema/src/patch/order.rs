//! The order of merged lists in a strategic merge patch.

use super::strategic::{DIRECTIVE, SET_ORDER, bad_type, internal, no_merge_key};
use super::{PatchError, go_print};
use serde_json::Value;

/// The object's list as upstream finds it after merging, when it orders by it: the merge has moved up what follows a
/// deleted item, and has put new items into the room at the end.
pub(super) fn reused(old: &[Value], patch: &[Value], key: &str) -> Vec<Value> {
    let mut list = old.to_vec();
    let mut length = list.len();
    let directive = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
    for item in patch.iter().filter(|item| directive(item).as_deref() == Some("delete")) {
        while let Some(at) = list[..length].iter().position(|old| old.get(key) == item.get(key)) {
            for i in at + 1..length {
                list[i - 1] = list[i].clone();
            }
            length -= 1;
        }
    }
    if patch.iter().any(|item| directive(item).as_deref() == Some("replace")) {
        return list;
    }
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        if length == list.len() {
            break;
        }
        if !list[..length].iter().any(|old| old.get(key) == item.get(key)) {
            list[length] = item.clone();
            length += 1;
        }
    }
    list
}

/// The patch's items must be in the order of `$setElementOrder`, and all in it.
pub(super) fn check_order(patch: Option<&[Value]>, order: &[Value], key: &str) -> Result<(), PatchError> {
    let Some(patch) = patch else { return Ok(()) };
    if order.is_empty() || patch.is_empty() {
        return Ok(());
    }
    let value = |item: &Value| match item {
        Value::Object(map) => map.get(key).cloned().ok_or_else(|| no_merge_key(map, key)),
        other => Err(bad_type("map[string]interface {}", other)),
    };
    let kept = |item: &&Value| key.is_empty() || item.get(DIRECTIVE).and_then(Value::as_str) != Some("delete");
    let items: Vec<&Value> = patch.iter().filter(kept).collect();
    let (mut next, mut at) = (0, 0);
    while next < items.len() && at < order.len() {
        if items[next].get(DIRECTIVE).is_some() {
            next += 1;
            continue;
        }
        let same = if key.is_empty() { *items[next] == order[at] } else { value(items[next])? == value(&order[at])? };
        next += usize::from(same);
        at += 1;
    }
    if next < items.len() {
        let (patch, order) = (go_print(&Value::Array(patch.to_vec())), go_print(&Value::Array(order.to_vec())));
        let text = format!("The order in patch list:\n{patch}\n doesn't match {SET_ORDER} list:\n{order}\n");
        return Err(internal(text));
    }
    Ok(())
}

/// Upstream's way to drop duplicates, which moves the last element to the place of one.
pub(super) fn deduplicated(mut items: Vec<Value>) -> Vec<Value> {
    let mut i = 0;
    while i < items.len() {
        let mut j = i + 1;
        while j < items.len() {
            if items[i] == items[j] {
                items.swap_remove(j);
            } else {
                j += 1;
            }
        }
        i += 1;
    }
    items
}

/// Splits a merged list into what `patch` names and the rest, orders each, and weaves them together.
pub(super) fn arrange(
    merged: Vec<Value>,
    patch: &[Value],
    patch_order: &[Value],
    server_order: &[Value],
    key: &str,
    maps: bool,
) -> Result<Vec<Value>, PatchError> {
    let same = |a: &Value, b: &Value| if maps { a.get(key) == b.get(key) } else { a == b };
    if maps {
        for item in merged.iter().chain(patch_order).chain(server_order) {
            match item {
                Value::Object(map) if map.contains_key(key) => {}
                Value::Object(map) => return Err(no_merge_key(map, key)),
                other => return Err(bad_type("map[string]interface {}", other)),
            }
        }
    }
    let (from_patch, from_server): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| patch.iter().any(|p| same(p, item)));
    let index = |order: &[Value], item: &Value| order.iter().position(|o| same(o, item));
    let right = sorted(from_patch, |item| index(patch_order, item));
    let left = sorted(from_server, |item| index(server_order, item));
    let mut left = left.into_iter().peekable();
    let mut right = right.into_iter().peekable();
    let mut all = Vec::new();
    loop {
        let take_left = match (left.peek(), right.peek()) {
            (Some(l), Some(r)) => match (index(server_order, l), index(server_order, r)) {
                (Some(l), Some(r)) => l < r,
                _ => false,
            },
            (Some(_), None) => true,
            _ => false,
        };
        match if take_left { left.next() } else { right.next() } {
            Some(item) => all.push(item),
            None => return Ok(all),
        }
    }
}

/// A stable insertion sort in which an item without a place counts as smaller, as in upstream.
fn sorted(mut items: Vec<Value>, place: impl Fn(&Value) -> Option<usize>) -> Vec<Value> {
    let less = |a: &Value, b: &Value| match (place(a), place(b)) {
        (Some(a), Some(b)) => a < b,
        _ => true,
    };
    for i in 1..items.len() {
        let mut j = i;
        while j > 0 && less(&items[j], &items[j - 1]) {
            items.swap(j, j - 1);
            j -= 1;
        }
    }
    items
}
