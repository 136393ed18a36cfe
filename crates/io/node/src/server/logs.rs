//! Container logs in CRI's format: `TIME STREAM P|F TEXT`, one file per attempt.

use super::follow::Follow;
use super::{Body, Query, stream, text};
use crate::Shared;
use crate::container::log_directory;
use bytes::Bytes;
use futures::StreamExt;
use http::{Response, StatusCode};
use jiff::Timestamp;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much is read at once when going back through a file.
const BLOCK_BYTES: u64 = 64 * 1024;

/// One line of a log file.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a [u8],
    stream: &'a [u8],
    /// The last (or only) part of what the container wrote as one line.
    full: bool,
    text: &'a [u8],
}

/// `None` for what is no log line; it is passed over.
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some(Line { time, stream, full: tag.first() == Some(&b'F'), text })
}

/// What `kubectl logs` asks for (`PodLogOptions`).
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) follow: bool,
    previous: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    tail_lines: Option<usize>,
    limit_bytes: Option<usize>,
    /// `Stdout`, `Stderr`; `None`: both.
    only: Option<&'static [u8]>,
}

impl Options {
    fn from(query: &Query) -> Self {
        let seconds = query.one("sinceSeconds").and_then(|text| text.parse::<i64>().ok());
        let ago = seconds.and_then(|s| Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(s)).ok());
        let only = match query.one("stream") {
            Some("Stdout") => Some(&b"stdout"[..]),
            Some("Stderr") => Some(&b"stderr"[..]),
            _ => None,
        };
        Self {
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since: ago.or_else(|| query.one("sinceTime").and_then(|text| text.parse().ok())),
            tail_lines: query.one("tailLines").and_then(|text| text.parse().ok()),
            limit_bytes: query.one("limitBytes").and_then(|text| text.parse().ok()),
            only,
        }
    }
}

pub(super) async fn answer(
    shared: &Arc<Shared>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Response<Body> {
    let options = Options::from(query);
    let Some(entry) = shared.pods.find(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, &format!("pod \"{pod}\" not found\n"));
    };
    let directory = log_directory(&shared.config.data_dir, &entry.pod).join(container);
    let Some(path) = file(&directory, options.previous) else {
        let which = if options.previous { "previous terminated container" } else { "container" };
        let message = format!("{which} \"{container}\" in pod \"{pod}\" not found");
        return text(StatusCode::BAD_REQUEST, &message);
    };
    let id = entry.containers.get(container).cloned().unwrap_or_default();
    let start = options.tail_lines.and_then(|lines| offset_of_last(&path, lines, options.only).ok()).unwrap_or(0);
    match Follow::new(shared.clone(), path, start, id, &options) {
        Ok(follow) => {
            let printer = Printer { options, written: 0 };
            stream(futures::stream::unfold((follow, printer), next).boxed())
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("cannot read the log: {error}\n")),
    }
}

async fn next((mut follow, mut printer): (Follow, Printer)) -> Option<(Bytes, (Follow, Printer))> {
    loop {
        if printer.is_full() {
            return None;
        }
        let lines = follow.lines().await?;
        let out = printer.print(&lines);
        if !out.is_empty() {
            return Some((out.into(), (follow, printer)));
        }
    }
}

/// The newest attempt's file, or the one before it.
fn file(directory: &Path, previous: bool) -> Option<PathBuf> {
    let attempt = |entry: std::io::Result<std::fs::DirEntry>| -> Option<u32> {
        entry.ok()?.file_name().to_str()?.strip_suffix(".log")?.parse().ok()
    };
    let mut attempts: Vec<u32> = std::fs::read_dir(directory).ok()?.filter_map(attempt).collect();
    attempts.sort_unstable_by(|a, b| b.cmp(a));
    let attempt = attempts.get(usize::from(previous))?;
    Some(directory.join(format!("{attempt}.log")))
}

/// Turns log lines into what the user asked to see.
struct Printer {
    options: Options,
    written: usize,
}

impl Printer {
    fn is_full(&self) -> bool {
        self.options.limit_bytes.is_some_and(|limit| self.written >= limit)
    }

    fn print(&mut self, lines: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = parse(line.strip_suffix(b"\n").unwrap_or(line)) else { continue };
            if self.options.only.is_some_and(|only| only != line.stream) || self.is_too_old(&line) {
                continue;
            }
            if self.options.timestamps {
                out.extend_from_slice(line.time);
                out.push(b' ');
            }
            out.extend_from_slice(line.text);
            if line.full {
                out.push(b'\n');
            }
        }
        if let Some(limit) = self.options.limit_bytes {
            out.truncate(limit - self.written.min(limit));
        }
        self.written += out.len();
        out
    }

    fn is_too_old(&self, line: &Line<'_>) -> bool {
        let Some(since) = self.options.since else { return false };
        let time = std::str::from_utf8(line.time).ok().and_then(|text| text.parse::<Timestamp>().ok());
        time.is_some_and(|time| time < since)
    }
}

