//! RFC 3339 times as Go reads and writes them (`time.Parse` with its error texts; `metav1.Time`, `metav1.MicroTime`).

use jiff::ToSpan;
use jiff::civil::{Date, DateTime};

const SECONDS: &str = "2006-01-02T15:04:05Z07:00";
const MICROS: &str = "2006-01-02T15:04:05.000000Z07:00";
/// Civil times in UTC: `jiff::Timestamp` ends a day before the year 9999 does, and that is when things never expire.
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
const ZERO: DateTime = DateTime::constant(1, 1, 1, 0, 0, 0, 0);

/// A time in normal form: UTC, whole seconds. `None` is Go's zero time.
pub(crate) fn seconds(text: &str) -> Result<Option<String>, String> {
    Ok(parse(text, SECONDS)?.map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()))
}

/// A time in normal form: UTC, six digits of fraction. `None` is Go's zero time.
pub(crate) fn micros(text: &str) -> Result<Option<String>, String> {
    Ok(parse(text, MICROS)?.map(|t| t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()))
}

/// Seconds since 1970 as the time's normal form; with nanoseconds, that of a `MicroTime`. `None` beyond the year 9999.
pub(crate) fn from_unix(seconds: i64, nanos: Option<i32>) -> Option<String> {
    let time = EPOCH.checked_add(seconds.checked_rem(1_000_000_000_000)?.seconds()).ok()?;
    let time = time.checked_add(i64::from(nanos.unwrap_or(0)).nanoseconds()).ok()?;
    let form = if nanos.is_some() { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    (seconds.abs() < 1_000_000_000_000).then(|| time.strftime(form).to_string())
}

/// A time in normal form as seconds and nanoseconds since 1970.
pub(crate) fn to_unix(text: &str) -> Option<(i64, i32)> {
    let time = parse(text, if text.contains('.') { MICROS } else { SECONDS }).ok()??;
    let days = i64::from(EPOCH.date().until((jiff::Unit::Day, time.date())).ok()?.get_days());
    let (hour, minute, second) = (i64::from(time.hour()), i64::from(time.minute()), i64::from(time.second()));
    Some((((days * 24 + hour) * 60 + minute) * 60 + second, time.subsec_nanosecond()))
}

struct Cursor<'a> {
    layout: &'static str,
    whole: &'a str,
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn bad(&self, at: &str, element: &str) -> String {
        let q = crate::field::go_quote;
        format!("parsing time {} as {}: cannot parse {} as {}", q(self.whole), q(self.layout), q(at), q(element))
    }

    fn range(&self, what: &str) -> String {
        format!("parsing time {}: {what} out of range", crate::field::go_quote(self.whole))
    }

    fn skip(&mut self, literal: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(literal).ok_or_else(|| self.bad(self.rest, literal))?;
        Ok(())
    }

    fn take(&mut self, digits: usize) -> Option<&'a str> {
        let taken = self.rest.get(..digits).filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?;
        self.rest = &self.rest[digits..];
        Some(taken)
    }

    fn number(&mut self, digits: usize, element: &str) -> Result<i64, String> {
        let before = self.rest;
        self.take(digits).and_then(|t| t.parse().ok()).ok_or_else(|| self.bad(before, element))
    }

    /// Digits of a fraction behind a point or comma, as nanoseconds.
    fn fraction(&mut self) -> i64 {
        let digits = self.rest[1..].bytes().take_while(u8::is_ascii_digit).count();
        let kept: String = self.rest[1..=digits].chars().chain(std::iter::repeat('0')).take(9).collect();
        self.rest = &self.rest[1 + digits..];
        kept.parse().unwrap_or(0)
    }

    fn has_fraction(&self) -> bool {
        let bytes = self.rest.as_bytes();
        matches!(bytes.first(), Some(b'.' | b',')) && bytes.get(1).is_some_and(u8::is_ascii_digit)
    }

    fn zone(&mut self) -> Result<i32, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let before = self.rest;
        let bad = |cursor: &Self| cursor.bad(before, "Z07:00");
        let bytes = before.as_bytes();
        if bytes.len() < 6 || bytes[3] != b':' || !before.is_char_boundary(6) {
            return Err(bad(self));
        }
        let two = |at: usize| before.get(at..at + 2).filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
        let (Some(hours), Some(minutes)) = (two(1), two(4)) else { return Err(bad(self)) };
        let (hours, minutes): (i32, i32) = (hours.parse().unwrap_or(0), minutes.parse().unwrap_or(0));
        if hours > 24 {
            return Err(self.range("time zone offset hour"));
        }
        if minutes > 60 {
            return Err(self.range("time zone offset minute"));
        }
        self.rest = &before[6..];
        let seconds = (hours * 60 + minutes) * 60;
        match bytes[0] {
            b'+' => Ok(seconds),
            b'-' => Ok(-seconds),
            _ => Err(bad(self)),
        }
    }
}

