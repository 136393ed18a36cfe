//! Reads a log file to its end and, when asked to follow, on as it grows (inotify), until its container has ended. When the
//! log is rotated the file that was being read is read to its end, then the new one of that name.

use crate::Shared;
use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use runtime::types::ContainerState;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::broadcast;

const CHUNK_BYTES: usize = 64 * 1024;

pub(super) struct Follow {
    shared: Arc<Shared>,
    path: PathBuf,
    offset: u64,
    file: Option<File>,
    /// A line whose end has not been written yet.
    rest: Vec<u8>,
    container_id: String,
    growing: Option<Growing>,
}

struct Growing {
    changes: inotify::EventStream<[u8; 1024]>,
    exits: broadcast::Receiver<String>,
}

impl Follow {
    pub(super) fn new(
        shared: Arc<Shared>,
        path: PathBuf,
        offset: u64,
        container_id: String,
        follow: bool,
    ) -> io::Result<Self> {
        let growing = if follow {
            let exits = shared.pods.exits();
            let inotify = Inotify::init()?;
            // Of the directory, where a rotation makes a new file.
            let directory = path.parent().unwrap_or(&path);
            inotify.watches().add(directory, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO)?;
            Some(Growing { changes: inotify.into_event_stream([0; 1024])?, exits })
        } else {
            None
        };
        Ok(Self { shared, path, offset, file: None, rest: Vec::new(), container_id, growing })
    }

    /// The next whole lines; `None` at the end.
    pub(super) async fn lines(&mut self) -> Option<Vec<u8>> {
        loop {
            // Looked at before the last reading: nobody writes to the old file once there is a new one.
            let replaced = self.growing.is_some() && self.is_replaced().await;
            match self.read().await {
                Ok(Some(lines)) => return Some(lines),
                Ok(None) if replaced => {
                    (self.file, self.offset) = (None, 0);
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "log cannot be read on");
                    return None;
                }
            }
            let Some(growing) = &mut self.growing else { return self.last() };
            let status = self.shared.runtime.container_status(&self.container_id).await;
            if !status.is_ok_and(|status| matches!(status.state, ContainerState::Running | ContainerState::Created)) {
                self.growing = None;
                continue;
            }
            tokio::select! {
                change = growing.changes.next() => change?.ok().map(drop)?,
                () = ended(&mut growing.exits, &self.container_id) => self.growing = None,
            }
        }
    }

    /// Whether another file has the log's name.
    async fn is_replaced(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let (Ok(open), Ok(named)) = (file.metadata().await, tokio::fs::metadata(&self.path).await) else {
            return false;
        };
        (open.dev(), open.ino()) != (named.dev(), named.ino())
    }

    /// A last line without its end, e.g. of a container killed in the middle of it.
    fn last(&mut self) -> Option<Vec<u8>> {
        Some(std::mem::take(&mut self.rest)).filter(|rest| !rest.is_empty())
    }

    async fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.file.is_none() {
            let mut file = File::open(&self.path).await?;
            file.seek(io::SeekFrom::Start(self.offset)).await?;
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else { return Ok(None) };
        loop {
            let before = self.rest.len();
            self.rest.resize(before + CHUNK_BYTES, 0);
            let read = file.read(&mut self.rest[before..]).await?;
            self.rest.truncate(before + read);
            if read == 0 {
                return Ok(None);
            }
            if let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') {
                let incomplete = self.rest.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.rest, incomplete)));
            }
        }
    }
}

/// Returns when `id` has exited; also when exits were missed, so that the caller looks again.
async fn ended(exits: &mut broadcast::Receiver<String>, id: &str) {
    loop {
        match exits.recv().await {
            Ok(exited) if exited == id => return,
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
