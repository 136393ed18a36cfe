//! The contract that each kind's file fills. All functions are pure; they see objects in normal form
//! (`schema::decode::normalize`), static defaults of the table applied.

use jiff::Timestamp;
use schema::field::ErrorList;
use serde_json::Value;

/// What a kind adds to the generic pipeline. `Rules::PLAIN` is the start of each.
///
/// Order on create: `default`, `prepare_create`, generic metadata validation, `validate`, `warnings`.
/// Order on update: `default`, `prepare_update`, generic metadata validation, `validate_update`, `warnings`.
/// (On create, generic metadata validation is `meta::validate_create`, on update `meta::validate_update`.)
/// On `/status`: `default`, `prepare_status_update`, `validate_status_update`.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Defaults that depend on other fields (upstream `defaults.go`).
    pub default: fn(&mut Value),
    /// Clears what a creator may not set, allocates nothing (upstream `PrepareForCreate`).
    pub prepare_create: fn(&mut Value),
    /// Keeps what this verb may not change, e.g. the status (upstream `PrepareForUpdate`). `(new, old)`.
    pub prepare_update: fn(&mut Value, &Value),
    pub prepare_status_update: fn(&mut Value, &Value),
    pub validate: fn(&Value) -> ErrorList,
    /// `(new, old)`; includes what `validate` finds where upstream's does.
    pub validate_update: fn(&Value, &Value) -> ErrorList,
    pub validate_status_update: fn(&Value, &Value) -> ErrorList,
    /// `Warning:` headers, `(new, old)`.
    pub warnings: fn(&Value, Option<&Value>) -> Vec<String>,
    /// `Warning:` headers that upstream sends while it prepares a new object, before all others; sees it unprepared.
    pub prepare_warnings: fn(&Value) -> Vec<String>,
    /// How metadata.name is checked (upstream's `ValidateXName`): returns the messages.
    pub validate_name: fn(name: &str, prefix: bool) -> Vec<String>,
    /// Field selectors beyond `metadata.name` and `metadata.namespace`: field and its value.
    pub selectable: fn(&Value) -> Vec<(&'static str, String)>,
    /// Columns of `kubectl get` (upstream `printers/internalversion`), without which Name and Age are shown.
    pub columns: &'static [Column],
    /// The cells of one row, as many as `columns`.
    pub row: fn(&Value, Timestamp) -> Vec<Value>,
    /// The `conditions` of the row (`Completed` of Pods and Jobs); empty is left out.
    pub row_conditions: fn(&Value) -> Vec<Value>,
    /// Whether a spec change counts up `metadata.generation` (which begins with 1); `prepare_*` leave it alone.
    pub generation: bool,
    /// Whether deletion waits for a grace period, and which: `Some(seconds)` (Pods only; upstream `CheckGracefulDelete`).
    /// The second argument is what the request asked for; `Some(0)` deletes at once.
    pub grace_period_s: fn(&Value, Option<i64>) -> Option<i64>,
    /// Whether an update without `resourceVersion` is allowed (upstream `AllowUnconditionalUpdate`).
    pub unconditional_update: bool,
    /// Whether a PUT may create (upstream `AllowCreateOnUpdate`).
    pub create_on_update: bool,
}

/// A column of a Table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub of: &'static str,
    /// `name` or empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 always shown, 1 with `-o wide`.
    pub priority: i32,
}

impl Rules {
    /// A kind without rules of its own.
    pub const PLAIN: Self = Self {
        default: |_| {},
        prepare_create: |_| {},
        prepare_update: |_, _| {},
        prepare_status_update: |_, _| {},
        validate: |_| Vec::new(),
        validate_update: |_, _| Vec::new(),
        validate_status_update: |_, _| Vec::new(),
        warnings: |_, _| Vec::new(),
        prepare_warnings: |_| Vec::new(),
        validate_name: crate::names::dns_subdomain_name,
        selectable: |_| Vec::new(),
        columns: &[],
        row: |_, _| Vec::new(),
        row_conditions: |_| Vec::new(),
        generation: false,
        grace_period_s: |_, _| None,
        unconditional_update: true,
        create_on_update: false,
    };
}
