//! The wire format: varints, tags, lengths.

use crate::decode::DecodeError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

fn eof() -> DecodeError {
    DecodeError("unexpected EOF".to_owned())
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or_else(eof)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError("proto: integer overflow".to_owned()))
    }

    /// The next field's number and wire type; `None` at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u32, Type)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Type::Varint,
            1 => Type::Fixed64,
            2 => Type::Bytes,
            5 => Type::Fixed32,
            other => return Err(DecodeError(format!("proto: illegal wireType {other}"))),
        };
        match u32::try_from(tag >> 3) {
            Ok(number) if number > 0 => Ok(Some((number, wire))),
            _ => Err(DecodeError(format!("proto: illegal tag {} (wire type {})", tag >> 3, tag & 7))),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.varint()?).map_err(|_| eof())?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<String, DecodeError> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    pub(super) fn fixed64(&mut self) -> Result<u64, DecodeError> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(eof)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn skip(&mut self, wire: Type) -> Result<(), DecodeError> {
        match wire {
            Type::Varint => self.varint().map(|_| ()),
            Type::Fixed64 => self.take(8).map(|_| ()),
            Type::Bytes => self.bytes().map(|_| ()),
            Type::Fixed32 => self.take(4).map(|_| ()),
        }
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_tag(out: &mut Vec<u8>, number: u32, wire: u64) {
    put_varint(out, u64::from(number) << 3 | wire);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_int(out: &mut Vec<u8>, number: u32, value: i64) {
    put_tag(out, number, 0);
    put_varint(out, value.cast_unsigned());
}

pub(super) fn put_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, 1);
    out.extend_from_slice(&value.to_le_bytes());
}
