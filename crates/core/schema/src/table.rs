//! The description of types that every walk reads: one entry per field, generated from upstream's Go types and
//! OpenAPI documents (see `crates/core/api/generator`).

/// Index of a type in its [`Table`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// A closed set of types that refer to each other by [`TypeId`]. Built-in kinds have one; custom resources are walked by
/// their structural schema.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    pub types: &'static [Type],
}

impl std::ops::Index<TypeId> for Table {
    type Output = Type;

    fn index(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }
}

/// A struct of the API, in the order of its Go declaration.
#[derive(Debug, Clone, Copy)]
pub struct Type {
    /// Go name with its package's group and version: `core/v1.PodSpec`.
    pub name: &'static str,
    pub fields: &'static [Field],
    /// `+structType=atomic`: server-side apply replaces a value of this type as a whole.
    pub atomic: bool,
}

impl Type {
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// The Go name without package: `PodSpec`.
    pub fn go_name(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, name)| name)
    }
}

/// One field of a [`Type`].
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// JSON name.
    pub name: &'static str,
    /// The Go type as `reflect` prints it, without pointers: `[]v1.Container`, `map[string]string`.
    pub go: &'static str,
    pub shape: Shape,
    pub presence: Presence,
    /// Static default as JSON text (`+default=` marker, OpenAPI `default`).
    pub default: Option<&'static str>,
    pub list: ListKind,
    pub patch: Patch,
    /// Protobuf field number; 0 where the type has no protobuf form.
    pub number: u32,
    /// The embedded Go structs that the field stands in, outermost first: flat in JSON, nested in protobuf.
    pub within: &'static [Embedded],
}

/// An embedded (`json:",inline"`) Go struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedded {
    pub name: &'static str,
    /// Protobuf field number; 0 where the type has no protobuf form.
    pub number: u32,
}

/// The form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Any JSON (`runtime.RawExtension`, `apiextensions.JSON`, `FieldsV1`).
    Any,
    Struct(TypeId),
    List(&'static Shape),
    /// As `List`, but in protobuf a message with the elements as field 1 (a named Go slice: `ExtraValue`, `Verbs`).
    Items(&'static Shape),
    /// A schema or a boolean (`apiextensions.JSONSchemaPropsOrBool`).
    SchemaOrBool(TypeId),
    /// A schema or a list of schemas.
    SchemaOrArray(TypeId),
    /// A schema or a list of strings.
    SchemaOrStrings(TypeId),
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
    /// Pointer without `omitempty`: `null` when not set.
    Nullable,
    /// `omitzero`: a zero struct or time is dropped too.
    OmitZero,
}

/// `+listType`, which server-side apply follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// `patchStrategy:"replace"`, said and not only by default.
    pub replace: bool,
    /// Empty for none.
    pub key: &'static str,
}

impl Patch {
    pub const NONE: Self = Self { merge: false, retain_keys: false, replace: false, key: "" };
}
