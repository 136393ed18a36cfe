//! Resource quantities (apimachinery `api/resource`): parsing, canonical form, arithmetic.

use std::cmp::Ordering;

/// A quantity: exactly `mantissa × 10^exponent`, at least nano-units fine, with the family of suffixes it was written in.
///
/// Equality and order are by value: `1000m` equals `1`.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    mantissa: i128,
    /// At least -9. Not bounded above: `1e999999999` is a quantity, and cheap.
    exponent: i32,
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

const FORMAT_WRONG: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const NUMERIC: &str = "unable to parse numeric part of quantity";
const SUFFIX: &str = "unable to parse quantity's suffix";
/// Nothing finer is kept; what is finer is rounded away from zero.
const NANO: i32 = -9;

/// The pieces of a quantity's text. `digits` holds integer and fraction, without leading zeros of the integer.
struct Scanned<'a> {
    negative: bool,
    integer: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn error(text: &str) -> QuantityError {
    QuantityError(text.to_owned())
}

fn digits_len(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn scan(text: &str) -> Result<Scanned<'_>, QuantityError> {
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text).trim_start_matches('0');
    let (integer, rest) = rest.split_at(digits_len(rest));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits_len(rest)),
        None => ("", rest),
    };
    let letters = rest.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let tail = &rest[letters..];
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if digits_len(tail) != tail.len() {
        return Err(error(FORMAT_WRONG));
    }
    Ok(Scanned { negative, integer: if integer.is_empty() { "0" } else { integer }, fraction, suffix: rest })
}

/// Base, exponent and family of a suffix.
fn interpret(suffix: &str) -> Option<(u8, i32, Suffix)> {
    Some(match suffix {
        "" => (10, 0, Suffix::Decimal),
        "n" => (10, -9, Suffix::Decimal),
        "u" => (10, -6, Suffix::Decimal),
        "m" => (10, -3, Suffix::Decimal),
        "k" => (10, 3, Suffix::Decimal),
        "M" => (10, 6, Suffix::Decimal),
        "G" => (10, 9, Suffix::Decimal),
        "T" => (10, 12, Suffix::Decimal),
        "P" => (10, 15, Suffix::Decimal),
        "E" => (10, 18, Suffix::Decimal),
        "Ki" => (2, 10, Suffix::Binary),
        "Mi" => (2, 20, Suffix::Binary),
        "Gi" => (2, 30, Suffix::Binary),
        "Ti" => (2, 40, Suffix::Binary),
        "Pi" => (2, 50, Suffix::Binary),
        "Ei" => (2, 60, Suffix::Binary),
        _ => (10, suffix.strip_prefix(['e', 'E'])?.parse().ok()?, Suffix::Exponent),
    })
}

impl Quantity {
    pub const ZERO: Self = Self { mantissa: 0, exponent: 0, format: Suffix::Decimal };

    pub fn from_value(value: i64, format: Suffix) -> Self {
        Self { mantissa: value.into(), exponent: 0, format }
    }

    pub fn from_milli(milli: i64, format: Suffix) -> Self {
        Self { mantissa: milli.into(), exponent: -3, format }
    }

