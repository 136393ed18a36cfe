//! The generated facts about every built-in kind (generator: `crates/core/api/generator`).

use crate::resource::Resource;
use schema::table::{Table, TypeId};

#[rustfmt::skip]
mod generated;
#[cfg(test)]
mod golden;

static TABLE: Table = Table { types: &generated::TYPES };

/// Every type of every built-in kind.
pub fn table() -> &'static Table {
    &TABLE
}

/// Every built-in resource, in discovery's order.
pub fn resources() -> &'static [Resource] {
    &generated::RESOURCES
}

/// The type called `core/v1.PodSpec`.
pub fn type_named(name: &str) -> Option<TypeId> {
    let at = generated::TYPES.binary_search_by(|t| t.name.cmp(name)).ok()?;
    u32::try_from(at).ok().map(TypeId)
}

/// The type of a kind, served as a resource or not (lists, bodies of subresources). Kinds of `meta/v1` (`DeleteOptions`,
/// `Status`, `Table`, …) are found under every group and version, as upstream registers them.
pub fn type_of(group: &str, version: &str, kind: &str) -> Option<TypeId> {
    let find = |group: &str, version: &str| {
        let at = generated::KINDS.binary_search_by(|k| (k.0, k.1, k.2).cmp(&(group, version, kind))).ok()?;
        Some(generated::KINDS[at].3)
    };
    find(group, version).or_else(|| find("meta.k8s.io", "v1"))
}

/// Short names for the generated file.
mod build {
    pub(super) use crate::resource::{Resource, Subresource};
    pub(super) use schema::table::ListKind::{Atomic, AtomicValue, Map as Keyed, Plain, Set};
    pub(super) use schema::table::Presence::{Always, Nullable, OmitEmpty, OmitZero, Pointer};
    pub(super) use schema::table::Shape::{
        Any, Bool, Bytes, Float64, Int32, Int64, IntOrString, Items, List, Map, MicroTime, Quantity, SchemaOrArray,
        SchemaOrBool, SchemaOrStrings, String, Struct, Time,
    };
    use schema::table::{Embedded, Field, ListKind, Patch, Presence, Shape};
    pub(super) use schema::table::{Type, TypeId, TypeId as T};

    pub(super) const NO_PATCH: Patch = Patch::NONE;

    pub(super) const fn t(name: &'static str, atomic: bool, fields: &'static [Field]) -> Type {
        Type { name, fields, atomic }
    }

    /// A field with nothing special: lists are atomic.
    pub(super) const fn f(
        name: &'static str,
        go: &'static str,
        shape: Shape,
        presence: Presence,
        number: u32,
    ) -> Field {
        let list = if matches!(shape, List(_)) { Atomic } else { Plain };
        g(name, go, shape, presence, number, None, list, NO_PATCH, &[])
    }

    #[expect(clippy::too_many_arguments, reason = "one per column of the generated table")]
    pub(super) const fn g(
        name: &'static str,
        go: &'static str,
        shape: Shape,
        presence: Presence,
        number: u32,
        default: Option<&'static str>,
        list: ListKind,
        patch: Patch,
        within: &'static [Embedded],
    ) -> Field {
        Field { name, go, shape, presence, default, list, patch, number, within }
    }

    pub(super) const fn p(merge: bool, retain_keys: bool, replace: bool, key: &'static str) -> Patch {
        Patch { merge, retain_keys, replace, key }
    }

    pub(super) const fn w(name: &'static str, number: u32) -> Embedded {
        Embedded { name, number }
    }
}
