//! The encoding of plans and messages: flat records of (tag, length, value). A reader skips tags it does not know and
//! gives absent ones their default, so that fields are only ever appended and old shims outlive an upgrade.

use std::ffi::CString;

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "malformed message: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// A value with an encoding. `put` appends it, `get` reads it from exactly these bytes.
pub trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(bytes: &[u8]) -> Result<Self, Malformed>;
}

/// Appends `value` with its length in front.
pub fn put_sized<T: Wire>(value: &T, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    value.put(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

/// Takes one length-prefixed value off the front.
pub fn take_sized<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or(Malformed("length cut off"))?;
    let len = u32::from_le_bytes(*len) as usize;
    if rest.len() < len {
        return Err(Malformed("value cut off"));
    }
    let (value, rest) = rest.split_at(len);
    *bytes = rest;
    Ok(value)
}

/// Takes a tag off the front.
pub fn take_tag(bytes: &mut &[u8]) -> Result<u16, Malformed> {
    let (tag, rest) = bytes.split_first_chunk::<2>().ok_or(Malformed("tag cut off"))?;
    *bytes = rest;
    Ok(u16::from_le_bytes(*tag))
}

macro_rules! number {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(bytes: &[u8]) -> Result<Self, Malformed> {
                Ok(<$t>::from_le_bytes(bytes.try_into().map_err(|_| Malformed("number of another width"))?))
            }
        }
    )*};
}
number!(u16, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(bytes: &[u8]) -> Result<Self, Malformed> {
        match bytes {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Malformed("neither true nor false")),
        }
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn get(bytes: &[u8]) -> Result<Self, Malformed> {
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("text is not UTF-8"))
    }
}

impl Wire for CString {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn get(bytes: &[u8]) -> Result<Self, Malformed> {
        CString::new(bytes).map_err(|_| Malformed("a string holds a zero byte"))
    }
}

/// Raw bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Wire for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn get(bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(Bytes(bytes.to_vec()))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        for value in self {
            put_sized(value, out);
        }
    }
    fn get(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut values = Vec::new();
        while !bytes.is_empty() {
            values.push(T::get(take_sized(&mut bytes)?)?);
        }
        Ok(values)
    }
}

/// Absent and present, told apart by the length of a list.
impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        if let Some(value) = self {
            put_sized(value, out);
        }
    }
    fn get(mut bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.is_empty() {
            return Ok(None);
        }
        Ok(Some(T::get(take_sized(&mut bytes)?)?))
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        put_sized(&self.0, out);
        put_sized(&self.1, out);
    }
    fn get(mut bytes: &[u8]) -> Result<Self, Malformed> {
        Ok((A::get(take_sized(&mut bytes)?)?, B::get(take_sized(&mut bytes)?)?))
    }
}

/// Declares a struct whose fields carry tags: `1 => name: Type`. Numbers are never used again for something else. Fields
/// that came after version 1 stand in `later`: unset they are left out, so that what was said before is said as before.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$fmeta:meta])* $tag:literal => $field:ident: $t:ty,)*
        $(later { $($(#[$lmeta:meta])* $ltag:literal => $later:ident: $lt:ty,)* })?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $t,)* $($($(#[$lmeta])* pub $later: $lt,)*)? }
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $(out.extend_from_slice(&u16::to_le_bytes($tag)); $crate::wire::put_sized(&self.$field, out);)*
                $($(if self.$later != <$lt>::default() {
                    out.extend_from_slice(&u16::to_le_bytes($ltag));
                    $crate::wire::put_sized(&self.$later, out);
                })*)?
                let _ = out;
            }
            fn get(bytes: &[u8]) -> Result<Self, $crate::wire::Malformed> {
                #[allow(unused_mut)]
                let mut record = Self::default();
                let mut bytes = bytes;
                while !bytes.is_empty() {
                    let tag = $crate::wire::take_tag(&mut bytes)?;
                    let value = $crate::wire::take_sized(&mut bytes)?;
                    match tag {
                        $($tag => record.$field = $crate::wire::Wire::get(value)?,)*
                        $($($ltag => record.$later = $crate::wire::Wire::get(value)?,)*)?
                        _ => { let _ = value; }
                    }
                }
                Ok(record)
            }
        }
    };
}

/// Declares an enum of records: `1 => Name(Record)`. An unknown number is an error: who sends it must be told.
macro_rules! message {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $tag:literal => $variant:ident($t:ty),)* }) => {
        $(#[$meta])*
        // One at a time is alive: a box would only be another allocation.
        #[allow(clippy::large_enum_variant)]
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name { $($(#[$vmeta])* $variant($t),)* }
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $($name::$variant(value) => {
                        out.extend_from_slice(&u16::to_le_bytes($tag));
                        $crate::wire::put_sized(value, out);
                    })*
                }
            }
            fn get(mut bytes: &[u8]) -> Result<Self, $crate::wire::Malformed> {
                let tag = $crate::wire::take_tag(&mut bytes)?;
                let value = $crate::wire::take_sized(&mut bytes)?;
                match tag {
                    $($tag => Ok($name::$variant($crate::wire::Wire::get(value)?)),)*
                    _ => Err($crate::wire::Malformed("unknown kind of message")),
                }
            }
        }
    };
}

pub(crate) use {message, record};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, unreachable_pub)]
    use super::*;

    record! {
        pub struct Old {
            1 => name: String,
            2 => numbers: Vec<u32>,
        }
    }
    record! {
        pub struct New {
            1 => name: String,
            2 => numbers: Vec<u32>,
            later {
                3 => more: Option<(u64, CString)>,
            }
        }
    }

    fn encode<T: Wire>(value: &T) -> Vec<u8> {
        let mut out = Vec::new();
        value.put(&mut out);
        out
    }

    #[test]
    fn records_read_older_and_newer_ones() {
        let new = New { name: "a".into(), numbers: vec![1, 2], more: Some((7, c"x".into())) };
        assert_eq!(New::get(&encode(&new)).unwrap(), new);
        let old = Old::get(&encode(&new)).unwrap();
        assert_eq!(old, Old { name: "a".into(), numbers: vec![1, 2] });
        assert_eq!(New::get(&encode(&old)).unwrap(), New { more: None, ..new.clone() });
        assert_eq!(encode(&New { more: None, ..new }), encode(&old));
    }

    #[test]
    fn no_cut_or_flipped_byte_panics() {
        let bytes = encode(&New { name: "abc".into(), numbers: vec![1, 2, 3], more: Some((7, c"x".into())) });
        for cut in 0..bytes.len() {
            let _ = New::get(&bytes[..cut]);
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let _ = New::get(&bytes);
            }
        }
    }
}