/// Where the last `lines` full lines begin, read block by block from the end.
fn offset_of_last(path: &Path, lines: usize, only: Option<&[u8]>) -> std::io::Result<u64> {
    let mut file = std::fs::File::open(path)?;
    let mut begin = file.metadata()?.len();
    if lines == 0 {
        return Ok(begin);
    }
    let mut tail: Vec<u8> = Vec::new();
    loop {
        let step = begin.min(BLOCK_BYTES);
        begin -= step;
        file.seek(SeekFrom::Start(begin))?;
        let mut block = vec![0; usize::try_from(step).unwrap_or_default()];
        file.read_exact(&mut block)?;
        block.append(&mut tail);
        tail = block;
        if let Some(at) = start_of_last(&tail, lines, only, begin == 0) {
            return Ok(begin + at as u64);
        }
        if begin == 0 {
            return Ok(0);
        }
    }
}

/// Position of the `lines`-th last full line in `tail`; a line's partial pieces belong to it. `whole`: `tail` begins
/// with a line.
fn start_of_last(tail: &[u8], lines: usize, only: Option<&[u8]>, whole: bool) -> Option<usize> {
    let mut starts: Vec<usize> = vec![0];
    starts.extend(tail.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1));
    if starts.last() == Some(&tail.len()) {
        starts.pop();
    }
    let first = usize::from(!whole);
    let mut seen = 0;
    for (number, start) in starts.iter().enumerate().skip(first).rev() {
        let end = starts.get(number + 1).copied().unwrap_or(tail.len());
        let Some(line) = parse(tail[*start..end].strip_suffix(b"\n").unwrap_or(&tail[*start..end])) else { continue };
        if line.full && only.is_none_or(|only| only == line.stream) {
            seen += 1;
            if seen > lines {
                return Some(end);
            }
        }
    }
    None
}

/// The last lines of a log as one text, at most `max_bytes` of it: what stands in for a termination message.
pub(crate) fn tail(path: &Path, lines: usize, max_bytes: usize) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let offset = offset_of_last(path, lines, None)?;
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let out = Printer { options: Options::default(), written: 0 }.print(&read().unwrap_or_default());
    let from = out.len().saturating_sub(max_bytes);
    String::from_utf8_lossy(&out[from..]).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01.000000000Z stdout F one\n\
        2026-01-01T00:00:02.000000000Z stderr F two\n\
        2026-01-01T00:00:03.000000000Z stdout P thr\n\
        2026-01-01T00:00:03.100000000Z stdout F ee\n";

    fn print(options: Options) -> String {
        String::from_utf8(Printer { options, written: 0 }.print(LOG.as_bytes())).unwrap()
    }

    #[test]
    fn options_choose_what_is_printed() {
        assert_eq!(print(Options::default()), "one\ntwo\nthree\n");
        assert_eq!(print(Options { only: Some(b"stderr"), ..Options::default() }), "two\n");
        assert_eq!(print(Options { limit_bytes: Some(5), ..Options::default() }), "one\nt");
        let since = Some("2026-01-01T00:00:02Z".parse().unwrap());
        assert_eq!(print(Options { since, ..Options::default() }), "two\nthree\n");
        let timestamps = print(Options { timestamps: true, only: Some(b"stderr"), ..Options::default() });
        assert_eq!(timestamps, "2026-01-01T00:00:02.000000000Z two\n");
    }

    #[test]
    fn tails_keep_partial_pieces_together() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        assert_eq!(tail(&path, 1, 100), "three\n");
        assert_eq!(tail(&path, 2, 100), "two\nthree\n");
        assert_eq!(tail(&path, 9, 100), "one\ntwo\nthree\n");
        assert_eq!(tail(&path, 0, 100), "");
        assert_eq!(tail(&path, 9, 4), "ree\n");
    }

    #[test]
    fn tails_cross_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let lines: String = (0..5000).map(|n| format!("2026-01-01T00:00:01.000000000Z stdout F line {n}\n")).collect();
        std::fs::write(&path, lines).unwrap();
        let last = tail(&path, 3000, usize::MAX);
        assert_eq!((last.lines().count(), last.lines().next()), (3000, Some("line 2000")));
    }

    #[test]
    fn newest_attempt_and_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        for attempt in [2, 9, 10] {
            std::fs::write(directory.path().join(format!("{attempt}.log")), "").unwrap();
        }
        assert_eq!(file(directory.path(), false), Some(directory.path().join("10.log")));
        assert_eq!(file(directory.path(), true), Some(directory.path().join("9.log")));
    }
}
