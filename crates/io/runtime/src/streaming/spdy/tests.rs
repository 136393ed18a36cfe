//! Tables on codec and rules, and a connection over memory.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use super::connection::{self, Connection};
use super::frame::{Decoder, Encoder, Frame};
use super::session::{Event, Reserved, Session};
use super::upgrade::{Outgoing, chunks};
use super::{Headers, INITIAL_WINDOW, MAX_STREAMS, SpdyError, reset};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Frames of one connection as moby/spdystream 0.5.0 writes them.
fn golden() -> Vec<(&'static str, Frame)> {
    let syn = |id, kind, fin| {
        let headers = headers(&[("streamtype", kind)]);
        Frame::SynStream { id, headers, fin, unidirectional: false }
    };
    let values = headers(&[("a", "1\x002")]);
    vec![
        (
            "80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff",
            syn(1, "error", false),
        ),
        ("800300010100001600000003000000000000c22a052a651201000000ffff", syn(3, "data", true)),
        (
            "800300020000000e000000016260606000000000ffff",
            Frame::SynReply { id: 1, headers: Headers::new(), fin: false },
        ),
        (
            "80030008000000130000000382ca32827204b3218311000000ffff",
            Frame::Headers { id: 3, headers: values, fin: false },
        ),
        ("00000001010000026869", Frame::Data { id: 1, data: Bytes::from_static(b"hi"), fin: true }),
        ("80030003000000080000000300000005", Frame::RstStream { id: 3, status: reset::CANCEL }),
        ("800300060000000400000007", Frame::Ping(7)),
        ("80030007000000080000000300000000", Frame::GoAway { last_id: 3, status: 0 }),
        ("80030009000000080000000100010000", Frame::WindowUpdate { id: 1, delta: 65536 }),
        ("800300040000000c0000000101000007000003e8", Frame::Settings(vec![(7, 1000)])),
    ]
}

#[test]
fn frames_of_spdystream_are_read() {
    let mut decoder = Decoder::new();
    for (hex, frame) in golden() {
        let mut input = BytesMut::from(bytes(hex).as_slice());
        assert_eq!(decoder.next(&mut input), Ok(Some(frame)));
        assert!(input.is_empty());
        assert_eq!(decoder.next(&mut input), Ok(None));
    }
}

#[test]
fn frames_may_arrive_byte_by_byte() {
    let (mut decoder, mut input, mut frames) = (Decoder::new(), BytesMut::new(), Vec::new());
    for byte in golden().iter().flat_map(|(hex, _)| bytes(hex)) {
        input.extend_from_slice(&[byte]);
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            frames.push(frame);
        }
    }
    // The payload of a DATA frame comes in parts.
    let part = |data: &'static [u8], fin| Frame::Data { id: 1, data: Bytes::from_static(data), fin };
    let mut expected: Vec<Frame> = golden().into_iter().map(|(_, frame)| frame).collect();
    expected.splice(4..5, [part(b"h", false), part(b"i", true)]);
    assert_eq!(frames, expected);
}

#[test]
fn what_is_written_is_read() {
    let (mut encoder, mut decoder, mut wire) = (Encoder::new(), Decoder::new(), BytesMut::new());
    for (_, frame) in golden() {
        encoder.encode(&frame, &mut wire).unwrap();
        assert_eq!(decoder.next(&mut wire), Ok(Some(frame)));
    }
    assert!(wire.is_empty());
}

#[test]
fn frames_without_headers_are_written_as_spdystream_does() {
    for (hex, frame) in golden().into_iter().skip(4).take(5) {
        let mut wire = BytesMut::new();
        Encoder::new().encode(&frame, &mut wire).unwrap();
        assert_eq!(wire, bytes(hex));
    }
}

#[test]
fn malformed_frames_end_the_connection() {
    let cases = [
        ("data on stream 0", "0000000000000000", SpdyError::NoStream),
        ("version 2", "800200060000000400000007", SpdyError::Version(2)),
        ("a long control frame", "8003000600ffffff", SpdyError::TooLong(0xff_ffff)),
        ("a short ping", "80030006000000020007", SpdyError::Malformed(6)),
        ("a long ping", "80030006000000050000000700", SpdyError::Malformed(6)),
        ("a short reset", "800300030000000400000003", SpdyError::Malformed(3)),
        ("a short stream", "800300010000000400000001", SpdyError::Malformed(1)),
        ("a reset of stream 0", "80030003000000080000000000000005", SpdyError::NoStream),
        ("settings cut short", "800300040000000400000001", SpdyError::Malformed(4)),
        ("settings beyond count", "8003000400000004ffffffff", SpdyError::Malformed(4)),
        ("headers that are not zlib", "80030002000000080000000101020304", SpdyError::Compression),
    ];
    for (what, hex, error) in cases {
        assert_eq!(Decoder::new().next(&mut BytesMut::from(bytes(hex).as_slice())), Err(error), "{what}");
    }
}

#[test]
fn unknown_frames_are_passed_over() {
    let mut input = BytesMut::from(bytes("8003000a00000002abcd800300060000000400000007").as_slice());
    assert_eq!(Decoder::new().next(&mut input), Ok(Some(Frame::Ping(7))));
}

