//! The sub-protocols of remote commands over WebSocket: how a channel's bytes stand in a message (upstream: apimachinery
//! `wsstream`, cri-streaming `remotecommand/websocket.go`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

/// Every name, best first. A client that names none speaks the oldest.
pub(super) const PROTOCOLS: [&str; 6] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    /// Text: the channel as a digit, then its bytes in base64. Else the channel as a byte, then its bytes.
    base64: bool,
    /// The end is told as a Status in JSON; before version 4, in words, and success not at all.
    status: bool,
}

impl Dialect {
    /// `protocol`: one of `PROTOCOLS`.
    pub(super) fn of(protocol: &str) -> Dialect {
        Dialect { base64: protocol.contains("base64"), status: protocol.starts_with('v') }
    }

    /// `frame` begins with the channel.
    pub(super) fn message(self, frame: Bytes) -> Message {
        match frame.split_first() {
            Some((channel, data)) if self.base64 => {
                Message::Text(format!("{}{}", char::from(b'0' + channel), STANDARD.encode(data)).into())
            }
            _ => Message::Binary(frame),
        }
    }

    /// The channel, then its bytes; `None` for what carries no data.
    pub(super) fn frame(self, message: Message) -> Option<Bytes> {
        match message {
            Message::Binary(frame) if !self.base64 => Some(frame),
            Message::Text(text) if self.base64 => {
                let (channel, data) = text.as_bytes().split_first()?;
                let mut frame = BytesMut::new();
                frame.put_u8(channel.checked_sub(b'0')?);
                frame.put_slice(&STANDARD.decode(data).ok()?);
                Some(frame.freeze())
            }
            _ => None,
        }
    }

    /// What the channel for errors says in the end, of the final Status.
    pub(super) fn verdict(self, status: &Value) -> Option<String> {
        match self.status {
            true => Some(status.to_string()),
            false if status["status"] == "Success" => None,
            false => Some(status["message"].as_str().unwrap_or_default().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_channels_bytes_stand_as_the_protocol_says() {
        let frame = Bytes::from_static(b"\x01hi");
        for (protocol, message) in [
            ("", Message::Binary(frame.clone())),
            ("channel.k8s.io", Message::Binary(frame.clone())),
            ("v5.channel.k8s.io", Message::Binary(frame.clone())),
            ("base64.channel.k8s.io", Message::Text("1aGk=".into())),
            ("v4.base64.channel.k8s.io", Message::Text("1aGk=".into())),
        ] {
            let dialect = Dialect::of(protocol);
            assert_eq!(dialect.message(frame.clone()), message, "{protocol}");
            assert_eq!(dialect.frame(message), Some(frame.clone()), "{protocol}");
        }
    }

    #[test]
    fn what_is_no_frame_is_none() {
        for text in ["", "/aGk=", "1?"] {
            assert_eq!(Dialect::of("base64.channel.k8s.io").frame(Message::Text(text.into())), None, "{text}");
        }
        assert_eq!(Dialect::of("v4.channel.k8s.io").frame(Message::Ping(Bytes::new())), None);
    }

    #[test]
    fn old_protocols_tell_failures_in_words() {
        let (good, bad) = (json!({"status": "Success"}), json!({"status": "Failure", "message": "no such file"}));
        let old = Dialect::of("channel.k8s.io");
        assert_eq!((old.verdict(&good), old.verdict(&bad)), (None, Some("no such file".to_owned())));
        assert_eq!(Dialect::of("v4.channel.k8s.io").verdict(&good), Some(r#"{"status":"Success"}"#.to_owned()));
    }
}
