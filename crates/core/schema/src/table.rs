//! The description of types that every walk reads: one entry per field, generated from upstream's Go types and
//! OpenAPI documents (see `crates/core/api/generator`).

use std::borrow::Cow;

/// Index of a type in its [`Table`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// A closed set of types that refer to each other by [`TypeId`].
#[derive(Debug, Clone)]
pub struct Table {
    pub types: Cow<'static, [Type]>,
}

impl std::ops::Index<TypeId> for Table {
    type Output = Type;

    fn index(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }
}

/// A struct of the API, in the order of its Go declaration.
#[derive(Debug, Clone)]
pub struct Type {
    /// Go name with its package's group and version: `core/v1.PodSpec`.
    pub name: Cow<'static, str>,
    pub fields: Cow<'static, [Field]>,
}

/// One field of a [`Type`].
#[derive(Debug, Clone)]
pub struct Field {
    /// JSON name.
    pub name: Cow<'static, str>,
    pub shape: Shape,
    pub presence: Presence,
    /// Static default as JSON text (`+default=` marker, OpenAPI `default`).
    pub default: Option<Cow<'static, str>>,
    pub list: ListKind,
    pub patch: Patch,
    /// Protobuf field number; 0 where the type has no protobuf form.
    pub number: u32,
}

/// The form of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    String,
    Bool,
    Int32,
    Int64,
    Float64,
    /// Base64 in JSON.
    Bytes,
    Quantity,
    IntOrString,
    /// RFC 3339, seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// Go duration text (`metav1.Duration`).
    Duration,
    /// Any JSON (`runtime.RawExtension`, `apiextensions.JSON`, `FieldsV1`).
    Any,
    Struct(TypeId),
    List(&'static Shape),
    /// Map from string.
    Map(&'static Shape),
}

/// How Go encodes the field when it is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// No `omitempty`: the zero value (or `null` for a nil list or map) is written.
    Always,
    /// `omitempty`: zero scalars, empty lists and maps, nil pointers are dropped; a struct by value stays (`{}`).
    OmitEmpty,
    /// Pointer with `omitempty`: kept whenever set, even to a zero value.
    Pointer,
}

/// `+listType`, which server-side apply follows.
#[derive(Debug, Clone, PartialEq)]
pub enum ListKind {
    Atomic,
    Set,
    /// `+listType=map` with its `+listMapKey`s.
    Map(&'static [&'static str]),
    /// A struct or map that is replaced as a whole (`+structType=atomic`, `+mapType=atomic`).
    AtomicValue,
    /// Not a list, or nothing said.
    Plain,
}

/// `patchStrategy` and `patchMergeKey`, which strategic merge patch follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// `patchStrategy:"merge"`.
    pub merge: bool,
    /// `patchStrategy:"retainKeys"`.
    pub retain_keys: bool,
    pub key: &'static str,
}