/// A client's side of a [`Session`].
struct Client {
    encoder: Encoder,
    decoder: Decoder,
    session: Session,
}

impl Client {
    fn new() -> Self {
        Self { encoder: Encoder::new(), decoder: Decoder::new(), session: Session::new() }
    }

    fn send(&mut self, frame: &Frame) -> Result<Vec<Event>, SpdyError> {
        let mut wire = BytesMut::new();
        self.encoder.encode(frame, &mut wire).unwrap();
        self.session.receive(&wire)
    }

    fn open(&mut self, id: u32, fin: bool) -> Vec<Event> {
        self.send(&Frame::SynStream { id, headers: Headers::new(), fin, unidirectional: false }).unwrap()
    }

    fn answers(&mut self) -> Vec<Frame> {
        let mut wire = BytesMut::from(self.session.take_output());
        std::iter::from_fn(|| self.decoder.next(&mut wire).unwrap()).collect()
    }

    fn data(&mut self, id: u32, data: &'static [u8], fin: bool) -> Vec<Event> {
        self.send(&Frame::Data { id, data: Bytes::from_static(data), fin }).unwrap()
    }
}

fn opened(id: u32) -> Event {
    Event::Opened { id, headers: Headers::new() }
}

fn rst(id: u32, status: u32) -> Frame {
    Frame::RstStream { id, status }
}

#[test]
fn streams_open_and_end_in_both_directions() {
    let mut client = Client::new();
    assert_eq!(client.open(1, false), [opened(1)]);
    assert_eq!(client.open(3, true), [opened(3), Event::Finished(3)]);
    assert_eq!(client.data(1, b"x", true), [Event::Data { id: 1, data: Bytes::from_static(b"x") }, Event::Finished(1)]);
    assert_eq!(client.data(1, b"late", false), []);
    assert_eq!(client.session.reserve(1, 9), Reserved::Bytes(9));
    assert!(client.session.finish(1));
    assert!(!client.session.finish(1));
    assert_eq!(client.session.reserve(1, 9), Reserved::Gone);
    assert_eq!(client.send(&rst(3, reset::CANCEL)), Ok(vec![Event::Reset(3), Event::Window]));
    assert_eq!(client.session.reserve(3, 9), Reserved::Gone);
    assert_eq!(client.answers(), []);
}

#[test]
fn streams_that_may_not_be_are_refused() {
    let mut client = Client::new();
    client.open(5, false);
    for id in [2, 3, 5] {
        assert_eq!(client.open(id, false), []);
        assert_eq!(client.answers(), [rst(id, reset::PROTOCOL_ERROR)]);
    }
    assert_eq!(client.data(7, b"x", false), []);
    assert_eq!(client.answers(), [rst(7, reset::INVALID_STREAM)]);
    assert_eq!(client.send(&Frame::GoAway { last_id: 0, status: 0 }), Ok(vec![Event::GoneAway]));
    assert_eq!(client.open(9, false), []);
    assert_eq!(client.answers(), [rst(9, reset::REFUSED_STREAM)]);
}

#[test]
fn there_is_a_limit_of_streams() {
    let mut client = Client::new();
    let last = 2 * u32::try_from(MAX_STREAMS).unwrap() + 1;
    for id in (1..last).step_by(2) {
        assert_eq!(client.open(id, false).len(), 1);
    }
    assert_eq!(client.open(last, false), []);
    assert_eq!(client.answers(), [rst(last, reset::REFUSED_STREAM)]);
    client.session.reset(1, reset::CANCEL).unwrap();
    assert_eq!(client.open(last + 2, false).len(), 1);
}

#[test]
fn pings_are_answered_up_to_a_flood() {
    let mut client = Client::new();
    client.send(&Frame::Ping(1)).unwrap();
    client.send(&Frame::Ping(2)).unwrap();
    assert_eq!(client.answers(), [Frame::Ping(1)]);
    let pings = bytes("800300060000000400000007").repeat(100_000);
    assert_eq!(client.session.receive(&pings), Err(SpdyError::Flood));
}

#[test]
fn windows_count_from_the_first_sign_that_the_client_heeds_them() {
    let big = 10 * usize::try_from(INITIAL_WINDOW).unwrap();
    let mut client = Client::new();
    client.open(1, false);
    assert_eq!(client.session.reserve(1, big), Reserved::Bytes(big));
    // What was sent before counts: nine windows are missing now, on the stream and on the connection.
    client.send(&Frame::WindowUpdate { id: 1, delta: u32::try_from(big).unwrap() }).unwrap();
    assert_eq!(client.session.reserve(1, 1), Reserved::Nothing);
    client.send(&Frame::WindowUpdate { id: 0, delta: u32::try_from(big - 65536 + 7).unwrap() }).unwrap();
    assert_eq!(client.session.reserve(1, 100), Reserved::Bytes(7));
    assert_eq!(client.session.reserve(1, 100), Reserved::Nothing);
}

