//! A [`Session`] on a pair of byte streams: the client's streams as values to read from and write to.

use super::frame::Frame;
use super::session::{Event, Reserved, Session};
use super::upgrade::{Incoming, Outgoing};
use super::{Headers, MAX_DATA_BYTES, SpdyError, reset};
use bytes::Bytes;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Pieces of data a stream holds that nobody has taken yet; then the whole connection waits.
const WAITING_PIECES: usize = 16;
const WAITING_FRAMES: usize = 16;
/// How long a client may take to hang up after our GOAWAY.
const HANG_UP: Duration = Duration::from_secs(5);

/// The stream or its connection is over.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::streaming) struct Gone;

struct Shared {
    session: Mutex<Session>,
    frames: mpsc::Sender<Frame>,
    /// The session has output.
    output: Notify,
    /// Windows have grown, or there are none any more.
    windows: Notify,
}

impl Shared {
    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something that leaves output. zlib's failures show when the next bytes are received.
    fn with(&self, act: impl FnOnce(&mut Session) -> Result<(), SpdyError>) {
        if let Err(error) = act(&mut self.session()) {
            tracing::debug!(%error, "a SPDY frame cannot be written");
        }
        self.output.notify_one();
    }
}

/// Where the client's streams come from.
pub(in crate::streaming) struct Connection {
    opened: mpsc::Receiver<Stream>,
}

/// One stream the client opened. Dropping it unanswered refuses it; dropping [`Sender`] unfinished resets it.
pub(in crate::streaming) struct Stream {
    pub(in crate::streaming) id: u32,
    pub(in crate::streaming) headers: Headers,
    pub(in crate::streaming) receiver: Receiver,
    pub(in crate::streaming) sender: Sender,
}

pub(in crate::streaming) struct Receiver {
    id: u32,
    shared: Arc<Shared>,
    data: mpsc::Receiver<Bytes>,
}

pub(in crate::streaming) struct Sender {
    id: u32,
    shared: Arc<Shared>,
    over: bool,
}

/// Serves one client: `handle` gets its streams. Ends when the client hangs up (`handle` is dropped then), or when `handle`
/// has ended and the client has hung up or been given its time to.
pub(in crate::streaming) async fn serve<F: Future<Output = ()>>(
    incoming: Incoming,
    outgoing: Outgoing,
    handle: impl FnOnce(Connection) -> F,
) {
    let (frames, frames_out) = mpsc::channel(WAITING_FRAMES);
    let (opened, opened_out) = mpsc::channel(1);
    let shared =
        Arc::new(Shared { session: Mutex::new(Session::new()), frames, output: Notify::new(), windows: Notify::new() });
    let handling = handle(Connection { opened: opened_out });
    let mut driving = std::pin::pin!(drive(shared.clone(), incoming, outgoing, frames_out, opened));
    tokio::select! {
        () = handling => {
            shared.frames.send(Frame::GoAway { last_id: 0, status: 0 }).await.ok();
            tokio::time::timeout(HANG_UP, driving).await.ok();
        }
        () = &mut driving => {}
    }
    shared.session().end();
    shared.windows.notify_waiters();
}

async fn drive(
    shared: Arc<Shared>,
    incoming: Incoming,
    mut outgoing: Outgoing,
    frames: mpsc::Receiver<Frame>,
    opened: mpsc::Sender<Stream>,
) {
    tokio::select! {
        read = read(&shared, incoming, opened) => {
            if let Err(error) = read {
                tracing::debug!(%error, "a SPDY connection ended");
            }
        }
        () = write(&shared, &mut outgoing, frames) => {}
    }
    outgoing.close().await;
}

