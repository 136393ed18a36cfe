//! Resource quantities (apimachinery `api/resource`): parsing, canonical form, arithmetic.

use std::cmp::Ordering;

/// A quantity in whole nano-units with the suffix family it was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    nanos: i128,
    format: Suffix,
}

/// The family of suffixes, which the canonical form keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suffix {
    /// `Ki`, `Mi`, …
    Binary,
    /// `m`, `k`, `M`, …
    Decimal,
    /// `e3`
    Exponent,
}

/// Upstream's texts: `quantities must match the regular expression …`, `unable to parse quantity's suffix`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct QuantityError(pub String);

impl Quantity {
    pub fn parse(_text: &str) -> Result<Self, QuantityError> {
        unimplemented!()
    }

    pub fn canonical(&self) -> String {
        let _ = self.format;
        unimplemented!()
    }

    /// Rounded up, as upstream's `MilliValue`.
    pub fn milli_value(&self) -> i64 {
        unimplemented!()
    }

    /// Rounded up, as upstream's `Value`.
    pub fn value(&self) -> i64 {
        unimplemented!()
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.nanos.cmp(&other.nanos))
    }
}
