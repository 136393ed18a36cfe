//! The generated facts about every built-in kind (generator: `crates/core/api/generator`).

use crate::resource::Resource;
use schema::table::Table;

/// Every type of every built-in kind.
pub fn table() -> &'static Table {
    unimplemented!()
}

/// Every built-in resource, in discovery's order.
pub fn resources() -> &'static [Resource] {
    unimplemented!()
}