    /// # Errors
    /// Upstream's texts. Beyond upstream, more than 38 significant digits are refused.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(error(FORMAT_WRONG));
        }
        let scanned = scan(text)?;
        let (base, exponent, format) = interpret(scanned.suffix).ok_or_else(|| error(SUFFIX))?;
        // Upstream's quick parser takes no digits for zero, its exact one does not.
        let exact = if base == 2 { exponent >= 50 } else { exponent < NANO };
        if exact && !text[..text.len() - scanned.suffix.len()].bytes().any(|b| b.is_ascii_digit()) {
            return Err(error(NUMERIC));
        }
        let fraction = scanned.fraction.trim_end_matches('0');
        let magnitude = format!("{}{fraction}", scanned.integer).parse::<i128>();
        let places = i32::try_from(fraction.len()).map_err(|_| error(NUMERIC))?;
        let quantity = if base == 10 {
            let exponent = exponent.checked_sub(places).ok_or_else(|| error(SUFFIX))?;
            Self { mantissa: magnitude.map_err(|_| error(NUMERIC))?, exponent, format }.to_nano()
        } else {
            Self::binary(magnitude.ok(), scanned.integer, exponent, places)?
        };
        Ok(if scanned.negative { -quantity } else { quantity })
    }

    /// `magnitude × 2^power × 10^-places`, capped at the largest `i64` as upstream caps binary quantities.
    fn binary(magnitude: Option<i128>, integer: &str, power: i32, places: i32) -> Result<Self, QuantityError> {
        let most = i128::from(i64::MAX);
        let cap = Self { mantissa: most, exponent: 0, format: Suffix::Binary };
        let Some(mantissa) = magnitude.and_then(|m| m.checked_mul(1 << power)) else {
            let large = integer.parse::<i128>().map_or(true, |i| i > most >> power);
            return if large { Ok(cap) } else { Err(error(NUMERIC)) };
        };
        let mut quantity = Self { mantissa, exponent: -places, format: Suffix::Binary }.to_nano();
        if quantity > cap {
            return Ok(cap);
        }
        if !quantity.is_zero() && quantity < Self::from_value(1, Suffix::Binary) {
            quantity.format = Suffix::Decimal;
        }
        Ok(quantity)
    }

    /// The text as the API server gives it back: as written where upstream takes that for canonical, else canonical.
    ///
    /// # Errors
    /// As [`Quantity::parse`].
    pub fn normal_form(text: &str) -> Result<String, QuantityError> {
        let quantity = Self::parse(text)?;
        Ok(if text == "0" || kept_as_written(text) { text.to_owned() } else { quantity.canonical() })
    }

    pub fn format(&self) -> Suffix {
        self.format
    }

    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1.
    pub fn signum(&self) -> i32 {
        match self.mantissa.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// The shortest text without loss, in the quantity's family where that is exact.
    pub fn canonical(&self) -> String {
        if self.is_zero() {
            return "0".to_owned();
        }
        let small = self.abs() < Self::from_value(1024, Suffix::Binary);
        match self.format {
            Suffix::Binary if !small => match self.whole() {
                Some(mut whole) => {
                    let mut steps = 0;
                    while whole % 1024 == 0 && steps < 6 {
                        whole /= 1024;
                        steps += 1;
                    }
                    format!("{whole}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][steps])
                }
                None => self.canonical_decimal(Suffix::Decimal),
            },
            Suffix::Binary => self.canonical_decimal(Suffix::Decimal),
            format => self.canonical_decimal(format),
        }
    }

    fn canonical_decimal(self, format: Suffix) -> String {
        let Self { mut mantissa, mut exponent, .. } = self.reduced();
        while exponent % 3 != 0 {
            mantissa = mantissa.saturating_mul(10);
            exponent -= 1;
        }
        let suffix = match (format, exponent) {
            (_, 0) => "",
            (Suffix::Decimal, -9) => "n",
            (Suffix::Decimal, -6) => "u",
            (Suffix::Decimal, -3) => "m",
            (Suffix::Decimal, 3) => "k",
            (Suffix::Decimal, 6) => "M",
            (Suffix::Decimal, 9) => "G",
            (Suffix::Decimal, 12) => "T",
            (Suffix::Decimal, 15) => "P",
            (Suffix::Decimal, 18) => "E",
            // Upstream drops the suffix of a decimal quantity beyond `E`, and with it the value.
            _ => return format!("{mantissa}e{exponent}"),
        };
        format!("{mantissa}{suffix}")
    }

    /// Rounded away from zero, as upstream's `MilliValue`; saturates.
    pub fn milli_value(&self) -> i64 {
        self.scaled(-3)
    }

    /// Rounded away from zero, as upstream's `Value`; saturates.
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// In units of `10^scale`, rounded away from zero; saturates.
    pub fn scaled(&self, scale: i32) -> i64 {
        let limit = if self.mantissa < 0 { i64::MIN } else { i64::MAX };
        let value = if self.exponent >= scale {
            let shift = self.exponent.saturating_sub(scale).unsigned_abs();
            let factor = 10i128.checked_pow(shift);
            if self.is_zero() { Some(0) } else { factor.and_then(|f| self.mantissa.checked_mul(f)) }
        } else {
            Some(divide_away(self.mantissa, scale.saturating_sub(self.exponent).unsigned_abs()))
        };
        value.and_then(|v| i64::try_from(v).ok()).unwrap_or(limit)
    }

    /// The sum; the family is `self`'s, or `other`'s where `self` is zero.
    ///
    /// Exact, unless the operands are more than 38 digits apart: then the larger one.
    #[must_use]
    pub fn add(&self, other: &Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        let sum = match aligned(*self, *other) {
            Some((a, b, exponent)) => a.checked_add(b).map(|mantissa| Self { mantissa, exponent, format }),
            None => None,
        };
        let larger = if self.abs() < other.abs() { other } else { self };
        sum.unwrap_or(Self { format, ..*larger })
    }

    /// As [`Quantity::add`], of the negated `other`.
    #[must_use]
    pub fn sub(&self, other: &Self) -> Self {
        self.add(&-*other)
    }

    /// The product, saturating at 38 digits.
    #[must_use]
    pub fn mul(&self, factor: i64) -> Self {
        Self { mantissa: self.mantissa.saturating_mul(factor.into()), ..*self }
    }

    fn abs(self) -> Self {
        Self { mantissa: self.mantissa.saturating_abs(), ..self }
    }

    /// Without factors of ten in the mantissa.
    fn reduced(mut self) -> Self {
        while self.mantissa != 0 && self.mantissa % 10 == 0 && self.exponent < i32::MAX {
            self.mantissa /= 10;
            self.exponent += 1;
        }
        self
    }

    fn to_nano(self) -> Self {
        if self.exponent >= NANO {
            return self;
        }
        let shift = (NANO - self.exponent).unsigned_abs();
        Self { mantissa: divide_away(self.mantissa, shift), exponent: NANO, ..self }
    }

    /// The value as an integer, where it is one and fits.
    fn whole(self) -> Option<i128> {
        let reduced = self.reduced();
        let shift = u32::try_from(reduced.exponent).ok()?;
        reduced.mantissa.checked_mul(10i128.checked_pow(shift)?)
    }
}

/// `mantissa / 10^places`, rounded away from zero.
fn divide_away(mantissa: i128, places: u32) -> i128 {
    match 10i128.checked_pow(places) {
        Some(divisor) => mantissa / divisor + if mantissa % divisor == 0 { 0 } else { mantissa.signum() },
        None => mantissa.signum(),
    }
}

/// Both mantissas at the finer of the two exponents, if they fit.
fn aligned(a: Quantity, b: Quantity) -> Option<(i128, i128, i32)> {
    let exponent = match (a.is_zero(), b.is_zero()) {
        (true, _) => b.exponent,
        (_, true) => a.exponent,
        _ => a.exponent.min(b.exponent),
    };
    let at = |q: Quantity| {
        if q.is_zero() {
            return Some(0);
        }
        q.mantissa.checked_mul(10i128.checked_pow(q.exponent.checked_sub(exponent)?.unsigned_abs())?)
    };
    Some((at(a)?, at(b)?, exponent))
}

/// Whether upstream's parser remembers the text and prints it again (`ParseQuantity`, "reuse the string").
fn kept_as_written(text: &str) -> bool {
    let Ok(scanned) = scan(text) else { return false };
    let Some((base, exponent, _)) = interpret(scanned.suffix) else { return false };
    let digits = format!("{}{}", scanned.integer, scanned.fraction);
    let (Ok(len), Ok(places)) = (i32::try_from(digits.len()), i32::try_from(scanned.fraction.len())) else {
        return false;
    };
    let Ok(value) = digits.parse::<i64>() else { return false };
    if base == 2 {
        let fast = places == 0 && 15 - len - exponent * 3 / 10 > 0;
        return fast && value & 7 != 0;
    }
    let scale = exponent.saturating_sub(places);
    len <= 18 && scale >= NANO && scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0')
}

impl std::ops::Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { mantissa: self.mantissa.saturating_neg(), ..self }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        if let Some((a, b, _)) = aligned(*self, *other) {
            return a.cmp(&b);
        }
        // Too far apart to align, and neither is zero: the sign decides, then the number of digits.
        let size = |q: &Self| i64::from(q.exponent) + i64::from(q.mantissa.unsigned_abs().ilog10());
        match (self.signum(), other.signum()) {
            (a, b) if a != b => a.cmp(&b),
            (1, _) => size(self).cmp(&size(other)),
            _ => size(other).cmp(&size(self)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Text, normal form, value, milli-value.
    #[test]
    fn texts() {
        let cases: &[(&str, &str, i64, i64)] = &[
            ("0", "0", 0, 0),
            // Upstream takes a lone suffix, sign or point for zero.
            ("E", "0", 0, 0),
            ("-", "0", 0, 0),
            (".", "0", 0, 0),
            ("0Mi", "0", 0, 0),
            ("1", "1", 1, 1000),
            ("+1", "+1", 1, 1000),
            ("-1", "-1", -1, -1000),
            ("1000", "1k", 1000, 1_000_000),
            ("1000m", "1", 1, 1000),
            ("100m", "100m", 1, 100),
            ("0.5", "500m", 1, 500),
            (".5", "500m", 1, 500),
            ("1.", "1.", 1, 1000),
            ("1.5", "1500m", 2, 1500),
            ("1.500", "1.500", 2, 1500),
            ("1.5Gi", "1536Mi", 1_610_612_736, 1_610_612_736_000),
            ("1024Ki", "1Mi", 1_048_576, 1_048_576_000),
            ("8Gi", "8Gi", 8_589_934_592, 8_589_934_592_000),
            ("0.5Ki", "512", 512, 512_000),
            ("1.1Ki", "1126400m", 1127, 1_126_400),
            ("1e3", "1e3", 1000, 1_000_000),
            ("1E3", "1E3", 1000, 1_000_000),
            ("10e2", "1e3", 1000, 1_000_000),
            ("1E", "1E", 1_000_000_000_000_000_000, i64::MAX),
            ("100Ei", "9223372036854775807", i64::MAX, i64::MAX),
            ("1n", "1n", 1, 1),
            ("0.1n", "1n", 1, 1),
            ("-0.1n", "-1n", -1, -1),
            ("1e999999999", "1e999999999", i64::MAX, i64::MAX),
            ("123456789.123456789", "123456789.123456789", 123_456_790, 123_456_789_124),
        ];
        for (text, normal, value, milli) in cases {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!(Quantity::normal_form(text).unwrap(), *normal, "{text}");
            assert_eq!((quantity.value(), quantity.milli_value()), (*value, *milli), "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in ["", "a", "1.2.3", "1 Gi", "true", "1e", "--1", "1ei"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
        assert_eq!(Quantity::parse("1.2.3").unwrap_err().0, FORMAT_WRONG);
        assert_eq!(Quantity::parse("1KI").unwrap_err().0, FORMAT_WRONG);
        assert_eq!(Quantity::parse("1kk").unwrap_err().0, SUFFIX);
        assert_eq!(Quantity::parse("Pi").unwrap_err().0, NUMERIC);
        assert_eq!(Quantity::parse(&"9".repeat(40)).unwrap_err().0, NUMERIC);
    }

    #[test]
    fn order_and_sums() {
        let q = |text| Quantity::parse(text).unwrap();
        assert_eq!(q("1000m"), q("1"));
        assert!(q("1Ki") > q("1k"));
        assert!(q("1e999999999") > q("1Ei"));
        assert!(q("-1e999999999") < q("1n"));
        assert_eq!(q("1Gi").add(&q("1Mi")).canonical(), "1025Mi");
        assert_eq!(q("0").add(&q("1Ki")).canonical(), "1Ki");
        assert_eq!(q("1").sub(&q("100m")).canonical(), "900m");
        assert_eq!(q("1e999999999").add(&q("1")).canonical(), "1e999999999");
    }
}
