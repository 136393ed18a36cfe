//! Container logs in CRI's format: `TIME STREAM P|F TEXT`, one file per attempt (upstream `cri-client/pkg/logs`).

use super::follow::Follow;
use super::{Body, Query, stream, text};
use crate::{Shared, container};
use bytes::Bytes;
use futures::StreamExt;
use http::{Response, StatusCode};
use jiff::Timestamp;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// How much is read at once when going back through a file.
const BLOCK_BYTES: u64 = 64 * 1024;

/// One line of a log file.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a [u8],
    stream: &'a [u8],
    /// With its newline, unless it is only a part of what the container wrote as one line.
    text: &'a [u8],
}

/// `None` for what is no log line; it is passed over.
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let partial = tag == b"P" || tag.starts_with(b"P:");
    let text = if partial { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
    Some(Line { time, stream, text })
}

/// What `kubectl logs` asks for (`PodLogOptions`).
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    follow: bool,
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
        return text(StatusCode::NOT_FOUND, &format!("pod {pod:?} does not exist"));
    };
    if container::find(&entry.pod, container).is_none() {
        return text(StatusCode::NOT_FOUND, &format!("container {container:?} not found in pod {pod:?}"));
    }
    let status = entry.status.as_deref().or(entry.pod.status.as_ref()).cloned().unwrap_or_default();
    let source = match kubelet::logs::source(pod, &status, container, options.previous) {
        Ok(source) => source,
        Err(why) => return text(StatusCode::BAD_REQUEST, &why),
    };
    let id = source.split_once("://").map_or(source.as_str(), |(_, id)| id);
    let Ok(status) = shared.runtime.container_status(id).await else {
        return text(StatusCode::BAD_REQUEST, &format!("unable to retrieve container logs for {source}"));
    };
    let path = status.log_path;
    let start = options.tail_lines.and_then(|lines| offset_of_last(&path, lines).ok()).unwrap_or(0);
    match Follow::new(shared.clone(), path, start, id.to_owned(), options.follow) {
        Ok(follow) => stream(futures::stream::unfold((follow, Printer::new(options)), next).boxed()),
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

/// Turns log lines into what the user asked to see.
struct Printer {
    options: Options,
    written: usize,
    /// How many more lines are shown, where that is limited.
    left: Option<usize>,
    /// What was shown last ended with a newline: the next piece begins with its time, where times are asked for.
    begins: bool,
}

impl Printer {
    fn new(options: Options) -> Self {
        let left = options.tail_lines.filter(|_| !options.follow);
        Self { options, written: 0, left, begins: true }
    }

    fn is_full(&self) -> bool {
        self.left == Some(0) || self.options.limit_bytes.is_some_and(|limit| self.written >= limit)
    }

    fn print(&mut self, lines: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if self.is_full() {
                break;
            }
            let Some(line) = parse(line) else { continue };
            if self.is_wanted(&line) {
                self.put(&line, &mut out);
            }
            self.left = self.left.map(|left| left - 1);
            self.begins = line.text.last().is_none_or(|byte| *byte == b'\n');
        }
        out
    }

    fn put(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        let before = out.len();
        if self.options.timestamps && self.begins {
            out.extend_from_slice(line.time);
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if let Some(limit) = self.options.limit_bytes {
            out.truncate(before + limit - self.written);
        }
        self.written += out.len() - before;
    }

    fn is_wanted(&self, line: &Line<'_>) -> bool {
        self.options.only.is_none_or(|only| only == line.stream) && !self.is_too_old(line)
    }

    fn is_too_old(&self, line: &Line<'_>) -> bool {
        let Some(since) = self.options.since else { return false };
        let time = std::str::from_utf8(line.time).ok().and_then(|text| text.parse::<Timestamp>().ok());
        time.is_some_and(|time| time < since)
    }
}

/// Where the last `lines` lines of the file begin, read block by block from the end. Parts count as lines, as upstream counts
/// them; what has no newline yet counts as none.
fn offset_of_last(path: &Path, lines: usize) -> std::io::Result<u64> {
    let mut file = std::fs::File::open(path)?;
    let mut begin = file.metadata()?.len();
    let mut seen = 0;
    while begin > 0 {
        let step = begin.min(BLOCK_BYTES);
        begin -= step;
        file.seek(SeekFrom::Start(begin))?;
        let mut block = vec![0; usize::try_from(step).unwrap_or_default()];
        file.read_exact(&mut block)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            seen += 1;
            if seen > lines {
                return Ok(begin + at as u64 + 1);
            }
        }
    }
    Ok(0)
}

/// The last lines of a log as one text, at most `max_bytes` of it: what stands in for a termination message.
pub(crate) fn tail(path: &Path, lines: usize, max_bytes: usize) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let offset = offset_of_last(path, lines)?;
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let options = Options { tail_lines: Some(lines), ..Options::default() };
    let out = Printer::new(options).print(&read().unwrap_or_default());
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
        2026-01-01T00:00:03.100000000Z stdout F ee\n\
        2026-01-01T00:00:04.000000000Z stdout P end\n";

    fn print(options: Options) -> String {
        String::from_utf8(Printer::new(options).print(LOG.as_bytes())).unwrap()
    }

    #[test]
    fn options_choose_what_is_printed() {
        let all = Options::default;
        assert_eq!(print(all()), "one\ntwo\nthree\nend");
        assert_eq!(print(Options { only: Some(b"stderr"), ..all() }), "two\n");
        assert_eq!(print(Options { limit_bytes: Some(5), ..all() }), "one\nt");
        assert_eq!(print(Options { limit_bytes: Some(500), ..all() }), "one\ntwo\nthree\nend");
        let since = Some("2026-01-01T00:00:02Z".parse().unwrap());
        assert_eq!(print(Options { since, ..all() }), "two\nthree\nend");
        // Shown are no more lines than were asked for, even if some came after the place was looked up.
        assert_eq!(print(Options { tail_lines: Some(3), ..all() }), "one\ntwo\nthr");
        assert_eq!(print(Options { tail_lines: Some(3), follow: true, ..all() }), "one\ntwo\nthree\nend");
        assert_eq!(print(Options { tail_lines: Some(0), ..all() }), "");
    }

    #[test]
    fn a_line_in_parts_has_one_time() {
        let timestamps = print(Options { timestamps: true, ..Options::default() });
        assert_eq!(
            timestamps,
            "2026-01-01T00:00:01.000000000Z one\n2026-01-01T00:00:02.000000000Z two\n\
             2026-01-01T00:00:03.000000000Z three\n2026-01-01T00:00:04.000000000Z end"
        );
        let limited = print(Options { timestamps: true, limit_bytes: Some(33), ..Options::default() });
        assert_eq!(limited, "2026-01-01T00:00:01.000000000Z on");
    }

    #[test]
    fn tails_count_parts_as_upstream_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        assert_eq!(tail(&path, 1, 100), "end");
        assert_eq!(tail(&path, 2, 100), "ee\nend");
        assert_eq!(tail(&path, 9, 100), "one\ntwo\nthree\nend");
        assert_eq!(tail(&path, 0, 100), "");
        assert_eq!(tail(&path, 9, 4), "\nend");
        // A line that is being written does not count.
        std::fs::write(&path, [LOG, "2026-01-01T00:00:05.000000000Z stdout F unwr"].concat()).unwrap();
        assert_eq!(offset_of_last(&path, 1).unwrap(), LOG.rfind("2026").unwrap() as u64);
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
}
