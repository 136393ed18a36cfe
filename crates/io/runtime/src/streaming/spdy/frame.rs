//! Frames and their bytes (draft-mbelshe-httpbis-spdy-00, section 2).

use super::headers::{Deflater, Inflater};
use super::{Headers, MAX_CONTROL_BYTES, SpdyError};
use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u16 = 3;
const HEAD_BYTES: usize = 8;
const CONTROL: u32 = 1 << 31;
const ID_MASK: u32 = CONTROL - 1;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    SynStream {
        id: u32,
        headers: Headers,
        fin: bool,
        unidirectional: bool,
    },
    SynReply {
        id: u32,
        headers: Headers,
        fin: bool,
    },
    RstStream {
        id: u32,
        status: u32,
    },
    /// Pairs of a setting's number and value.
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway {
        last_id: u32,
        status: u32,
    },
    Headers {
        id: u32,
        headers: Headers,
        fin: bool,
    },
    /// Stream 0 is the whole connection.
    WindowUpdate {
        id: u32,
        delta: u32,
    },
    /// A DATA frame or, as it arrives, a part of one; `fin` comes with the last part.
    Data {
        id: u32,
        data: Bytes,
        fin: bool,
    },
}

/// Finds frames in a stream of bytes.
pub(super) struct Decoder {
    inflater: Inflater,
    data: Option<Rest>,
}

