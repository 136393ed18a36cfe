//! SPDY/3.1 as Kubernetes speaks it for exec, attach and port-forward: kubectl up to 1.29 (1.30 for port-forward) on a plain
//! upgraded connection, later ones port-forward in WebSocket messages (KEP-4006). `upgrade` opens either. `frame` and `headers` are the codec and `session` the rules of streams, none of
//! which does any input or output; `connection` runs a session on a pair of byte streams.

pub(super) mod connection;
mod frame;
mod headers;
mod session;
pub(super) mod upgrade;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

/// Headers of a stream, their names in lower case; several values of one name are joined by NUL.
pub(super) type Headers = BTreeMap<String, String>;

/// The longest control frame that is read; kubectl's have some 50 bytes.
const MAX_CONTROL_BYTES: usize = 16 * 1024;
/// The longest list of headers, decompressed.
const MAX_HEADERS_BYTES: usize = 64 * 1024;
/// The payload of the DATA frames we send.
const MAX_DATA_BYTES: usize = 32 * 1024;
/// How many streams a client may have open at once.
const MAX_STREAMS: usize = 1024;
/// Answers (to PING and the like) that may wait for a client that does not read them.
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// What may be sent before the first WINDOW_UPDATE, on a stream and (3.1) on the whole connection.
const INITIAL_WINDOW: i64 = 64 * 1024;

/// Why a stream was reset: the numbers of RST_STREAM.
mod reset {
    pub(super) const PROTOCOL_ERROR: u32 = 1;
    pub(super) const INVALID_STREAM: u32 = 2;
    pub(super) const REFUSED_STREAM: u32 = 3;
    pub(super) const CANCEL: u32 = 5;
    pub(super) const FLOW_CONTROL_ERROR: u32 = 7;
}

/// What ends a whole connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SpdyError {
    #[error("SPDY version {0} is not spoken")]
    Version(u16),
    #[error("a control frame of {0} bytes is too long")]
    TooLong(usize),
    #[error("a frame of type {0} is malformed")]
    Malformed(u16),
    #[error("the compressed headers cannot be read")]
    Compression,
    #[error("the list of headers is malformed")]
    Headers,
    #[error("a frame names stream 0")]
    NoStream,
    #[error("the connection's window overflows")]
    Window,
    #[error("the client does not read its answers")]
    Flood,
}
