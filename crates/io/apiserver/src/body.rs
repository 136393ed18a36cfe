//! The body of an answer: bytes at once, or a stream of them.

use bytes::Bytes;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Bytes as they come; ends the answer's connection when it yields an error.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// What an answer carries.
pub enum Body {
    Full(Bytes),
    /// Watches, logs, proxied answers.
    Stream(ByteStream),
}

impl Body {
    pub fn empty() -> Self {
        Self::Full(Bytes::new())
    }

    /// The whole body; a stream is read to its end.
    ///
    /// # Errors
    /// What the stream yields.
    pub async fn collect(self) -> io::Result<Bytes> {
        match self {
            Self::Full(bytes) => Ok(bytes),
            Self::Stream(mut stream) => {
                let mut all = Vec::new();
                while let Some(bytes) = futures::StreamExt::next(&mut stream).await {
                    all.extend_from_slice(&bytes?);
                }
                Ok(all.into())
            }
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Full(bytes.into())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => stream.as_mut().poll_next(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}