/// What is still to come of a DATA frame. Its payload (up to 16 MiB) is never held whole.
struct Rest {
    id: u32,
    bytes: usize,
    fin: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { inflater: Inflater::new(), data: None }
    }

    /// Takes the next frame out of `input`; `None`: more bytes are needed.
    ///
    /// # Errors
    /// After any the connection cannot go on.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, SpdyError> {
        loop {
            if let Some(rest) = self.data.take() {
                return Ok(self.part(rest, input));
            }
            let Some(mut head) = input.get(..HEAD_BYTES) else { return Ok(None) };
            let (first, second) = (head.get_u32(), head.get_u32());
            let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
            if first & CONTROL == 0 {
                if first == 0 {
                    return Err(SpdyError::NoStream);
                }
                input.advance(HEAD_BYTES);
                self.data = Some(Rest { id: first, bytes: length, fin: flags & FIN != 0 });
                continue;
            }
            if length > MAX_CONTROL_BYTES {
                return Err(SpdyError::TooLong(length));
            }
            if input.len() < HEAD_BYTES + length {
                return Ok(None);
            }
            let version = ((first & ID_MASK) >> 16) as u16;
            if version != VERSION {
                return Err(SpdyError::Version(version));
            }
            input.advance(HEAD_BYTES);
            let body = input.split_to(length).freeze();
            // Types that are not known are passed over (2.2.1).
            if let Some(frame) = self.control((first & 0xffff) as u16, flags, body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn part(&mut self, mut rest: Rest, input: &mut BytesMut) -> Option<Frame> {
        if rest.bytes > 0 && input.is_empty() {
            self.data = Some(rest);
            return None;
        }
        let data = input.split_to(rest.bytes.min(input.len())).freeze();
        rest.bytes -= data.len();
        let (id, last) = (rest.id, rest.bytes == 0);
        let fin = rest.fin && last;
        if !last {
            self.data = Some(rest);
        }
        Some(Frame::Data { id, data, fin })
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<Option<Frame>, SpdyError> {
        let least = match kind {
            SYN_STREAM => 10,
            RST_STREAM | GOAWAY | WINDOW_UPDATE => 8,
            SYN_REPLY | HEADERS | PING | SETTINGS => 4,
            _ => return Ok(None),
        };
        let exact = matches!(kind, RST_STREAM | GOAWAY | WINDOW_UPDATE | PING);
        if body.len() < least || (exact && body.len() > least) {
            return Err(SpdyError::Malformed(kind));
        }
        let first = body.get_u32();
        let fin = flags & FIN != 0;
        let id = first & ID_MASK;
        if id == 0 && matches!(kind, SYN_STREAM | SYN_REPLY | HEADERS | RST_STREAM) {
            return Err(SpdyError::NoStream);
        }
        Ok(Some(match kind {
            SYN_STREAM => {
                // The stream it belongs to, its priority and its credentials mean nothing here.
                body.advance(6);
                let headers = self.inflater.read(&body)?;
                Frame::SynStream { id, headers, fin, unidirectional: flags & UNIDIRECTIONAL != 0 }
            }
            SYN_REPLY => Frame::SynReply { id, headers: self.inflater.read(&body)?, fin },
            HEADERS => Frame::Headers { id, headers: self.inflater.read(&body)?, fin },
            RST_STREAM => Frame::RstStream { id, status: body.get_u32() },
            GOAWAY => Frame::GoAway { last_id: id, status: body.get_u32() },
            WINDOW_UPDATE => Frame::WindowUpdate { id, delta: body.get_u32() & ID_MASK },
            PING => Frame::Ping(first),
            _ => Frame::Settings(settings(first, body)?),
        }))
    }
}

fn settings(count: u32, mut body: Bytes) -> Result<Vec<(u32, u32)>, SpdyError> {
    if body.len() != (count as usize).saturating_mul(8) {
        return Err(SpdyError::Malformed(SETTINGS));
    }
    let mut settings = Vec::new();
    while body.has_remaining() {
        // The upper byte holds flags.
        settings.push((body.get_u32() & 0x00ff_ffff, body.get_u32()));
    }
    Ok(settings)
}

/// Writes frames.
pub(super) struct Encoder(Deflater);

impl Encoder {
    pub(super) fn new() -> Self {
        Self(Deflater::new())
    }

    /// # Errors
    /// If zlib fails; then the connection cannot go on.
    pub(super) fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), SpdyError> {
        let flag = |fin: bool| u8::from(fin) * FIN;
        match frame {
            Frame::SynStream { id, headers, fin, unidirectional } => {
                let block = self.0.write(headers)?;
                head(out, SYN_STREAM, flag(*fin) | (u8::from(*unidirectional) * UNIDIRECTIONAL), block.len() + 10);
                out.put_u32(*id);
                out.put_bytes(0, 6);
                out.put_slice(&block);
            }
            Frame::SynReply { id, headers, fin } => self.headers(SYN_REPLY, *id, headers, flag(*fin), out)?,
            Frame::Headers { id, headers, fin } => self.headers(HEADERS, *id, headers, flag(*fin), out)?,
            Frame::RstStream { id, status } => pair(out, RST_STREAM, *id, *status),
            Frame::GoAway { last_id, status } => pair(out, GOAWAY, *last_id, *status),
            Frame::WindowUpdate { id, delta } => pair(out, WINDOW_UPDATE, *id, *delta),
            Frame::Ping(id) => {
                head(out, PING, 0, 4);
                out.put_u32(*id);
            }
            Frame::Settings(settings) => {
                head(out, SETTINGS, 0, 4 + 8 * settings.len());
                out.put_u32(u32::try_from(settings.len()).unwrap_or(u32::MAX));
                for (number, value) in settings {
                    out.put_u32(*number);
                    out.put_u32(*value);
                }
            }
            Frame::Data { id, data, fin } => {
                out.put_u32(*id);
                lengths(out, flag(*fin), data.len());
                out.put_slice(data);
            }
        }
        Ok(())
    }

    fn headers(
        &mut self,
        kind: u16,
        id: u32,
        headers: &Headers,
        flags: u8,
        out: &mut BytesMut,
    ) -> Result<(), SpdyError> {
        let block = self.0.write(headers)?;
        head(out, kind, flags, block.len() + 4);
        out.put_u32(id);
        out.put_slice(&block);
        Ok(())
    }
}

fn head(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    lengths(out, flags, length);
}

fn lengths(out: &mut BytesMut, flags: u8, length: usize) {
    out.put_u8(flags);
    out.put_uint(length as u64, 3);
}

fn pair(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    head(out, kind, 0, 8);
    out.put_u32(first);
    out.put_u32(second);
}
