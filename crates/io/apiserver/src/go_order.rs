//! JSON as Go writes it where a patched object is shown in an error: the top level sorted (it went through a map), the
//! structs below in the order of their declarations.

use schema::table::{Shape, Table, TypeId};
use serde_json::Value;

pub(crate) fn write(table: &Table, of: TypeId, value: &Value) -> String {
    let Some(map) = value.as_object() else {
        return value.to_string();
    };
    let mut out = String::from("{");
    for (index, (name, value)) in map.iter().enumerate() {
        let shape = table[of].field(name).map(|f| f.shape);
        member(&mut out, index == 0, name, table, shape, value);
    }
    out.push('}');
    out
}

fn member(out: &mut String, first: bool, name: &str, table: &Table, shape: Option<Shape>, value: &Value) {
    if !first {
        out.push(',');
    }
    out.push_str(&Value::from(name).to_string());
    out.push(':');
    node(out, table, shape, value);
}

fn node(out: &mut String, table: &Table, shape: Option<Shape>, value: &Value) {
    match (shape, value) {
        (Some(Shape::Struct(of)), Value::Object(map)) => {
            out.push('{');
            let declared =
                table[of].fields.iter().filter_map(|f| map.get_key_value(f.name).map(|(k, v)| (k, v, Some(f.shape))));
            let others = map.iter().filter(|(k, _)| table[of].field(k).is_none()).map(|(k, v)| (k, v, None));
            for (index, (name, value, shape)) in declared.chain(others).enumerate() {
                member(out, index == 0, name, table, shape, value);
            }
            out.push('}');
        }
        (Some(Shape::List(element) | Shape::Items(element)), Value::Array(items)) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                node(out, table, Some(*element), item);
            }
            out.push(']');
        }
        (Some(Shape::Map(element)), Value::Object(map)) => {
            out.push('{');
            for (index, (name, value)) in map.iter().enumerate() {
                member(out, index == 0, name, table, Some(*element), value);
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
}
