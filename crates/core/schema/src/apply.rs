//! Who set which field: `metadata.managedFields` of every write, and server-side apply (structured-merge-diff and
//! apimachinery `util/managedfields`).
//!
//! `set` holds field sets, `form` says how the table wants a value followed, `compare` and `merge` walk two objects of a type,
//! `validate` checks what is applied, `managed` keeps the entries and carries out updates and applies.

mod compare;
mod form;
mod managed;
mod merge;
mod scale;
mod set;
#[cfg(test)]
mod tests;
mod validate;

pub use managed::{Applied, ApplyError, Conflict, Manager, Version, Writer, apply, conflict_message, update};
pub use scale::{to_parent, to_scale};
pub use set::{Filter, Set};