#[test]
fn settings_move_the_windows_of_open_streams() {
    let mut client = Client::new();
    client.open(1, false);
    client.session.reserve(1, 1000);
    client.send(&Frame::Settings(vec![(4, 100), (7, 900)])).unwrap();
    assert_eq!(client.session.reserve(1, 1), Reserved::Nothing);
    client.send(&Frame::Settings(vec![(7, 1100)])).unwrap();
    assert_eq!(client.session.reserve(1, 1000), Reserved::Bytes(100));
    client.open(3, false);
    assert_eq!(client.session.reserve(3, 5000), Reserved::Bytes(1100));
}

#[test]
fn windows_that_overflow_are_errors() {
    let mut client = Client::new();
    client.open(1, false);
    client.open(3, false);
    let most = (1 << 31) - 1;
    client.send(&Frame::WindowUpdate { id: 1, delta: most }).unwrap();
    client.send(&Frame::WindowUpdate { id: 3, delta: 0 }).unwrap();
    assert_eq!(client.answers(), [rst(1, reset::FLOW_CONTROL_ERROR), rst(3, reset::PROTOCOL_ERROR)]);
    assert_eq!(client.send(&Frame::WindowUpdate { id: 0, delta: most }), Err(SpdyError::Window));
    assert_eq!(client.send(&Frame::Settings(vec![(7, 1 << 31)])), Err(SpdyError::Window));
}

#[test]
fn consumption_is_told_in_half_windows() {
    let mut client = Client::new();
    client.open(1, false);
    client.session.consumed(1, 32 * 1024 - 1).unwrap();
    assert_eq!(client.answers(), []);
    client.session.consumed(1, 1).unwrap();
    let update = |id| Frame::WindowUpdate { id, delta: 32 * 1024 };
    assert_eq!(client.answers(), [update(1), update(0)]);
    // Of a stream that is over only the connection's window counts.
    client.session.reset(1, reset::CANCEL).unwrap();
    client.answers();
    client.session.consumed(1, 32 * 1024).unwrap();
    assert_eq!(client.answers(), [update(0)]);
}

/// The client's end of a connection served by `echo`.
struct Wire {
    stream: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
    input: BytesMut,
}

impl Wire {
    async fn send(&mut self, frame: Frame) {
        let mut wire = BytesMut::new();
        self.encoder.encode(&frame, &mut wire).unwrap();
        self.stream.write_all(&wire).await.unwrap();
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next(&mut self.input).unwrap() {
                Some(Frame::WindowUpdate { .. }) => {}
                Some(frame) => return Some(frame),
                None if self.stream.read_buf(&mut self.input).await.unwrap() == 0 => return None,
                None => {}
            }
        }
    }

    /// All data up to the stream's end.
    async fn all(&mut self, wanted: u32) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(Frame::Data { id, data, fin }) = self.next().await {
            assert_eq!(id, wanted);
            all.extend_from_slice(&data);
            if fin {
                break;
            }
        }
        all
    }
}

/// Accepts streams but those marked `refuse`, and sends back what comes; ends with the first.
async fn echo(mut connection: Connection) {
    while let Some(mut stream) = connection.accept().await {
        if stream.header("refuse") == "yes" {
            continue;
        }
        stream.reply().await;
        while let Some(data) = stream.receiver.receive().await {
            stream.sender.send(data).await.unwrap();
        }
        stream.sender.finish().await;
        return;
    }
}

fn start() -> (Wire, tokio::task::JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(4096);
    let (reader, writer) = tokio::io::split(far);
    let serving = connection::serve(chunks(Box::pin(reader)), Outgoing::Plain(Box::pin(writer)), echo);
    let wire = Wire { stream: near, encoder: Encoder::new(), decoder: Decoder::new(), input: BytesMut::new() };
    (wire, tokio::task::spawn(serving))
}

#[tokio::test]
async fn a_connection_echoes_and_ends_with_goaway() {
    let (mut wire, serving) = start();
    let syn = |id, refuse| {
        let headers = headers(&[("refuse", refuse)]);
        Frame::SynStream { id, headers, fin: false, unidirectional: false }
    };
    wire.send(syn(1, "yes")).await;
    assert_eq!(wire.next().await, Some(rst(1, reset::CANCEL)));
    wire.send(syn(3, "no")).await;
    assert_eq!(wire.next().await, Some(Frame::SynReply { id: 3, headers: Headers::new(), fin: false }));
    let piece = Bytes::from(vec![b'x'; 2000]);
    wire.send(Frame::Data { id: 3, data: piece.clone(), fin: false }).await;
    wire.send(Frame::Data { id: 3, data: piece, fin: true }).await;
    assert_eq!(wire.all(3).await.len(), 4000);
    assert_eq!(wire.next().await, Some(Frame::GoAway { last_id: 3, status: 0 }));
    drop(wire);
    serving.await.unwrap();
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_handler() {
    let (mut wire, serving) = start();
    wire.send(Frame::SynStream { id: 1, headers: Headers::new(), fin: false, unidirectional: false }).await;
    wire.next().await;
    drop(wire);
    serving.await.unwrap();
}
