//! A connection's rules, the server's side: which streams are open, whose windows allow what, what is answered at once.
//! Bytes come in by `receive`, go out by `take_output`; nothing here waits.
//!
//! Flow control. The one SPDY client of Kubernetes (moby/spdystream in client-go) knows none: it never sends a WINDOW_UPDATE,
//! passes over ours, and sends without looking at any window. So we tell what was consumed, for a client that heeds it,
//! and heed the client's windows from its first WINDOW_UPDATE or SETTINGS on; held before that, kubectl's streams would
//! stand still after 64 KiB. What a client sends beyond its window is held back by not reading from the connection.

use super::frame::{Decoder, Encoder, Frame};
use super::{Headers, INITIAL_WINDOW, MAX_STREAMS, MAX_WAITING_BYTES, SpdyError, reset};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// The greatest window there may be (2.6.8).
const MAX_WINDOW: i64 = (1 << 31) - 1;
/// Consumption is told when it is worth a frame.
const TELL_AT: u32 = 32 * 1024;
const SETTING_INITIAL_WINDOW: u32 = 7;
/// The stream that stands for the whole connection.
const CONNECTION: u32 = 0;

/// What the client did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Opened {
        id: u32,
        headers: Headers,
    },
    Data {
        id: u32,
        data: Bytes,
    },
    /// The client sends no more on this stream.
    Finished(u32),
    Reset(u32),
    /// Something waiting in `reserve` may go on.
    Window,
    /// The client opens no more streams.
    GoneAway,
}

/// What may be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reserved {
    Bytes(usize),
    /// Ask again after `Event::Window`.
    Nothing,
    /// The stream is over.
    Gone,
}

struct Stream {
    sends: bool,
    receives: bool,
    window: i64,
    untold: u32,
}