fn parse(text: &str, layout: &'static str) -> Result<Option<DateTime>, String> {
    let mut c = Cursor { layout, whole: text, rest: text };
    let year = c.number(4, "2006")?;
    c.skip("-")?;
    let month = c.number(2, "01")?;
    if !(1..=12).contains(&month) {
        return Err(c.range("month"));
    }
    c.skip("-")?;
    let day = c.number(2, "02")?;
    c.skip("T")?;
    // Go takes a single digit for the hour.
    let one = c.rest.as_bytes().first().is_some_and(u8::is_ascii_digit)
        && !c.rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    let hour = c.number(if one { 1 } else { 2 }, "15")?;
    if hour > 23 {
        return Err(c.range("hour"));
    }
    c.skip(":")?;
    let minute = c.number(2, "04")?;
    if minute > 59 {
        return Err(c.range("minute"));
    }
    c.skip(":")?;
    let second = c.number(2, "05")?;
    if second > 59 {
        return Err(c.range("second"));
    }
    let mut nanos = 0;
    if layout == MICROS {
        let before = c.rest;
        let seven = before.strip_prefix(['.', ',']).and_then(|r| r.get(..6));
        if !seven.is_some_and(|t| t.bytes().all(|b| b.is_ascii_digit())) {
            return Err(c.bad(before, ".000000"));
        }
        nanos = before[1..7].parse::<i64>().unwrap_or(0) * 1000;
        c.rest = &before[7..];
    } else if c.has_fraction() {
        nanos = c.fraction();
    }
    let offset = c.zone()?;
    if !c.rest.is_empty() {
        let q = crate::field::go_quote;
        return Err(format!("parsing time {}: extra text: {}", q(text), q(c.rest)));
    }
    let narrow = |v: i64| i8::try_from(v).unwrap_or(0);
    let date = i16::try_from(year).ok().and_then(|year| Date::new(year, narrow(month), narrow(day)).ok());
    let Some(date) = date else { return Err(c.range("day")) };
    let time = date.at(narrow(hour), narrow(minute), narrow(second), i32::try_from(nanos).unwrap_or(0));
    let time = time.checked_sub(i64::from(offset).seconds()).map_err(|_| c.range("year"))?;
    Ok((time != ZERO).then_some(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let ok = |text: &str| Ok(Some(text.to_owned()));
        let cases = [
            ("2020-01-02T03:04:05Z", ok("2020-01-02T03:04:05Z")),
            ("2020-01-02T03:04:05.999Z", ok("2020-01-02T03:04:05Z")),
            ("2020-01-02T03:04:05+02:00", ok("2020-01-02T01:04:05Z")),
            ("0001-01-01T00:00:00Z", Ok(None)),
            ("9999-12-31T23:59:59Z", ok("9999-12-31T23:59:59Z")),
            (
                "noon",
                Err(r#"parsing time "noon" as "2006-01-02T15:04:05Z07:00": cannot parse "noon" as "2006""#.to_owned()),
            ),
            ("2020-13-01T00:00:00Z", Err(r#"parsing time "2020-13-01T00:00:00Z": month out of range"#.to_owned())),
            ("2020-02-30T00:00:00Z", Err(r#"parsing time "2020-02-30T00:00:00Z": day out of range"#.to_owned())),
            (
                "2020-01-01",
                Err(r#"parsing time "2020-01-01" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#.to_owned()),
            ),
            ("2020-01-02T03:04:05ZZ", Err(r#"parsing time "2020-01-02T03:04:05ZZ": extra text: "Z""#.to_owned())),
        ];
        for (text, expected) in cases {
            assert_eq!(seconds(text), expected, "{text}");
        }
        assert_eq!(micros("2020-01-02T03:04:05.123456Z"), ok("2020-01-02T03:04:05.123456Z"));
        assert!(micros("2020-01-02T03:04:05Z").is_err());
        for text in ["2020-01-02T03:04:05Z", "1960-01-02T03:04:05Z", "9999-12-31T23:59:59Z"] {
            let (seconds, _) = to_unix(text).unwrap_or_default();
            assert_eq!(from_unix(seconds, None).as_deref(), Some(text));
        }
        assert_eq!(to_unix("2020-01-02T03:04:05.123456Z"), Some((1_577_934_245, 123_456_000)));
        assert_eq!(from_unix(i64::MAX, None), None);
    }
}
