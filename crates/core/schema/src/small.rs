//! A small table for tests: what shapes there are, without the hundreds of types of the real one.

use crate::table::{Embedded, Field, ListKind, Patch, Presence, Shape, Table, Type, TypeId};

pub(crate) const THING: TypeId = TypeId(0);

pub(crate) static TABLE: Table = Table { types: &TYPES };

const fn field(name: &'static str, go: &'static str, shape: Shape, presence: Presence, number: u32) -> Field {
    let (list, patch) = (ListKind::Plain, Patch::NONE);
    Field { name, go, shape, presence, default: None, list, patch, number, within: &[] }
}

const BY_NAME: Patch = Patch { merge: true, retain_keys: false, replace: false, key: "name" };
const RETAINS: Patch = Patch { merge: true, retain_keys: true, replace: false, key: "name" };
const SCALARS: Patch = Patch { merge: true, retain_keys: false, replace: false, key: "" };

use Presence::{Always, OmitEmpty, OmitZero, Pointer};

static TYPES: [Type; 4] = [
    Type {
        name: "small/v1.Thing",
        atomic: false,
        fields: &[
            field("kind", "string", Shape::String, OmitEmpty, 0),
            field("apiVersion", "string", Shape::String, OmitEmpty, 0),
            field("created", "v1.Time", Shape::Time, OmitZero, 1),
            field("seen", "v1.Time", Shape::Time, OmitEmpty, 2),
            field("labels", "map[string]string", Shape::Map(&Shape::String), OmitEmpty, 3),
            Field { patch: SCALARS, ..field("finalizers", "[]string", Shape::List(&Shape::String), OmitEmpty, 4) },
            field("spec", "v1.ThingSpec", Shape::Struct(TypeId(1)), OmitEmpty, 5),
        ],
    },
    Type {
        name: "small/v1.ThingSpec",
        atomic: false,
        fields: &[
            field("replicas", "int32", Shape::Int32, Pointer, 1),
            field("paused", "bool", Shape::Bool, OmitEmpty, 2),
            Field { patch: BY_NAME, ..field("parts", "[]v1.Part", Shape::List(&Shape::Struct(TypeId(2))), Always, 3) },
            field("limits", "v1.List", Shape::Map(&Shape::Quantity), OmitEmpty, 4),
            field("data", "[]uint8", Shape::Bytes, OmitEmpty, 5),
            field("extra", "runtime.RawExtension", Shape::Any, OmitEmpty, 6),
        ],
    },
    Type {
        name: "small/v1.Part",
        atomic: false,
        fields: &[
            field("name", "string", Shape::String, Always, 1),
            field("port", "intstr.IntOrString", Shape::IntOrString, OmitEmpty, 2),
            Field { default: Some("\"TCP\""), ..field("protocol", "v1.Protocol", Shape::String, OmitEmpty, 3) },
            field("args", "[]string", Shape::List(&Shape::String), OmitEmpty, 4),
            Field {
                patch: RETAINS,
                ..field("sources", "[]v1.Part", Shape::List(&Shape::Struct(TypeId(2))), OmitEmpty, 6)
            },
            Field {
                within: &[Embedded { name: "PartSource", number: 5 }],
                ..field("empty", "v1.Empty", Shape::Struct(TypeId(3)), Pointer, 1)
            },
            Field {
                within: &[Embedded { name: "PartSource", number: 5 }],
                ..field("path", "string", Shape::String, Pointer, 2)
            },
        ],
    },
    Type { name: "small/v1.Empty", atomic: false, fields: &[] },
];
