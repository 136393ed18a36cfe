//! A container's log in CRI's format: `TIME STREAM F|P LINE`, lines longer than 16 KiB in parts.

use std::fs::File;
use std::io::Write;

/// A longer line is written in parts of this size, as containerd and CRI-O do.
const PART: usize = 16 * 1024;

/// Which of a container's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Turns a stream's bytes into log lines. What has no newline yet waits here, at most one part of it.
#[derive(Debug)]
pub struct Lines {
    stream: Stream,
    waiting: Vec<u8>,
}

impl Lines {
    pub fn new(stream: Stream) -> Lines {
        Lines { stream, waiting: Vec::new() }
    }

    /// Appends to `out` the lines that `bytes` complete, stamped with `now_ns` (Unix time).
    pub fn feed(&mut self, mut bytes: &[u8], now_ns: i64, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = PART - self.waiting.len();
            let line = bytes.iter().take(room + 1).position(|b| *b == b'\n');
            match line {
                Some(at) if at <= room => {
                    self.write(&bytes[..at], true, now_ns, out);
                    bytes = &bytes[at + 1..];
                }
                _ if bytes.len() > room => {
                    self.write(&bytes[..room], false, now_ns, out);
                    bytes = &bytes[room..];
                }
                _ => {
                    self.waiting.extend_from_slice(bytes);
                    bytes = &[];
                }
            }
        }
    }

    /// The stream ended: what waits never got its newline, so it stays a part, as containerd writes it.
    pub fn end(&mut self, now_ns: i64, out: &mut Vec<u8>) {
        if !self.waiting.is_empty() {
            self.write(&[], false, now_ns, out);
        }
    }

    fn write(&mut self, bytes: &[u8], whole: bool, now_ns: i64, out: &mut Vec<u8>) {
        stamp(now_ns, out);
        out.extend_from_slice(match self.stream {
            Stream::Stdout => b" stdout ",
            Stream::Stderr => b" stderr ",
        });
        out.extend_from_slice(if whole { b"F " } else { b"P " });
        out.extend_from_slice(&self.waiting);
        out.extend_from_slice(bytes);
        out.push(b'\n');
        self.waiting = Vec::new();
    }
}

/// RFC 3339 in UTC with nanoseconds, as Go's `RFC3339Nano` would parse it.
fn stamp(now_ns: i64, out: &mut Vec<u8>) {
    let (days, second) = (now_ns.div_euclid(86_400_000_000_000), now_ns.rem_euclid(86_400_000_000_000) / 1_000_000_000);
    let nanosecond = now_ns.rem_euclid(1_000_000_000);
    // Days to a civil date, in years that begin in March.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanosecond:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
}

/// The log's file. A full disk loses lines, never the container.
#[derive(Debug)]
pub struct LogFile {
    path: std::path::PathBuf,
    file: Option<File>,
}

impl LogFile {
    pub fn open(path: std::path::PathBuf) -> std::io::Result<LogFile> {
        let file = Self::open_file(&path)?;
        Ok(LogFile { path, file: Some(file) })
    }

    fn open_file(path: &std::path::Path) -> std::io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt;
        File::options().append(true).create(true).mode(0o640).open(path)
    }

    /// After rotation: writes go on to a new file under the same name.
    pub fn reopen(&mut self) -> std::io::Result<()> {
        self.file = Some(Self::open_file(&self.path)?);
        Ok(())
    }

    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(file) = &mut self.file {
            let _ = file.write_all(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn log(parts: &[&[u8]]) -> Vec<(String, usize)> {
        let mut lines = Lines::new(Stream::Stdout);
        let mut out = Vec::new();
        for part in parts {
            lines.feed(part, 0, &mut out);
        }
        lines.end(0, &mut out);
        let text = String::from_utf8(out).unwrap();
        text.lines()
            .map(|l| {
                let rest = l.strip_prefix("1970-01-01T00:00:00.000000000Z stdout ").unwrap();
                (rest[..2].trim().to_owned(), rest.len() - 2)
            })
            .collect()
    }

    #[test]
    fn lines_are_cut_as_containerd_cuts_them() {
        let f = |n| ("F".to_owned(), n);
        let p = |n| ("P".to_owned(), n);
        let long = vec![b'x'; PART];
        let longer = vec![b'x'; PART + 1];
        assert_eq!(log(&[b"a\nbb\n"]), [f(1), f(2)]);
        assert_eq!(log(&[b"a", b"b\n"]), [f(2)]);
        assert_eq!(log(&[b"no newline"]), [p(10)]);
        assert_eq!(log(&[b"\n\n"]), [f(0), f(0)]);
        assert_eq!(log(&[&long, b"\n"]), [f(PART)]);
        assert_eq!(log(&[&longer, b"\n"]), [p(PART), f(1)]);
        assert_eq!(log(&[b"a\n", b"b"]), [f(1), p(1)]);
        assert_eq!(log(&[&long]), [p(PART)]);
        assert_eq!(log(&[&longer]), [p(PART), p(1)]);
        assert_eq!(log(&[&long, &long, b"x"]), [p(PART), p(PART), p(1)]);
        assert_eq!(log(&[]), []);
    }

    #[test]
    fn stamps_are_dates() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_827_696_000_000_001, "2000-02-29T12:34:56.000000001Z"),
            (1_767_225_599_999_999_999, "2025-12-31T23:59:59.999999999Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
        ];
        for (ns, text) in cases {
            let mut out = Vec::new();
            stamp(ns, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