/// Waits for whoever takes a stream's data: what is behind it on the connection waits, too, as upstream.
async fn read(shared: &Arc<Shared>, mut incoming: Incoming, opened: mpsc::Sender<Stream>) -> Result<(), SpdyError> {
    let mut streams: BTreeMap<u32, mpsc::Sender<Bytes>> = BTreeMap::new();
    while let Some(bytes) = incoming.next().await {
        let events = shared.session().receive(&bytes)?;
        shared.output.notify_one();
        for event in events {
            match event {
                Event::Opened { id, headers } => {
                    let (sender, data) = mpsc::channel(WAITING_PIECES);
                    streams.retain(|_, sender| !sender.is_closed());
                    streams.insert(id, sender);
                    // If nobody takes streams any more, dropping it refuses it.
                    opened.send(Stream::new(shared, id, headers, data)).await.ok();
                }
                Event::Data { id, data } => {
                    let length = data.len();
                    let taken = match streams.get(&id) {
                        Some(sender) => sender.send(data).await.is_ok(),
                        None => false,
                    };
                    if !taken {
                        shared.with(|session| session.consumed(id, length));
                    }
                }
                Event::Finished(id) | Event::Reset(id) => drop(streams.remove(&id)),
                Event::Window => shared.windows.notify_waiters(),
                Event::GoneAway => {}
            }
        }
    }
    Ok(())
}

/// Ends when the client cannot be written to.
async fn write(shared: &Shared, outgoing: &mut Outgoing, mut frames: mpsc::Receiver<Frame>) {
    loop {
        tokio::select! {
            Some(frame) = frames.recv() => shared.with(|session| match frame {
                Frame::GoAway { .. } => session.go_away(),
                frame => session.encode(&frame),
            }),
            () = shared.output.notified() => {}
        }
        let output = shared.session().take_output();
        if !output.is_empty() && outgoing.send(output).await.is_err() {
            return;
        }
    }
}

impl Connection {
    /// The next stream, yet to be answered; `None`: the client has hung up.
    pub(in crate::streaming) async fn accept(&mut self) -> Option<Stream> {
        self.opened.recv().await
    }
}

impl Stream {
    fn new(shared: &Arc<Shared>, id: u32, headers: Headers, data: mpsc::Receiver<Bytes>) -> Self {
        let receiver = Receiver { id, shared: shared.clone(), data };
        Self { id, headers, receiver, sender: Sender { id, shared: shared.clone(), over: false } }
    }

    /// Answers the client, who waits for it.
    pub(in crate::streaming) async fn reply(&self) {
        let frame = Frame::SynReply { id: self.id, headers: Headers::new(), fin: false };
        self.sender.shared.frames.send(frame).await.ok();
    }

    pub(in crate::streaming) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }
}

impl Receiver {
    /// `None`: the client sends no more.
    pub(in crate::streaming) async fn receive(&mut self) -> Option<Bytes> {
        let data = self.data.recv().await?;
        self.shared.with(|session| session.consumed(self.id, data.len()));
        Some(data)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.data.close();
        while let Ok(data) = self.data.try_recv() {
            self.shared.with(|session| session.consumed(self.id, data.len()));
        }
    }
}

impl Sender {
    /// # Errors
    /// If the client has reset the stream or hung up.
    pub(in crate::streaming) async fn send(&mut self, mut data: Bytes) -> Result<(), Gone> {
        while !data.is_empty() {
            let bytes = self.reserve(data.len().min(MAX_DATA_BYTES)).await?;
            let frame = Frame::Data { id: self.id, data: data.split_to(bytes), fin: false };
            self.shared.frames.send(frame).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    async fn reserve(&self, wanted: usize) -> Result<usize, Gone> {
        loop {
            let mut grown = std::pin::pin!(self.shared.windows.notified());
            grown.as_mut().enable();
            let reserved = self.shared.session().reserve(self.id, wanted);
            match reserved {
                Reserved::Bytes(bytes) => return Ok(bytes),
                Reserved::Gone => return Err(Gone),
                Reserved::Nothing => grown.await,
            }
        }
    }

    /// Ends our direction, behind what was sent.
    pub(in crate::streaming) async fn finish(mut self) {
        self.over = true;
        let open = self.shared.session().finish(self.id);
        if open {
            let frame = Frame::Data { id: self.id, data: Bytes::new(), fin: true };
            self.shared.frames.send(frame).await.ok();
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.over {
            self.shared.with(|session| session.reset(self.id, reset::CANCEL));
        }
    }
}