pub(super) struct Session {
    decoder: Decoder,
    encoder: Encoder,
    input: BytesMut,
    output: BytesMut,
    streams: BTreeMap<u32, Stream>,
    last_id: u32,
    leaving: bool,
    ended: bool,
    heeds_windows: bool,
    window: i64,
    initial_window: i64,
    untold: u32,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            streams: BTreeMap::new(),
            last_id: 0,
            leaving: false,
            ended: false,
            heeds_windows: false,
            window: INITIAL_WINDOW,
            initial_window: INITIAL_WINDOW,
            untold: 0,
        }
    }

    /// # Errors
    /// After any the connection cannot go on.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Event>, SpdyError> {
        self.input.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(frame) = self.decoder.next(&mut self.input)? {
            self.handle(frame, &mut events)?;
            if self.output.len() > MAX_WAITING_BYTES {
                return Err(SpdyError::Flood);
            }
        }
        Ok(events)
    }

    fn handle(&mut self, frame: Frame, events: &mut Vec<Event>) -> Result<(), SpdyError> {
        match frame {
            Frame::SynStream { id, headers, fin, unidirectional } => {
                self.open(id, headers, fin, unidirectional, events)?;
            }
            Frame::Data { id, data, fin } => self.data(id, data, fin, events)?,
            Frame::Headers { id, fin: true, .. } => self.finished(id, events),
            Frame::RstStream { id, .. } => {
                if self.streams.remove(&id).is_some() {
                    events.extend([Event::Reset(id), Event::Window]);
                }
            }
            // Odd numbers are the client's own; even ones would answer ours, and we send none.
            Frame::Ping(id) if !id.is_multiple_of(2) => self.encode(&Frame::Ping(id))?,
            Frame::GoAway { .. } => {
                self.leaving = true;
                events.push(Event::GoneAway);
            }
            Frame::WindowUpdate { id, delta } => {
                self.heeds_windows = true;
                self.grow(id, i64::from(delta))?;
                events.push(Event::Window);
            }
            Frame::Settings(settings) => {
                for (number, value) in settings {
                    if number == SETTING_INITIAL_WINDOW {
                        self.set_initial_window(i64::from(value))?;
                        events.push(Event::Window);
                    }
                }
            }
            // Replies are to streams we would have opened.
            Frame::SynReply { .. } | Frame::Headers { .. } | Frame::Ping(_) => {}
        }
        Ok(())
    }

    fn open(
        &mut self,
        id: u32,
        headers: Headers,
        fin: bool,
        unidirectional: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), SpdyError> {
        if id.is_multiple_of(2) || id <= self.last_id {
            return self.encode(&Frame::RstStream { id, status: reset::PROTOCOL_ERROR });
        }
        self.last_id = id;
        if self.leaving || self.streams.len() >= MAX_STREAMS {
            return self.encode(&Frame::RstStream { id, status: reset::REFUSED_STREAM });
        }
        let stream = Stream { sends: !unidirectional, receives: true, window: self.initial_window, untold: 0 };
        self.streams.insert(id, stream);
        events.push(Event::Opened { id, headers });
        if fin {
            self.finished(id, events);
        }
        Ok(())
    }

    fn data(&mut self, id: u32, data: Bytes, fin: bool, events: &mut Vec<Event>) -> Result<(), SpdyError> {
        if !self.streams.get(&id).is_some_and(|stream| stream.receives) {
            // Of a stream that is over something may still be on its way.
            if id > self.last_id || id.is_multiple_of(2) {
                self.encode(&Frame::RstStream { id, status: reset::INVALID_STREAM })?;
            }
            return self.consumed(id, data.len());
        }
        if !data.is_empty() {
            events.push(Event::Data { id, data });
        }
        if fin {
            self.finished(id, events);
        }
        Ok(())
    }

    fn finished(&mut self, id: u32, events: &mut Vec<Event>) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.receives
        {
            stream.receives = false;
            events.push(Event::Finished(id));
            self.drop_if_over(id);
        }
    }

    fn drop_if_over(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(|stream| !stream.sends && !stream.receives) {
            self.streams.remove(&id);
        }
    }

    fn grow(&mut self, id: u32, delta: i64) -> Result<(), SpdyError> {
        if id == CONNECTION {
            self.window += delta;
            return if self.window > MAX_WINDOW { Err(SpdyError::Window) } else { Ok(()) };
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        stream.window += delta;
        let status = match (delta, stream.window) {
            (0, _) => reset::PROTOCOL_ERROR,
            (_, window) if window > MAX_WINDOW => reset::FLOW_CONTROL_ERROR,
            _ => return Ok(()),
        };
        self.reset(id, status)
    }

    /// Moves the open streams' windows, too; they may become negative (2.6.8).
    fn set_initial_window(&mut self, bytes: i64) -> Result<(), SpdyError> {
        if bytes > MAX_WINDOW {
            return Err(SpdyError::Window);
        }
        self.heeds_windows = true;
        let delta = bytes - self.initial_window;
        self.initial_window = bytes;
        for stream in self.streams.values_mut() {
            stream.window += delta;
        }
        Ok(())
    }

    /// Takes up to `wanted` bytes from the windows for a DATA frame.
    pub(super) fn reserve(&mut self, id: u32, wanted: usize) -> Reserved {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.sends && !self.ended) else {
            return Reserved::Gone;
        };
        let free = if self.heeds_windows { stream.window.min(self.window) } else { i64::MAX };
        let bytes = wanted.min(usize::try_from(free).unwrap_or(0));
        if bytes == 0 && wanted > 0 {
            return Reserved::Nothing;
        }
        let taken = i64::try_from(bytes).unwrap_or(i64::MAX);
        stream.window -= taken;
        self.window -= taken;
        Reserved::Bytes(bytes)
    }

    /// Data of a stream has been used up (or thrown away): the client may send as much again.
    pub(super) fn consumed(&mut self, id: u32, bytes: usize) -> Result<(), SpdyError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let stream = self.streams.get_mut(&id).filter(|stream| stream.receives);
        let of_stream = stream.and_then(|stream| told(&mut stream.untold, bytes));
        let of_connection = told(&mut self.untold, bytes);
        for (id, delta) in [(id, of_stream), (CONNECTION, of_connection)] {
            if let Some(delta) = delta {
                self.encode(&Frame::WindowUpdate { id, delta })?;
            }
        }
        Ok(())
    }

    /// We send no more on this stream; whether it was open for sending.
    pub(super) fn finish(&mut self, id: u32) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let was_open = std::mem::replace(&mut stream.sends, false);
        self.drop_if_over(id);
        was_open
    }

    /// Forgets the stream; whether it was there. The caller sends the RST_STREAM.
    pub(super) fn forget(&mut self, id: u32) -> bool {
        self.streams.remove(&id).is_some()
    }

    /// Forgets the stream and says so at once.
    pub(super) fn reset(&mut self, id: u32, status: u32) -> Result<(), SpdyError> {
        if self.forget(id) { self.encode(&Frame::RstStream { id, status }) } else { Ok(()) }
    }

    /// Says that no more streams are accepted.
    pub(super) fn go_away(&mut self) -> Result<(), SpdyError> {
        self.leaving = true;
        self.encode(&Frame::GoAway { last_id: self.last_id, status: 0 })
    }

    /// Nothing more can be sent.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn encode(&mut self, frame: &Frame) -> Result<(), SpdyError> {
        self.encoder.encode(frame, &mut self.output)
    }

    pub(super) fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }
}

/// Adds to what was consumed and not told yet; gives all of it when it is worth telling.
fn told(untold: &mut u32, bytes: u32) -> Option<u32> {
    *untold = untold.saturating_add(bytes).min(i32::MAX.cast_unsigned());
    (*untold >= TELL_AT).then(|| std::mem::take(untold))
}
